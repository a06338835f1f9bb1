"""Recognisers: what reads images, whatever trained it."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ocr.recognizers.recognizer import Recognizer


def load(bundle: str | Path, backend: str | None = None, device: str | None = None) -> "Recognizer":
    """See ocr.recognizers.recognizer.load; here so that `from ocr.recognizers import load` is all that reading takes, and settings import nothing heavy."""
    from ocr.recognizers import recognizer as base

    return base.load(Path(bundle), backend, device)

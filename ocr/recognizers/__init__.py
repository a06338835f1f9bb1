"""Recognisers of text in images, whatever trained them."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ocr.recognizers.recognizer import Recognizer


def load(bundle: str | Path, backend: str | None = None, device: str | None = None) -> "Recognizer":
    """Open a bundle, or a shipped recogniser by its name, for reading.

    The import is inside, so that settings below this package load nothing heavy.
    """
    from ocr.recognizers.factory import load as load_bundle

    return load_bundle(bundle, backend, device)

"""Bundles → recognisers; the only module that knows every model family."""

from pathlib import Path

from ocr.bundle import open_bundle
from ocr.errors import UserError
from ocr.recognizers.ctc.reading import load_ctc
from ocr.recognizers.ensemble import Ensemble
from ocr.recognizers.recognizer import Recognizer
from ocr.settings import with_home


def load(bundle: str | Path, backend: str | None = None, device: str | None = None) -> Recognizer:
    """Verify a bundle, or a shipped recogniser by its name, and return its recogniser.

    The bundle's folder may be in a bucket. Backend and device default to the bundle's own choice.
    """
    bundle = with_home(str(bundle))
    opened = open_bundle(bundle)
    if opened.family == "vlm":
        from ocr.recognizers.vlm.adapter import load_vlm  # loads torch

        return load_vlm(opened, backend, device)
    if opened.family != "ctc":
        raise UserError(
            f"{bundle}: expected a bundle of the family ctc or vlm, got {opened.family!r}; "
            "update lipi-ocr"
        )
    return load_ctc(opened, backend, device)


def load_all(bundles: str, backend: str | None = None, device: str | None = None) -> Recognizer:
    """Return the recogniser of `BUNDLE`, or the voting ensemble of `BUNDLE,BUNDLE,…`."""
    members = [load(bundle, backend, device) for bundle in bundles.split(",")]
    return members[0] if len(members) == 1 else Ensemble(members)

"""Images with their text beside them, as for kraken and Tesseract: `x.png` and `x.gt.txt`."""

from collections.abc import Iterator
from pathlib import Path

from ocr.images import SUFFIXES
from ocr.sample import Sample, Skip
from ocr.sources.files import plan_files, read_files, read_inside
from ocr.sources.settings import PairsSettings
from ocr.sources.unit import Unit

_MAX_TEXT_BYTES = 1_000_000


def plan(settings: PairsSettings) -> list[Unit]:
    """Plan the text files in the order of their paths; UserError when there is none."""
    return plan_files(
        settings.path,
        settings.suffix,
        f"a folder of images x.png, each with its text in x{settings.suffix}",
    )


def read(settings: PairsSettings, unit: Unit) -> Iterator[Sample | Skip]:
    """Yield a Sample or a Skip for every text file."""
    yield from read_files(
        settings.path,
        settings.suffix,
        unit,
        lambda name: _pair(Path(settings.path), name, settings),
    )


def _pair(root: Path, name: str, settings: PairsSettings) -> Sample | Skip:
    try:
        text = read_inside(root, name, _MAX_TEXT_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        return Skip(f"{root / name}", "label not UTF-8", str(problem))
    stem = name[: -len(settings.suffix)]
    image = image_beside(root, stem)
    if image is None:
        return Skip(
            f"{root / name}", "missing image", f"no {stem} with one of {', '.join(SUFFIXES)}"
        )
    return Sample(
        stem,
        read_inside(root, image),
        text,
        settings.level,
        (("file", image),),
        f"pairs:{settings.path}",
    )


def image_beside(root: Path, stem: str) -> str | None:
    """Return the image `stem` with a known ending in either case, relative to `root`; else None."""
    endings = [ending for suffix in SUFFIXES for ending in (suffix, suffix.upper())]
    return next((stem + ending for ending in endings if (root / (stem + ending)).exists()), None)

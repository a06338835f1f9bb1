"""Images with their text beside them, as kraken and Tesseract take them: `x.png` and `x.gt.txt`."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from ocr.errors import UserError
from ocr.images import SUFFIXES
from ocr.sample import Sample, Skip
from ocr.sources import Unit, in_rows
from ocr.sources.files import FileRefused, folder, names_below, read_inside
from ocr.sources.settings import PairsSettings

_MAX_TEXT_BYTES = 1_000_000


def plan(settings: PairsSettings) -> list[Unit]:
    """Text files in the order of their paths; UserError when there is none."""
    _texts.cache_clear()  # the folder may have changed since
    return in_rows("", len(_texts(settings)))


def read(settings: PairsSettings, unit: Unit) -> Iterator[Sample | Skip]:
    """A Sample or a Skip for every text file."""
    root = Path(settings.path)
    for name in _texts(settings)[unit.start : unit.stop]:
        try:
            yield _pair(root, name, settings)
        except FileRefused as refused:
            yield Skip(f"{root / name}", refused.reason, refused.detail)


@lru_cache(maxsize=4)
def _texts(settings: PairsSettings) -> list[str]:
    root = folder(settings.path, "path", "a folder of images and texts")
    names = names_below(root, [settings.suffix])
    if not names:
        raise UserError(f"{root}: no file whose name ends in {settings.suffix}; each image x.png needs its text in x{settings.suffix}")
    return names


def _pair(root: Path, name: str, settings: PairsSettings) -> Sample | Skip:
    try:
        text = read_inside(root, name, _MAX_TEXT_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        return Skip(f"{root / name}", "label not UTF-8", str(problem))
    stem = name[: -len(settings.suffix)]
    image = image_beside(root, stem)
    if image is None:
        return Skip(f"{root / name}", "missing image", f"no {stem} with one of {', '.join(SUFFIXES)}")
    return Sample(stem, read_inside(root, image), text, settings.level, (("file", image),), f"pairs:{settings.path}")


def image_beside(root: Path, stem: str) -> str | None:
    """The image file `stem` with a known ending in either case, relative to `root`; None when there is none."""
    endings = [ending for suffix in SUFFIXES for ending in (suffix, suffix.upper())]
    return next((stem + ending for ending in endings if (root / (stem + ending)).exists()), None)

"""Images with their text beside them, as for kraken and Tesseract: `x.png` and `x.gt.txt`."""

from collections.abc import Iterator
from pathlib import Path

from ocr.limits import SUFFIXES
from ocr.sample import Sample, Skip
from ocr.sources.files import UNREAD, names_below, plan_files, read_files, read_inside, unread
from ocr.sources.named_files import find_beside, images_beside
from ocr.sources.settings import PairsSettings
from ocr.sources.unit import Unit
from ocr.text import decoded

_MAX_TEXT_BYTES = 1_000_000


def plan(settings: PairsSettings) -> list[Unit]:
    """Plan the text files in the order of their paths; UserError when there is none."""
    return plan_files(
        settings.path,
        settings.suffix,
        f"a folder of images x.png, each with its text in x{settings.suffix}",
    )


def read(settings: PairsSettings, unit: Unit) -> Iterator[Sample | Skip]:
    """Yield a Sample or a Skip for every text file, then what no text file names."""
    if unit.name == UNREAD:
        yield from unread(Path(settings.path), _used(settings), (settings.suffix.lower(),))
        return
    yield from read_files(
        settings.path,
        settings.suffix,
        unit,
        lambda name: _pair(Path(settings.path), name, settings),
    )


def _used(settings: PairsSettings) -> Iterator[str]:
    """Yield the images that text files belong to, also where there are several."""
    root = Path(settings.path)
    for name in names_below(root, [settings.suffix]):
        yield from images_beside(root, name[: -len(settings.suffix)])


def _pair(root: Path, name: str, settings: PairsSettings) -> Sample | Skip:
    try:
        text = decoded(read_inside(root, name, _MAX_TEXT_BYTES))
    except UnicodeDecodeError as problem:
        return Skip(f"{root / name}", "label not UTF-8", str(problem))
    stem = name[: -len(settings.suffix)]
    image = find_beside(root, stem)
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

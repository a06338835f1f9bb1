"""Image files and folders read with a recogniser, as `ray_jobs/read.py` does."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from ocr.errors import UserError
from ocr.images import ImageRefused, Pixels, open_image
from ocr.limits import SUFFIXES
from ocr.recognizers.recognizer import Recognizer
from ocr.sample import Reading

_AT_ONCE = 256
DOUBTFUL = 0.2  # least confidence that is not warned of: docs/results.md has what is below it


def read_files(
    recognizer: Recognizer, paths: Sequence[Path]
) -> Iterator[tuple[Path, Reading | ImageRefused]]:
    """Yield each image file, and each image of a folder by name, with its reading or refusal."""
    files = [file for path in paths for file in _images_at(path)]
    for start in range(0, len(files), _AT_ONCE):
        part = files[start : start + _AT_ONCE]
        images = [_opened(file, recognizer.image_mode) for file in part]
        readings = iter(
            recognizer.read([image for image in images if not isinstance(image, ImageRefused)])
        )
        yield from (
            (file, image if isinstance(image, ImageRefused) else next(readings))
            for file, image in zip(part, images, strict=True)
        )


def unread_in(paths: Sequence[Path]) -> Iterator[str]:
    """Yield a line for each folder that holds more than the images that `read_files` reads."""
    for path in (path for path in paths if path.is_dir()):
        others = [file for file in path.iterdir() if file.suffix.lower() not in SUFFIXES]
        kinds = Counter(
            "folder" if file.is_dir() else file.suffix.lower() or "nameless"
            for file in others
            if not file.name.startswith(".")
        )
        if kinds:
            listed = ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items()))
            yield f"warning: not read in {path}: {listed}"


def _images_at(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
    if not files:
        raise UserError(f"{path}: no image in this folder ({', '.join(SUFFIXES)})")
    return files


def _opened(file: Path, mode: Literal["L", "RGB"]) -> Pixels | ImageRefused:
    try:
        return open_image(file, mode)
    except ImageRefused as refused:
        return refused

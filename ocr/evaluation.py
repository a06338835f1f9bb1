"""Read a data set with a recogniser and count the errors; training, the shell and serving all judge by this."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from ocr.dataset.read import Dataset
from ocr.errors import UserError
from ocr.images import SUFFIXES, ImageRefused, Pixels, open_image
from ocr.recognizers.base import Recognizer
from ocr.sample import Reading
from ocr.scoring import Counts, confusions, score, score_all

_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Line:
    """One sample as it was read; `index` is its place in the data set."""

    index: int
    id: str
    reference: str
    reading: str
    confidence: float

    @property
    def counts(self) -> Counts:
        """The errors of this line."""
        return score(self.reference, self.reading)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All lines of a data set as they were read."""

    lines: tuple[Line, ...]

    @property
    def counts(self) -> Counts:
        """The sum of every line's errors."""
        return score_all((line.reference, line.reading) for line in self.lines)

    @property
    def confusions(self) -> Counter[tuple[str, str]]:
        """(expected, read) → count over grapheme clusters."""
        return confusions((line.reference, line.reading) for line in self.lines)


def evaluate(recognizer: Recognizer, dataset: Dataset, indices: Sequence[int] | None = None) -> Evaluation:
    """Read the samples at `indices`, or all; ImageRefused names a sample whose image cannot be decoded."""
    chosen = list(range(len(dataset)) if indices is None else indices)
    lines: list[Line] = []
    with tqdm(total=len(chosen), unit=" samples", desc="reading", delay=2, disable=None) as progress:
        for start in range(0, len(chosen), _AT_ONCE):
            part = chosen[start : start + _AT_ONCE]
            images = [open_image(dataset.image_bytes(index), recognizer.image_mode, where=dataset.ids[index]) for index in part]
            readings = recognizer.read(images)
            lines += [Line(i, dataset.ids[i], dataset.texts[i], found.text, found.confidence) for i, found in zip(part, readings, strict=True)]
            progress.update(len(part))
    return Evaluation(tuple(lines))


def read_files(recognizer: Recognizer, paths: Sequence[Path]) -> Iterator[tuple[Path, Reading | ImageRefused]]:
    """Each image file, and each image in a folder by name, with its reading or why it has none."""
    files = [file for path in paths for file in _images_at(path)]
    for start in range(0, len(files), _AT_ONCE):
        part = files[start : start + _AT_ONCE]
        images = [_opened(file, recognizer.image_mode) for file in part]
        readings = iter(recognizer.read([image for image in images if not isinstance(image, ImageRefused)]))
        yield from ((file, image if isinstance(image, ImageRefused) else next(readings)) for file, image in zip(part, images, strict=True))


def _images_at(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
    if not found:
        raise UserError(f"{path}: no image in this folder ({', '.join(SUFFIXES)})")
    return found


def _opened(file: Path, mode: Literal["L", "RGB"]) -> Pixels | ImageRefused:
    try:
        return open_image(file, mode)
    except ImageRefused as refused:
        return refused

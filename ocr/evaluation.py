"""Read a data set with a recogniser and count the errors; training, the shell and serving all judge by this."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tqdm import tqdm

from ocr.dataset.read import Dataset
from ocr.images import open_image
from ocr.recognizers.base import Recognizer
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

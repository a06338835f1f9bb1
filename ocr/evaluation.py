"""Reading a data set with a recogniser and counting the errors."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rapidfuzz.distance import Levenshtein
from tqdm import tqdm

from ocr.dataset.read import Dataset
from ocr.errors import UserError
from ocr.images import open_image
from ocr.keyed import fixed_generator
from ocr.recognizers.recognizer import Recognizer
from ocr.scoring import Counts, confusions, score, score_all

_AT_ONCE = 256
_RESAMPLES, _BOOTSTRAP_KEY = 10_000, 1


@dataclass(frozen=True, slots=True)
class Line:
    """A sample with its reading; `index` is its index in the data set."""

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
    """All lines of a data set with their readings."""

    lines: tuple[Line, ...]

    @property
    def counts(self) -> Counts:
        """The sum of every line's errors."""
        return score_all((line.reference, line.reading) for line in self.lines)

    @property
    def paddle(self) -> dict[str, float]:
        """PaddleOCR's own figures, which ignore spaces.

        acc: share of lines without an error. norm_edit_dis: 1 − mean normalised distance. char_acc:
        1 − CER.
        """
        pairs = [
            (line.reference.replace(" ", ""), line.reading.replace(" ", "")) for line in self.lines
        ]
        distances = [
            Levenshtein.normalized_distance(reference, reading) for reference, reading in pairs
        ]
        right, lines = sum(reference == reading for reference, reading in pairs), max(1, len(pairs))
        return {
            "acc": right / lines,
            "norm_edit_dis": 1 - sum(distances) / lines,
            "char_acc": 1 - score_all(pairs).cer,
        }

    @property
    def confusions(self) -> Counter[tuple[str, str]]:
        """(expected, read) → count over grapheme clusters."""
        return confusions((line.reference, line.reading) for line in self.lines)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two recognisers on the same samples.

    `low` and `high` bound new CER − old CER with 95 % confidence.
    """

    old: Evaluation
    new: Evaluation
    low: float
    high: float

    @property
    def difference(self) -> float:
        """New CER − old CER; below 0 the new recogniser is better."""
        return self.new.counts.cer - self.old.counts.cer

    @property
    def changed(self) -> list[tuple[Line, Line]]:
        """(old, new) of the lines that read differently, the worst losses first."""
        pairs = [
            (old, new)
            for old, new in zip(self.old.lines, self.new.lines, strict=True)
            if old.reading != new.reading
        ]
        return sorted(
            pairs, key=lambda pair: pair[0].counts.character_edits - pair[1].counts.character_edits
        )

    def __str__(self) -> str:
        gains = [
            old.counts.character_edits - new.counts.character_edits for old, new in self.changed
        ]
        verdict = (
            "no difference that these samples show"
            if self.low <= 0 <= self.high
            else "the new one is better"
            if self.high < 0
            else "the new one is worse"
        )
        lines = [
            f"{'worse ' if gain < 0 else 'better' if gain > 0 else 'other '}  {old.reference} "
            f" {old.reading} → {new.reading}  ({old.id})"
            for gain, (old, new) in zip(gains, self.changed, strict=True)
        ]
        return "\n".join(
            [
                *lines,
                f"{len(gains):,} of {len(self.old.lines):,} lines changed: "
                f"{sum(gain > 0 for gain in gains):,} better, "
                f"{sum(gain < 0 for gain in gains):,} worse",
                f"CER {self.old.counts.cer:.2%} → {self.new.counts.cer:.2%}: "
                f"{100 * self.difference:+.2f} points "
                f"(95 % interval {100 * self.low:+.2f} to {100 * self.high:+.2f}, paired "
                f"bootstrap): {verdict}",
            ]
        )


def compare(old: Evaluation, new: Evaluation) -> Comparison:
    """Compare two evaluations by a paired bootstrap over lines (Bisani & Ney 2004).

    Both CERs are computed on the same resampled lines, 10,000 times, with a fixed key.
    """
    if [line.id for line in old.lines] != [line.id for line in new.lines]:
        raise UserError(
            "expected two evaluations of the same samples; use the same data=FOLDER for both"
        )
    counted = [
        (before.counts, after.counts) for before, after in zip(old.lines, new.lines, strict=True)
    ]
    gained = np.array(
        [after.character_edits - before.character_edits for before, after in counted],
        dtype=np.float64,
    )
    lengths = np.array([before.characters for before, _ in counted], dtype=np.float64)
    random = fixed_generator(_BOOTSTRAP_KEY)
    resampled = [random.integers(0, len(gained), len(gained)) for _ in range(_RESAMPLES)]
    differences = [gained[lines].sum() / max(1.0, lengths[lines].sum()) for lines in resampled]
    low, high = np.percentile(differences, [2.5, 97.5])
    return Comparison(old, new, float(low), float(high))


def evaluate(
    recognizer: Recognizer, dataset: Dataset, indices: Sequence[int] | None = None
) -> Evaluation:
    """Read the samples at `indices`, or all; ImageRefused names a sample that cannot be decoded."""
    chosen = list(range(len(dataset)) if indices is None else indices)
    lines: list[Line] = []
    with tqdm(
        total=len(chosen), unit=" samples", desc="reading", delay=2, disable=None
    ) as progress:
        for start in range(0, len(chosen), _AT_ONCE):
            part = chosen[start : start + _AT_ONCE]
            images = [
                open_image(
                    dataset.image_bytes(index), recognizer.image_mode, where=dataset.ids[index]
                )
                for index in part
            ]
            readings = recognizer.read(images)
            lines += [
                Line(i, dataset.ids[i], dataset.texts[i], reading.text, reading.confidence)
                for i, reading in zip(part, readings, strict=True)
            ]
            progress.update(len(part))
    return Evaluation(tuple(lines))

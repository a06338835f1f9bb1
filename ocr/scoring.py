"""Edit counts that add up: every rate is a ratio of two sums, over any splits, ranks or batches.

Edits are Levenshtein distances (substitutions + insertions + deletions) between normalised texts.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields

import regex
from rapidfuzz.distance import Levenshtein

from ocr.text import graphemes, normalise

_LOOP = regex.compile(r"(.{2,20}?)\1{3,}|(.)\2{7,}")


@dataclass(frozen=True, slots=True)
class Counts:
    """Sums over samples; `+` adds two, and every rate is derived."""

    samples: int = 0
    exact: int = 0
    character_edits: int = 0
    characters: int = 0
    grapheme_edits: int = 0
    graphemes: int = 0
    word_edits: int = 0
    words: int = 0
    looping: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            *(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True))
        )

    @property
    def cer(self) -> float:
        """Character error rate over code points, in [0, ∞)."""
        return _ratio(self.character_edits, self.characters)

    @property
    def grapheme_cer(self) -> float:
        """Character error rate over extended grapheme clusters, in [0, ∞)."""
        return _ratio(self.grapheme_edits, self.graphemes)

    @property
    def wer(self) -> float:
        """Word error rate, words split at white space, in [0, ∞)."""
        return _ratio(self.word_edits, self.words)

    @property
    def exact_match(self) -> float:
        """Share of samples read without any error."""
        return _ratio(self.exact, self.samples)

    @property
    def repetition_rate(self) -> float:
        """Share of readings that repeat a piece over and over where the reference does not."""
        return _ratio(self.looping, self.samples)

    def rates(self) -> dict[str, float]:
        """Return the rates under the names that metrics.jsonl and report.json carry."""
        return {
            "eval_cer": self.cer,
            "eval_grapheme_cer": self.grapheme_cer,
            "eval_wer": self.wer,
            "eval_exact_match": self.exact_match,
            "eval_repetition_rate": self.repetition_rate,
        }

    def as_vector(self) -> list[int]:
        """Return the counts in field order, to travel between ranks."""
        return list(astuple(self))

    @classmethod
    def from_vector(cls, vector: Sequence[float]) -> "Counts":
        """Return the counts from `as_vector`, whose sums are exact in float64."""
        return cls(*(int(value) for value in vector))


COUNTS_SIZE = len(fields(Counts))


def score(reference: str, reading: str) -> Counts:
    """Count the errors of one sample; both texts are normalised first."""
    reference, reading = normalise(reference), normalise(reading)
    reference_graphemes, reference_words = graphemes(reference), reference.split()
    return Counts(
        samples=1,
        exact=int(reference == reading),
        character_edits=Levenshtein.distance(reference, reading),
        characters=len(reference),
        grapheme_edits=Levenshtein.distance(reference_graphemes, graphemes(reading)),
        graphemes=len(reference_graphemes),
        word_edits=Levenshtein.distance(reference_words, reading.split()),
        words=len(reference_words),
        looping=int(bool(_LOOP.search(reading)) and not _LOOP.search(reference)),
    )


def score_all(pairs: Iterable[tuple[str, str]]) -> Counts:
    """Return the sum of the counts of (reference, reading) pairs."""
    return sum((score(reference, reading) for reference, reading in pairs), Counts())


def confusions(pairs: Iterable[tuple[str, str]]) -> Counter[tuple[str, str]]:
    """Count (expected, read) over grapheme clusters; "" is an insertion or deletion."""
    counted: Counter[tuple[str, str]] = Counter()
    for reference, reading in pairs:
        expected, read = graphemes(normalise(reference)), graphemes(normalise(reading))
        for edit in Levenshtein.editops(expected, read):
            counted[
                (
                    "" if edit.tag == "insert" else expected[edit.src_pos],
                    "" if edit.tag == "delete" else read[edit.dest_pos],
                )
            ] += 1
    return counted


def _ratio(errors: int, total: int) -> float:
    """Return errors / total; with total 0 every error counts as a whole one."""
    return errors / total if total else float(errors)

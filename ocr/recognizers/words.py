"""The words of a line and where they stand in its image: cuts between words, then the ink between.

Legend: H, W in pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ocr.images import Pixels, to_ink

_INKED = 0.3  # of 1: a pixel of a letter, not of noise
_REACH = 1.5  # letters to each side in which a cut looks for a gap


@dataclass(frozen=True, slots=True)
class Span:
    """One word of a line: from where to where in the line's image, as shares of its width.

    `confidence` in [0, 1] is the product of its letters', not calibrated; the line's where a model
    has none of letters.
    """

    text: str
    start: float
    end: float
    confidence: float


def spans_between(
    words: Sequence[str], cuts: Sequence[float], confidences: Sequence[float], image: Pixels
) -> tuple[Span, ...]:
    """Return a span for each word: the inked columns between its two cuts.

    `cuts` are len(words) - 1 rising shares of the width, [0, 1]. Each moves to the middle of the
    widest gap nearby.
    """
    inked_W = _inked_columns(image)
    width, reach = len(inked_W), _REACH * _letter(words, inked_W)
    moved = [_gap_near(inked_W, cut * width, reach) for cut in cuts]
    edges = np.maximum.accumulate([0, *np.rint(moved).astype(int), width])
    spans = []
    for index, (word, confidence) in enumerate(zip(words, confidences, strict=True)):
        first, end = min(width - 1, int(edges[index])), int(edges[index + 1])
        inside = np.flatnonzero(inked_W[first:end])
        if len(inside):
            first, end = first + int(inside[0]), first + int(inside[-1]) + 1
        spans.append(Span(word, first / width, max(first + 1, end) / width, confidence))
    return tuple(spans)


def guessed_spans(text: str, confidence: float, image: Pixels) -> tuple[Span, ...]:
    """Return the words' spans of a model that does not say where it read what.

    All letters are taken to be equally wide.
    """
    words, inked_W = text.split(), _inked_columns(image)
    inked = np.flatnonzero(inked_W) if inked_W.any() else np.array([0, len(inked_W) - 1])
    start, end = (float(inked[0]) / len(inked_W), float(inked[-1] + 1) / len(inked_W))
    return spans_between(words, _even(words, start, end), [confidence] * len(words), image)


def _letter(words: Sequence[str], inked_W: NDArray[np.bool_]) -> float:
    """Return the mean width of a character, in pixels."""
    inked = np.flatnonzero(inked_W)
    return float(inked[-1] + 1 - inked[0]) / max(1, len(" ".join(words))) if len(inked) else 0.0


def _even(words: Sequence[str], start: float, end: float) -> list[float]:
    """Return the middles of the spaces, all characters being equally wide."""
    total = len(" ".join(words))
    ends = np.cumsum([len(word) + 1 for word in words])[:-1] - 0.5
    return [start + (end - start) * float(position) / total for position in ends]


def _gap_near(inked_W: NDArray[np.bool_], column: float, reach: float) -> float:
    """Return the middle of the widest run without ink within reach; the column itself without."""
    low = max(0, int(column - reach))
    near = inked_W[low : int(column + reach) + 1]
    edges = np.diff(np.concatenate([[1], near.astype(np.int8), [1]]))
    starts, ends = np.flatnonzero(edges == -1), np.flatnonzero(edges == 1)
    if not len(starts):
        return column
    widest = int(np.argmax(ends - starts))
    return low + float(starts[widest] + ends[widest]) / 2


def _inked_columns(image: Pixels) -> NDArray[np.bool_]:
    inked: NDArray[np.bool_] = (to_ink(image).mean(axis=0) > _INKED).any(axis=0)
    return inked

"""The text's own rows in the crop of a line: slivers of neighbouring lines are left out."""

import numpy as np
from numpy.typing import NDArray

from ocr.images import Pixels, to_ink

_STRONG_INK = 0.3  # of 1: a pixel of a letter, not of noise
_MARK_GAP = 0.35  # of the text's height: marks lie nearer
_MARK_HEIGHT = 0.5  # of the text's height: a taller run at the edge is text too
_MARGIN = 0.06  # of the height that is kept


def crop_to_line(pixels: Pixels) -> Pixels:
    """Cut to the rows of the text: its main run of inked rows, and the marks above and below.

    A run that touches the edge of the crop, apart from the text and less than half its height,
    belongs to a neighbouring line. An image without ink is returned whole.
    """
    inked_HW = to_ink(pixels).mean(axis=0) > _STRONG_INK
    height, width = inked_HW.shape
    inked_H = inked_HW.sum(axis=1)
    runs = _runs(inked_H >= max(2, width // 200))
    if not runs:
        return pixels
    main = int(np.argmax([inked_H[first:end].sum() for first, end in runs]))
    top, bottom = _with_marks(runs, main, height)
    margin = max(1, round((bottom - top) * _MARGIN))
    return pixels[max(0, top - margin) : min(height, bottom + margin)]


def _with_marks(runs: list[tuple[int, int]], main: int, height: int) -> tuple[int, int]:
    """Return the first and the end row of the main run with its marks."""
    top, bottom = runs[main]
    text = bottom - top
    for first, end in reversed(runs[:main]):
        if top - end > _MARK_GAP * text or (first <= 1 and end - first < _MARK_HEIGHT * text):
            break
        top = first
    for first, end in runs[main + 1 :]:
        is_sliver = end >= height - 1 and end - first < _MARK_HEIGHT * text
        if first - bottom > _MARK_GAP * text or is_sliver:
            break
        bottom = end
    return top, bottom


def _runs(rows_H: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return (first, end) of each run of true rows."""
    edges = np.diff(np.concatenate([[0], rows_H.astype(np.int8), [0]]))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return list(zip(starts.tolist(), ends.tolist(), strict=True))

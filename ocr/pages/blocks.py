"""Pieces on a straightened page → its blocks (columns, paragraphs) in reading order."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

# how much wider a gap between paragraphs must be than one between columns to be cut first
_LYING = 3.0
_DEPTH = 40  # of cuts within cuts
Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


def blocks(boxes: Floats, tall: float) -> Iterator[Indices]:
    """Yield the pieces of each block of a page, as indices of `boxes`, in reading order.

    `boxes` are left, top, right and bottom of each piece, [N, 4]; `tall` is the height of letters.
    The page is cut at its widest white gap, counted in letter heights, and so is each part: upright
    gaps part columns, lying ones paragraphs and headings.
    """
    yield from _cut(boxes, np.arange(len(boxes)), tall, 0)


def _cut(boxes: Floats, members: Indices, tall: float, depth: int) -> Iterator[Indices]:
    if len(members) < 2 or depth > _DEPTH:
        yield members
        return
    part = boxes[members]
    across, down = _gap(part[:, [0, 2]]), _gap(part[:, [1, 3]])
    height = part[:, 3].max() - part[:, 1].min()
    # few lines: spaces between words can line up
    needed = 1.6 if height > 6 * tall else 3.0 if height > 2.5 * tall else np.inf
    upright, lying = across[0] / (tall * needed), down[0] / (tall * 1.0)
    if max(upright, lying) < 1:
        yield members
        return
    axis, cut_at = (0, across[1]) if upright >= 1 and lying < _LYING * upright else (1, down[1])
    is_first = (part[:, axis] + part[:, axis + 2]) / 2 < cut_at
    yield from _cut(boxes, members[is_first], tall, depth + 1)
    yield from _cut(boxes, members[~is_first], tall, depth + 1)


def _gap(spans: Floats) -> tuple[float, float]:
    """Return the widest stretch that no span covers, and its middle."""
    order = np.argsort(spans[:, 0])
    starts, ends = spans[order, 0], np.maximum.accumulate(spans[order, 1])
    gaps = starts[1:] - ends[:-1]
    widest = int(np.argmax(gaps))
    return float(gaps[widest]), float((starts[1:][widest] + ends[:-1][widest]) / 2)

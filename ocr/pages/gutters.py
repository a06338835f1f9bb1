"""White gaps between columns that a few lines reach into, as in manuscripts and tight print."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ocr.pages.blocks import Floats, Indices
from ocr.pages.piece import Piece

_LEAST_ROWS = 8  # of a block, on both sides of a gutter
_CROSSING = 0.12  # share of the rows that may reach into a gutter
_LEAST_WIDTH = 0.5  # of a gutter, in heights of pieces
_EDGE = 0.3  # of a piece, at each end, that may be its margin, in its heights
_STEP = 0.1  # heights


def columns(pieces: Sequence[Piece], tall: float) -> Iterator[list[Piece]]:
    """Yield the columns of a block on a straightened page, from the left.

    A piece that crosses a gutter is cut there. `tall` is the height of pieces.
    """
    gutter = _gutter(pieces, tall)
    if gutter is None:
        yield list(pieces)
        return
    parts = [part for piece in pieces for part in _cut(piece, gutter, tall)]
    left = [piece for piece in parts if piece.middle[0] < gutter]
    right = [piece for piece in parts if piece.middle[0] >= gutter]
    yield from columns(left, tall)
    yield from columns(right, tall)


def _gutter(pieces: Sequence[Piece], tall: float) -> float | None:
    """Return where the widest gutter is; None where there is none."""
    corners = np.array([piece.corners for piece in pieces])
    left, top = corners.min(axis=1).T
    right, bottom = corners.max(axis=1).T
    rows = _rows(top, bottom, tall)
    count = int(rows.max()) + 1
    if count < _LEAST_ROWS:
        return None
    margin, step = _EDGE * (bottom - top), _STEP * tall
    xs = np.arange(left.min(), right.max(), step)
    is_before, is_after = right - margin <= xs[:, None], left + margin >= xs[:, None]
    crossing = _count_rows(~is_before & ~is_after, rows)
    is_white = crossing <= _CROSSING * count
    for side in (is_before, is_after):
        is_white &= _count_rows(side, rows) >= _LEAST_ROWS
    edges = np.diff(np.concatenate([[0], is_white.astype(np.int8), [0]]))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    if not len(starts):
        return None
    widest = int(np.argmax(ends - starts))
    if (ends - starts)[widest] * step < _LEAST_WIDTH * tall:
        return None
    return float(xs[starts[widest]] + xs[ends[widest] - 1]) / 2


def _count_rows(chosen_XN: NDArray[np.bool_], rows: Indices) -> Indices:
    """Return in how many rows each choice of pieces is."""
    in_row_NR = np.eye(int(rows.max()) + 1, dtype=np.float32)[rows]
    return np.asarray((chosen_XN.astype(np.float32) @ in_row_NR > 0).sum(axis=1))


def _rows(top: Floats, bottom: Floats, tall: float) -> Indices:
    """Return the number of each piece's row: those whose middles are near are in one."""
    middles = (top + bottom) / 2
    order = np.argsort(middles)
    steps = np.diff(middles[order], prepend=middles[order][0])
    rows = np.empty(len(order), dtype=np.intp)
    rows[order] = np.cumsum(steps > 0.25 * tall)
    return rows


def _cut(piece: Piece, x: float, tall: float) -> Iterator[Piece]:
    """Yield a piece, or its two parts where more than its edge lies on both sides of `x`."""
    (left, _), (right, _) = piece.ends
    if min(x - left, right - x) < tall:
        yield piece
        return
    for start, end in ((left, x), (x, right)):
        share = ((start + end) / 2 - piece.middle[0]) / (right - left)
        middle = piece.middle + share * (piece.ends[1] - piece.ends[0])
        yield replace(piece, middle=middle, length=piece.length * (end - start) / (right - left))

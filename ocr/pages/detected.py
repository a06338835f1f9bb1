"""Detected pieces → lines: straightened, joined along their own directions, in reading order."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ocr.images import Polygon
from ocr.pages.background import background_of
from ocr.pages.blocks import Floats, blocks
from ocr.pages.detector import pieces_on
from ocr.pages.gutters import columns
from ocr.pages.ink import ink_of, small_grey
from ocr.pages.line import PageLine, turned_back
from ocr.pages.marks import with_marks
from ocr.pages.piece import Piece, direction_of, lie_on_their_side, middle_of, turned
from ocr.pixels import Pixels
from ocr.reading.page import rectangle

_ASKEW = 20.0  # degrees off the page's direction, from which on a piece is a line of its own
_LETTER = 0.7  # height of a letter, in heights of pieces
_JOIN = 1.25  # widest gap within a line, in heights of pieces
_OVERLAP = 1.5  # pieces of one line may overlap by so much, in heights
_OFF = 0.5  # most difference of the middles of two pieces of a line, in heights
_SAME_ROW = 0.5  # most difference of the middles of two lines of a row, in heights of pieces
_HEIGHTS = 2.0  # most ratio of the heights of two pieces of a line
_SPECK = 0.75  # area of a line, in squares of the height of pieces; smaller ones are dirt
_INNER = 0.8  # of a line, about its middle, that lies in another one if it is a part of that
_LONG, _RISE = 3.0, 0.3  # heights: length and rise of a line that has a direction of its own


@dataclass(frozen=True, slots=True)
class _Line:
    """A line on the straightened page, and its own direction there."""

    corners: Polygon
    degrees: float

    @property
    def middle(self) -> Floats:
        return np.asarray(self.corners.mean(axis=0))


def detected_lines(page: Pixels, may_lie: bool = True) -> list[PageLine]:
    """Return the lines of a page, [H, W] or [H, W, 3], in reading order.

    Those of a page that lies on its side read downwards, whichever side is its top.
    """
    grey, scale = small_grey(page)
    around_HW = background_of(grey)
    pieces = [piece for piece in pieces_on(page) if not _is_in(around_HW, piece, scale)]
    if may_lie and lie_on_their_side(pieces):
        lines = detected_lines(np.ascontiguousarray(np.rot90(page)), may_lie=False)
        return turned_back(lines, 1, (page.shape[0], page.shape[1]))
    found = _lines(pieces)
    ink = ink_of(grey, around_HW) if found else grey
    size = np.array([page.shape[1], page.shape[0]], dtype=np.float64)
    return [
        PageLine(np.clip(with_marks(line.polygon, ink, scale), 0, size), line.degrees)
        for line in found
    ]


def _is_in(around_HW: NDArray[np.bool_], piece: Piece, scale: float) -> bool:
    """Return whether a piece is in what a photo shows around its page."""
    x, y = np.clip((piece.middle * scale).astype(int), 0, np.array(around_HW.shape[::-1]) - 1)
    return bool(around_HW[y, x])


def _lines(pieces: Sequence[Piece]) -> list[PageLine]:
    if not pieces:
        return []
    degrees = direction_of(pieces)
    upright = [piece.turned(-degrees) for piece in pieces]
    aside = [piece for piece in upright if _goes_elsewhere(piece)]
    straight = [
        piece if piece.has_direction else piece.levelled()
        for piece in upright
        if not _goes_elsewhere(piece)
    ]
    tall = middle_of([piece.height for piece in straight], [piece.length for piece in straight])
    chained = [list(_chains(block, tall)) for block in _blocks(straight, tall)]
    slopes = [slope for chains in chained for chain in chains if (slope := _slope(chain, tall))]
    level = middle_of([degrees for degrees, _ in slopes], [width for _, width in slopes])
    found = list[_Line]()
    for chains in chained:
        found += _in_rows([_joined(chain, level, tall) for chain in chains], tall)
    found += [_Line(piece.corners, piece.degrees) for piece in aside]
    return [
        PageLine(turned(line.corners, degrees), degrees + line.degrees)
        for line in _outermost([line for line in found if not _is_speck(line, tall)])
    ]


def _goes_elsewhere(piece: Piece) -> bool:
    """Return whether a piece of the straightened page is a line of its own, as a note aside is."""
    return piece.has_direction and abs(piece.degrees) > _ASKEW


def _blocks(pieces: Sequence[Piece], tall: float) -> Iterator[list[Piece]]:
    if not pieces:
        return
    corners = np.array([piece.corners for piece in pieces])
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    for block in blocks(boxes, _LETTER * tall):
        yield from columns([pieces[index] for index in block], tall)


def _is_speck(line: _Line, tall: float) -> bool:
    width, height = _size(line)
    return width * height < _SPECK * tall**2


def _outermost(lines: Sequence[_Line]) -> list[_Line]:
    """Return the lines that are no part of another one."""
    if not lines:
        return []
    corners = np.array([line.corners for line in lines])
    left_top, right_bottom, middles = corners.min(1), corners.max(1), corners.mean(1)
    near = (middles[:, None] > left_top).all(2) & (middles[:, None] < right_bottom).all(2)
    return [
        line
        for line, others in zip(lines, near, strict=True)
        if not any(_is_inside(line, lines[int(index)]) for index in np.flatnonzero(others))
    ]


def _is_inside(line: _Line, other: _Line) -> bool:
    """Return whether a line is a part of a larger one, but for a margin."""
    middle = line.corners.mean(axis=0)
    inner = turned(middle + _INNER * (line.corners - middle), -other.degrees)
    outer = turned(other.corners, -other.degrees)
    is_within = (inner > outer.min(axis=0)).all() and (inner < outer.max(axis=0)).all()
    return bool(is_within and np.prod(_size(line)) < np.prod(_size(other)))


def _size(line: _Line) -> tuple[float, float]:
    top_left, top_right, _, bottom_left = line.corners
    return float(np.hypot(*(top_right - top_left))), float(np.hypot(*(bottom_left - top_left)))


def _chains(pieces: Sequence[Piece], tall: float) -> Iterator[list[Piece]]:
    """Yield the pieces of each line from left to right: each joins the nearest at its right."""
    after, before = dict[int, int](), dict[int, int]()
    for _, piece, other in sorted(_neighbours(pieces, tall)):
        if piece not in after and other not in before:
            after[piece], before[other] = other, piece
    for first in range(len(pieces)):
        if first not in before:
            chain = [first]
            while chain[-1] in after:
                chain.append(after[chain[-1]])
            yield [pieces[index] for index in chain]


def _neighbours(pieces: Sequence[Piece], tall: float) -> Iterator[tuple[float, int, int]]:
    """Yield the gap between each two pieces that can be neighbours in a line, and the two."""
    starts, ends = np.array([piece.ends for piece in pieces]).transpose(1, 0, 2)
    heights = np.array([piece.height for piece in pieces])
    for piece in range(len(pieces)):
        lower = np.minimum(heights, heights[piece])
        gap, off = (starts - ends[piece]).T
        near = (starts[:, 0] > starts[piece, 0]) & (np.abs(off) < _OFF * lower)
        near &= np.maximum(heights, heights[piece]) < _HEIGHTS * np.maximum(lower, tall)
        near &= (gap > -_OVERLAP * lower) & (gap < _JOIN * tall)
        yield from ((float(gap[other]), piece, int(other)) for other in np.flatnonzero(near))


def _slope(pieces: Sequence[Piece], tall: float) -> tuple[float, float] | None:
    """Return the direction of a line's pieces in degrees, and its width; None of a short one."""
    ends = np.concatenate([piece.ends for piece in pieces])
    width = float(np.ptp(ends[:, 0]))
    if width < _LONG * tall:
        return None
    return float(np.degrees(np.arctan(np.polyfit(ends[:, 0], ends[:, 1], 1)[0]))), width


def _joined(pieces: Sequence[Piece], level: float, tall: float) -> _Line:
    """Return the line of pieces: the rectangle around them, in the direction of most lines.

    In its own direction where that differs: by more than pieces of different shapes make it.
    """
    own, width = _slope(pieces, tall) or (level, 0.0)
    rise = abs(np.tan(np.deg2rad(own - level))) * width
    degrees = own if rise > _RISE * tall else level
    corners = turned(np.concatenate([piece.corners for piece in pieces]), -degrees)
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    return _Line(turned(rectangle(right - left, bottom - top, left, top), degrees), degrees)


def _in_rows(lines: Sequence[_Line], tall: float) -> list[_Line]:
    """Return the lines of a block from the top, those of one row from the left."""
    rows = list[list[_Line]]()
    for line in sorted(lines, key=lambda line: float(line.middle[1])):
        if rows and line.middle[1] - rows[-1][0].middle[1] < _SAME_ROW * tall:
            rows[-1].append(line)
        else:
            rows.append([line])
    return [line for row in rows for line in sorted(row, key=lambda line: float(line.middle[0]))]

"""Marks above and below a detected line: its rectangle is widened until they are in it.

The detector was trained on scripts with few marks; it cuts vowel signs and tone marks.
"""

import cv2
import numpy as np

from ocr.images import Polygon
from ocr.pages.piece import Floats
from ocr.pixels import Pixels

_REACH = 0.25  # farthest that marks reach out of the rectangle, in its heights
_MARGIN = 0.05  # outside the marks, in heights
_DIRT = 0.004  # share of a row that may be dirt


def with_marks(corners: Polygon, ink: Pixels, scale: float) -> Polygon:
    """Return a line's corners on the page, clockwise from its top left, with its marks inside.

    `ink` is the page at `scale`, 255 where there is ink. Ink that reaches farther is of another
    line.
    """
    down = (corners[3] - corners[0] + corners[2] - corners[1]) / 2
    reach = _REACH * down
    outer = corners + np.array([-reach, -reach, reach, reach])
    rows = _inked_rows(outer * scale, ink)
    inside = len(rows) / (1 + 2 * _REACH)
    edge, margin = round(_REACH * inside), max(1, round(_MARGIN * inside))
    up = _reach(rows[:edge][::-1], margin) / inside * down
    low = _reach(rows[len(rows) - edge :], margin) / inside * down
    return np.asarray(corners + np.array([-up, -up, low, low]))


def _inked_rows(corners: Polygon, ink: Pixels) -> Floats:
    """Return the share of ink in each row of a rectangle of the page."""
    across, down = corners[1] - corners[0], corners[3] - corners[0]
    width, height = max(1, round(np.hypot(*across))), max(3, round(np.hypot(*down)))
    to = np.array([[0, 0], [width, 0], [0, height]], np.float32)
    turn = cv2.getAffineTransform(corners[[0, 1, 3]].astype(np.float32), to)
    strip = cv2.warpAffine(ink, turn, (width, height), flags=cv2.INTER_NEAREST)
    return np.asarray((strip > 0).mean(axis=1), dtype=np.float64)


def _reach(rows: Floats, margin: int) -> int:
    """Return how many rows, outwards, a line's marks and their margin take.

    Ink up to the last row is another line's; where no row is empty, the emptiest parts them.
    """
    empty = np.flatnonzero(rows <= _DIRT)
    if not len(empty):
        return int(np.argmin(rows)) if len(rows) else 0
    marks = np.flatnonzero(rows[: empty[-1]] > _DIRT)
    end = int(marks[-1]) + 1 if len(marks) else 0
    return min(end + margin, int(empty[-1]) + 1)

"""Lines by classical segmentation with OpenCV.

Grey is evened out and split from the background (Otsu), and the sharpest row profile gives the
skew. The peaks of a block's row profile give its lines. Marks above and below letters go with their
nearest line.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr.images import Polygon
from ocr.pages.background import background_of
from ocr.pages.blocks import Floats, Indices, blocks
from ocr.pages.ink import ink_of, small_grey
from ocr.pages.line import PageLine
from ocr.pixels import Pixels

_MAX_SKEW, _SKEW_POINTS = 6.0, 40_000  # degrees; ink pixels that the skew is measured on
_LEAST_INK = 12  # pixels of a mark; fewer are dirt
_LEAST_PEAK = 0.04  # of a line in the row profile, as a share of the highest
_NEAR = 0.9  # least distance of two peaks, in letter heights
_FAR = 3.0  # least gap between parts of a row, in letter heights
_LEAST_LINE = 0.6  # ink of a line, in squares of the letter height


@dataclass(frozen=True, slots=True)
class _Marks:
    """Connected pieces of ink on the straightened page: box and ink of each."""

    boxes: Floats  # [N, 4]
    ink: Floats  # [N]

    def of(self, chosen: NDArray[np.bool_] | Indices) -> "_Marks":
        return _Marks(self.boxes[chosen], self.ink[chosen])


def classical_lines(page: Pixels) -> list[PageLine]:
    """Return the lines of a page, [H, W] or [H, W, 3], in reading order; of an empty page none."""
    small, scale = small_grey(page)
    ink = ink_of(small, background_of(small))
    degrees = skew_of(ink)
    turn = cv2.getRotationMatrix2D((ink.shape[1] / 2, ink.shape[0] / 2), degrees, 1.0)
    straight = (
        ink
        if abs(degrees) < 0.05
        else np.asarray(
            cv2.warpAffine(ink, turn, (ink.shape[1], ink.shape[0]), flags=cv2.INTER_NEAREST)
        )
    )
    marks, height = _marks(np.asarray(straight, dtype=np.uint8))
    if not len(marks.ink):
        return []
    boxes = list[Floats]()
    for block in blocks(marks.boxes, height):
        boxes += _lines(marks.of(block), height)
    back: Floats = np.asarray(cv2.invertAffineTransform(turn), dtype=np.float64)
    return [
        PageLine(_corners(box, back, scale, (page.shape[1], page.shape[0])), degrees)
        for box in boxes
    ]


def skew_of(ink: Pixels) -> float:
    """Return the clockwise rotation of a page (255 where there is ink) in degrees, within ±6.

    The row profile is sharpest at this angle.
    """
    ys, xs = np.nonzero(ink)
    if len(ys) < 100:
        return 0.0
    every = max(1, len(ys) // _SKEW_POINTS)
    points = np.stack([xs[::every], ys[::every]]).astype(np.float64)
    best = 0.0
    for span, step in ((_MAX_SKEW, 0.5), (0.5, 0.1)):
        angles = best + np.arange(-span, span + step / 2, step)
        best = float(angles[int(np.argmax([_sharpness(points, angle) for angle in angles]))])
    return best if abs(best) < _MAX_SKEW else 0.0


def _sharpness(points: Floats, degrees: float) -> float:
    angle = np.deg2rad(degrees)
    rows = points[1] * np.cos(angle) - points[0] * np.sin(angle)
    counts = np.bincount((rows - rows.min()).astype(int) // 2).astype(np.float64)
    return float(np.square(np.diff(counts)).sum())


def _marks(ink: Pixels) -> tuple[_Marks, float]:
    """Return the pieces of ink that can be writing, and the height of letters.

    Rules, frames, illustrations and dirt are left out.
    """
    _, _, stats, _ = cv2.connectedComponentsWithStats(ink, connectivity=8)
    stats = stats[1:].astype(np.float64)
    stats = stats[(stats[:, 4] >= _LEAST_INK) & (stats[:, 3] >= 3)]
    left, top, width, height, area = stats.T if len(stats) else np.zeros((5, 0))
    page_height, page_width = ink.shape
    letters = (
        (height < page_height / 8)
        & (width < page_width / 2)
        & (height > 6)
        & (width < 25 * height)
        & (height < 12 * width)
    )
    if not letters.any():
        return _Marks(np.zeros((0, 4)), np.zeros(0)), 0.0
    order = np.argsort(height[letters])
    weight = np.cumsum(area[letters][order])
    tall = float(height[letters][order][np.searchsorted(weight, weight[-1] / 2)])
    rules = (width > 12 * height) & (height < 0.4 * tall) | (height > 8 * width) & (
        height > 3 * tall
    )
    writing = (
        (height < max(5 * tall, 40)) & (height >= 0.12 * tall) & ~rules & (width < page_width * 0.9)
    )
    boxes = np.stack([left, top, left + width, top + height], axis=1)
    return _Marks(boxes[writing], area[writing]), tall


def _lines(block: _Marks, tall: float) -> list[Floats]:
    """Return the lines' boxes (left, top, right, bottom) in a block, from the top."""
    top = float(block.boxes[:, 1].min())
    profile = np.zeros(int(block.boxes[:, 3].max() - top) + 2)
    for (_, upper, _, lower), ink in zip(block.boxes, block.ink, strict=True):
        profile[int(upper - top) : int(lower - top) + 1] += ink / max(1.0, lower - upper)
    smooth = cv2.GaussianBlur(profile[None], (0, 0), max(1.0, 0.22 * tall))[0]
    peaks = _peaks(smooth, tall)
    bounds = [top + low + float(np.argmin(smooth[low : high + 1])) for low, high in pairwise(peaks)]
    core = (block.boxes[:, 1] + block.boxes[:, 3]) / 2
    which = np.searchsorted(bounds, core)
    boxes = []
    for line in range(len(bounds) + 1):
        lower = bounds[line] + 0.35 * tall if line < len(bounds) else np.inf
        upper = bounds[line - 1] - 0.35 * tall if line else -np.inf
        for members in _apart(block.of(which == line), tall):
            left, high, _, _ = members.boxes.min(axis=0)
            _, _, right, low = members.boxes.max(axis=0)
            box = np.array([left, max(high, upper), right, min(low, lower)])
            if (
                box[3] - box[1] >= 0.5 * tall
                and box[2] - box[0] >= 0.5 * tall
                and members.ink.sum() >= _LEAST_LINE * tall**2
            ):
                boxes.append(box)
    return boxes


def _apart(line: _Marks, tall: float) -> Iterator[_Marks]:
    """Split a row at wide gaps: table cells, a page number beside a heading, dirt in the margin."""
    if not len(line.ink):
        return
    order = np.argsort(line.boxes[:, 0])
    ends = np.maximum.accumulate(line.boxes[order, 2])
    part = np.concatenate([[0], np.cumsum(line.boxes[order[1:], 0] - ends[:-1] > _FAR * tall)])
    for number in range(int(part[-1]) + 1):
        yield line.of(np.isin(np.arange(len(order)), order[part == number]))


def _peaks(profile: Floats, tall: float) -> list[int]:
    """Return the rows of lines, the highest peak first.

    No two are within 0.9 letter heights; each has a valley of less than 0.7 of its height on both
    sides.
    """
    candidates = [
        row
        for row in range(1, len(profile) - 1)
        if profile[row - 1] < profile[row] >= profile[row + 1]
        and profile[row] > _LEAST_PEAK * profile.max()
    ]
    kept = list[int]()
    for row in sorted(candidates, key=lambda row: -profile[row]):
        near = [other for other in kept if abs(other - row) < _NEAR * tall]
        shallow = [
            other
            for other in kept
            if profile[min(row, other) : max(row, other) + 1].min() > 0.7 * profile[row]
        ]
        if not near and not shallow:
            kept.append(row)
    return sorted(kept) or [int(np.argmax(profile))]


def _corners(
    box: Floats, back: NDArray[np.float64], scale: float, size: tuple[int, int]
) -> Polygon:
    """Return a straightened box with a small margin as a polygon on the original page."""
    margin = max(1.0, 0.06 * (box[3] - box[1]))
    left, top, right, bottom = box + np.array([-margin, -margin, margin, margin])
    corners = (
        np.array([[left, top, 1], [right, top, 1], [right, bottom, 1], [left, bottom, 1]])
        @ np.asarray(back).T
        / scale
    )
    return np.clip(corners, 0, np.array(size, dtype=np.float64))

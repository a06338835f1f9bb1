"""What a photo shows around its page: areas that are dark as a whole and reach the photo's edge.

A table's grain is darker than its surroundings, as writing is; only as a whole it is too dark to be
paper. Values are of sRGB, in which paper in a quarter of the light has half the value.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr.pixels import Pixels

_WORK_SIDE_PX = 600
_STROKE = 40  # shorter side of the photo, in widths of what is writing at most
_SHEET = 10  # shorter side of the photo, in the least width of a page
_DARK = 0.55  # of the paper's value
_LEAST_SHARE, _LEAST_PAPER = 0.01, 0.15  # of the photo: a background, and its page
_SEAM_PX = 2  # of the scaled photo, where the page's edge and its shadow are


def background_of(grey: Pixels) -> NDArray[np.bool_]:
    """Return where a grey image [H, W] shows no page; nowhere where it shows nothing but a page."""
    nowhere = np.zeros(grey.shape, dtype=np.bool_)
    scale = min(1.0, _WORK_SIDE_PX / max(grey.shape))
    small = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    side = min(small.shape)
    if side < 2 * _STROKE:
        return nowhere
    even = cv2.medianBlur(small, 5)  # without a table's grain
    without_writing = _morphed(np.asarray(even), cv2.MORPH_CLOSE, side // _STROKE + 3)
    dark = without_writing < _DARK * np.percentile(without_writing, 90)
    sheet = _morphed((~dark).astype(np.uint8), cv2.MORPH_OPEN, side // _SHEET)
    if sheet.mean() < _LEAST_PAPER:
        return nowhere  # light writing on a dark page
    count, areas = cv2.connectedComponents(dark.astype(np.uint8), connectivity=4)
    at_edge = np.unique(np.concatenate([areas[0], areas[-1], areas[:, 0], areas[:, -1]]))
    around = np.isin(areas, [area for area in at_edge if area]) & dark
    if count == 1 or around.mean() < _LEAST_SHARE:
        return nowhere
    seam = np.ones((2 * _SEAM_PX + 1,) * 2, np.uint8)
    grown = cv2.dilate(around.astype(np.uint8), seam)
    height, width = grey.shape
    large = cv2.resize(grown, (width, height), interpolation=cv2.INTER_NEAREST)
    return np.asarray(large, dtype=np.bool_)


def _morphed(image: Pixels, operation: int, side: int) -> Pixels:
    return np.asarray(cv2.morphologyEx(image, operation, np.ones((side, side), np.uint8)))

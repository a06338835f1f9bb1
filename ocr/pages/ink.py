"""Ink on a page: what is darker than its surroundings, or lighter on a dark page."""

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr.pixels import Pixels

_WORK_SIDE_PX = 2400  # longer side of the page that is analysed


def small_grey(page: Pixels) -> tuple[Pixels, float]:
    """Return a page, [H, W] or [H, W, 3], as it is analysed: grey and scaled; and the scale."""
    grey = page if page.ndim == 2 else cv2.cvtColor(page, cv2.COLOR_RGB2GRAY)
    scale = min(1.0, _WORK_SIDE_PX / max(grey.shape))
    if scale < 1:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.asarray(grey), scale


def ink_of(grey: Pixels, background: NDArray[np.bool_]) -> Pixels:
    """Return 255 where there is ink on a grey page; none where a photo shows its background."""
    if background.any():
        grey = grey.copy()
        grey[background] = np.median(grey[~background])
    if np.median(grey) < 110:
        grey = 255 - grey
    side = max(15, min(grey.shape) // 24) | 1
    paper = cv2.GaussianBlur(
        cv2.dilate(grey, np.ones((side // 2, side // 2), np.uint8)), (side, side), 0
    )
    even = cv2.divide(grey, paper, scale=255)
    level, ink = cv2.threshold(even, 0, 255, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)
    if level > 235:  # one kind of pixels only: nothing is written here
        _, ink = cv2.threshold(even, 200, 255, cv2.THRESH_BINARY_INV)
    return np.asarray(ink, dtype=np.uint8)

"""Pieces of text lines on a page, by a trained detector: PP-OCRv6 tiny, run by onnxruntime.

The network gives each pixel's probability to be text, shrunk to the middle of a line (DB: Liao et
al. 2020). Its areas, grown again, are the pieces. It reads no script, so any will do.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr.onnx_session import onnx_session
from ocr.pages.piece import Floats, Piece
from ocr.pixels import Pixels

MODEL = Path(__file__).parents[1] / "assets" / "detectors" / "pp_ocrv6_tiny" / "det.onnx"
_SIDE_PX, _LARGE_SIDE_PX, _LARGE_PX = 1280, 1600, 3000  # longer side analysed; of large pages
_STRIDE = 32  # sides are multiples of it
# of ImageNet, as in PaddleOCR's own preprocessing
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
_TEXT, _LEAST_MEAN = 0.2, 0.65  # probability of a pixel, and mean of a piece
_GROWTH = 1.2  # area · growth / perimeter is added on every side
_LEAST_SIDE_PX = 3  # of an area before it is grown


def is_there() -> bool:
    """Return whether the detector can run: its model is installed, and onnxruntime is."""
    return MODEL.is_file() and find_spec("onnxruntime") is not None


def pieces_on(page: Pixels) -> list[Piece]:
    """Return the pieces of writing on a page, uint8, [H, W] or [H, W, 3].

    Words with wide gaps between are pieces of their own.
    """
    probability_HW = probability_of(page)
    height, width = probability_HW.shape
    to_page = np.array([page.shape[1] / width, page.shape[0] / height])
    text_HW = (probability_HW > _TEXT).astype(np.uint8)
    areas, _ = cv2.findContours(text_HW, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    found = (_piece(np.asarray(area), probability_HW, to_page) for area in areas)
    return [piece for piece in found if piece is not None]


def probability_of(page: Pixels) -> NDArray[np.float32]:
    """Return each pixel's probability to be text, [H, W] of the page scaled for the network."""
    height, width = page.shape[:2]
    side = _SIDE_PX if max(height, width) <= _LARGE_PX else _LARGE_SIDE_PX
    scale = min(1.0, side / max(height, width))
    size = [max(_STRIDE, round(n * scale / _STRIDE) * _STRIDE) for n in (width, height)]
    small = np.asarray(cv2.resize(page, size, interpolation=cv2.INTER_AREA))
    rgb = small if small.ndim == 3 else np.repeat(small[:, :, None], 3, axis=2)
    even = (rgb.astype(np.float32) / 255 - _MEAN) / _DEVIATION
    input_1CHW = np.ascontiguousarray(even.transpose(2, 0, 1)[None])
    probability_HW: NDArray[np.float32] = _network().run(None, {"x": input_1CHW})[0][0, 0]
    return probability_HW


def _piece(
    area: NDArray[Any], probability_HW: NDArray[np.float32], to_page: Floats
) -> Piece | None:
    """Return an area's rectangle, grown to the size of its text; None where it is hardly text."""
    if min(cv2.minAreaRect(area)[1]) < _LEAST_SIDE_PX:
        return None
    left, top, width, height = cv2.boundingRect(area)
    inside = np.zeros((height, width), np.uint8)
    cv2.drawContours(inside, [area - [left, top]], -1, 1, -1)
    around = probability_HW[top : top + height, left : left + width]
    if around[inside > 0].mean() < _LEAST_MEAN:
        return None
    middle, sides, degrees = cv2.minAreaRect((area * to_page).astype(np.float32))
    long, short = max(sides), min(sides)
    direction = degrees if sides[0] >= sides[1] else degrees + 90
    grown = _GROWTH * long * short / (long + short)
    return Piece(
        np.array(middle, dtype=np.float64), long + grown, short + grown, (direction + 90) % 180 - 90
    )


@cache
def _network() -> Any:
    return onnx_session(MODEL)

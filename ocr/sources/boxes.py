"""Boxes with texts on a page, as annotation tools write them, cut out as samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ocr.images import (
    ImageRefused,
    Pixels,
    Polygon,
    cut,
    encode_image,
    image_size,
    open_image,
    orientation_of,
)
from ocr.limits import ImageLimits
from ocr.sample import Level, Sample, Skip

UNREADABLE = ("###", "*", "待识别", "TEMPORARY")  # ICDAR's, and PPOCRLabel's of untouched boxes
MALFORMED = "malformed label"


@dataclass(frozen=True, slots=True)
class Cutting:
    """What the boxes of one source share."""

    level: Level
    deskew_degrees: float
    max_page_pixels: int
    source: str


def text_of(value: Any) -> str | Skip:
    """Return a label of JSON: a text, or a number as text; a Skip for null, lists and the rest."""
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    found = "null" if value is None else f"{type(value).__name__} {str(value)[:80]}"
    return Skip("", MALFORMED, f"expected a text, got {found}")


def polygon_of(points: Any) -> Polygon | None:
    """Return points of JSON, [[x, y], …], as [N, 2]; None where they are none."""
    try:
        polygon = np.array(points, dtype=np.float64).reshape(-1, 2)
    except (ValueError, TypeError):
        return None
    return polygon if len(polygon) >= 2 and np.isfinite(polygon).all() else None


def open_page(data: bytes, polygons: Sequence[Polygon], most_px: int, where: str) -> Pixels:
    """Return the image that the boxes were drawn on; ImageRefused as `open_image`.

    That is the upright one, unless only the one without the EXIF has room for all boxes.
    """
    limits = ImageLimits(most_px, max_side_px=65_535)
    size = image_size(data, limits, where)
    outside = any((polygon.max(axis=0) > np.add(size, 1)).any() for polygon in polygons)
    swapped = all((polygon.max(axis=0) <= np.add(size[::-1], 1)).all() for polygon in polygons)
    is_stored = orientation_of(data, limits) >= 5 and outside and swapped
    return open_image(data, "as it is", limits, where, upright=not is_stored)


def cut_box(
    page: Pixels, polygon: Polygon, text: str, id: str, cutting: Cutting, page_name: str
) -> Sample | Skip:
    """Return the sample of a box; a Skip where it has no area on the page, or is unreadable."""
    if text.strip() in UNREADABLE:
        return Skip(id, "marked unreadable", text.strip())
    try:
        pixels = cut(page, polygon, _direction(polygon, cutting.deskew_degrees))
    except ImageRefused as refused:
        return Skip(id, refused.reason, refused.detail)
    group = (("page", Path(page_name).stem),)
    return Sample(id, encode_image(pixels), text, cutting.level, group, cutting.source)


def _direction(polygon: Polygon, least_degrees: float) -> float:
    """Return the direction of a box's first edge, which lies along the top of the writing."""
    x, y = polygon[1] - polygon[0]
    degrees = float(np.rad2deg(np.arctan2(y, x)))
    return degrees if abs(degrees) > least_degrees else 0.0

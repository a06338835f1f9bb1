"""Lines cut out of a file's pages and encoded, in the child that decodes the file."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ocr.documents import open_pages
from ocr.images import ImageRefused, Pixels, Polygon, cut, encode_image
from ocr.limits import ImageLimits

_FAR_PX = 1e6  # beyond every page


@dataclass(frozen=True, slots=True)
class LineCut:
    """Where a line lies: its page, from 1; without a polygon, which is in pixels, all of it."""

    index: int  # of its correction
    page: int
    polygon: Sequence[tuple[float, float]] | None
    degrees: float


def encoded_lines(
    data: bytes,
    cuts: Sequence[LineCut],
    limits: ImageLimits,
    max_pages: int,
    max_pixels: int,
    where: str,
) -> Iterator[tuple[dict[str, Any], Pixels]]:
    """Yield each line as PNG, in the colours of its page, page by page.

    With it come its `index`, its `name` (a hash of its pixels), the number of `pages` so far, and
    the `pixels` left of `max_pixels`. ImageRefused where a line is none, or too much.
    """
    by_page = defaultdict[int, list[LineCut]](list)
    for one in cuts:
        by_page[one.page].append(one)
    count, last = 0, max(by_page)
    for page in open_pages(data, "as it is", limits, max_pages, where):
        count += 1
        for one in by_page.get(count, ()):
            max_pixels -= _pixels_of(page, one)
            if max_pixels < 0:
                detail = f"corrections[{one.index}]: send fewer corrections at once"
                raise ImageRefused(where, "too many pixels", detail)
            line = _part(page, one)
            about = {"index": one.index, "name": name_of(line), "pages": count}
            png = np.frombuffer(encode_image(line), np.uint8)
            yield {**about, "pixels": max_pixels}, png
        if count == last:
            return
    detail = f"corrections[{by_page[last][0].index}].page: {last}; the document has {count}"
    raise ImageRefused(where, "unknown page", detail)


def name_of(line: Pixels) -> str:
    """Return the name of a line, equal for equal pixels."""
    content = f"{line.shape}".encode() + np.ascontiguousarray(line).tobytes()
    return hashlib.sha256(content).hexdigest()[:32]


def _polygon_of(points: Sequence[tuple[float, float]]) -> Polygon:
    return np.clip(np.array(points, dtype=np.float64), -_FAR_PX, _FAR_PX)


def _pixels_of(page: Pixels, one: LineCut) -> int:
    """Return the pixels that cutting a line takes: those of its box, turned."""
    height, width = page.shape[:2]
    if one.polygon is not None:
        polygon = np.clip(_polygon_of(one.polygon), 0, (width, height))
        width, height = np.ceil(np.ptp(polygon, axis=0)).astype(int) + 1
    cosine, sine = abs(np.cos(np.deg2rad(one.degrees))), abs(np.sin(np.deg2rad(one.degrees)))
    return int((width * cosine + height * sine) * (width * sine + height * cosine))


def _part(page: Pixels, one: LineCut) -> Pixels:
    if one.polygon is None:
        return page
    try:
        return cut(page, _polygon_of(one.polygon), one.degrees)
    except ImageRefused as problem:
        detail = f"corrections[{one.index}].polygon: {problem.detail}"
        raise ImageRefused(problem.where, "polygon outside the image", detail) from None

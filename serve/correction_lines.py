"""A request of corrections, and the pixels of its lines: one page and one line at a time.

What a request may cost is bounded for all its documents together, as one page can be cut a
thousand times.
"""

import time
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import pydantic

from ocr.images import ImageRefused, Pixels, Polygon, cut
from serve.config import LimitSettings
from serve.decoding import Decoding
from serve.errors import Refused, as_refused
from serve.payloads import decoded

_MOST_PIXELS = 4  # of all lines of a request, in `max_pixels`
_FAR_PX = 1e6  # beyond every page


class Correction(pydantic.BaseModel):
    """One line: its right text, and the reading that was wrong.

    `image` is a name in `images`; `polygon` (pixels) and `degrees` are those that the endpoint gave
    for a line of a page.
    """

    model_config = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False)

    image: str = pydantic.Field(max_length=200, examples=["page"])
    text: str = pydantic.Field(examples=["ଜୀବନର ମୂଳ ମନ୍ତ୍ର"])
    reading: str | None = pydantic.Field(None, max_length=20_000, examples=["ଜୀବନର ମୂଳ ମନ୍ତ"])
    confidence: float | None = pydantic.Field(None, ge=0, le=1)
    model: str | None = pydantic.Field(None, max_length=300)
    page: int = pydantic.Field(1, ge=1, description="of a document with several")
    polygon: list[tuple[float, float]] | None = pydantic.Field(None, min_length=3, max_length=64)
    degrees: float = pydantic.Field(0.0, ge=-360, le=360)
    document: str | None = pydantic.Field(
        None,
        max_length=200,
        description="the page that the line is of, where `image` is only a part of it; lines of "
        "one page are held out together",
    )


class CorrectionsRequest(pydantic.BaseModel):
    """Images in base64, each once and by a name, and the corrections in them."""

    model_config = pydantic.ConfigDict(extra="forbid")

    images: dict[str, str] = pydantic.Field(
        min_length=1, max_length=64, examples=[{"page": "BASE64"}]
    )
    corrections: list[Correction] = pydantic.Field(min_length=1, max_length=1_000)
    user: str | None = pydantic.Field(None, max_length=200)


class LineCutter:
    """Cuts the lines of a request out of its pages."""

    def __init__(self, limits: LimitSettings, decoding: Decoding) -> None:
        self._limits, self._decoding = limits, decoding

    def lines(
        self, asked: CorrectionsRequest, deadline: float = float("inf")
    ) -> Iterator[tuple[int, Pixels]]:
        """Yield each correction's index and its line's pixels, in the page's own colours.

        Raises Refused for what is no line, or too much; TimeoutError after the deadline, which is
        of `time.monotonic`.
        """
        pixels = 0
        for index, page in self._pages(asked, _by_image(asked)):
            if time.monotonic() > deadline:
                raise TimeoutError
            one = asked.corrections[index]
            where = f"corrections[{index}]"
            pixels += _pixels_of(page, one)
            if pixels > _MOST_PIXELS * self._limits.max_pixels:
                message = (
                    f"{where}: more than {_MOST_PIXELS} × {self._limits.max_pixels:,} pixels in "
                    "the lines of a request; send fewer corrections at once"
                )
                raise Refused(413, "too_many_pixels", message)
            yield index, _part(where, page, one)

    def _pages(
        self, asked: CorrectionsRequest, by_image: dict[str, dict[int, list[int]]]
    ) -> Iterator[tuple[int, Pixels]]:
        """Yield each correction's index and its page; a page is in memory once, and alone."""
        left = self._limits.max_pages
        for name, by_page in by_image.items():
            count = 0
            data, where = decoded(asked.images[name]), f"images.{name[:80]}"
            try:
                with self._decoding.document(
                    data, "as it is", self._limits.images, left, where
                ) as pages:
                    while count < max(by_page) and (page := next(pages, None)) is not None:
                        count += 1
                        yield from ((index, page) for index in by_page.get(count, ()))
            except ImageRefused as problem:
                raise as_refused(problem) from None
            if count < max(by_page):
                index = by_page[max(by_page)][0]
                message = f"corrections[{index}].page: {max(by_page)}; the document has {count}"
                raise Refused(422, "unknown_page", message)
            left -= count if count > 1 else 0


def _by_image(asked: CorrectionsRequest) -> dict[str, dict[int, list[int]]]:
    """Return the indices of corrections by image and page."""
    found = defaultdict[str, dict[int, list[int]]](lambda: defaultdict(list))
    for index, one in enumerate(asked.corrections):
        if one.image not in asked.images:
            known = ", ".join(asked.images)[:200]
            message = f"corrections[{index}].image: expected one of {known}, got {one.image[:80]!r}"
            raise Refused(422, "unknown_image", message)
        found[one.image][one.page].append(index)
    return found


def _polygon_of(one: Correction) -> Polygon:
    return np.clip(np.array(one.polygon, dtype=np.float64), -_FAR_PX, _FAR_PX)


def _pixels_of(page: Pixels, one: Correction) -> int:
    """Return the pixels that cutting a line takes: those of its box, turned."""
    height, width = page.shape[:2]
    if one.polygon is not None:
        polygon = np.clip(_polygon_of(one), 0, (width, height))
        width, height = np.ceil(np.ptp(polygon, axis=0)).astype(int) + 1
    cosine, sine = abs(np.cos(np.deg2rad(one.degrees))), abs(np.sin(np.deg2rad(one.degrees)))
    return int((width * cosine + height * sine) * (width * sine + height * cosine))


def _part(where: str, page: Pixels, one: Correction) -> Pixels:
    if one.polygon is None:
        return page
    try:
        return cut(page, _polygon_of(one), one.degrees)
    except ImageRefused as problem:
        message = f"{where}.polygon: {problem.detail}"
        raise Refused(422, "polygon_outside_the_image", message) from None

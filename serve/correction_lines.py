"""A request of corrections, and its lines as images: one page and one line at a time.

What a request may cost is bounded for all its documents together, as one page can be cut a
thousand times.
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import pydantic

from ocr.images import ImageRefused
from serve.config import LimitSettings
from serve.decoding import Decoding
from serve.errors import Refused, as_refused
from serve.line_cuts import LineCut
from serve.payloads import decoded

_MOST_PIXELS = 4  # of all lines of a request, in `max_pixels`


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


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a correction: a hash of its pixels, and its image as PNG."""

    index: int  # of the correction
    name: str
    png: bytes


def lines_of(
    asked: CorrectionsRequest, limits: LimitSettings, decoding: Decoding, deadline: float
) -> Iterator[Line]:
    """Yield each correction's line, by document and page.

    Raises Refused for what is no line, or too much; TimeoutError after the deadline, which is of
    `time.monotonic`.
    """
    pages, pixels = limits.max_pages, _MOST_PIXELS * limits.max_pixels
    for name, cuts in _by_image(asked).items():
        data = decoded(asked.images[name])
        given = (cuts, limits.images, pages, pixels, f"images.{name[:80]}")
        try:
            with decoding.lines(data, *given) as pngs:
                for png in pngs:
                    if time.monotonic() > deadline:
                        raise TimeoutError
                    yield Line(pngs.about["index"], pngs.about["name"], png.tobytes())
        except ImageRefused as problem:
            raise as_refused(problem) from None
        pages -= pngs.about["pages"] if pngs.about["pages"] > 1 else 0
        pixels = pngs.about["pixels"]


def _by_image(asked: CorrectionsRequest) -> dict[str, list[LineCut]]:
    found = defaultdict[str, list[LineCut]](list)
    for index, one in enumerate(asked.corrections):
        if one.image not in asked.images:
            known = ", ".join(asked.images)[:200]
            message = f"corrections[{index}].image: expected one of {known}, got {one.image[:80]!r}"
            raise Refused(422, "unknown_image", message)
        found[one.image].append(LineCut(index, one.page, one.polygon, one.degrees))
    return found

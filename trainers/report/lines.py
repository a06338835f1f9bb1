"""One validation sample with its reading, and its form on the page."""

import base64
import re
from dataclasses import dataclass
from typing import Literal

from ocr.images import ImageRefused, encode_image, open_image, scale_to_height
from ocr.scoring import score
from trainers.report import formats
from trainers.report.differences import Piece, mark
from trainers.report.records import finite

_MAX_IMAGE_BYTES = 400_000
_MAX_WIDTH_PX, _MAX_HEIGHT_PX = 1600, 1000
_SHOWN_BY_BROWSERS = {
    "png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "jpeg": re.compile(rb"\xff\xd8\xff"),
    "webp": re.compile(rb"RIFF....WEBP", re.DOTALL),
    "gif": re.compile(rb"GIF8"),
}


@dataclass(frozen=True, slots=True)
class ReportLine:
    """One validation sample with its reading; `image`: an encoded file, `confidence`: in [0, 1]."""

    id: str
    image: bytes
    reference: str
    reading: str
    confidence: float
    group: Literal["worst", "random"]


@dataclass(frozen=True, slots=True)
class MarkedLine:
    """A ReportLine as the page shows it.

    `source` is a data URI, or empty with the reason in `refused`; `share`: confidence in per cent.
    """

    id: str
    source: str
    refused: str
    reference: tuple[Piece, ...]
    reading: tuple[Piece, ...]
    cer: str
    exact: bool
    confidence: str
    share: float | None


def mark_line(line: ReportLine) -> MarkedLine:
    """Return the line with its differences marked and its image inside the page."""
    source, refused = _image_source(line)
    counts = score(line.reference, line.reading)
    reference, reading = mark(line.reference, line.reading)
    known = finite(line.confidence)
    share = round(100 * min(1.0, max(0.0, line.confidence)), 1) if known else None
    confidence = f"{line.confidence:.2f}" if known else formats.MISSING
    return MarkedLine(
        line.id,
        source,
        refused,
        reference,
        reading,
        formats.percent(counts.cer),
        bool(counts.exact),
        confidence,
        share,
    )


def _image_source(line: ReportLine) -> tuple[str, str]:
    """Return (data URI, "") or ("", the reason why not).

    Images that browsers do not show, or that are too large for a page, are encoded anew.
    """
    kind = next(
        (kind for kind, magic in _SHOWN_BY_BROWSERS.items() if magic.match(line.image)), None
    )
    encoded = line.image
    if kind is None or len(encoded) > _MAX_IMAGE_BYTES:
        try:
            pixels = open_image(line.image, "RGB", where=line.id)
        except ImageRefused as problem:
            # the detail may hold a memory address, which makes every page different
            return "", problem.reason
        height, width = pixels.shape[:2]
        shrink = min(1.0, _MAX_WIDTH_PX / width, _MAX_HEIGHT_PX / height)
        small = scale_to_height(pixels, max(1, round(height * shrink)))
        kind, encoded = "webp", encode_image(small, "WEBP")
    return f"data:image/{kind};base64,{base64.b64encode(encoded).decode()}", ""

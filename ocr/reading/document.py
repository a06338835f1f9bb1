"""A file → its pages, their lines and texts: opened within limits, cut, read."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ocr.documents import dpi_of, is_pdf, open_pages, page_count
from ocr.images import ImageRefused, Pixels, Polygon, image_size
from ocr.limits import ImageLimits
from ocr.reading.config import DETECTOR, LEVEL, ReadConfig
from ocr.reading.page import TextLine, TextPage, rectangle, words_on_page
from ocr.recognizers.recognizer import Recognizer
from ocr.recognizers.words import Span
from ocr.sample import Reading

if TYPE_CHECKING:
    from ocr.pages import PageLine

# of files of one's own: an A3 page at 600 dpi has 70 megapixels
LIMITS = ImageLimits(max_pixels=300_000_000, max_side_px=60_000)
MAX_PAGES = 100_000
_MAX_LINES = 10_000
LINE_ASPECT = 2.5  # an image that is wider for its height is one line
LEAST_PAGE_PX = 200  # an image that is lower is one line
_Read = tuple[Reading, tuple[Span, ...]]


def level_of(data: bytes, wanted: LEVEL, where: str) -> LEVEL:
    """Return `line` or `page`: what is wanted, else by the kind and the shape of a file.

    ImageRefused for a file that is no image and no PDF.
    """
    if wanted != "auto":
        return wanted
    if is_pdf(data) or page_count(data, where) > 1:
        return "page"
    width, height = image_size(data, LIMITS, where)
    return "line" if is_line(width, height) else "page"


def is_line(width: int, height: int) -> bool:
    """Return whether an image of this size, in pixels, is taken for one line."""
    return height < LEAST_PAGE_PX or width >= LINE_ASPECT * height


def read_pages(
    recognizer: Recognizer, data: bytes, config: ReadConfig, where: str, with_words: bool
) -> Iterator[tuple[TextPage, Pixels]]:
    """Yield each page that the config takes, read, with its pixels in the recogniser's mode.

    ImageRefused names what cannot be opened, and pages that the document does not have.
    """
    count = page_count(data, where)
    numbers = [n for n in range(1, count + 1) if config.takes(n)]
    if not numbers:
        raise ImageRefused(
            where, "no such page", f"it has {count}, and none of pages={config.pages}"
        )
    dpi = None if is_pdf(data) else dpi_of(data)
    pages = open_pages(data, recognizer.image_mode, LIMITS, MAX_PAGES, where, config.takes)
    for number, pixels in zip(numbers, pages, strict=True):
        found, read = _lines_of(recognizer, pixels, config.detector, with_words)
        height, width = pixels.shape[:2]
        lines = [
            part for line, one in zip(found, read, strict=True) for part in text_lines(line, *one)
        ]
        yield TextPage(width, height, tuple(lines), number, dpi), pixels


def _lines_of(
    recognizer: Recognizer, page: Pixels, detector: DETECTOR, with_words: bool
) -> tuple[list["PageLine"], list[_Read]]:
    """Return the lines of a page and what was read there, also where it lies upside down."""
    # OpenCV; lines need the core dependencies alone
    from ocr.pages import cut_lines, lines_for, upright

    found = lines_for(recognizer, page, _MAX_LINES, detector)
    read = _read(recognizer, cut_lines(page, found), with_words)
    readings = [reading for reading, _ in read]
    if recognizer.reads_pages or not (few := upright.doubtful(found, readings)):
        return found, read
    halves = [upright.by_half(found[index]) for index in few]
    turned = [reading for reading, _ in _read(recognizer, cut_lines(page, halves), False)]
    if not upright.is_upside_down([readings[index] for index in few], turned):
        return found, read
    found = lines_for(recognizer, page, _MAX_LINES, detector, upside_down=True)
    return found, _read(recognizer, cut_lines(page, found), with_words)


def read_lines(
    recognizer: Recognizer, images: Sequence[Pixels], with_words: bool
) -> list[TextPage]:
    """Return images of one line each as pages with that line."""
    pages = []
    for image, (reading, spans) in zip(images, _read(recognizer, images, with_words), strict=True):
        height, width = image.shape[:2]
        line = _line(rectangle(width, height), 0.0, reading, spans)
        pages.append(TextPage(width, height, (line,)))
    return pages


def _read(recognizer: Recognizer, images: Sequence[Pixels], with_words: bool) -> list[_Read]:
    if with_words:
        return recognizer.read_words(images)
    return [(reading, ()) for reading in recognizer.read(images)] if images else []


def text_lines(line: "PageLine", reading: Reading, spans: tuple[Span, ...]) -> Iterator[TextLine]:
    """Yield a line; of a recogniser of pages, the lines of its text, as strips of equal height."""
    texts = reading.text.splitlines()
    if len(texts) < 2:
        yield _line(line.polygon, line.degrees, reading, spans)
        return
    (left, top), (right, bottom) = line.polygon.min(axis=0), line.polygon.max(axis=0)
    edges = np.linspace(top, bottom, len(texts) + 1)
    for text, upper, lower in zip(texts, edges, edges[1:], strict=False):
        yield TextLine(
            text, reading.confidence, rectangle(right - left, lower - upper, left, upper)
        )


def _line(polygon: Polygon, degrees: float, reading: Reading, spans: tuple[Span, ...]) -> TextLine:
    words = words_on_page(polygon, spans)
    return TextLine(reading.text, reading.confidence, polygon, degrees, words)

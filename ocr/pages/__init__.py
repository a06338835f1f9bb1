"""A page → its text lines in reading order, so that a recogniser of lines can read pages."""

from collections.abc import Sequence

import numpy as np

from ocr.errors import ImageRefused, UserError
from ocr.images import cut
from ocr.pages.classical import classical_lines
from ocr.pages.detected import detected_lines
from ocr.pages.detector import MODEL, is_there
from ocr.pages.line import PageLine as PageLine
from ocr.pages.line import page_direction as page_direction
from ocr.pages.line import turned_back
from ocr.pixels import Pixels
from ocr.reading.config import DETECTOR
from ocr.reading.page import rectangle
from ocr.recognizers.recognizer import Recognizer


def find_lines(page: Pixels, max_lines: int = 1000, detector: DETECTOR = "auto") -> list[PageLine]:
    """Return the lines of a page in reading order, columns left to right.

    The page is uint8, [H, W] or [H, W, 3]. An empty page has no lines. `auto` is the detector that
    ships (`ocr/pages/detector.py`) where it can run, else classical segmentation. ImageRefused with
    more than `max_lines`.
    """
    require(detector)
    if detector != "classical" and is_there():
        lines = detected_lines(page)
    else:
        lines = classical_lines(page)
    if len(lines) > max_lines:
        raise ImageRefused(
            "page",
            "too many lines",
            f"expected at most {max_lines} lines, got {len(lines)}; crop the page",
        )
    return lines


def require(detector: DETECTOR) -> None:
    """Raise UserError where the detector was asked for and cannot run."""
    if detector == "detector" and not is_there():
        advice = "install the package whole, or set detector=classical"
        raise UserError(f"{MODEL}: the detector of lines is not installed; {advice}")


def cut_lines(page: Pixels, lines: Sequence[PageLine]) -> list[Pixels]:
    """Return each line's pixels, upright."""
    return [cut(page, line.polygon, line.degrees) for line in lines]


def lines_for(
    recognizer: Recognizer,
    page: Pixels,
    max_lines: int = 1000,
    detector: DETECTOR = "auto",
    upside_down: bool = False,
) -> list[PageLine]:
    """Return the lines that a recogniser reads; the whole page where it reads pages.

    `upside_down`: they are found, and read, on the page turned by half.
    """
    height, width = page.shape[:2]
    if recognizer.reads_pages:
        return [PageLine(rectangle(width, height), 0.0)]
    if not upside_down:
        return find_lines(page, max_lines, detector)
    turned = np.ascontiguousarray(np.rot90(page, 2))
    return turned_back(find_lines(turned, max_lines, detector), 2, (height, width))

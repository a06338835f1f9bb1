"""A document as hOCR 1.2, one file with all pages: https://kba.github.io/hocr-spec/1.2/."""

from collections.abc import Mapping
from xml.etree.ElementTree import Element

import numpy as np

from ocr.images import Polygon, box_of
from ocr.reading.page import Document, TextLine, TextPage
from ocr.version import VERSION
from ocr.writers.xml import as_file, child

_CAPABILITIES = "ocr_page ocr_carea ocr_par ocr_line ocrx_word"
_DOCTYPE = (
    '<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN" '
    '"http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">\n'
)


def as_hocr(document: Document, images: Mapping[int, str]) -> bytes:
    """Return the document; `images` are the paths of the pages' images, by page number."""
    root = Element("html", {"xmlns": "http://www.w3.org/1999/xhtml"})
    head = child(root, "head")
    child(head, "title", document.source)
    child(head, "meta", **{"http-equiv": "Content-Type", "content": "text/html; charset=utf-8"})
    child(head, "meta", name="ocr-system", content=f"Lipi {VERSION}")
    child(head, "meta", name="ocr-capabilities", content=_CAPABILITIES)
    body = child(root, "body")
    for page in document.pages:
        _page(body, page, images.get(page.number, document.source))
    return as_file(root, _DOCTYPE)


def _page(body: Element, page: TextPage, image: str) -> None:
    name = image.replace("\\", "\\\\").replace('"', '\\"')
    about = f'image "{name}"; bbox 0 0 {page.width} {page.height}; ppageno {page.number - 1}'
    if page.dpi:
        about += f"; scan_res {page.dpi:.0f} {page.dpi:.0f}"
    id = f"page_{page.number}"
    element = child(body, "div", **{"class": "ocr_page", "id": id, "title": about})
    lines = page.lines_with_text
    if not lines:
        return
    around = _bbox(np.concatenate([line.polygon for line in lines]))
    area = child(element, "div", **{"class": "ocr_carea", "id": f"{id}_block_1", "title": around})
    paragraph = child(area, "p", **{"class": "ocr_par", "id": f"{id}_par_1", "title": around})
    for number, line in enumerate(lines, start=1):
        _line(paragraph, line, f"{id}_line_{number}")


def _line(paragraph: Element, line: TextLine, id: str) -> None:
    about = f"{_bbox(line.polygon)}; baseline {_slope(line.polygon)}"
    element = child(paragraph, "span", **{"class": "ocr_line", "id": id, "title": about})
    for number, word in enumerate(line.words, start=1):
        sure = f"{_bbox(word.polygon)}; x_wconf {100 * word.confidence:.0f}"
        inside = child(
            element,
            "span",
            word.text,
            **{"class": "ocrx_word", "id": f"{id}_word_{number}", "title": sure},
        )
        inside.tail = " "


def _bbox(polygon: Polygon) -> str:
    left, top, width, height = box_of(polygon)
    return f"bbox {left} {top} {left + width} {top + height}"


def _slope(polygon: Polygon) -> str:
    """Return slope and offset of the baseline from the box's lower left, as hOCR counts them.

    A fifth of the line's height is taken to be below the baseline.
    """
    top_left, _, bottom_right, bottom_left = polygon
    run = float(bottom_right[0] - bottom_left[0])
    slope = float(bottom_right[1] - bottom_left[1]) / run if run else 0.0
    _, top, _, height = box_of(polygon)
    offset = float(bottom_left[1]) - 0.2 * float(bottom_left[1] - top_left[1]) - (top + height)
    return f"{slope:.3f} {offset:.0f}"

"""A page as PAGE-XML 2019, one file each: https://github.com/PRImA-Research-Lab/PAGE-XML."""

from collections.abc import Sequence
from datetime import UTC, datetime
from xml.etree.ElementTree import Element

import numpy as np

from ocr.images import Polygon
from ocr.reading.page import TextLine, TextPage
from ocr.version import VERSION
from ocr.writers.xml import as_file, child, points

_NAMESPACE = "http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15"


def as_page_xml(page: TextPage, image: str) -> bytes:
    """Return the page's XML; `image` is the path of its image from the file's folder."""
    instance = "http://www.w3.org/2001/XMLSchema-instance"
    schema = f"{_NAMESPACE} {_NAMESPACE}/pagecontent.xsd"
    root = Element(
        "PcGts",
        {"xmlns": _NAMESPACE, "xmlns:xsi": instance, "xsi:schemaLocation": schema},
    )
    about = child(root, "Metadata")
    child(about, "Creator", f"Lipi {VERSION}")
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    child(about, "Created", now)
    child(about, "LastChange", now)
    size = (page.width, page.height)
    element = child(
        root, "Page", imageFilename=image, imageWidth=page.width, imageHeight=page.height
    )
    if lines := page.lines_with_text:
        order = child(child(element, "ReadingOrder"), "OrderedGroup", id="order")
        child(order, "RegionRefIndexed", index=0, regionRef="region_1")
        region = child(element, "TextRegion", id="region_1")
        child(region, "Coords", points=points(_around(lines), size))
        for number, line in enumerate(lines, start=1):
            _line(region, line, f"line_{number}", size)
        _text(region, page.text)
    return as_file(root)


def _line(region: Element, line: TextLine, id: str, size: tuple[int, int]) -> None:
    element = child(region, "TextLine", id=id)
    child(element, "Coords", points=points(line.polygon, size))
    child(element, "Baseline", points=points(_baseline(line.polygon), size))
    for number, word in enumerate(line.words, start=1):
        inside = child(element, "Word", id=f"{id}_word_{number}")
        child(inside, "Coords", points=points(word.polygon, size))
        _text(inside, word.text, word.confidence)
    _text(element, line.text, line.confidence)


def _text(parent: Element, text: str, confidence: float | None = None) -> None:
    sure = None if confidence is None else f"{min(1.0, max(0.0, confidence)):.4f}"
    child(child(parent, "TextEquiv", conf=sure), "Unicode", text)


def _baseline(polygon: Polygon) -> Polygon:
    """Return the lower edge, a fifth of the height up: descenders hang below a baseline."""
    top_left, top_right, bottom_right, bottom_left = polygon
    return np.array(
        [
            bottom_left + 0.2 * (top_left - bottom_left),
            bottom_right + 0.2 * (top_right - bottom_right),
        ]
    )


def _around(lines: Sequence[TextLine]) -> Polygon:
    all_points = np.concatenate([line.polygon for line in lines])
    (left, top), (right, bottom) = all_points.min(axis=0), all_points.max(axis=0)
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])

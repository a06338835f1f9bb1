"""A page as ALTO 4.4, one file each: https://www.loc.gov/standards/alto/."""

from collections.abc import Sequence
from xml.etree.ElementTree import Element

import numpy as np

from ocr.images import Polygon, box_of
from ocr.reading.page import TextLine, TextPage
from ocr.version import VERSION
from ocr.writers.xml import as_file, child, points

_NAMESPACE = "http://www.loc.gov/standards/alto/ns-v4#"
_SCHEMA = "http://www.loc.gov/standards/alto/v4/alto-4-4.xsd"


def as_alto(page: TextPage, image: str) -> bytes:
    """Return the page's XML; `image` is the path of its image from the file's folder."""
    instance = "http://www.w3.org/2001/XMLSchema-instance"
    root = Element(
        "alto",
        {
            "xmlns": _NAMESPACE,
            "xmlns:xsi": instance,
            "xsi:schemaLocation": f"{_NAMESPACE} {_SCHEMA}",
        },
    )
    _describe(child(root, "Description"), image)
    layout = child(
        child(root, "Layout"),
        "Page",
        WIDTH=page.width,
        HEIGHT=page.height,
        PHYSICAL_IMG_NR=page.number,
        ID=f"page_{page.number}",
    )
    space = child(layout, "PrintSpace", HPOS=0, VPOS=0, WIDTH=page.width, HEIGHT=page.height)
    if lines := page.lines_with_text:
        block = child(space, "TextBlock", ID="block_1", **_around(lines))
        for number, line in enumerate(lines, start=1):
            _line(block, line, f"line_{number}", (page.width, page.height))
    return as_file(root)


def _describe(description: Element, image: str) -> None:
    child(description, "MeasurementUnit", "pixel")
    child(child(description, "sourceImageInformation"), "fileName", image)
    processing = child(description, "Processing", ID="lipi")
    software = child(processing, "processingSoftware")
    child(software, "softwareName", "Lipi")
    child(software, "softwareVersion", VERSION)


def _line(block: Element, line: TextLine, id: str, size: tuple[int, int]) -> None:
    element = child(block, "TextLine", ID=id, **_box(box_of(line.polygon)))
    child(child(element, "Shape"), "Polygon", POINTS=points(line.polygon, size))
    for number, word in enumerate(line.words, start=1):
        if number > 1:
            _space(element, line.words[number - 2].polygon, word.polygon)
        child(
            element,
            "String",
            ID=f"{id}_word_{number}",
            CONTENT=word.text,
            **_box(box_of(word.polygon)),
            WC=f"{min(1.0, max(0.0, word.confidence)):.4f}",
        )


def _space(element: Element, before: Polygon, after: Polygon) -> None:
    left, top, width, _ = box_of(before)
    right = box_of(after)[0]
    child(element, "SP", HPOS=left + width, VPOS=top, WIDTH=max(0, right - left - width))


def _box(box: tuple[int, int, int, int]) -> dict[str, int]:
    return dict(zip(("HPOS", "VPOS", "WIDTH", "HEIGHT"), box, strict=True))


def _around(lines: Sequence[TextLine]) -> dict[str, int]:
    return _box(box_of(np.concatenate([line.polygon for line in lines])))

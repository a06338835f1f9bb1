"""ALTO (Library of Congress, versions 1 to 4) → pages; https://www.loc.gov/standards/alto/."""

from collections.abc import Iterator
from xml.etree.ElementTree import Element

import numpy as np

from ocr.images import Polygon
from ocr.sample import Sample, Skip
from ocr.sources.layout import (
    NotThisFormat,
    Page,
    Piece,
    direction_of,
    name_of,
    plan_layout,
    points_of,
    read_layout,
)
from ocr.sources.settings import AltoSettings
from ocr.sources.unit import Unit

_SOFT_HYPHEN = "\u00ad"


def plan(settings: AltoSettings) -> list[Unit]:
    """Plan one unit for each XML file."""
    return plan_layout(settings)


def read(settings: AltoSettings, unit: Unit) -> Iterator[Sample | Skip]:
    """Yield the pieces of one page."""
    return read_layout(settings, unit, parse)


def parse(root: Element) -> Page:
    """Return an alto element as a Page.

    NotThisFormat for any other element or for several pages in one file, ValueError for attributes
    that are no numbers. Coordinates in any unit (pixel, mm10, inch1200) mean shares of the page's
    WIDTH and HEIGHT, which are in the same unit.
    """
    if name_of(root) != "alto":
        raise NotThisFormat(
            f"the root element is {name_of(root)}"
            + ("; use format: page" if name_of(root) == "PcGts" else "")
        )
    pages = [element for element in root.iter() if name_of(element) == "Page"]
    if len(pages) != 1:
        raise NotThisFormat(f"{len(pages)} Page elements; one file describes one page")
    unit = next(
        (element.text for element in root.iter() if name_of(element) == "MeasurementUnit"), "pixel"
    )
    width, height = (_number(pages[0], key) or 0.0 for key in ("WIDTH", "HEIGHT"))
    if (unit or "").strip() != "pixel" and not (width and height):
        raise NotThisFormat(
            f"measured in {unit}, but the page has no WIDTH and HEIGHT to scale it by"
        )
    image = next((element.text for element in root.iter() if name_of(element) == "fileName"), None)
    regions = list(_regions(pages[0]))
    order = {reference: position for position, reference in enumerate(_reading_order(root))}
    regions.sort(key=lambda region: order.get(region.id, len(order)))
    return Page((image or "").strip(), width, height, tuple(regions))


def _regions(parent: Element, degrees: float = 0.0) -> Iterator[Piece]:
    """Yield text blocks in document order, through margins, print space and composed blocks."""
    for number, element in enumerate(parent):
        turned = _rotation(element, degrees)
        if name_of(element) == "TextBlock":
            yield _region(element, element.get("ID", f"block{number}"), turned)
        elif name_of(element) in (
            "TopMargin",
            "LeftMargin",
            "RightMargin",
            "BottomMargin",
            "PrintSpace",
            "ComposedBlock",
        ):
            yield from _regions(element, turned)


def _rotation(element: Element, otherwise: float) -> float:
    """Return the clockwise rotation of a block; ROTATION runs counter-clockwise."""
    turned = _number(element, "ROTATION")
    return otherwise if turned is None else -turned


def _region(element: Element, id: str, degrees: float) -> Piece:
    lines = [child for child in element if name_of(child) == "TextLine"]
    pieces = tuple(
        _line(line, line.get("ID", f"{id}.line{number}"), degrees)
        for number, line in enumerate(lines)
    )
    return Piece(
        id,
        _polygon(element) if _polygon(element) is not None else _around(pieces),
        None,
        None,
        degrees,
        pieces,
    )


def _line(element: Element, id: str, degrees: float) -> Piece:
    strings = [child for child in element if name_of(child) == "String"]
    words = tuple(
        _word(string, string.get("ID", f"{id}.word{number}"), degrees)
        for number, string in enumerate(strings)
    )
    sure = [word.confidence for word in words if word.confidence is not None]
    polygon = _polygon(element)
    direction = direction_of(points_of(element.get("BASELINE")), degrees)
    return Piece(
        id,
        _around(words) if polygon is None else polygon,
        _line_text(element),
        float(np.mean(sure)) if sure else None,
        direction,
        words,
    )


def _line_text(element: Element) -> str | None:
    """Return the CONTENT of the strings, with spaces where SP has them, and the final hyphen.

    Without any SP there is a space between all strings.
    """
    children = [child for child in element if name_of(child) in ("String", "SP", "HYP")]
    spaced = any(name_of(child) == "SP" for child in children)
    text = ""
    for child in children:
        if name_of(child) == "SP":
            text += " "
        elif name_of(child) == "HYP":
            text += child.get("CONTENT", "-").replace(_SOFT_HYPHEN, "-") or "-"
        else:
            text += ("" if spaced or not text else " ") + child.get("CONTENT", "")
    return text if children else None


def _word(element: Element, id: str, degrees: float) -> Piece:
    return Piece(id, _polygon(element), element.get("CONTENT"), _number(element, "WC"), degrees)


def _polygon(element: Element) -> Polygon | None:
    """Return the Shape's polygon where there is one, else the box."""
    shape = next(
        (
            inner
            for child in element
            if name_of(child) == "Shape"
            for inner in child
            if name_of(inner) == "Polygon"
        ),
        None,
    )
    points = points_of(shape.get("POINTS")) if shape is not None else None
    if points is not None:
        return points
    left, top, width, height = (
        _number(element, key) for key in ("HPOS", "VPOS", "WIDTH", "HEIGHT")
    )
    if left is None or top is None or width is None or height is None:
        return None
    return np.array(
        [(left, top), (left + width, top), (left + width, top + height), (left, top + height)]
    )


def _around(pieces: tuple[Piece, ...]) -> Polygon | None:
    """Return the box around smaller pieces, for a line or block that has none of its own."""
    points = [piece.polygon for piece in pieces if piece.polygon is not None]
    if not points:
        return None
    (left, top), (right, bottom) = (
        np.concatenate(points).min(axis=0),
        np.concatenate(points).max(axis=0),
    )
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def _reading_order(root: Element) -> Iterator[str]:
    """Yield the block ids of the ReadingOrder (ALTO 4.3 and later), in its order."""
    for order in (element for element in root if name_of(element) == "ReadingOrder"):
        yield from (reference for element in order.iter() if (reference := element.get("REF")))


def _number(element: Element, key: str) -> float | None:
    value = element.get(key)
    return float(value) if value else None

"""ALTO (Library of Congress, versions 1 to 4) → pages; https://www.loc.gov/standards/alto/."""

from collections.abc import Iterator
from dataclasses import replace
from xml.etree.ElementTree import Element

import numpy as np

from ocr.images import Polygon
from ocr.sample import Sample, Skip
from ocr.sources.layout import (
    NotThisFormat,
    Page,
    Piece,
    Unusable,
    direction_of,
    hidden_lines,
    made,
    name_of,
    number,
    points_of,
)
from ocr.sources.layout_reading import plan_layout, read_layout
from ocr.sources.settings import AltoSettings
from ocr.sources.unit import Unit

_SOFT_HYPHEN = "\u00ad"


def plan(settings: AltoSettings) -> list[Unit]:
    """Plan one unit for each XML file."""
    return plan_layout(settings)


def read(settings: AltoSettings, unit: Unit) -> Iterator[Sample | Skip]:
    """Yield the pieces of one page."""
    return read_layout(settings, unit, parse)


def parse(root: Element) -> list[Page]:
    """Return the pages of an alto element.

    NotThisFormat for any other element, Unusable for pages without a size or images of their own.
    Coordinates in any unit (pixel, mm10, inch1200) mean shares of the page's WIDTH and HEIGHT,
    which are in the same unit.
    """
    if name_of(root) != "alto":
        raise NotThisFormat(
            f"the root element is {name_of(root)}"
            + ("; use format: page" if name_of(root) == "PcGts" else "")
        )
    pages = [element for element in root.iter() if name_of(element) == "Page"]
    if not pages:
        raise Unusable("XML without a page", "alto has no Page")
    names = [(file.text or "").strip() for file in root.iter() if name_of(file) == "fileName"]
    if len(pages) > 1 and len(names) != len(pages):
        raise Unusable(
            "several pages in one file",
            f"{len(pages)} pages and {len(names)} fileName; split it, or name an image for each",
        )
    order = {reference: position for position, reference in enumerate(_reading_order(root))}
    images = names[:1] or [""] if len(pages) == 1 else names
    first, *others = (
        _page(root, page, image, order, f"page{position}" if len(pages) > 1 else "")
        for position, (page, image) in enumerate(zip(pages, images, strict=True), start=1)
    )
    hidden = hidden_lines(root, pages, ("TextLine", "String"))
    return [replace(first, regions=first.regions + hidden), *others]


def _page(root: Element, page: Element, image: str, order: dict[str, int], id: str) -> Page:
    unit = next(
        (element.text for element in root.iter() if name_of(element) == "MeasurementUnit"), "pixel"
    )
    width, height = (number(page, key) or 0.0 for key in ("WIDTH", "HEIGHT"))
    if (unit or "").strip() != "pixel" and not (width and height):
        raise Unusable(
            "page without a size",
            f"measured in {unit}, but the page has no WIDTH and HEIGHT to scale it by",
        )
    regions = list(_regions(page))
    regions.sort(key=lambda region: order.get(region.id, len(order)))
    return Page(image, width, height, tuple(regions), id)


def _regions(
    parent: Element,
    degrees: float = 0.0,
    problem: tuple[str, str] | None = None,
    id: str = "lines",
) -> Iterator[Piece]:
    """Yield text blocks in document order, wherever they stand, and what stands outside of them."""
    lines = [element for element in parent if name_of(element) == "TextLine"]
    strings = [element for element in parent if name_of(element) == "String"]
    if lines or strings or name_of(parent) == "TextBlock":
        yield _region(parent, parent.get("ID", id), (lines, strings), degrees, problem)
    for position, element in enumerate(parent):
        if name_of(element) not in ("TextLine", "String"):
            turned, odd = _rotation(element, degrees)
            inner = parent.get("ID", "" if id == "lines" else id)
            name = f"{inner}.{name_of(element).lower()}{position}".lstrip(".")
            yield from _regions(element, turned, problem or odd, name)


def _rotation(element: Element, otherwise: float) -> tuple[float, tuple[str, str] | None]:
    """Return the clockwise rotation of a block, and the problem of one that is no number.

    ROTATION runs counter-clockwise.
    """
    try:
        turned = number(element, "ROTATION")
    except Unusable as problem:
        return 0.0, (problem.reason, problem.detail)
    return (otherwise if turned is None else -turned), None


def _region(
    element: Element,
    id: str,
    inside: tuple[list[Element], list[Element]],
    degrees: float,
    problem: tuple[str, str] | None,
) -> Piece:
    lines, strings = inside
    pieces = tuple(
        made(_line, line, line.get("ID", f"{id}.line{position}"), degrees)
        for position, line in enumerate(lines)
    )
    if strings:
        detail = f"{len(strings)} String elements right in a {name_of(element)}"
        pieces += (Piece(f"{id}.words", None, problem=("words outside a line", detail)),)
    if problem:
        pieces = tuple(replace(piece, text=None, problem=problem) for piece in pieces)

    def whole(element: Element, id: str) -> Piece:
        own = _polygon(element) if name_of(element) == "TextBlock" else None
        polygon = _around(pieces) if own is None else own
        return Piece(id, polygon, None, None, degrees, pieces, problem)

    region = made(whole, element, id)
    return region if region.pieces else replace(region, pieces=pieces)


def _line(element: Element, id: str, degrees: float) -> Piece:
    strings = [child for child in element if name_of(child) == "String"]
    words = tuple(
        made(_word, string, string.get("ID", f"{id}.word{position}"), degrees)
        for position, string in enumerate(strings)
    )
    sure = [word.confidence for word in words if word.confidence is not None]
    polygon = _polygon(element)
    direction = direction_of(points_of(element.get("BASELINE")), degrees)
    problems = [word.problem for word in words if word.problem] if polygon is None else []
    return Piece(
        id,
        _around(words) if polygon is None else polygon,
        None if problems else _line_text(element),
        sum(sure) / len(sure) if sure else None,
        direction,
        words,
        problems[0] if problems else None,
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
    return Piece(id, _polygon(element), element.get("CONTENT"), number(element, "WC"), degrees)


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
    left, top, width, height = (number(element, key) for key in ("HPOS", "VPOS", "WIDTH", "HEIGHT"))
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

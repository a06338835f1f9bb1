"""PAGE-XML (PRImA, 2010 to 2019) → pages; https://github.com/PRImA-Research-Lab/PAGE-XML."""

import re
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
from ocr.sources.settings import PageSettings
from ocr.sources.unit import Unit

_CUSTOM_ORDER = re.compile(r"readingOrder\s*\{\s*index\s*:\s*(\d+)")


def plan(settings: PageSettings) -> list[Unit]:
    """Plan one unit for each XML file."""
    return plan_layout(settings)


def read(settings: PageSettings, unit: Unit) -> Iterator[Sample | Skip]:
    """Yield the pieces of one page."""
    return read_layout(settings, unit, parse)


def parse(root: Element) -> Page:
    """Return a PcGts element as a Page.

    NotThisFormat for any other element, ValueError for attributes that are no numbers.
    """
    page = _child(root, "Page")
    if name_of(root) != "PcGts" or page is None:
        raise NotThisFormat(
            f"the root element is {name_of(root)}"
            + ("; use format: alto" if name_of(root) == "alto" else "")
        )
    regions = list(_regions(page, 0.0))
    order = {
        id: position for position, id in enumerate(_reading_order(_child(page, "ReadingOrder")))
    }
    # stable: regions without an order stay in sequence, last
    regions.sort(key=lambda region: order.get(region[0], len(order)))
    return Page(
        page.get("imageFilename", ""),
        float(page.get("imageWidth", 0)),
        float(page.get("imageHeight", 0)),
        tuple(region for _, region in regions),
    )


def _regions(parent: Element, degrees: float) -> Iterator[tuple[str, Piece]]:
    """Yield text regions in document order, each with its id in the reading order.

    A region inside another comes after it.
    """
    for number, element in enumerate(_children(parent)):
        if not name_of(element).endswith("Region"):
            continue
        id = element.get("id", f"region{number}")
        # PAGE rotates the region clockwise by it to make it upright
        turned = -float(element.get("orientation", -degrees))
        if name_of(element) == "TextRegion":
            yield id, _region(element, id, turned)
        yield from ((inner, piece) for inner, piece in _regions(element, turned))


def _region(element: Element, id: str, degrees: float) -> Piece:
    lines = [child for child in _children(element) if name_of(child) == "TextLine"]
    positions = [_CUSTOM_ORDER.search(line.get("custom", "")) for line in lines]
    if lines and all(positions):
        lines = [
            line
            for _, line in sorted(
                zip([int(position[1]) for position in positions if position], lines, strict=True),
                key=lambda pair: pair[0],
            )
        ]
    pieces = tuple(
        _line(line, line.get("id", f"{id}.line{number}"), degrees)
        for number, line in enumerate(lines)
    )
    text, confidence = _text(element)
    return Piece(id, _polygon(element), text, confidence, degrees, pieces)


def _line(element: Element, id: str, degrees: float) -> Piece:
    words = tuple(
        _word(word, word.get("id", f"{id}.word{number}"), degrees)
        for number, word in enumerate(
            child for child in _children(element) if name_of(child) == "Word"
        )
    )
    text, confidence = _text(element)
    if text is None and words and all(word.text for word in words):
        text = " ".join(word.text or "" for word in words)
    baseline = _child(element, "Baseline")
    direction = direction_of(_points(baseline), degrees) if baseline is not None else degrees
    return Piece(id, _polygon(element), text, confidence, direction, words)


def _word(element: Element, id: str, degrees: float) -> Piece:
    text, confidence = _text(element)
    if text is None:
        glyphs = [_text(child)[0] for child in _children(element) if name_of(child) == "Glyph"]
        text = "".join(glyph for glyph in glyphs if glyph) or None
    return Piece(id, _polygon(element), text, confidence, degrees)


def _text(element: Element) -> tuple[str | None, float | None]:
    """Return text and confidence of the TextEquiv with the lowest index, else of the first one."""
    equivalents = [child for child in _children(element) if name_of(child) == "TextEquiv"]
    if not equivalents:
        return None, None
    best = min(equivalents, key=lambda equivalent: int(equivalent.get("index", "0")))
    confidence, unicode = best.get("conf"), _child(best, "Unicode")
    return (unicode.text or "") if unicode is not None else "", float(
        confidence
    ) if confidence else None


def _reading_order(element: Element | None) -> Iterator[str]:
    """Yield the region ids of nested ordered and unordered groups, in their order.

    A group that stands for a region comes with it.
    """
    if element is None:
        return
    children = _children(element)
    if all(child.get("index") is not None for child in children):
        children.sort(key=lambda child: int(child.get("index", "0")))
    for child in children:
        reference = child.get("regionRef")
        if reference:
            yield reference
        yield from _reading_order(child)


def _polygon(element: Element) -> Polygon | None:
    coords = _child(element, "Coords")
    return None if coords is None else _points(coords)


def _points(element: Element) -> Polygon | None:
    """Return the points of `points="x,y …"` (2013 and later), or of Point elements (2010)."""
    if element.get("points") is not None:
        return points_of(element.get("points"))
    points = [
        (float(point.get("x", "nan")), float(point.get("y", "nan")))
        for point in _children(element)
        if name_of(point) == "Point"
    ]
    return np.array(points) if len(points) >= 2 and np.isfinite(points).all() else None


def _children(element: Element) -> list[Element]:
    return [child for child in element if isinstance(child.tag, str)]


def _child(element: Element, name: str) -> Element | None:
    return next((child for child in _children(element) if name_of(child) == name), None)

"""PAGE-XML (PRImA, 2010 to 2019) → pages; https://github.com/PRImA-Research-Lab/PAGE-XML."""

import re
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
    odd,
    points_of,
)
from ocr.sources.layout_reading import plan_layout, read_layout
from ocr.sources.settings import PageSettings
from ocr.sources.unit import Unit
from ocr.text import normalise

SEVERAL = "several texts"
_TEXT = ("TextLine", "Word", "TextEquiv")
_NO_REGIONS = ("TextLine", "Word", "TextEquiv", "ReadingOrder", "TextStyle")
_CUSTOM_ORDER = re.compile(r"readingOrder\s*\{\s*index\s*:\s*(\d+)")


def plan(settings: PageSettings) -> list[Unit]:
    """Plan one unit for each XML file."""
    return plan_layout(settings)


def read(settings: PageSettings, unit: Unit) -> Iterator[Sample | Skip]:
    """Yield the pieces of one page."""
    return read_layout(settings, unit, parse)


def parse(root: Element) -> list[Page]:
    """Return a PcGts element as its one Page.

    NotThisFormat for any other element, Unusable for a page whose size is no number.
    """
    if name_of(root) != "PcGts":
        raise NotThisFormat(
            f"the root element is {name_of(root)}"
            + ("; use format: alto" if name_of(root) == "alto" else "")
        )
    page = _child(root, "Page")
    if page is None:
        raise Unusable("XML without a page", "PcGts has no Page")
    regions = list(_regions(page, 0.0))
    order = {
        id: position for position, id in enumerate(_reading_order(_child(page, "ReadingOrder")))
    }
    # stable: regions without an order stay in sequence, last
    regions.sort(key=lambda region: order.get(region.id, len(order)))
    width, height = (number(page, key) or 0.0 for key in ("imageWidth", "imageHeight"))
    regions += hidden_lines(root, [page], _NO_REGIONS)
    return [Page(page.get("imageFilename", ""), width, height, tuple(regions))]


def _regions(parent: Element, degrees: float) -> Iterator[Piece]:
    """Yield what holds text in document order: text regions, table cells, and lines elsewhere.

    A region inside another comes after it.
    """
    for position, element in enumerate(_children(parent)):
        name = name_of(element)
        if name in _NO_REGIONS:
            continue
        id = element.get("id", f"{name.lower()}{position}")
        turned, problem = _turned(element, degrees)
        if name == "TextRegion" or any(name_of(child) in _TEXT for child in _children(element)):
            region = _region(element, id, turned)
            yield replace(region, pieces=_all_with(region.pieces, problem), problem=problem)
        yield from _regions(element, turned)
    stray = [element for element in _children(parent) if name_of(element) == "TextLine"]
    if stray and name_of(parent) == "Page":
        yield Piece("lines", None, pieces=_lines(stray, "lines", degrees))


def _turned(element: Element, degrees: float) -> tuple[float, tuple[str, str] | None]:
    """Return the direction of a region's writing, and the problem of one that is no number."""
    try:
        orientation = number(element, "orientation")
    except Unusable as problem:
        return 0.0, (problem.reason, problem.detail)
    # PAGE rotates the region clockwise by it to make it upright
    return degrees if orientation is None else -orientation, None


def _all_with(pieces: tuple[Piece, ...], problem: tuple[str, str] | None) -> tuple[Piece, ...]:
    if problem is None:
        return pieces
    return tuple(replace(piece, text=None, problem=problem) for piece in pieces)


def _region(element: Element, id: str, degrees: float) -> Piece:
    lines = [child for child in _children(element) if name_of(child) == "TextLine"]
    words = [child for child in _children(element) if name_of(child) == "Word"]
    pieces = _lines(lines, id, degrees)
    if words:
        detail = f"{len(words)} Word elements right in a {name_of(element)}"
        pieces += (Piece(f"{id}.words", None, problem=("words outside a line", detail)),)

    def whole(element: Element, id: str) -> Piece:
        text, confidence, problem = _text(element)
        problem = None if pieces else problem
        return Piece(id, _polygon(element), text, confidence, degrees, pieces, problem)

    region = made(whole, element, id)
    return region if region.pieces else replace(region, pieces=pieces)


def _lines(lines: list[Element], id: str, degrees: float) -> tuple[Piece, ...]:
    positions = [_CUSTOM_ORDER.search(line.get("custom", "")) for line in lines]
    if lines and all(positions):
        numbered = zip([int(found[1]) for found in positions if found], lines, strict=True)
        lines = [line for _, line in sorted(numbered, key=lambda pair: pair[0])]
    return tuple(
        made(_line, line, line.get("id", f"{id}.line{position}"), degrees)
        for position, line in enumerate(lines)
    )


def _line(element: Element, id: str, degrees: float) -> Piece:
    words = tuple(
        made(_word, word, word.get("id", f"{id}.word{position}"), degrees)
        for position, word in enumerate(
            child for child in _children(element) if name_of(child) == "Word"
        )
    )
    text, confidence, problem = _text(element)
    if text is None and words and problem is None:
        problem = next((word.problem for word in words if word.problem), None)
        if all(word.text for word in words):
            text = " ".join(word.text or "" for word in words)
    baseline = _child(element, "Baseline")
    direction = direction_of(_points(baseline), degrees) if baseline is not None else degrees
    return Piece(id, _polygon(element), text, confidence, direction, words, problem)


def _word(element: Element, id: str, degrees: float) -> Piece:
    text, confidence, problem = _text(element)
    if text is None:
        glyphs = [_text(child)[0] for child in _children(element) if name_of(child) == "Glyph"]
        text = "".join(glyph for glyph in glyphs if glyph) or None
    return Piece(id, _polygon(element), text, confidence, degrees, (), problem)


def _text(element: Element) -> tuple[str | None, float | None, tuple[str, str] | None]:
    """Return the text of an element, its confidence, and a problem where it is not clear.

    PAGE: of several, the TextEquiv with the lowest index is the main one. Those without an index
    come after those with one, and those without a text last. Different texts of one rank are a
    problem.
    """
    ranked = []
    for equivalent in _children(element):
        if name_of(equivalent) == "TextEquiv":
            text, index = _unicode(equivalent), _index(equivalent)
            ranked.append((not text.strip(), index is None, index or 0, text, equivalent))
    if not ranked:
        return None, None, None
    best = min(ranked, key=lambda one: one[:3])
    alike = {normalise(one[3]): one[3] for one in ranked if one[:3] == best[:3]}
    problem = None
    if len(alike) > 1:
        rank = "without an index" if best[1] else f"of the index {best[2]}"
        shown = " | ".join(text[:40] for text in alike.values())
        problem = (SEVERAL, f"{len(alike)} TextEquiv {rank}: {shown}")
    return (None if problem else best[3]), number(best[4], "conf"), problem


def _unicode(equivalent: Element) -> str:
    texts = (_child(equivalent, name) for name in ("Unicode", "PlainText"))
    return next((text.text or "" for text in texts if text is not None), "")


def _index(element: Element) -> int | None:
    value = element.get("index")
    try:
        return None if value is None else int(value)
    except ValueError:
        raise odd(element, "index") from None


def _reading_order(element: Element | None) -> Iterator[str]:
    """Yield the region ids of nested ordered and unordered groups, in their order.

    A group that stands for a region comes with it.
    """
    if element is None:
        return
    children = _children(element)
    if all(child.get("index", "").strip().isdecimal() for child in children):
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

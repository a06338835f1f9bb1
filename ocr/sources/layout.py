"""Pages of PAGE-XML and ALTO as plain values, and what their two parsers share."""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

import numpy as np

from ocr.images import Polygon

NO_TEXT = "region without text"
ODD = "odd attribute"


class NotThisFormat(ValueError):
    """An XML file that is no page description of the expected format."""


class Unusable(ValueError):
    """A page description that cannot be used; `reason` is a short countable name."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Piece:
    """A word, line or region: its polygon and text, and its smaller pieces in reading order.

    `problem` is the reason and the detail of a piece that cannot be used.
    """

    id: str
    polygon: Polygon | None
    text: str | None = None
    confidence: float | None = None
    degrees: float = 0.0  # direction of the writing, clockwise from left to right
    pieces: tuple["Piece", ...] = ()
    problem: tuple[str, str] | None = None


@dataclass(frozen=True)
class Page:
    """One page: its image as the XML names it, the size of its coordinates, its regions.

    `id` tells the pages of one file apart; it is empty where there is one.
    """

    image: str
    width: float
    height: float
    regions: tuple[Piece, ...]
    id: str = ""


Parser = Callable[[Element], list[Page]]


def number(element: Element, key: str) -> float | None:
    """Return an attribute as a finite number; None without it, Unusable where it is none."""
    value = element.get(key)
    try:
        found = float(value) if value else None
    except ValueError:
        raise odd(element, key) from None
    if found is not None and not math.isfinite(found):
        raise odd(element, key)
    return found


def odd(element: Element, key: str) -> Unusable:
    """Return the error for an attribute that cannot be read."""
    return Unusable(ODD, f"{key}={element.get(key)!r} of a {name_of(element)}")


def made(build: Callable[..., Piece], element: Element, id: str, *more: float) -> Piece:
    """Return a piece, or one without text and with the problem that an odd attribute is."""
    try:
        return build(element, id, *more)
    except Unusable as problem:
        return Piece(id, None, problem=(problem.reason, problem.detail))


def points_of(text: str | None) -> Polygon | None:
    """Return `x,y x,y …` or `x y x y …` as [N, 2]; None without at least two points."""
    try:
        numbers = [float(number) for number in (text or "").replace(",", " ").split()]
    except ValueError:
        return None
    points = np.array(numbers, dtype=np.float64)
    return (
        points.reshape(-1, 2)
        if len(points) >= 4 and len(points) % 2 == 0 and np.isfinite(points).all()
        else None
    )


def direction_of(baseline: Polygon | None, otherwise: float = 0.0) -> float:
    """Return the degrees, clockwise, from a baseline's first point to its last."""
    if baseline is None or np.allclose(baseline[0], baseline[-1]):
        return otherwise
    x, y = baseline[-1] - baseline[0]
    return float(np.rad2deg(np.arctan2(y, x)))


def hidden_lines(
    root: Element, pages: Sequence[Element], hiding: Collection[str]
) -> tuple[Piece, ...]:
    """Return a region of the TextLines that stand where a page has none; empty without any.

    These are the ones outside of the pages, and inside elements of the names in `hiding`.
    """

    def found(element: Element, hidden: bool) -> Iterator[Element]:
        for child in element:
            name = name_of(child)
            if hidden and name == "TextLine":
                yield element
            yield from found(child, name in hiding or (hidden and child not in pages))

    problems = [("line where none may stand", f"in a {name_of(at)}") for at in found(root, True)]
    pieces = tuple(
        Piece(f"hidden.line{position}", None, problem=problem)
        for position, problem in enumerate(problems)
    )
    return (Piece("hidden", None, pieces=pieces),) if pieces else ()


def name_of(element: Element) -> str:
    """Return the tag without its namespace, which differs by version."""
    return str(element.tag).rpartition("}")[2]

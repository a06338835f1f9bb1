"""What was read on a page, as plain values that every writer takes. Pixels, y downwards."""

from dataclasses import dataclass

import numpy as np

from ocr.images import Polygon
from ocr.recognizers.words import Span


@dataclass(frozen=True, slots=True)
class Word:
    """One word: its four corners, clockwise from its top left, and a confidence in [0, 1]."""

    text: str
    polygon: Polygon
    confidence: float


@dataclass(frozen=True, slots=True)
class TextLine:
    """One line of text; `degrees` is the direction of its writing, clockwise."""

    text: str
    confidence: float
    polygon: Polygon
    degrees: float = 0.0
    words: tuple[Word, ...] = ()


@dataclass(frozen=True, slots=True)
class TextPage:
    """One page, its lines in reading order. `dpi` is that of its pixels, where it is known."""

    width: int
    height: int
    lines: tuple[TextLine, ...]
    number: int = 1
    dpi: float | None = None

    @property
    def lines_with_text(self) -> tuple[TextLine, ...]:
        """The lines that writers write: some of what was found may have no text."""
        return tuple(line for line in self.lines if line.text.strip())

    @property
    def text(self) -> str:
        """The lines' texts, one below the other."""
        return "\n".join(line.text for line in self.lines_with_text)


@dataclass(frozen=True, slots=True)
class Document:
    """The pages of one file; `source` is its path or address as it was given."""

    source: str
    pages: tuple[TextPage, ...]

    @property
    def text(self) -> str:
        """The pages' texts with an empty line between."""
        return "\n\n".join(page.text for page in self.pages)


def rectangle(width: float, height: float, left: float = 0.0, top: float = 0.0) -> Polygon:
    """Return the four corners of an upright rectangle, clockwise from its top left."""
    right, bottom = left + width, top + height
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], dtype=np.float64)


def words_on_page(polygon: Polygon, spans: tuple[Span, ...]) -> tuple[Word, ...]:
    """Return the words of a line from their shares of its width.

    `polygon`: the line's four corners, clockwise from its top left.
    """
    top_left, top_right, bottom_right, bottom_left = polygon

    def corners(span: Span) -> Polygon:
        ends = np.array([span.start, span.end])[:, None]
        above = top_left + ends * (top_right - top_left)
        below = bottom_left + ends * (bottom_right - bottom_left)
        return np.array([above[0], above[1], below[1], below[0]])

    return tuple(Word(span.text, corners(span), span.confidence) for span in spans)

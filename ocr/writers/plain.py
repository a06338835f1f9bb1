"""Text, Tesseract's table of words (TSV), and JSON as the endpoint answers."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from ocr.images import Polygon, box_of
from ocr.reading.page import Document, TextLine, TextPage, Word

# Tesseract's columns: https://github.com/tesseract-ocr/tessdoc/blob/main/Command-Line-Usage.md
_COLUMNS = (
    "level",
    "page_num",
    "block_num",
    "par_num",
    "line_num",
    "word_num",
    "left",
    "top",
    "width",
    "height",
    "conf",
    "text",
)
_PAGE, _LINE, _WORD = 1, 4, 5


def as_text(document: Document) -> bytes:
    """Return the text, with a form feed between pages, as pdftotext and Tesseract have it."""
    return "\f".join(f"{page.text}\n" for page in document.pages).encode()


def as_tsv(document: Document) -> bytes:
    """Return Tesseract's table: one row a page, line and word, confidences in percent."""
    rows = ["\t".join(_COLUMNS)]
    for page in document.pages:
        rows += ["\t".join(map(str, row)) for row in _rows(page)]
    return ("\n".join(rows) + "\n").encode()


def _rows(page: TextPage) -> Iterator[tuple[Any, ...]]:
    yield _PAGE, page.number, 0, 0, 0, 0, 0, 0, page.width, page.height, -1, ""
    for number, line in enumerate(page.lines_with_text, start=1):
        yield _LINE, page.number, 1, 1, number, 0, *box_of(line.polygon), -1, ""
        for index, word in enumerate(line.words, start=1):
            confidence = f"{100 * word.confidence:.2f}"
            box = box_of(word.polygon)
            yield _WORD, page.number, 1, 1, number, index, *box, confidence, word.text


def as_json(document: Document) -> bytes:
    """Return `{source, text, pages: [{width, height, lines: [{text, confidence, …}]}]}`."""
    values = {
        "source": document.source,
        "text": document.text,
        "pages": [
            {
                "number": page.number,
                "width": page.width,
                "height": page.height,
                "dpi": page.dpi,
                "lines": [_line(line) for line in page.lines],
            }
            for page in document.pages
        ],
    }
    return (json.dumps(values, ensure_ascii=False) + "\n").encode()


def _line(line: TextLine) -> dict[str, Any]:
    return {
        "text": line.text,
        "confidence": round(line.confidence, 6),
        "box": list(box_of(line.polygon)),
        "polygon": corners_of(line.polygon),
        "degrees": round(line.degrees, 2),
        "words": words_of(line.words),
    }


def corners_of(polygon: Polygon) -> list[list[float]]:
    """Return corners as JSON has them, to a tenth of a pixel."""
    return [[round(float(x), 1), round(float(y), 1)] for x, y in polygon]


def words_of(words: Sequence[Word]) -> list[dict[str, Any]]:
    """Return words as JSON has them; a box is left, top, width and height in pixels."""
    return [
        {
            "text": word.text,
            "confidence": round(word.confidence, 6),
            "box": list(box_of(word.polygon)),
        }
        for word in words
    ]

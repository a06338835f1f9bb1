"""Tables of text in CSV, TSV and XLSX files, as rows of cells."""

import csv
import io
import re
import zipfile
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
from defusedxml import DefusedXmlException

from ocr.errors import UserError
from ocr.sources.layout import name_of
from ocr.text import decoded
from ocr.unpacking import DAMAGED

ENDINGS = (".csv", ".tsv", ".xlsx")
_MAX_PART_BYTES, _MAX_CELLS = 512_000_000, 20_000_000
_DELIMITERS = (",", ";", "\t", "|")
_CELL = re.compile(r"([A-Z]+)\d+")


def rows_of(path: Path) -> list[list[str]]:
    """Return the rows of a table, each cell as its text stands; UserError where it cannot be read.

    Of a workbook that is the first sheet.
    """
    try:
        if path.suffix.lower() == ".xlsx":
            return _of_workbook(path)
        text = decoded(path.read_bytes())
    except OSError as problem:
        why = problem.strerror or problem
        raise UserError(f"{path}: {why}; `path` names a table") from None
    except UnicodeDecodeError as problem:
        raise UserError(f"{path}: not UTF-8 or UTF-16: {problem}; save it as UTF-8") from None
    except (*DAMAGED, LookupError, ParseError, DefusedXmlException) as problem:
        why = str(problem) or type(problem).__name__
        raise UserError(f"{path}: not a readable workbook: {why}; save it as CSV") from None
    lines = text.splitlines()
    if path.suffix.lower() == ".tsv":
        return [[_unquoted(cell) for cell in line.split("\t")] for line in lines if line.strip()]
    return _of_csv(path, text, lines[0] if lines else "")


def _of_csv(path: Path, text: str, header: str) -> list[list[str]]:
    delimiter = max(_DELIMITERS, key=lambda mark: (header.count(mark), -_DELIMITERS.index(mark)))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        return [row for row in reader if any(row)]
    except csv.Error as problem:
        raise UserError(
            f"{path}:{reader.line_num}: not valid CSV: {problem}; a quotation mark in a quoted "
            "cell is written twice"
        ) from None


def _unquoted(cell: str) -> str:
    """Return a cell of a TSV file without the quotation marks that Excel puts around some."""
    inner = cell[1:-1]
    is_quoted = len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if is_quoted else cell


def _of_workbook(path: Path) -> list[list[str]]:
    """Return the rows of the first sheet (ECMA-376, SpreadsheetML)."""
    with zipfile.ZipFile(path) as book:
        strings = (
            [_text(item) for item in _part(book, "xl/sharedStrings.xml")]
            if "xl/sharedStrings.xml" in book.namelist()
            else []
        )
        sheet = _part(book, _first_sheet(book))
    rows, cells = list[list[str]](), 0
    for row in (row for row in sheet.iter() if name_of(row) == "row"):
        values = [_value(cell, strings) for cell in _placed(row)]
        cells += len(values)
        if cells > _MAX_CELLS:
            raise ValueError(f"more than {_MAX_CELLS:,} cells")
        if any(values):
            rows.append(values)
    return rows


def _part(book: zipfile.ZipFile, name: str) -> Element:
    if book.getinfo(name).file_size > _MAX_PART_BYTES:
        raise ValueError(f"{name} is larger than {_MAX_PART_BYTES:,} bytes")
    root: Element = defusedxml.ElementTree.fromstring(book.read(name), forbid_dtd=True)
    return root


def _first_sheet(book: zipfile.ZipFile) -> str:
    sheets = (item for item in _part(book, "xl/workbook.xml").iter() if name_of(item) == "sheet")
    first = next(sheets, None)
    ids = [] if first is None else [v for key, v in first.attrib.items() if key.endswith("}id")]
    for relation in _part(book, "xl/_rels/workbook.xml.rels"):
        if relation.get("Id") in ids:
            target = PurePosixPath("/xl", relation.get("Target", ""))
            return str(target).lstrip("/")
    raise KeyError("the workbook names no sheet")


def _placed(row: Element) -> list[Element | None]:
    """Return the cells of a row in their columns; an empty cell may be left out of the file."""
    cells: list[Element | None] = []
    for cell in (cell for cell in row if name_of(cell) == "c"):
        place = _CELL.fullmatch(cell.get("r", ""))
        column = len(cells)
        if place:
            column = 0
            for letter in place[1]:
                column = column * 26 + ord(letter) - ord("A") + 1
            column -= 1
        cells += [None] * min(column - len(cells), 16_384)
        cells.append(cell)
    return cells


def _value(cell: Element | None, strings: list[str]) -> str:
    if cell is None:
        return ""
    if cell.get("t") == "inlineStr":
        return _text(cell)
    value = next((child.text or "" for child in cell if name_of(child) == "v"), "")
    return strings[int(value)] if cell.get("t") == "s" else value


def _text(element: Element) -> str:
    """Return the text of a string with runs of several looks, without its phonetic hints."""
    if name_of(element) == "rPh":
        return ""
    own = (element.text or "") if name_of(element) == "t" else ""
    return own + "".join(_text(child) for child in element)

"""Tables with a file and a text a row: CSV, TSV and XLSX → samples."""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ocr.errors import UserError
from ocr.limits import SUFFIXES
from ocr.sample import Sample, Skip
from ocr.sources.files import FileRefused, folder, read_inside
from ocr.sources.named_files import find_named, require_named
from ocr.sources.settings import TableSettings
from ocr.sources.spreadsheet import ENDINGS, rows_of
from ocr.sources.unit import Unit, in_rows

_FILE = ("file_name", "filename", "file", "image", "image_path", "image_file", "path", "img")
_TEXT = ("text", "transcription", "label", "ground_truth", "gt", "transcript", "sentence", "words")


@dataclass(frozen=True, slots=True)
class _Table:
    """The rows of a table, the number of its first one, and the columns that are used."""

    rows: list[list[str]]
    first: int
    file: int
    text: int
    facts: tuple[tuple[str, int], ...]


def plan(settings: TableSettings) -> list[Unit]:
    """Plan the rows of the table; UserError where it or a column of it is missing."""
    _opened.cache_clear()
    _root(settings)
    return in_rows("", len(_opened(settings.model_dump_json()).rows))


def read(settings: TableSettings, unit: Unit) -> Iterator[Sample | Skip]:
    """Yield a Sample or a Skip for every row."""
    table = _opened(settings.model_dump_json())
    for number in range(unit.start, unit.stop):
        yield _row(settings, table, table.rows[number], number + table.first)


def files(settings: TableSettings) -> Iterator[Path]:
    """Yield the images that the table names."""
    table = _opened(settings.model_dump_json())
    for row in table.rows:
        named = row[table.file] if len(row) > table.file else ""
        yield _root(settings) / (_found(_root(settings), named) or "")


def _row(settings: TableSettings, table: _Table, row: list[str], number: int) -> Sample | Skip:
    where = f"{settings.path}:{number}"
    if len(row) <= max(table.file, table.text):
        return Skip(where, "malformed row", f"{len(row)} cells: {' | '.join(row)[:80]}")
    name = row[table.file].strip()
    try:
        image = require_named(_root(settings), name)
        data = read_inside(_root(settings), image)
    except FileRefused as refused:
        return Skip(where, refused.reason, refused.detail)
    facts = [(fact, row[column]) for fact, column in table.facts if len(row) > column]
    return Sample(
        f"{Path(settings.path).name}#{name}",
        data,
        row[table.text],
        settings.level,
        (("file", name), *((fact, value) for fact, value in facts if value)),
        f"table:{settings.path}",
    )


def _root(settings: TableSettings) -> Path:
    if settings.images is None:
        return Path(settings.path).parent
    return folder(settings.images, "images", f"the folder of the images of {settings.path}")


def _found(root: Path, named: str) -> str | None:
    try:
        return find_named(root, named.strip()) if named.strip() else None
    except FileRefused:
        return None


@lru_cache(maxsize=4)
def _opened(settings_json: str) -> _Table:
    settings = TableSettings.model_validate_json(settings_json)
    if not settings.path.lower().endswith(ENDINGS):
        raise UserError(f"{settings.path}: expected a table in {', '.join(ENDINGS)}; save it so")
    rows = rows_of(Path(settings.path))
    if not rows:
        raise UserError(f"{settings.path}: no row in it")
    header = [cell.strip() for cell in rows[0]]
    is_asked = settings.file_column is not None or settings.text_column is not None
    if not is_asked and not settings.group_columns and _is_data(settings, header):
        return _Table(rows, 1, 0, 1, ())
    return _Table(
        rows[1:],
        2,
        _column(settings, header, "file_column", settings.file_column, _FILE),
        _column(settings, header, "text_column", settings.text_column, _TEXT),
        tuple(
            (fact, _column(settings, header, f"group_columns.{fact}", name, ()))
            for fact, name in settings.group_columns.items()
        ),
    )


def _is_data(settings: TableSettings, first: list[str]) -> bool:
    """Tell whether the first row is one of the table's own, because it begins with an image."""
    return len(first) >= 2 and (
        first[0].lower().endswith(SUFFIXES) or _found(_root(settings), first[0]) is not None
    )


def _column(
    settings: TableSettings,
    header: list[str],
    setting: str,
    name: str | None,
    usual: Sequence[str],
) -> int:
    if name is not None and name in header:
        return header.index(name)
    lowered = [cell.lower() for cell in header]
    found = [wanted for wanted in usual if wanted in lowered] if name is None else []
    if found:
        return lowered.index(found[0])
    close = difflib.get_close_matches(name or "", header, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else f"; set {setting}"
    raise UserError(
        f"{settings.path}: {setting}: no column {name or ' or '.join(usual)}; "
        f"known: {', '.join(header)[:300]}{hint}"
    )

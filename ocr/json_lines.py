"""JSON-lines files: appended line by line, and read though a kill or a full disk tore a line."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Lines:
    """The objects of a file in order; `unreadable` counts the lines without one."""

    values: tuple[dict[str, Any], ...] = ()
    unreadable: int = 0


def lines_of(content: bytes) -> Lines:
    """Return the objects in a file's content; a torn line, the last or an inner one, is counted.

    Only a newline ends a line: texts may hold other line separators of Unicode.
    """
    rows = [row for row in content.split(b"\n") if row.strip()]
    values = tuple(value for value in map(_parse, rows) if value is not None)
    return Lines(values, len(rows) - len(values))


def read_lines(path: Path) -> Lines:
    """Return the objects of a file; a missing file has none."""
    return lines_of(path.read_bytes() if path.is_file() else b"")


def skipped(name: str, unreadable: int) -> str:
    """Return the notice about unreadable lines of a file."""
    lines = "1 unreadable line" if unreadable == 1 else f"{unreadable} unreadable lines"
    return f"{name}: skipped {lines}, torn by a kill or a full disk"


class LineFile:
    """Appends objects to a file; after a torn line the next one begins on a line of its own.

    A file has one writer at a time: appends of two hosts to one file tear each other.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)

    def write(self, value: dict[str, Any]) -> None:
        """Append one object; OSError where the disk is full, perhaps after a part of the line."""
        line = json.dumps(value, ensure_ascii=False).encode() + b"\n"
        left = memoryview(b"\n" + line if self._is_torn() else line)
        while left:
            left = left[os.write(self._file, left) :]

    def sync(self) -> None:
        """Push the lines to the disk."""
        os.fsync(self._file)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _is_torn(self) -> bool:
        size = os.fstat(self._file).st_size
        return size > 0 and os.pread(self._file, 1, size - 1) != b"\n"


def _parse(row: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(row)
    except (ValueError, RecursionError):  # also UnicodeDecodeError: cut inside a character
        return None
    return value if isinstance(value, dict) else None

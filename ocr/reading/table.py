"""What became of each file, as a parquet file of parts that is whole at any moment."""

import io
import re
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ocr.place import Place
from ocr.reading.run import Outcome

NAME = "read.parquet"  # a folder of parts, as pyarrow, pandas, DuckDB and Spark read it
_ROWS, _SECONDS = 20_000, 30.0  # most of a part, and between two parts
_PART = re.compile(rf"{re.escape(NAME)}/part-(\d+)\.parquet")
SCHEMA = pa.schema(
    {
        "file": pa.string(),
        "level": pa.string(),
        "pages": pa.int32(),
        "lines": pa.int32(),
        "least_confidence": pa.float32(),
        "doubtful": pa.int32(),
        "seconds": pa.float32(),
        "error": pa.string(),
    }
)


class Table:
    """The rows of all commands with this output: one for each file."""

    def __init__(self, place: Place) -> None:
        self._place, self._rows, self._next = place, list[dict[str, Any]](), 1
        self._written = time.monotonic()

    def begin(self, files: Sequence[str], wanted: Collection[str]) -> None:
        """Keep the rows of earlier commands but those of `wanted`.

        Of `files` that are neither (their results were there without a row) the row says no more
        than the name. A kill between the two steps leaves rows twice; the later part's counts.
        """
        parts = [name for name in self._place.names(NAME) if _PART.fullmatch(name)]
        rows = {row["file"]: row for name in parts for row in self._read(name)}
        for file in wanted:
            rows.pop(file, None)
        for file in files:
            if file not in wanted:
                rows.setdefault(file, {"file": file})
        self._next = 1 + max((int(_PART.fullmatch(name)[1]) for name in parts), default=0)  # type: ignore[index]
        self._rows = list(rows.values())
        self._write()
        for name in parts:
            self._place.delete(name)

    def add(self, one: Outcome) -> None:
        """Add a row; it is on the disk half a minute later at the latest, or at the end."""
        self._rows.append(asdict(one))
        if len(self._rows) >= _ROWS or time.monotonic() > self._written + _SECONDS:
            self._write()

    def end(self) -> None:
        """Write the rows that are left."""
        self._write()

    def _read(self, name: str) -> list[dict[str, Any]]:
        return list(pq.read_table(io.BytesIO(self._place.read(name))).to_pylist())

    def _write(self) -> None:
        self._written = time.monotonic()
        if not self._rows:
            return
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(self._rows, SCHEMA), buffer)
        self._place.write(f"{NAME}/part-{self._next:06d}.parquet", buffer.getvalue())
        self._next, self._rows = self._next + 1, []

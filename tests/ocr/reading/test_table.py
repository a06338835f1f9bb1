"""read.parquet and the results beside it, in a folder and in a bucket."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ocr.dataset.arrow_cache import filesystem
from ocr.place import Place
from ocr.reading.inputs import Input
from ocr.reading.outputs import Results
from ocr.reading.run import Outcome
from ocr.reading.table import NAME, Table
from ocr.writers.formats import FORMATS
from tests.support.buckets import bucket_server


@pytest.fixture(params=["folder", "bucket"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "folder":
        yield str(tmp_path / "out")
        return
    with bucket_server():
        yield "s3://lipi/deep/out"


def rows(output: str) -> list[dict[str, Any]]:
    files, root = filesystem(output)
    return list(pq.read_table(f"{root}/{NAME}", filesystem=files).to_pylist())


def read(name: str, lines: int = 1) -> Outcome:
    return Outcome(name, "line", 1, lines, 0.5, 0, 0.1)


def test_a_file_has_one_row_whatever_was_killed(output: str) -> None:
    table = Table(Place(output))
    table.begin(["a", "b", "c"], {"a", "b", "c"})
    table.add(read("a"))
    table.add(Outcome("b", error="b: damaged"))
    table.end()
    assert {row["file"]: row["error"] for row in rows(output)} == {"a": None, "b": "b: damaged"}
    killed = Table(Place(output))  # after the rows were moved, before the old part was deleted
    parts = {name: Place(output).read(name) for name in Place(output).names(NAME)}
    killed.begin(["a", "b", "c"], {"b"})
    for name, content in parts.items():
        Place(output).write(name, content)
    again = Table(Place(output))
    again.begin(["a", "b", "c", "d"], {"b", "d"})
    again.add(read("b", 2))
    again.add(read("d"))
    again.end()
    found = {row["file"]: row for row in rows(output)}
    assert len(rows(output)) == len(found) == 4
    assert found["a"]["lines"] == 1 and found["b"]["lines"] == 2 and not found["b"]["error"]
    assert found["c"]["level"] is None and found["c"]["error"] is None  # there before its row
    other = Table(Place(output))  # a command that reads other files keeps them
    other.begin(["e"], {"e"})
    other.end()
    assert len(rows(output)) == 4


def test_what_is_missing_is_found(output: str) -> None:
    items = [Input(f"{name}.png", f"deep/{name}") for name in "abc"]
    results = Results(output, FORMATS["alto"])
    assert results.missing(items) == items
    results.place.write("deep/a.xml", b"x")
    results.place.write("deep/b-0001.xml", b"x")
    results.place.write("deep/c-0002.xml", b"x")  # killed before its first page
    assert results.missing(items) == items[2:]
    assert results.place.names() == ["deep/a.xml", "deep/b-0001.xml", "deep/c-0002.xml"]
    results.place.delete("deep/a.xml")
    assert results.missing(items) == [items[0], items[2]]

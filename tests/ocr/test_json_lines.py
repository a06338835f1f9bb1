"""JSON-lines files are read on from any tear, and written on after it."""

import contextlib
import json
from contextlib import closing
from pathlib import Path

import pytest

from ocr.json_lines import LineFile, lines_of, read_lines, skipped
from tests.support.disks import fill, small_disk

ROWS = [{"step": 1, "loss": 0.5}, {"step": 2, "text": "ଓଡ଼ିଆ\u2028\u0085"}, {"step": 3}]


def written(path: Path) -> bytes:
    with closing(LineFile(path)) as file:
        for row in ROWS:
            file.write(row)
    return path.read_bytes()


def test_what_is_written_is_read_with_line_separators_of_unicode_in_texts(tmp_path: Path) -> None:
    written(tmp_path / "log.jsonl")
    assert list(read_lines(tmp_path / "log.jsonl").values) == ROWS
    assert read_lines(tmp_path / "none.jsonl").values == ()


def test_a_file_cut_at_any_byte_gives_its_whole_lines_and_takes_the_next_one(
    tmp_path: Path,
) -> None:
    whole = written(tmp_path / "log.jsonl")
    for length in range(len(whole) + 1):
        torn = tmp_path / "torn.jsonl"
        torn.write_bytes(whole[:length])
        lines = read_lines(torn)
        known = [
            row for row in ROWS if json.dumps(row, ensure_ascii=False).encode() in torn.read_bytes()
        ]
        assert list(lines.values) == known
        with closing(LineFile(torn)) as file:
            file.write({"step": 4})
        assert list(read_lines(torn).values) == [*known, {"step": 4}]
        assert read_lines(torn).unreadable == lines.unreadable <= 1


def test_a_line_glued_to_a_torn_one_is_counted_and_the_rest_is_read() -> None:
    lines = lines_of(b'{"step": 1}\n{"ti{"step": 2}\n\xff\xfe\n[1]\nnull\n{"step": 3}\n')
    assert [line["step"] for line in lines.values] == [1, 3]
    assert lines.unreadable == 4
    assert skipped("a.jsonl", 1).startswith("a.jsonl: skipped 1 unreadable line,")
    assert skipped("a.jsonl", 4).startswith("a.jsonl: skipped 4 unreadable lines,")


@pytest.mark.parametrize("leave", [0, 7, 60])
def test_a_full_disk_loses_the_line_that_had_no_room_and_no_other(
    leave: int, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk") as disk, closing(LineFile(disk / "log.jsonl")) as file:
        file.write({"number": 0})
        filler, number = fill(disk, leave=4096), 0
        with contextlib.suppress(OSError):
            for number in range(1, 1000):
                file.write({"number": number, "text": "x" * (leave + 100)})
        assert number < 999
        kept = [row["number"] for row in read_lines(disk / "log.jsonl").values]
        assert kept == list(range(number))
        filler.unlink()
        file.write({"number": -1})
        found = [row["number"] for row in read_lines(disk / "log.jsonl").values]
        assert found == [*kept, -1]

"""Many files read by Ray Data's workers, as by one process."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ocr.dataset.read import Dataset
from ocr.reading.inputs import Input
from ray_jobs.bulk import _tasks
from tests.support.commands import assert_refused, call


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 images of words, one below a folder, and a file that is no image."""
    folder = tmp_path_factory.mktemp("bulk") / "words"
    data = Dataset.open("odia_words", "validation")
    (folder / "deep").mkdir(parents=True)
    for index in range(30):
        name = f"deep/{index}.webp" if index == 7 else f"{index}.webp"
        (folder / name).write_bytes(data.image_bytes(index))
    (folder / "bad.png").write_bytes(b"nonsense")
    return folder


PATIENT = {"RAY_raylet_start_wait_time_s": "240"}  # on a machine that does much else


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and "read.parquet" not in file.parts
    }


def test_two_workers_write_what_one_process_writes(words: Path) -> None:
    alone = call("read", "odia", words, "output=alone", "format=json", cwd=words.parent)
    command = ("odia", "words", "output=spread", "format=json", "workers=2")
    spread = call(
        "read", *command, cwd=words.parent, **PATIENT
    )  # relative paths: the workers' folder too
    assert (alone.returncode, spread.returncode) == (2, 2), spread.stderr
    assert spread.stdout == "spread: 30 of 31 files as json, 30 pages, 30 lines, 1 refused\n"
    error = "error: words/bad.png: not a readable image: none of PNG, JPEG, WEBP, TIFF, BMP"
    assert spread.stderr.count("error:") == 1 and error in spread.stderr
    expected = {
        name: content.replace(str(words).encode(), b"words")
        for name, content in files(words.parent / "alone").items()
    }
    assert len(expected) == 30 and files(words.parent / "spread") == expected
    table = pq.read_table(words.parent / "spread" / "read.parquet").to_pylist()
    assert len({row["file"] for row in table}) == len(table) == 31
    (bad,) = [row for row in table if row["error"]]
    assert bad["file"] == "words/bad.png" and bad["level"] is None
    assert all(row["lines"] == 1 and row["seconds"] > 0 for row in table if row is not bad)
    _is_read_on(words, command)


def _is_read_on(words: Path, command: tuple[str, ...]) -> None:
    """The same command reads what is left, and the row of a file that is repaired is replaced."""
    (words / "bad.png").write_bytes((words / "0.webp").read_bytes())
    (words.parent / "spread" / "3.json").unlink()
    again = call("read", *command, cwd=words.parent, **PATIENT)
    assert again.returncode == 0, again.stderr
    assert "2 of 31 files as json, 2 pages, 2 lines, 29 kept" in again.stdout
    table = pq.read_table(words.parent / "spread" / "read.parquet").to_pylist()
    assert len({row["file"] for row in table}) == len(table) == 31
    assert not [row for row in table if row["error"] or row["lines"] != 1]


def test_workers_need_an_output_and_files(words: Path) -> None:
    assert_refused(call("read", "odia", words, "workers=2"), "workers=N writes files: set output=")
    refused = call("read", "odia", "-", "workers=2", f"output={words.parent}/none")
    assert_refused(refused, "workers read files; - (standard input) is read without workers=")
    assert_refused(call("read", "none", words, "workers=2", f"output={words.parent}/n"), "none")


def test_a_mistake_that_only_workers_meet_ends_the_command(words: Path) -> None:
    output = f"output={words.parent}/device"
    done = call("read", "odia", words, "workers=1", output, "backend=nonsense", **PATIENT)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "nonsense" in done.stderr


def test_documents_of_many_pages_are_tasks_of_their_own() -> None:
    names = [f"{i}.png" for i in range(100)] + ["a.pdf", "b.TIFF"] + ["c.png"]
    tasks = _tasks([Input(name, name) for name in names], 1, 10)
    assert [item.name for task in tasks for item in task] == names
    assert [len(task) for task in tasks] == [10] * 10 + [1, 1, 1]
    many = [Input(f"{i}.pdf", str(i)) for i in range(25_000)]
    assert {len(task) for task in _tasks(many, 8, 64)} == {1, 3}

"""Thousands of files read by workers that are killed: each is written once, and is one row."""

import contextlib
import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

from ocr.dataset.read import Dataset
from tests.support.commands import start
from tests.support.nodes import SHARED, needs_nodes, nodes

COUNT = int(os.environ.get("LIPI_TEST_FILES", "4000"))
PATIENT = {"RAY_raylet_start_wait_time_s": "240"}


def write_words(folder: Path, count: int) -> None:
    data = Dataset.open("odia_words", "validation")
    folder.mkdir(parents=True)
    for index in range(count):
        (folder / f"{index:05d}.webp").write_bytes(data.image_bytes(index % len(data.texts)))
    (folder / "bad.png").write_bytes(b"nonsense")


def stamps(output: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of every result: another one if it is written again."""
    return {
        file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in output.glob("*.txt")
    }


def rows(output: Path) -> list[dict[str, Any]]:
    return list(pq.read_table(output / "read.parquet").to_pylist())


def wait_until(ready: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    until = time.monotonic() + 240 + COUNT / 40
    while not ready():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.05 + COUNT / 80_000)  # looking at all results takes a core for a while


def readers(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "MapWorker" in " ".join(child.cmdline()):
                found.append(child)
    return found


def is_complete(output: Path, count: int) -> None:
    """A result for every file and a row, and a reason for the bad one."""
    assert {file.name for file in output.glob("*.txt")} == {f"{i:05d}.txt" for i in range(count)}
    often = Counter(row["file"] for row in rows(output))
    assert len(often) == count + 1 and set(often.values()) == {1}
    assert [Path(row["file"]).name for row in rows(output) if row["error"]] == ["bad.png"]


def test_workers_and_the_command_are_killed(tmp_path: Path) -> None:
    write_words(tmp_path / "words", COUNT)
    output = tmp_path / "read"
    command = ("odia", tmp_path / "words", f"output={output}", "workers=2")
    first = start("read", *command, **PATIENT)
    for share in (0.1, 0.3):
        wait_until(lambda share=share: len(stamps(output)) > share * COUNT, first)  # type: ignore[misc]
        before, victim = stamps(output), readers(first)[0]
        victim.kill()
        wait_until(lambda before=before: len(stamps(output)) > len(before) + 300, first)  # type: ignore[misc]
        assert before.items() <= stamps(output).items()
    tree = psutil.Process(first.pid).children(recursive=True)
    first.kill()
    first.communicate()
    psutil.wait_procs(tree, timeout=60)
    before = stamps(output)
    assert 0.3 * COUNT < len(before) < COUNT
    second = start("read", *command, **PATIENT)
    out, error = second.communicate(timeout=400 + COUNT / 40)
    assert second.returncode == 2, error
    assert f"{COUNT - len(before):,} of {COUNT + 1:,} files as text" in out
    assert f"{len(before):,} kept" in out and "1 refused" in out
    assert before.items() <= stamps(output).items()
    is_complete(output, COUNT)


def test_a_file_that_kills_its_process_is_refused_alone(tmp_path: Path) -> None:
    """A pipe that nobody writes to holds its reader, which is killed then, each time."""
    write_words(tmp_path / "words", 40)
    pipe, output = tmp_path / "words" / "00020.webp", tmp_path / "read"
    pipe.unlink()
    os.mkfifo(pipe)
    process = start("read", "odia", tmp_path / "words", f"output={output}", "workers=1", **PATIENT)
    kills = 0
    while process.poll() is None:
        with contextlib.suppress(OSError):
            held = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)  # fails where nobody reads
            for reader in readers(process):
                reader.kill()
                kills += 1
            psutil.wait_procs(readers(process), timeout=0.5)
            os.close(held)
        time.sleep(0.2)
    out, error = process.communicate()
    assert process.returncode == 2, error
    assert kills >= 8, kills
    assert f"{pipe}: the process that read it died 4 times" in error
    assert "39 of 41 files as text" in out and "2 refused" in out
    assert len(stamps(output)) == 39


@needs_nodes
@pytest.mark.parametrize("workers", ["workers=2", ""], ids=["two", "as many as there are"])
def test_a_node_is_lost(workers: str) -> None:
    with nodes(2) as cluster:
        write_words(cluster.shared / "words", COUNT)
        output = cluster.shared / "read"
        words = ("odia", f"{SHARED}/words", f"output={SHARED}/read", workers)
        job = cluster.head.start(
            *cluster.submit("python", "ray_jobs/read.py", *filter(None, words))
        )
        wait_until(lambda: len(stamps(output)) > 0.2 * COUNT, job)
        before = stamps(output)
        assert cluster.nodes[1].processes("MapWorker"), "the second node reads too"
        cluster.nodes[1].kill()
        out, _ = job.communicate(timeout=900 + COUNT / 40)
        assert f"{COUNT:,} of {COUNT + 1:,} files as text" in out, out
        assert before.items() <= stamps(output).items()
        is_complete(output, COUNT)

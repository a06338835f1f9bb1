"""Whatever the file system says about a path that the user named: one message, exit status 2."""

import errno
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ocr.errors import UserError
from ocr.images import encode_image
from ocr.system_errors import is_full_disk, is_out_of_memory, mistake_of, reported
from ray_jobs.command import run
from tests.support.commands import assert_refused, call, start
from trainers.loop.checkpoint import Snapshot, again, write_checkpoint
from trainers.loop.lease import Writer

NOISE = np.random.Generator(np.random.Philox(key=1)).integers(0, 255, (400, 900), dtype=np.uint8)


@pytest.fixture
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A disk of its own, with these options."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = getattr(request, "param", "size=4m")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a disk of its own needs the right to mount one: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def source(folder: Path, images: int = 1) -> str:
    """A config of pairs of `images` images of 360 kB each."""
    (folder / "in").mkdir()
    for number in range(images):
        (folder / "in" / f"{number}.png").write_bytes(encode_image(np.roll(NOISE, number)))
        (folder / "in" / f"{number}.gt.txt").write_text(f"word {number}")
    config = folder / "prepare.yaml"
    config.write_text(
        f"output: {folder}/out\nsources: [{{format: pairs, path: {folder}/in}}]\n"
        "split: {validation_ratio: 0}\n"
    )
    return str(config)


def test_a_full_disk_ends_prepare_with_path_and_free_bytes(disk: Path, tmp_path: Path) -> None:
    config = source(tmp_path, images=16)
    done = call("prepare", config, f"output={disk}/out")
    assert_refused(done, f"{disk}/", "No space left on device: ", "bytes are free; make room")
    assert "set output to a folder that you may write" in done.stderr


def test_a_full_disk_ends_training_at_once(disk: Path, tmp_path: Path) -> None:
    words = [f"storage_path={disk}", "max_failures=5", "model.size=large", "train.save_steps=2"]
    done = call("train", "configs/tiny.yaml", *words, f"run_name={tmp_path.name[:20]}")
    assert_refused(done, f"{disk}/", "No space left on device: ", "bytes are free; ")
    assert "the checkpoint of step 2 needs " in done.stderr
    assert "intact" not in done.stderr and "Ray stopped" not in done.stdout


@pytest.mark.parametrize("disk", ["size=4m,ro"], indirect=True)
def test_a_disk_that_may_not_be_written_is_named(disk: Path, tmp_path: Path) -> None:
    config = source(tmp_path)
    done = call("prepare", config, f"output={disk}/out")
    assert_refused(done, f"{disk}/", "Read-only file system; set output")
    done = call("train", "configs/tiny.yaml", f"storage_path={disk}")
    assert_refused(done, f"{disk}/", "Read-only file system; set storage_path")
    done = call("train", "configs/tiny.yaml", f"storage_path={tmp_path}/runs", LIPI_CACHE=str(disk))
    assert_refused(done, f"{disk}/", "Read-only file system; set LIPI_CACHE")


def test_a_name_that_is_too_long_and_a_file_for_a_folder_are_named(tmp_path: Path) -> None:
    config = source(tmp_path)
    long = "ବଙ୍ଗର" * 60
    assert_refused(call("prepare", config, f"output={tmp_path}/{long}"), "File name too long")
    assert_refused(call("prepare", config, f"sources.0.path=/srv/{long}"), "no such folder")
    (tmp_path / "file").write_text("x")
    assert_refused(call("prepare", config, f"output={tmp_path}/file/out"), "a file is where")
    assert_refused(call("prepare", str(tmp_path / "in")), "Is a directory")
    done = call("train", "configs/tiny.yaml", f"storage_path={tmp_path}/file")
    assert_refused(done, f"{tmp_path}/file", "a file is where a folder is meant; set storage_path")


def test_a_folder_that_cannot_be_made_is_named_by_every_command(tmp_path: Path) -> None:
    """/proc says ENOENT to all that make a folder in it."""
    image = tmp_path / "line.png"
    image.write_bytes(encode_image(np.zeros((48, 96), np.uint8), "PNG"))
    commands = [
        ("read", "odia", image, "output=/proc/x"),
        ("prepare", source(tmp_path), "output=/proc/x"),
        ("train", "configs/tiny.yaml", "storage_path=/proc/x"),
        ("sweep", "configs/sweeps/tiny.yaml", "storage_path=/proc/x"),
        ("deploy", "odia", "storage_path=/proc/x"),
    ]
    for command in commands:
        done = call(*command)
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
        assert "error: /proc/" in done.stderr and "No such file or directory; " in done.stderr


@pytest.mark.parametrize("words", [("--settings",), ("--settings", "kornia")])
def test_a_reader_that_has_read_enough_ends_a_command_in_silence(words: tuple[str, ...]) -> None:
    process = start("train", *words)
    process.stdout.close()  # type: ignore[union-attr]
    process.stdout = None
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 0


def test_long_names_in_a_source_are_counted(tmp_path: Path) -> None:
    source(tmp_path)
    long = "ଏହା ଏକ ଲମ୍ବା ଧାଡ଼ି " * 12
    (tmp_path / "labels.txt").write_text(
        f"in/0.png\tଶବ୍ଦ\n{long}\tଶବ୍ଦ\n0.png {long}\n", encoding="utf-8"
    )
    config = tmp_path / "labels.yaml"
    config.write_text(
        f"output: {tmp_path}/out\nmax_skipped: 0.9\nsplit: {{validation_ratio: 0}}\n"
        f"sources: [{{format: paddle, path: {tmp_path}/labels.txt}}]\n"
    )
    done = call("prepare", config)
    assert done.returncode == 0, done.stderr
    assert "kept 1 train, 0 validation; skipped 1 missing image; 1 malformed label line" in (
        done.stdout
    )


def snapshot(megabytes: int) -> Snapshot:
    weights = {"w": torch.zeros(megabytes * 250_000)}
    moments = {"state": {0: {"exp_avg": torch.zeros(megabytes * 250_000)}}}
    return Snapshot(1, weights, moments, {}, "", "")


@pytest.mark.parametrize("megabytes", [3, 9])  # torch meets the end of the disk, or safetensors
def test_a_checkpoint_that_does_not_fit_says_what_it_needs(disk: Path, megabytes: int) -> None:
    writer = Writer.claim(disk, 1)
    with pytest.raises(UserError) as caught:
        write_checkpoint(disk, "run", snapshot(megabytes), writer)
    message = str(caught.value)
    assert f"{disk}/checkpoint_000001: No space left on device: " in message
    assert f"the checkpoint of step 1 needs {megabytes * 2_000_000:,}" in message
    assert "intact" not in message
    (disk / "checkpoint_000001").mkdir()
    assert "the checkpoints before it are intact" in again(disk)


def test_errors_of_libraries_are_recognised(disk: Path) -> None:
    big = torch.zeros(2_000_000)
    for write in (
        lambda: save_file({"a": big}, disk / "a.safetensors"),
        lambda: torch.save(big, disk / "a.pt"),
        lambda: (disk / "a").write_bytes(bytes(8_000_000)),
    ):
        with pytest.raises(Exception) as caught:
            write()
        assert is_full_disk(caught.value), caught.value
    assert not is_full_disk(RuntimeError("[enforce fail at alloc_cpu.cpp:1] out of memory"))
    assert not is_full_disk(OSError(errno.EACCES, "Permission denied"))


def test_memory_that_ran_out_is_recognised() -> None:
    asked: list[Callable[[], object]] = [
        lambda: torch.empty(2**46),
        lambda: np.empty(2**46),
        lambda: bytearray(2**60),
    ]
    for ask in asked:
        with pytest.raises((RuntimeError, MemoryError)) as caught:
            ask()
        assert is_out_of_memory(caught.value), caught.value
        assert not is_full_disk(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB"))
    assert not is_out_of_memory(RuntimeError("killed by SIGKILL by OOM killer or by ray stop"))


def test_memory_that_runs_out_in_any_command_is_one_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def asks(_: object) -> int:
        return torch.empty(2**46).ndim

    monkeypatch.setattr("sys.argv", ["read.py"])
    with pytest.raises(SystemExit) as end:
        run(asks, None)
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("error: out of memory (")


def test_an_error_that_names_no_path_of_the_users_stays_as_it_is() -> None:
    for problem in (OSError(errno.ECONNREFUSED, "refused"), ValueError("x"), OSError("odd")):
        assert mistake_of(problem, "path", "set x") is None
        with pytest.raises(type(problem)), reported("path", "set x"):
            raise problem

"""A run reads its files on from any tear: what can be is made anew, the rest says what to do."""

import contextlib
import json
from pathlib import Path

import pytest

from ocr.errors import UserError
from ocr.json_lines import read_lines
from ocr.settings import written_yaml
from tests.support.commands import call
from tests.support.disks import fill, small_disk
from tests.support.finished import SHORT, config_at, copied, finished_in, never
from tests.support.resuming import TINY_YAML
from tests.support.tiny import train_here
from trainers.config import config_of_run
from trainers.loop.checkpoint import directory_of, evaluations
from trainers.loop.logs import Logs
from trainers.loop.progress import Progress
from trainers.runs.launch import launch


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_in(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def run_dir(finished_run: Path, tmp_path: Path) -> Path:
    return copied(finished_run, tmp_path)


def cut(file: Path, parts: int) -> list[bytes]:
    """The file's beginnings: empty, so many of them, and all but its last byte."""
    whole = file.read_bytes()
    return [whole[: (len(whole) - 1) * part // parts] for part in range(parts + 1)]


@pytest.mark.parametrize("name", ["run.json", "config.yaml", "writer.json", "report.json"])
def test_a_finished_run_stays_finished_with_any_of_its_files_torn(name: str, run_dir: Path) -> None:
    for content in cut(run_dir / name, 6):
        (run_dir / name).write_bytes(content)
        assert launch(config_at(run_dir), never, "the command").was_finished


def test_a_run_whose_record_is_lost_is_rebuilt_and_another_run_is_still_refused(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = json.loads((run_dir / "run.json").read_text())
    (run_dir / "run.json").write_text('{"run": "')
    other = config_at(run_dir, train={**SHORT, "seed": 7})
    with pytest.raises(UserError, match=r"another run than the one.*\n.*train\.seed: 42 → 7"):
        launch(other, never, "the command")
    launch(config_at(run_dir), never, "the command")
    assert "run.json: damaged (9 bytes); written from checkpoint_000015" in capsys.readouterr().out
    assert json.loads((run_dir / "run.json").read_text()) == before


def test_a_run_that_went_back_does_not_go_back_again_when_its_record_is_lost(run_dir: Path) -> None:
    back = config_at(run_dir, train={**SHORT, "resume_from": "checkpoint_000010"})
    launch(back, train_here, "the command")
    (run_dir / "run.json").write_bytes(b"")
    assert launch(back, never, "the command").was_finished


def test_settings_cut_at_any_line_or_in_one_are_read_from_the_checkpoint(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = run_dir / "config.yaml"
    whole, expected = file.read_bytes(), config_of_run(run_dir / "config.yaml")
    assert whole == written_yaml(expected)
    ends = [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")][:-1]
    for length in [0, *ends[::9], ends[-1], *range(5, len(whole) - 1, 211), len(whole) - 1]:
        file.write_bytes(whole[:length])
        assert config_of_run(file) == expected
        said = capsys.readouterr().out
        assert f"read from {directory_of(run_dir, 15) / 'config.yaml'}" in said
    file.unlink()
    assert config_of_run(file) == expected


def test_settings_without_any_copy_are_one_message(tmp_path: Path) -> None:
    for content in (b"", b"run_name: ti", b"---\nrun_name: tiny\n", b"\x00\x00"):
        (tmp_path / "config.yaml").write_bytes(content)
        with pytest.raises(UserError, match=r"(?s)config\.yaml: .*restore the file, or move"):
            config_of_run(tmp_path / "config.yaml")


def test_an_evaluation_cut_at_any_byte_is_made_again(run_dir: Path) -> None:
    file = run_dir / "checkpoint_000015.eval.json"
    whole, found = file.read_bytes(), evaluations(run_dir)
    for length in range(len(whole) - 1):
        file.write_bytes(whole[:length])
        assert list(evaluations(run_dir)) == [10]
    launch(config_at(run_dir), train_here, "the command")
    assert evaluations(run_dir) == found


def test_progress_follows_timings_cut_at_any_byte_and_counts_what_it_skips(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (run_dir / "timings.jsonl").read_bytes()
    for length in range(len(whole)):
        (run_dir / "timings.jsonl").write_bytes(whole[:length] + b'{"event": "restart"}\n')
        with Progress(run_dir, 15):
            pass
        said = capsys.readouterr().out
        is_torn = length > 0 and whole[length - 1] != ord("\n")
        assert is_torn == ("timings.jsonl: skipped 1 unreadable line" in said)


@pytest.mark.long
def test_the_same_command_goes_on_after_torn_timings_and_metrics(tmp_path: Path) -> None:
    words = (TINY_YAML, f"storage_path={tmp_path}", "train.save_steps=5", "train.eval_steps=5")
    assert call("train", *words, "train.max_steps=10").returncode == 0
    for name in ("timings.jsonl", "metrics.jsonl", "memory.jsonl"):
        with open(tmp_path / "tiny" / name, "ab") as file:
            file.write(b'{"step": 10, "ti{"step": 10}\n{"tor')
    done = call("train", *words, "train.max_steps=15")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "timings.jsonl: skipped 1 unreadable line" in done.stdout
    assert "continues exactly, from step 10" in done.stdout
    timings = read_lines(tmp_path / "tiny" / "timings.jsonl")
    assert timings.unreadable == 2
    assert [line["text"] for line in timings.values if line.get("event") == "restart"]
    memory = read_lines(tmp_path / "tiny" / "memory.jsonl").values
    report = json.loads((tmp_path / "tiny" / "report.json").read_text())
    assert report["peak_memory_mib"] == max(line.get("memory_mib", 0) for line in memory) > 100
    assert not any("memory_mib" in line for line in timings.values), "a file has one writer"


def test_a_log_on_a_full_disk_is_written_on_once_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        logs = Logs(disk, "", 0, log_samples=True)
        filler, step = fill(disk, leave=4096), 0
        with contextlib.suppress(OSError):
            for step in range(1, 10_000):
                logs.write_timing({"step": step, "text": "x" * 97})
        logs.close()
        filler.unlink()
        again = Logs(disk, "", 0, log_samples=True)
        again.write_timing({"step": -1})
        again.close()
        lines = read_lines(disk / "timings.jsonl")
        assert [line["step"] for line in lines.values] == [0, *range(1, step), -1]
        assert lines.unreadable <= 1

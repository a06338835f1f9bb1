"""Under Ray Train a run is the same as without Ray, and kills on the way change no bit."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from tests.support.commands import call, start
from tests.support.resuming import TINY_YAML, assert_equal_to, wait_for
from tests.support.tiny import tiny_config, tiny_context, tiny_task
from tests.support.together import fit_together
from trainers.loop.checkpoint import directory_of
from trainers.loop.loop import fit
from trainers.on_ray import threads_of
from trainers.runs.job import Job


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Undisturbed runs without Ray, by number of workers."""
    torch.set_num_threads(1)
    runs = {}
    for workers in (1, 2):
        config = tiny_config(tmp_path_factory.mktemp(f"golden{workers}"), workers=workers)
        if workers > 1:
            fit_together(config)
        else:
            fit(config, tiny_task(config), tiny_context(config))
        runs[workers] = config.local_run_dir
    return runs


def test_threads_given_by_hand_win_over_the_checkpoints_and_those_over_the_share_of_cores(
    tmp_path: Path,
) -> None:
    asked, silent = (
        tiny_config(tmp_path, threads_per_worker=3),
        tiny_config(tmp_path, threads_per_worker=None),
    )
    assert [
        threads_of(Job(config, tmp_path, "run", 1, saved), 8)
        for config, saved in ((asked, 2), (silent, 2), (silent, None))
    ] == [3, 2, 8]


def test_a_killed_worker_is_restarted_and_changes_no_bit(
    golden: dict[int, Path], tmp_path: Path
) -> None:
    kill = f"step:17:1:{tmp_path / 'killed'}"
    done = call("train", TINY_YAML, f"storage_path={tmp_path}", "workers=2", LIPI_KILL_AT=kill)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "killed").exists()
    assert_equal_to(golden[2], tmp_path / "tiny")
    assert "continues exactly, from step 16" in done.stdout
    report = json.loads((tmp_path / "tiny" / "report.json").read_text())
    assert report["history"]["resumed_at"] == [{"step": 16, "exactness": "exact"}]


@pytest.mark.long
def test_a_killed_driver_and_the_same_command_again_change_no_bit(
    golden: dict[int, Path], tmp_path: Path
) -> None:
    words = (TINY_YAML, f"storage_path={tmp_path}")
    driver = start("train", *words)
    wait_for(directory_of(tmp_path / "tiny", 10))
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    done = call("train", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_equal_to(golden[1], tmp_path / "tiny")
    last = done.stdout.splitlines()[-1]
    assert last.startswith("tiny: CER ")
    assert last.endswith(f" on 20 validation samples, step 8, {tmp_path / 'tiny' / 'bundle'}")
    again = call("train", *words)
    assert again.returncode == 0
    assert "this run is finished" in again.stdout
    assert again.stdout.splitlines()[-1] == last


def test_a_rate_that_explodes_stops_both_workers_at_once_with_exit_status_two(
    tmp_path: Path,
) -> None:
    done = call(
        "train",
        TINY_YAML,
        f"storage_path={tmp_path}",
        "workers=2",
        "optimizer.learning_rate=1e20",
        "optimizer.warmup_steps=0",
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "not finite" in done.stderr
    assert "Traceback" not in done.stderr

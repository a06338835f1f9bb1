"""The long ones: 1, 2 and 3 workers, and everything that can be killed, each run compared with one
that was left in peace.
"""

import os
import re
import signal
from pathlib import Path

import psutil
import pytest
import torch

from tests.support.commands import call, start
from tests.support.resuming import TINY_YAML, assert_equal_to, wait_for
from tests.support.tiny import tiny_config, tiny_context, tiny_task
from tests.support.together import fit_together
from trainers.loop.checkpoint import directory_of
from trainers.loop.loop import fit

POINTS = {
    "a worker in a step": "step:22:{last}",
    "inside a checkpoint, before its manifest": "before_manifest:20:0",
    "inside a checkpoint, after its manifest": "after_manifest:20:0",
    "inside a checkpoint, before its renaming": "before_rename:20:0",
    "between checkpoint and evaluation": "before_evaluation:24:{last}",
}


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    torch.set_num_threads(1)
    runs = {}
    for workers in (1, 2, 3):
        config = tiny_config(tmp_path_factory.mktemp(f"golden{workers}"), workers=workers)
        fit_together(config) if workers > 1 else fit(
            config, tiny_task(config), tiny_context(config)
        )
        runs[workers] = config.local_run_dir
    return runs


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("what", POINTS)
def test_sigkill_changes_no_bit(
    what: str, workers: int, golden: dict[int, Path], tmp_path: Path
) -> None:
    marker = tmp_path / "killed"
    kill = POINTS[what].format(last=workers - 1) + f":{marker}"
    done = call(
        "train", TINY_YAML, f"storage_path={tmp_path}", f"workers={workers}", LIPI_KILL_AT=kill
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert marker.exists()
    assert_equal_to(golden[workers], tmp_path / "tiny")


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_sigkill_of_the_driver_and_the_same_command_again_change_no_bit(
    workers: int, golden: dict[int, Path], tmp_path: Path
) -> None:
    words = (TINY_YAML, f"storage_path={tmp_path}", f"workers={workers}")
    for step in (10, 30):
        driver = start("train", *words)
        wait_for(directory_of(tmp_path / "tiny", step))
        os.kill(driver.pid, signal.SIGKILL)
        driver.communicate()
    done = call("train", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_equal_to(golden[workers], tmp_path / "tiny")


def test_deaths_with_checkpoints_between_are_no_reason_to_give_up(
    golden: dict[int, Path], tmp_path: Path
) -> None:
    driver = start("train", TINY_YAML, f"storage_path={tmp_path}", "max_failures=0")
    for step in (5, 15, 25):
        wait_for(directory_of(tmp_path / "tiny", step))
        for worker in psutil.Process(driver.pid).children(recursive=True):
            if any("RayTrainWorker" in word for word in worker.cmdline()):
                worker.kill()
    said, wrong = driver.communicate(timeout=200)
    assert driver.returncode == 0, said + wrong
    assert said.count("resuming from the last checkpoint") == 3
    assert_equal_to(golden[1], tmp_path / "tiny")


def test_a_run_that_dies_at_the_same_place_every_time_is_given_up_and_says_what_to_do(
    tmp_path: Path,
) -> None:
    done = call(
        "train",
        TINY_YAML,
        f"storage_path={tmp_path}",
        "max_failures=1",
        LIPI_KILL_AT="before_rename:10:0:",
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "run the same command to resume" in done.stderr
    assert "Traceback" not in done.stderr
    assert directory_of(tmp_path / "tiny", 5).is_dir()
    assert call("train", TINY_YAML, f"storage_path={tmp_path}").returncode == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_memory_that_runs_out_is_tried_once_more_and_then_said(
    workers: int, tmp_path: Path
) -> None:
    words = (TINY_YAML, f"storage_path={tmp_path}", f"workers={workers}")
    done = call("train", *words, LIPI_ALLOCATE_AT="step:12:0:")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "out of memory after step 10, twice" in done.stderr
    assert "Traceback" not in done.stderr
    advice = re.search(
        r"train with (train.micro_batch_size=\d+) .*(train.init_from=\S+)", done.stderr
    )
    assert advice
    done = call("train", *words, "run_name=less", *advice.groups())
    assert done.returncode == 0, done.stdout + done.stderr

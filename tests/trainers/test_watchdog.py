"""A run that hangs is ended, with the stacks of its workers, and resumes without a changed bit."""

import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
import torch

from tests.support.commands import call, start
from tests.support.resuming import TINY_YAML, assert_equal_to, wait_for
from tests.support.tiny import tiny_config
from tests.support.together import fit_together
from trainers.loop.checkpoint import directory_of

HANG = "hang_minutes=0.2"


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    config = tiny_config(tmp_path_factory.mktemp("golden"), workers=2)
    fit_together(config)
    return config.local_run_dir


def workers_of(driver: "subprocess.Popen[str]") -> list[psutil.Process]:
    children = psutil.Process(driver.pid).children(recursive=True)
    return [each for each in children if any("RayTrainWorker" in word for word in each.cmdline())]


def assert_resumed(said: str, golden: Path, run_dir: Path) -> str:
    """The run resumed once, ended as `golden`; returns the stacks."""
    assert said.count("the run resumes from the last checkpoint") == 1, said
    assert "continues exactly, from step " in said
    assert_equal_to(golden, run_dir)
    (stacks,) = run_dir.glob("stacks_*.txt")
    assert str(stacks) in said
    return stacks.read_text()


@pytest.mark.long
def test_a_loader_that_sleeps_for_ever_is_named_in_the_stacks_and_costs_no_bit(
    golden: Path, tmp_path: Path
) -> None:
    words = (TINY_YAML, f"storage_path={tmp_path}", "workers=2", HANG)
    done = call("train", *words, LIPI_HANG_AT=f"batch:17:1:{tmp_path / 'hung'}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no step for 1" in done.stdout
    stacks = assert_resumed(done.stdout, golden, tmp_path / "tiny")
    first, second = stacks.split("worker 1, ")
    assert "sleep_for_ever" not in first and "all_reduce" in first
    assert "sleep_for_ever" in second and "in _make" in second


@pytest.mark.long
def test_a_frozen_worker_is_ended_and_costs_no_bit(golden: Path, tmp_path: Path) -> None:
    driver = start("train", TINY_YAML, f"storage_path={tmp_path}", "workers=2", HANG)
    wait_for(directory_of(tmp_path / "tiny", 10))
    frozen = workers_of(driver)[0]
    os.kill(frozen.pid, signal.SIGSTOP)
    said, wrong = driver.communicate(timeout=200)
    assert driver.returncode == 0, said + wrong
    assert "no sign of life for 1" in said
    stacks = assert_resumed(said, golden, tmp_path / "tiny")
    assert f"process {frozen.pid}" in stacks
    assert all("in take_step" in each for each in stacks.split("worker 1, "))  # of both


@pytest.mark.long
def test_an_evaluation_may_take_longer_than_a_hang(tmp_path: Path) -> None:
    words = (TINY_YAML, f"storage_path={tmp_path}", "train.max_steps=16", "hang_minutes=0.1")
    driver = start("train", *words, LIPI_HANG_AT=f"before_evaluation:8:0:{tmp_path / 'hung'}")
    wait_for(tmp_path / "hung")
    with pytest.raises(subprocess.TimeoutExpired):
        driver.communicate(timeout=15)
    assert list((tmp_path / "tiny").glob("stacks_*.txt")) == []
    driver.kill()
    said, _ = driver.communicate()
    assert "ended" not in said

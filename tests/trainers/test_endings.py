"""Runs that are asked to end, and resumes on another kind of processor."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.commands import call, start
from tests.support.resuming import assert_equal_at
from trainers.report.records import read_records

SPARSE = ("train.eval_steps=1000", "train.save_steps=1000", "train.logging_steps=1")
WORDS = ("configs/tiny.yaml", *SPARSE)
STEPS = 60


def lines(run_dir: Path) -> list[dict[str, object]]:
    path = run_dir / "timings.jsonl"
    return list(read_records(path).lines) if path.exists() else []


def steps_taken(run_dir: Path) -> list[object]:
    return [line["step"] for line in lines(run_dir) if "samples_per_second" in line]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    done = call("train", *WORDS, f"train.max_steps={STEPS}", f"storage_path={folder}")
    assert done.returncode == 0, done.stderr
    return folder / "tiny"


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "status", "sent"),
    [
        (signal.SIGINT, 130, os.kill),
        (signal.SIGTERM, 143, os.kill),
        (signal.SIGTERM, 143, os.killpg),  # as `timeout` sends it
    ],
    ids=["INT", "TERM", "TERM to its group"],
)
def test_a_run_that_is_asked_to_end_saves_its_step_and_goes_on_exactly(
    number: signal.Signals,
    status: int,
    sent: Callable[[int, int], None],
    undisturbed: Path,
    tmp_path: Path,
) -> None:
    words = (*WORDS, f"train.max_steps={STEPS}", f"storage_path={tmp_path}")
    driver = start("train", *words, own_group=True)
    until = time.monotonic() + 120
    while len(steps_taken(tmp_path / "tiny")) < 5:
        assert time.monotonic() < until
        time.sleep(0.02)
    sent(driver.pid, number)
    said, wrong = driver.communicate(timeout=60)
    assert driver.returncode == status, said + wrong
    assert "interrupted; run the same command to resume" in wrong and "Traceback" not in wrong
    done = call("train", *words)
    assert done.returncode == 0 and "continues exactly, from step" in done.stdout, done.stderr
    taken = steps_taken(tmp_path / "tiny")
    assert len(taken) == len(set(taken)) == STEPS
    assert_equal_at(STEPS, tmp_path / "tiny", undisturbed)


@pytest.mark.long
def test_other_instructions_of_the_cpu_are_told(tmp_path: Path) -> None:
    words = (*WORDS, f"storage_path={tmp_path}")
    assert call("train", *words, "train.max_steps=6").returncode == 0
    resumed = call("train", *words, "train.max_steps=12", ATEN_CPU_CAPABILITY="default")
    assert resumed.returncode == 0, resumed.stderr
    assert "equal to rounding, because hardware" in resumed.stdout
    assert "→" in resumed.stdout and "DEFAULT" in resumed.stdout

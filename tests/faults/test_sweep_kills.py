"""SIGKILL in the middle of a sweep, of its driver and of a trial's process.

The same command again ends it as if nothing had been.
"""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from ocr.settings import load_settings
from tests.support.commands import PROJECT, call, start
from trainers.sweep.decider import stages
from trainers.sweep.ledger import Ledger
from trainers.sweep.settings import SweepConfig

SWEEP: dict[str, Any] = {
    "sweep_name": "tiny",
    "base": str(PROJECT / "configs" / "tiny.yaml"),
    "overrides": ["train.eval_steps=8", "train.save_steps=8"],
    "space": {
        "optimizer.learning_rate": {"log_uniform": [1e-4, 1e-2]},
        "loss.focal_gamma": {"uniform": [0, 2]},
    },
    "trials": 5,
}
ASHA = {"scheduler": "asha", "asha": {"grace_steps": 8, "reduction_factor": 2}, "trials": 8}


def written(folder: Path, **changes: Any) -> list[str]:
    """The words of a sweep in this folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sweep.yaml").write_text(json.dumps({**SWEEP, **changes}))
    return [str(folder / "sweep.yaml"), f"storage_path={folder}"]


def table(folder: Path) -> dict[str, Any]:
    """Every trial with what it was and what it found."""
    found = json.loads((folder / "tiny" / "sweep.json").read_text())
    kept = ("status", "values", "evaluations", "metrics")
    return {trial["id"]: {key: trial[key] for key in kept} for trial in found["trials"]} | {
        "best": found["best"],
        "best_value": found["best_value"],
    }


def killed_at(lines: int, folder: Path, words: list[str]) -> None:
    """Start the sweep and SIGKILL its driver once its ledger has so many lines."""
    driver, ledger = start("sweep", *words), folder / "tiny" / "ledger.jsonl"
    deadline = time.monotonic() + 200
    while not ledger.is_file() or ledger.read_text().count("\n") < lines:
        assert time.monotonic() < deadline
        assert driver.poll() is None, driver.communicate()
        time.sleep(0.05)
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("undisturbed")
    done = call("sweep", *written(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    return table(folder)


@pytest.mark.parametrize("lines", [3, 9, 16])
def test_sigkill_of_the_driver_and_the_same_command_again_give_the_same_table(
    lines: int, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    words = written(tmp_path)
    killed_at(lines, tmp_path, words)
    done = call("sweep", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert table(tmp_path) == undisturbed


def test_sigkill_of_a_trials_process_gives_the_same_table(
    undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    done = call("sweep", *written(tmp_path), LIPI_KILL_AT=f"step:19:0:{tmp_path / 'killed'}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "killed").exists()
    assert table(tmp_path) == undisturbed


@pytest.mark.parametrize("lines", [6, 14])
def test_with_early_stopping_nothing_finished_is_run_again_and_the_rungs_agree(
    lines: int, tmp_path: Path
) -> None:
    words = written(tmp_path, **ASHA)
    killed_at(lines, tmp_path, words)
    ledger = tmp_path / "tiny" / "ledger.jsonl"
    before, kept = Ledger(ledger), ledger.read_text()
    attempts = {trial.id: attempt_of(tmp_path, trial.id) for trial in before.ended()}
    done = call("sweep", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    after = Ledger(ledger)
    assert ledger.read_text().startswith(kept[: kept.rfind("\n") + 1])
    assert {
        id: attempt_of(tmp_path, id)
        for id in attempts
        if id != json.loads((tmp_path / "tiny" / "sweep.json").read_text())["best"]
    } == {
        id: attempt
        for id, attempt in attempts.items()
        if id != json.loads((tmp_path / "tiny" / "sweep.json").read_text())["best"]
    }
    assert len(after.ended()) == ASHA["trials"]
    sweep = load_settings(SweepConfig, tmp_path / "sweep.yaml")
    for milestone, rung in stages(sweep, after, 40).items():
        for id, value in rung.items():
            assert value == after.trials[id].evaluations[milestone]["eval_cer"]
    for trial in after.trials.values():
        if trial.status == "stopped":
            assert max(trial.evaluations) == int(trial.reason.removeprefix("rung "))


def attempt_of(folder: Path, id: str) -> int:
    """How many processes have held the trial's directory."""
    return int(json.loads((folder / "tiny" / "trials" / id / "writer.json").read_text())["attempt"])

"""Sweeps: values are a function of the sweep, decisions are in the ledger.

A sweep ends with a config that train.py takes.
"""

import contextlib
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ocr.errors import UserError
from ocr.files import write_json
from ocr.json_lines import lines_of, read_lines
from ocr.processes import Process
from ocr.settings import load_settings, parse_settings
from tests.support.commands import PROJECT, assert_refused, call, start
from tests.support.disks import fill, small_disk
from tests.support.resuming import assert_same, wait_for
from tests.support.tiny import train_here
from trainers.config import TrainConfig
from trainers.loop.checkpoint import directory_of, verify_hashes
from trainers.loop.lease import Lease, LostLease, SweepLease
from trainers.runs.launch import launch
from trainers.sweep.decider import Decider, stages
from trainers.sweep.ledger import Ledger
from trainers.sweep.settings import SweepConfig
from trainers.sweep.space import base_of, mistakes, number_of_trials, sampled, trial_config
from trainers.sweep.tpe import importances, suggested

TINY: dict[str, Any] = {
    "sweep_name": "tiny",
    "base": str(PROJECT / "configs" / "tiny.yaml"),
    "overrides": ["train.max_steps=8", "train.eval_steps=2", "train.save_steps=2"],
    "space": {
        "optimizer.learning_rate": {"log_uniform": [1e-4, 1e-2]},
        "loss.focal_gamma": {"choice": [0.0, 1.0, 2.0]},
    },
    "trials": 4,
}


def sweep_of(**changes: Any) -> SweepConfig:
    return parse_settings(SweepConfig, {**TINY, **changes}, "tiny")


def test_a_trials_values_are_a_function_of_the_sweep_and_its_number() -> None:
    sweep = sweep_of(
        space={
            **TINY["space"],
            "train.logging_steps": {"integer": [1, 4]},
            "train.save_total_limit": {"times": ["train.logging_steps", 2]},
        }
    )
    many = [sampled(sweep, number) for number in range(200)]
    assert many == [sampled(sweep, number) for number in range(200)]
    assert sampled(sweep, 7) != sampled(sweep.model_copy(update={"seed": 43}), 7)
    assert all(1e-4 <= values["optimizer.learning_rate"] <= 1e-2 for values in many)  # type: ignore[operator]
    assert {values["train.logging_steps"] for values in many} == {1, 2, 3, 4}
    assert all(
        values["train.save_total_limit"] == 2 * values["train.logging_steps"] for values in many
    )  # type: ignore[operator]
    below = sum(values["optimizer.learning_rate"] < 1e-3 for values in many)  # type: ignore[operator]
    assert 70 < below < 130  # each order of magnitude alike


def test_a_grid_is_every_combination_once() -> None:
    sweep = sweep_of(
        searcher="grid",
        trials=None,
        space={"loss.focal_gamma": {"choice": [0.0, 1.0]}, "train.seed": {"choice": [1, 2, 3]}},
    )
    assert number_of_trials(sweep) == 6
    assert len({json.dumps(sampled(sweep, number)) for number in range(6)}) == 6


def test_a_trial_is_the_base_with_other_values() -> None:
    sweep = sweep_of()
    config = trial_config(
        base_of(sweep),
        {"optimizer.learning_rate": 0.005, "loss.focal_gamma": 1.0},
        Path("/somewhere"),
        "t003",
    )
    assert (config.optimizer.learning_rate, config.loss.focal_gamma, config.train.max_steps) == (
        0.005,
        1.0,
        8,
    )
    assert str(config.local_run_dir) == "/somewhere/t003"


def test_every_mistake_of_a_space_is_told_at_once() -> None:
    space = {
        "optimizer.learning_rat": {"uniform": [0.1, 0.2]},
        "loss.focal_gamma": {"uniform": [5, 50]},
        "lora.rank": {"choice": [8]},
        "workers": {"choice": [1, 2]},
    }
    found = list(
        mistakes(
            sweep_of(
                space=space,
                metric="eval_cer_teacher_forced",
                scheduler="asha",
                asha={"grace_steps": 8},
            ),
            base_of(sweep_of()),
        )
    )
    for part in (
        "did you mean 'learning_rate'",
        "focal_gamma at 50",
        "lora: without effect on model.kind=compact",
        "eval_cer_teacher_forced is for vision",
        "no trial could stop",
        "space.workers: belongs to a trial's slot",
    ):
        assert any(part in line for line in found), (part, found)


def test_every_mistake_of_a_range_is_told_at_once() -> None:
    with pytest.raises(UserError) as caught:
        sweep_of(
            metric="cer",
            space={
                "a.b": {"uniform": [2, 1]},
                "c.d": {"uniform": [1, 2], "choice": [1]},
                "e.f": {"log_uniform": [0, 1]},
            },
        )
    told = str(caught.value)
    for part in (
        "4 mistakes",
        "the range [2.0, 1.0] is empty",
        "got uniform, choice",
        "has no logarithm",
        "got 'cer'",
    ):
        assert part in told
    with pytest.raises(UserError, match=r"times 'lora\.rank', which is no key of the space"):
        sweep_of(space={"lora.alpha": {"times": ["lora.rank", 2]}})
    with pytest.raises(UserError, match=r"optimizer\.learning_rate has a range"):
        sweep_of(searcher="grid")


def ledger_with(path: Path, values: dict[str, list[float]], sweep: SweepConfig) -> Ledger:
    """Trials that were judged every 2 steps, interleaved."""
    ledger = Ledger(path)
    for number, id in enumerate(values):
        ledger.add(id, sampled(sweep, number))
    for place in range(max(map(len, values.values()))):
        for id, found in values.items():
            if place < len(found):
                ledger.note(id, 2 * (place + 1), {"eval_cer": found[place]}, 1.0, 0.5)
    return ledger


def test_a_torn_line_is_dropped_and_what_is_heard_twice_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = ledger_with(path, {"t000": [0.9, 0.8], "t001": [0.7]}, sweep_of())
    with open(path, "a") as file:
        file.write('{"trial": "t000", "sta')
    again = Ledger(path)
    assert again.trials == ledger.trials
    again.note("t001", 2, {"eval_cer": 0.1}, 2.0, None)
    assert again.trials["t001"].evaluations == {2: {"eval_cer": 0.7}}
    assert again.decided == [("t000", 2), ("t001", 2), ("t000", 4)]
    assert path.read_text().count("\n") == 6


def test_a_ledger_cut_at_any_byte_is_read_repaired_and_written_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger_with(path, {"t000": [0.9, 0.8], "t001": [0.7]}, sweep_of()).end("t000", "finished")
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        lines = lines_of(whole[:length])
        Ledger(path).add("t009", {})
        assert ("skipped 1 unreadable line" in capsys.readouterr().out) == bool(lines.unreadable)
        assert read_lines(path).values == (*lines.values, {"trial": "t009", "values": {}})
        assert read_lines(path).unreadable == 0


def test_a_torn_line_within_a_ledger_costs_that_line_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger_with(path, {"t000": [0.9], "t001": [0.7], "t002": [0.5]}, sweep_of())
    rows = path.read_text().splitlines(keepends=True)
    path.write_text("".join([rows[0], rows[1][:9], *rows[2:]]))  # t001's values, glued to t002's
    ledger = Ledger(path)
    assert list(ledger.trials) == ["t000"]
    assert ledger.next_number() == 1
    assert "skipped 3 unreadable lines" in capsys.readouterr().out  # two evaluations without trials


def test_a_ledger_on_a_full_disk_loses_no_line_before_and_goes_on_with_room(
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path / "disk") as disk:
        ledger, number = Ledger(disk / "ledger.jsonl"), 0
        filler = fill(disk, leave=4096)
        with contextlib.suppress(OSError):
            for number in range(1000):
                ledger.add(f"t{number:03}", {"loss.focal_gamma": 1.0})
        assert 0 < number < 999
        filler.unlink()
        ledger.add("t999", {})
        found = list(Ledger(disk / "ledger.jsonl").trials)
        assert found == [*(f"t{each:03}" for each in range(number)), "t999"]


def test_an_ousted_sweep_writes_no_line(tmp_path: Path) -> None:
    with Lease(tmp_path) as lease:
        ledger = Ledger(tmp_path / "ledger.jsonl", SweepLease(tmp_path, lease.attempt))
        ledger.add("t000", {})
        write_json(tmp_path / "lease.json", {"attempt": lease.attempt + 1})
        with pytest.raises(LostLease):
            ledger.add("t001", {})
    assert list(Ledger(tmp_path / "ledger.jsonl").trials) == ["t000"]


def test_rungs_filled_from_the_ledger_are_those_that_were(tmp_path: Path) -> None:
    sweep = sweep_of(scheduler="asha", asha={"grace_steps": 2, "reduction_factor": 2})
    values = {
        "t000": [0.9, 0.6, 0.5, 0.4],
        "t001": [0.8, 0.7],
        "t002": [0.95],
        "t003": [0.5, 0.4, 0.3, 0.2],
    }
    ledger = ledger_with(tmp_path / "ledger.jsonl", values, sweep)
    expected = {
        2: {id: found[0] for id, found in values.items()},
        4: {id: found[1] for id, found in values.items() if len(found) > 1},
        8: {"t000": 0.4, "t003": 0.2},
    }
    assert (
        stages(sweep, ledger, 8) == stages(sweep, Ledger(tmp_path / "ledger.jsonl"), 8) == expected
    )


def test_a_trial_that_died_after_its_last_step_is_not_stopped_early_but_left_to_finish(
    tmp_path: Path,
) -> None:
    sweep = sweep_of(scheduler="asha", asha={"grace_steps": 2, "reduction_factor": 2})
    ledger = ledger_with(
        tmp_path / "ledger.jsonl",
        {"t000": [0.5, 0.4, 0.3, 0.2], "t001": [0.4, 0.3, 0.2, 0.9], "t002": [0.95]},
        sweep,
    )
    Decider(sweep, ledger, 8, 0.0)
    assert [ledger.trials[id].status for id in ledger.trials] == ["waiting", "waiting", "stopped"]


def test_tpe_needs_nothing_but_the_ledger(tmp_path: Path) -> None:
    sweep = sweep_of(searcher="optuna", trials=20)
    finals = {
        f"t{number:03}": [abs(sampled(sweep, number)["optimizer.learning_rate"] - 0.003)]
        for number in range(12)
    }  # type: ignore[operator]
    ledger = ledger_with(tmp_path / "ledger.jsonl", finals, sweep)
    for id in finals:
        ledger.end(id, "finished")
    first = suggested(sweep, ledger, 12)
    assert first == suggested(sweep, Ledger(tmp_path / "ledger.jsonl"), 12)
    assert suggested(sweep, ledger, 13) != first
    assert set(first) == set(sweep.space)
    weight = importances(sweep, ledger)
    assert weight["optimizer.learning_rate"] > weight["loss.focal_gamma"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A sweep with a rate that explodes among its choices, run to its end, and its command."""
    storage = tmp_path_factory.mktemp("sweep")
    file = storage / "sweep.yaml"
    choices = {
        "optimizer.learning_rate": {"choice": [1e-3, 1e20, 3e-3]},
        "optimizer.warmup_steps": {"choice": [0]},
    }
    file.write_text(
        json.dumps(
            {**TINY, "searcher": "grid", "trials": None, "space": choices, "max_failed": 0.5}
        )
    )
    words = [str(file), f"storage_path={storage}"]
    done = call("sweep", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "✗ t001" in done.stdout
    return storage / "tiny", words


def test_a_failed_trial_is_recorded_with_its_reason_and_ends_nothing(
    swept: tuple[Path, list[str]],
) -> None:
    found = json.loads((swept[0] / "sweep.json").read_text())
    assert [trial["status"] for trial in found["trials"]] == ["finished", "failed", "finished"]
    assert "not finite" in found["trials"][1]["reason"]
    assert found["counts"] == {"finished": 2, "failed": 1}
    finished = [trial for trial in found["trials"] if trial["status"] == "finished"]
    assert found["best_value"] == min(trial["metrics"]["eval_cer"] for trial in finished)
    assert all(
        trial["config"]["optimizer"]["learning_rate"] == trial["values"]["optimizer.learning_rate"]
        for trial in found["trials"]
    )
    page = (swept[0] / "sweep.html").read_text()
    assert page.count("<svg") >= 2
    assert "not finite" in page


def test_the_best_config_trains_by_itself_to_the_trials_own_weights(
    swept: tuple[Path, list[str]], tmp_path: Path
) -> None:
    config = load_settings(TrainConfig, swept[0] / "best.yaml", [f"storage_path={tmp_path}"])
    best = json.loads((swept[0] / "sweep.json").read_text())["best"]
    assert config.run_name == "tiny-best"
    torch.set_num_threads(1)
    launch(config, train_here, "the command")
    alone, trial = (
        verify_hashes(directory_of(where, 8))
        for where in (tmp_path / "tiny-best", swept[0] / "trials" / best)
    )
    assert_same(alone.weights(), trial.weights())
    assert (swept[0] / "bundle" / "manifest.json").is_file()


def test_a_finished_sweep_says_so_and_another_is_refused(swept: tuple[Path, list[str]]) -> None:
    before = (swept[0] / "ledger.jsonl").read_text()
    again = call("sweep", *swept[1])
    assert again.returncode == 0, again.stdout + again.stderr
    assert "this sweep is finished" in again.stdout
    assert (swept[0] / "ledger.jsonl").read_text() == before
    assert_refused(
        call("sweep", *swept[1], "seed=7"), "another sweep than the one in this folder: seed differ"
    )
    base = json.loads((swept[0] / "base.yaml").read_text())
    base["optimizer"]["weight_decay"] = 0.5
    (swept[0] / "base.yaml").write_text(json.dumps(base))
    assert_refused(call("sweep", *swept[1]), "base: optimizer.weight_decay differ")


@pytest.mark.long
def test_failed_trials_are_tried_again_where_asked_for_whoever_holds_their_folders(
    tmp_path: Path,
) -> None:
    file, folder = tmp_path / "sweep.yaml", tmp_path / "tiny"
    file.write_text(json.dumps({**TINY, "trials": 2}))
    words = (file, f"storage_path={tmp_path}")
    (folder / "trials" / "t001").mkdir(parents=True)
    node = replace(Process.current(), host="nodeb", boot="the boot of node B").as_json()
    dead = {"attempt": 3, **node, "renewed_at": time.time() + 3600}
    write_json(folder / "trials" / "t001" / "lease.json", dead)
    first = call("sweep", *words)
    assert first.returncode == 0 and "✗" not in first.stdout, first.stdout + first.stderr
    ledger = Ledger(folder / "ledger.jsonl")
    ledger.end("t000", "failed", "its node died")
    again = call("sweep", *words)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "t000: failed; retry_failed=true tries again" in again.stdout
    assert Ledger(folder / "ledger.jsonl").trials["t000"].status == "failed"
    retried = call("sweep", *words, "retry_failed=true")
    assert retried.returncode == 0, retried.stdout + retried.stderr
    assert [each.status for each in Ledger(folder / "ledger.jsonl").trials.values()] == [
        "finished",
        "finished",
    ]
    for name in ("sweep_config.yaml", "base.yaml"):
        shutil.copy(folder / name, tmp_path / name)
        (folder / name).write_text('{"sweep_name": "ti')
        assert_refused(call("sweep", *words), name, "restore the file")
        shutil.copy(tmp_path / name, folder / name)


@pytest.mark.long
@pytest.mark.parametrize("max_failures", [3, 0])
def test_a_trial_that_loses_its_folder_is_not_over(max_failures: int, tmp_path: Path) -> None:
    file, folder = tmp_path / "sweep.yaml", tmp_path / "tiny" / "trials" / "t000"
    overrides = ["train.max_steps=200", "train.eval_steps=100", "train.save_steps=5"]
    file.write_text(json.dumps({**TINY, "trials": 1, "overrides": overrides}))
    words = (file, f"storage_path={tmp_path}", f"max_failures={max_failures}")
    driver = start("sweep", *words)
    wait_for(directory_of(folder, 5))
    write_json(folder / "lease.json", {"attempt": 99, "released": True})
    out, error = driver.communicate(timeout=300)
    ledger = Ledger(tmp_path / "tiny" / "ledger.jsonl")
    if max_failures:
        assert driver.returncode == 0, out + error
    else:
        assert driver.returncode == 1, out + error
        assert "trials are left; run the same command again:\n  t000: " in error
        assert "attempt 99 has taken this run over" in error
        assert ledger.trials["t000"].status == "waiting"
        again = call("sweep", *words)
        assert again.returncode == 0, again.stdout + again.stderr
    ledger = Ledger(tmp_path / "tiny" / "ledger.jsonl")
    assert (ledger.trials["t000"].status, ledger.trials["t000"].reason) == ("finished", "")
    assert json.loads((folder / "writer.json").read_text())["attempt"] == 100


def test_a_share_of_failures_too_high_ends_the_sweep_with_the_reasons(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    space = {
        "optimizer.learning_rate": {"choice": [1e19, 1e20]},
        "optimizer.warmup_steps": {"choice": [0]},
    }
    file.write_text(json.dumps({**TINY, "searcher": "grid", "trials": None, "space": space}))
    assert_refused(
        call("sweep", file, f"storage_path={tmp_path}"),
        "trials failed, more than max_failed=0.3",
        "not finite",
    )

"""A run that is stopped and continued is the run that never stopped, to the last bit."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ocr.recognizers.ctc.settings import CrnnSettings, MobileNetSettings, SvtrSettings
from tests.support.resuming import assert_equal_at, die_at, run_again
from tests.support.tiny import tiny_config, tiny_context, tiny_task
from trainers.loop.checkpoint import directory_of
from trainers.loop.loop import fit

STEPS = 40


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The undisturbed run, every checkpoint of it kept."""
    torch.set_num_threads(1)
    config = tiny_config(
        tmp_path_factory.mktemp("golden"), train={"save_steps": 1, "save_total_limit": STEPS}
    )
    fit(config, tiny_task(config), tiny_context(config))
    return config.local_run_dir


def assert_finished_like(run_dir: Path, golden: Path) -> None:
    """The end of the run and all of its logs are golden's."""
    assert_equal_at(STEPS, run_dir, golden)
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert (run_dir / name).read_text() == (golden / name).read_text()
    for file in golden.glob("*.eval.json"):
        assert (run_dir / file.name).read_text() == file.read_text()


def test_stopping_and_resuming_at_every_step_changes_no_bit(golden: Path, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, train={"save_total_limit": STEPS})
    for step in range(1, STEPS + 1):
        run_again(config, stop_after=step)
        assert_equal_at(step, config.local_run_dir, golden)
    assert_finished_like(config.local_run_dir, golden)


OTHERS: dict[str, dict[str, Any]] = {
    "the Corrections system's network": {"model": CrnnSettings()},
    "the Thai system's network": {"model": MobileNetSettings()},
    "its other network, of short lines": {"model": SvtrSettings(width_px=64, out_char_num=16)},
    "Adam with a focal, smoothed loss": {
        "optimizer": {"name": "adam"},
        "loss": {"focal_gamma": 2.0, "focal_alpha": 0.25, "label_smoothing": 0.1},
    },
}


@pytest.mark.parametrize("kind", OTHERS)
def test_every_network_optimizer_and_loss_is_exact(kind: str, tmp_path: Path) -> None:
    few: dict[str, Any] = {
        "data": {"max_train_samples": 40},
        "train": {"max_steps": 5, "eval_steps": 4, "save_total_limit": 9},
    }
    through, stopped = (
        tiny_config(tmp_path / name, **few, **OTHERS[kind], max_skipped=1.0)
        for name in ("through", "stopped")
    )
    run_again(through)
    for step in range(1, 6):
        run_again(stopped, stop_after=step)
    assert_equal_at(5, stopped.local_run_dir, through.local_run_dir)


@pytest.mark.parametrize(
    "step",
    [5, 18, 40, *(pytest.param(step, marks=pytest.mark.long) for step in (3, 6, 16, 17, 33))],
)
def test_a_death_between_checkpoints_changes_no_bit(
    step: int, golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(tmp_path)
    die_at("step", step, config, monkeypatch)
    run_again(config)
    assert_finished_like(config.local_run_dir, golden)


@pytest.mark.parametrize(
    "point", ["before_manifest", "after_manifest", "before_rename", "before_evaluation"]
)
def test_a_death_inside_a_checkpoint_changes_no_bit(
    point: str, golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(tmp_path)
    die_at(point, 24, config, monkeypatch)
    assert directory_of(config.local_run_dir, 24).exists() == (point == "before_evaluation")
    run_again(config)
    assert_finished_like(config.local_run_dir, golden)
    assert not list(config.local_run_dir.glob(".checkpoint*"))


def test_every_sample_stands_once_per_epoch_in_the_ledger(golden: Path) -> None:
    import json

    lines = [json.loads(line) for line in (golden / "samples.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    ids = [id for line in lines for id in line["samples"]]
    for epoch in (ids[:200], ids[200:400]):
        assert len(set(epoch)) == 200
    assert len(lines[16]["samples"]) == 200 % 12


def test_raising_max_steps_continues_a_finished_run(tmp_path: Path) -> None:
    short, long = (tiny_config(tmp_path, train={"max_steps": steps}) for steps in (10, 14))
    run_again(short)
    state = fit(long, tiny_task(long), tiny_context(long))
    assert (state.step, state.extended_at) == (14, [10])


def test_other_threads_or_versions_are_named_as_the_reason_for_rounding(tmp_path: Path) -> None:
    from dataclasses import replace

    config = tiny_config(tmp_path)
    context = tiny_context(config)
    torch = context.environment["torch"]
    fit(config, tiny_task(config), context, stop_after=4)
    there = {**context.environment, "workers": 4, "torch": "1.0"}
    elsewhere = replace(context, environment=there)
    state = fit(config, tiny_task(config), elsewhere, stop_after=5)
    assert state.resumed_at == [
        {
            "step": 4,
            "exactness": f"equal to rounding, because workers 1 → 4, torch {torch} → 1.0",
        }
    ]

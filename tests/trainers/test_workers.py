"""The number of workers changes a run by rounding alone, and the run says so."""

import json
from pathlib import Path

import pytest
import torch
from torch.multiprocessing import ProcessExitedException

from tests.support.resuming import assert_same
from tests.support.tiny import tiny_config, tiny_context, tiny_task
from tests.support.together import fit_together
from trainers.config import TrainConfig
from trainers.loop.checkpoint import directory_of, verify_hashes
from trainers.loop.loop import fit
from trainers.report.records import read_records

STEPS = {"max_steps": 20, "eval_steps": 10}


def final(config: TrainConfig) -> dict[str, torch.Tensor]:
    return verify_hashes(directory_of(config.local_run_dir, 20)).weights()


def events(config: TrainConfig) -> list[str]:
    """What the run says of its restarts."""
    text = (config.local_run_dir / "timings.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    return [line["text"] for line in lines if line.get("event") == "restart"]


@pytest.mark.long
def test_two_then_one_then_three_workers_in_mid_epoch_are_one_run_to_rounding(
    tmp_path: Path,
) -> None:
    alone = tiny_config(tmp_path / "alone", train=STEPS)
    torch.set_num_threads(1)
    fit(alone, tiny_task(alone), tiny_context(alone))
    by_turns = [
        tiny_config(tmp_path / "turns", train=STEPS, workers=workers) for workers in (2, 1, 3)
    ]
    for config, stop_after in zip(by_turns, (6, 13, None), strict=True):
        fit_together(config, stop_after)

    golden, ours = final(alone), final(by_turns[0])
    difference = (
        sum(float((ours[name] - golden[name]).double().square().sum()) for name in golden) ** 0.5
    )
    size = sum(float(tensor.double().square().sum()) for tensor in golden.values()) ** 0.5
    assert difference < 1e-5 * size, f"{difference / size:.1e}"
    ledgers = [
        (config.local_run_dir / "samples.jsonl").read_text() for config in (alone, by_turns[0])
    ]
    assert ledgers[0] == ledgers[1]
    assert events(by_turns[0]) == [
        "continues, equal to rounding, because workers 2 → 1, from step 6",
        "continues, equal to rounding, because workers 1 → 3, from step 13",
    ]


@pytest.mark.long
def test_two_workers_stopped_and_continued_are_two_workers_undisturbed(tmp_path: Path) -> None:
    through, stopped = (
        tiny_config(tmp_path / name, train=STEPS, workers=2) for name in ("through", "stopped")
    )
    fit_together(through)
    fit_together(stopped, stop_after=7)
    fit_together(stopped)
    assert_same(final(stopped), final(through))
    assert (stopped.local_run_dir / "metrics.jsonl").read_text() == (
        through.local_run_dir / "metrics.jsonl"
    ).read_text()


def test_exact_sums_are_the_same_bits_for_any_number_of_workers(tmp_path: Path) -> None:
    alone = tiny_config(tmp_path / "alone", train=STEPS, reduce="exact")
    torch.set_num_threads(1)
    fit(alone, tiny_task(alone), tiny_context(alone))
    golden = verify_hashes(directory_of(alone.local_run_dir, 20))
    by_turns = [
        tiny_config(tmp_path / "turns", train=STEPS, workers=workers, reduce="exact")
        for workers in (2, 1, 3)
    ]
    for config, stop_after in zip(by_turns, (6, 13, None), strict=True):
        fit_together(config, stop_after)
    ours = verify_hashes(directory_of(by_turns[0].local_run_dir, 20))
    assert_same(ours.weights(), golden.weights())
    assert_same(ours.optimizer(), golden.optimizer())
    assert events(by_turns[0]) == [f"continues exactly, from step {step}" for step in (6, 13)]


def test_exact_sums_are_close_to_those_in_fp64(tmp_path: Path) -> None:
    fp64, exact = (
        tiny_config(tmp_path / name, train=STEPS, reduce=name) for name in ("fp64", "exact")
    )
    torch.set_num_threads(1)
    for config in (fp64, exact):
        fit(config, tiny_task(config), tiny_context(config))
    # weights whose gradient is rounding alone are where Adam takes them, so losses are compared
    one, other = (
        [line["loss"] for line in read_records(config.local_run_dir / "metrics.jsonl").lines]
        for config in (fp64, exact)
    )
    assert one == pytest.approx(other, rel=1e-2) and one != other


@pytest.mark.long
def test_gradients_summed_in_fp32_are_the_same_bits_across_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    through, killed = (
        tiny_config(tmp_path / name, train=STEPS, workers=2, reduce="fp32")
        for name in ("through", "killed")
    )
    fit_together(through)
    monkeypatch.setenv("LIPI_KILL_AT", f"step:14:1:{tmp_path / 'marker'}")
    with pytest.raises(ProcessExitedException, match="SIGKILL"):
        fit_together(killed)
    fit_together(killed)
    assert_same(final(killed), final(through))
    assert events(killed) == ["continues exactly, from step 10"]


def test_fp32_is_close_to_fp64_and_a_change_between_them_is_said(tmp_path: Path) -> None:
    runs = [
        tiny_config(tmp_path / name, train=STEPS, workers=2, reduce=name)
        for name in ("fp64", "fp32")
    ]
    for config in runs:
        fit_together(config, stop_after=2)
    exact, half = (
        verify_hashes(directory_of(config.local_run_dir, 2)).weights() for config in runs
    )
    assert any(not torch.equal(exact[name], half[name]) for name in exact)
    assert all(torch.allclose(exact[name], half[name], rtol=1e-3, atol=1e-4) for name in exact)
    fit_together(runs[0].model_copy(update={"reduce": "fp32"}), stop_after=4)
    assert events(runs[0]) == [
        "continues, equal to rounding, because engine all_reduce → all_reduce in fp32, from step 2"
    ]

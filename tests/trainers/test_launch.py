"""The same command again continues, finishes or refuses; damage is named."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ocr.errors import UserError
from ocr.files import write_json
from ocr.recognizers.factory import load
from tests.support.finished import SHORT, config_at, copied, finished_in, never
from tests.support.tiny import tiny_config, tiny_context, tiny_task, train_here
from trainers.loop.batches import Plan, micro_batches_of
from trainers.loop.checkpoint import directory_of, evaluation_of, steps_of
from trainers.loop.engines.engine import NotFiniteError
from trainers.loop.loop import fit
from trainers.loop.schedule import learning_rate
from trainers.runs.job import Job
from trainers.runs.launch import launch


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_in(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def run_dir(finished_run: Path, tmp_path: Path) -> Path:
    return copied(finished_run, tmp_path)


def test_the_final_line_says_what_came_of_it(finished_run: Path) -> None:
    outcome = launch(config_at(finished_run), never, "the command")
    assert outcome.was_finished
    assert str(outcome).startswith("tiny: CER ")
    assert str(outcome).endswith(f"on 20 validation samples, step 10, {finished_run / 'bundle'}")


def test_a_finished_run_says_so_and_trains_nothing(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {file: file.stat().st_mtime_ns for file in run_dir.rglob("checkpoint_*/*")}
    launch(config_at(run_dir), never, "the command")
    assert "this run is finished" in capsys.readouterr().out
    assert before == {file: file.stat().st_mtime_ns for file in run_dir.rglob("checkpoint_*/*")}


def test_the_bundle_reads_what_the_report_says(finished_run: Path) -> None:
    report = json.loads((finished_run / "report.json").read_text())
    from ocr.dataset.read import Dataset
    from ocr.evaluation import evaluate

    counts = evaluate(
        load(finished_run / "bundle"), Dataset.open("odia_words", "validation"), range(20)
    ).counts
    assert counts.cer == report["eval_cer"]
    assert (finished_run / "report.html").read_text().startswith("<!doctype html>")


def test_a_report_lost_in_the_last_second_is_made_again(run_dir: Path) -> None:
    report = (run_dir / "report.json").read_text()
    (run_dir / "report.json").unlink()
    shutil.rmtree(run_dir / "bundle")
    launch(config_at(run_dir), never, "the command")
    assert (
        json.loads((run_dir / "report.json").read_text())["eval_cer"]
        == json.loads(report)["eval_cer"]
    )
    load(run_dir / "bundle")


def test_a_last_line_of_metrics_lost_between_evaluation_and_log_is_written_again(
    run_dir: Path,
) -> None:
    """Found by make faults: all processes died after the last eval.json and before its line."""
    whole = (run_dir / "metrics.jsonl").read_text()
    (run_dir / "metrics.jsonl").write_text("".join(whole.splitlines(keepends=True)[:-1]))
    for name in ("report.json", "report.html"):
        (run_dir / name).unlink()
    outcome = launch(config_at(run_dir), train_here, "the command")
    assert (run_dir / "metrics.jsonl").read_text() == whole
    assert outcome.report["step"] == 15


def truncate(path: Path) -> None:
    (path / "model.safetensors").write_bytes((path / "model.safetensors").read_bytes()[:-1000])


def zero_tail(path: Path) -> None:
    data = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(data[:-4096] + bytes(4096))


def flip_a_bit(path: Path) -> None:
    data = bytearray((path / "optimizer.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (path / "optimizer.pt").write_bytes(data)


def delete_a_file(path: Path) -> None:
    (path / "state.json").unlink()


def empty(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


def manifest_of_another_run(path: Path) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    write_json(path / "manifest.json", {**manifest, "run": "f" * 64})


def manifest_of_another_step(path: Path) -> None:
    shutil.copy(directory_of(path.parent, 10) / "manifest.json", path / "manifest.json")


DAMAGES: list[tuple[Callable[[Path], None], str]] = [
    (truncate, "model.safetensors: not what was written"),
    (zero_tail, "model.safetensors: not what was written"),
    (flip_a_bit, "optimizer.pt: not what was written"),
    (delete_a_file, "state.json: missing"),
    (empty, "manifest.json: missing; the directory is empty"),
    (manifest_of_another_run, "manifest.json: the manifest of another run"),
    (manifest_of_another_step, "manifest.json: the manifest of step 10"),
]


@pytest.mark.parametrize(
    ("damage", "named"), DAMAGES, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_damaged_checkpoint_is_named_and_the_newest_good_one_used(
    damage: Callable[[Path], None],
    named: str,
    run_dir: Path,
    finished_run: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage(directory_of(run_dir, 15))
    launch(config_at(run_dir), train_here, "the command")
    assert f"skipped {directory_of(run_dir, 15)}" in (out := capsys.readouterr().out)
    assert named in out
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (directory_of(run_dir, 15) / name).read_bytes() == (
            directory_of(finished_run, 15) / name
        ).read_bytes()
    assert [entry.name for entry in (run_dir / "abandoned").iterdir()] == ["checkpoint_000015"]


@pytest.mark.parametrize("lost", ["damaged", "deleted"])
def test_with_no_good_checkpoint_the_run_stops_instead_of_starting_over(
    lost: str, run_dir: Path
) -> None:
    for step in steps_of(run_dir):
        if lost == "damaged":
            flip_a_bit(directory_of(run_dir, step))
        else:
            shutil.rmtree(directory_of(run_dir, step))
    with pytest.raises(UserError, match="no checkpoint of this run is good") as caught:
        launch(config_at(run_dir), never, "the command")
    assert "checkpoint_000015" in str(caught.value)
    assert "restore one from a copy" in str(caught.value)


def test_a_damaged_best_checkpoint_gives_way_to_the_next_best(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run_dir / "report.json").unlink()
    best = json.loads((run_dir / "checkpoint_000010.eval.json").read_text())
    write_json(run_dir / "checkpoint_000010.eval.json", {**best, "eval_cer": 0.001})
    flip_a_bit(directory_of(run_dir, 10))
    launch(config_at(run_dir), never, "the command")
    assert "skipped" in capsys.readouterr().out
    assert json.loads((run_dir / "report.json").read_text())["best_step"] == 15


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({"model": {"size": "base"}}, ["model.size: small → base"]),
        (
            {"train": {**SHORT, "seed": 3}, "optimizer": {"learning_rate": 0.1}},
            ["train.seed: 42 → 3", "optimizer.learning_rate: 0.001 → 0.1"],
        ),
        ({"data": {"max_train_samples": 100}}, ["data.max_train_samples: 200 → 100"]),
    ],
)
def test_a_changed_run_is_refused_and_every_key_named(
    changes: dict[str, Any], keys: list[str], run_dir: Path
) -> None:
    with pytest.raises(UserError, match="another run than the one in this folder") as caught:
        launch(config_at(run_dir, **changes), never, "the command")
    for key in keys:
        assert key in str(caught.value)


def test_changed_data_is_refused(run_dir: Path) -> None:
    record = json.loads((run_dir / "run.json").read_text())
    record["fingerprints"]["train"] = "0" * 64
    write_json(run_dir / "run.json", record)
    with pytest.raises(UserError, match=r"data\.train: its content"):
        launch(config_at(run_dir), never, "the command")


def test_raising_max_steps_goes_on_from_the_end_and_the_report_says_so(run_dir: Path) -> None:
    launch(config_at(run_dir, train={**SHORT, "max_steps": 20}), train_here, "the command")
    report = json.loads((run_dir / "report.json").read_text())
    assert (report["step"], report["history"]["extended_at"]) == (20, [15])
    steps = [
        json.loads(line)["step"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()
    ]
    assert steps == sorted(set(steps))


def test_a_length_below_the_steps_taken_is_refused(run_dir: Path) -> None:
    with pytest.raises(UserError, match="has taken 15 steps, its length is now 12"):
        launch(config_at(run_dir, train={**SHORT, "max_steps": 12}), never, "the command")


def test_going_back_sets_later_checkpoints_aside_and_only_once(
    run_dir: Path, finished_run: Path
) -> None:
    back = config_at(run_dir, train={**SHORT, "resume_from": "checkpoint_000010"})
    launch(back, train_here, "the command")
    assert (run_dir / "abandoned" / "checkpoint_000015").is_dir()
    assert (directory_of(run_dir, 15) / "model.safetensors").read_bytes() == (
        directory_of(finished_run, 15) / "model.safetensors"
    ).read_bytes()
    assert launch(back, never, "the command").was_finished


def test_a_second_run_on_the_directory_refuses(run_dir: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom trainers.loop.lease import Lease\n"
        f"with Lease(Path({str(run_dir)!r})):\n    print('held', flush=True)\n    time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert other.stdout and other.stdout.readline() == "held\n"
    try:
        with pytest.raises(UserError, match=f"process {other.pid}"):
            launch(config_at(run_dir), never, "the command")
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
    launch(config_at(run_dir), never, "the command")  # its process is gone, so its lease is too


def test_minutes_become_steps_once(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path,
        train={"max_steps": None, "max_minutes": 0.05, "eval_steps": 1000, "save_steps": 1000},
    )
    state = fit(config, tiny_task(config), tiny_context(config), stop_after=25)
    assert state.max_steps and state.max_steps > 25
    assert steps_of(config.local_run_dir) == [25]
    assert (
        fit(config, tiny_task(config), tiny_context(config), stop_after=26).max_steps
        == state.max_steps
    )


def test_early_stopping_ends_the_run_when_nothing_gets_better(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path,
        train={
            **SHORT,
            "max_steps": 40,
            "eval_steps": 2,
            "early_stopping_patience": 3,
            "early_stopping_threshold": 10.0,
        },
    )
    outcome = launch(config, train_here, "the command")
    assert (outcome.report["step"], outcome.report["best_step"], outcome.report["status"]) == (
        8,
        2,
        "stopped early",
    )
    assert launch(config, never, "the command").was_finished


def test_a_rate_that_explodes_stops_before_a_nan_is_saved(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path,
        train={**SHORT, "save_steps": 1},
        optimizer={"learning_rate": 1e20, "warmup_steps": 0},
    )
    with pytest.raises(
        NotFiniteError, match=r"step \d+.*not finite.*lower optimizer\.learning_rate|not finite"
    ):
        launch(config, train_here, "the command")
    from safetensors.torch import load_file

    for step in steps_of(config.local_run_dir):
        assert all(
            torch.isfinite(tensor).all()
            for tensor in load_file(
                directory_of(config.local_run_dir, step) / "model.safetensors"
            ).values()
        )


def test_one_poisoned_sample_is_named_and_no_weight_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(tmp_path, train={"save_steps": 1, "save_total_limit": 40})
    task = tiny_task(config)
    poisoned = task.train_ids[Plan(np.array(task.widths), 12, 5, 42).step(5)[0][0]]
    make = task.batch

    def batch(turn: Any, epoch: int) -> Any:
        made = make(turn, epoch)
        for row, index in enumerate(turn.samples):
            if task.train_ids[index] == poisoned:
                made.ink_BCHW[row, 0, 5, 5] = float("nan")
        return made

    monkeypatch.setattr(task, "batch", batch)
    with pytest.raises(NotFiniteError) as caught:
        fit(config, task, tiny_context(config))
    assert poisoned in str(caught.value)
    assert "step 6: the loss is not finite" in str(caught.value)
    assert steps_of(config.local_run_dir) == [1, 2, 3, 4, 5]


def test_the_engines_steps_are_torchs_own(tmp_path: Path) -> None:
    """A plain loop of forward, backward, clip and AdamW gives the same weights as ours."""
    config = tiny_config(
        tmp_path,
        train={"max_steps": 6, "micro_batch_size": 12, "save_steps": 100, "eval_steps": 100},
        model={"dropout": 0.0},
    )
    task, plain = tiny_task(config), tiny_task(config)
    fit(config, task, tiny_context(config))
    plan = Plan(np.array(plain.widths), 12, 12, 42)
    parameters = list(plain.network.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": 0.01},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, fused=False)
    for step in range(6):
        (turn,) = micro_batches_of(plan, step, 0, 1)
        optimizer.zero_grad()
        plain.losses(plain.batch(turn, 0), 1.0).sums_B.mean().backward()
        torch.nn.utils.clip_grad_norm_(parameters, config.optimizer.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config.optimizer, step, 6)
        optimizer.step()
    fresh = dict(tiny_task(config).network.named_parameters())
    for (name, ours), theirs in zip(task.network.named_parameters(), parameters, strict=True):
        assert (ours - theirs).norm() < 0.1 * (theirs - fresh[name]).norm(), name


def test_a_full_disk_stops_the_run_and_leaves_the_checkpoints_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(tmp_path, train=SHORT)
    save = torch.save

    def full(value: Any, path: Path) -> None:
        if "checkpoint_000010" in str(path):
            raise OSError(28, os.strerror(28))
        save(value, path)

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", full)
        with pytest.raises(UserError, match="No space left on device"):
            launch(config, train_here, "the command")
    assert steps_of(config.local_run_dir) == [5]
    assert launch(config, train_here, "the command").report["step"] == 15


@pytest.mark.parametrize("more", [0, 4])
def test_a_run_of_minutes_can_be_ended_earlier_from_where_it_is(tmp_path: Path, more: int) -> None:
    minutes = {"max_steps": None, "max_minutes": 10, "save_steps": 5, "eval_steps": 20}
    config = tiny_config(tmp_path, train=minutes)

    def stopped(job: Job) -> None:
        context = tiny_context(job.config)
        task = tiny_task(job.config)
        state = fit(job.config, task, replace(context, run_id=job.run_id), stop_after=32)
        assert state.max_steps is not None and state.max_steps > 60
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch(config, stopped, "the command")
    with pytest.raises(UserError, match=r"train\.max_minutes=null train\.max_steps=N"):
        launch(tiny_config(tmp_path, train={**minutes, "max_minutes": 1}), never, "the command")
    shorter = {**minutes, "max_minutes": None}
    with pytest.raises(UserError, match=r"set train\.max_steps=32 or more"):
        launch(tiny_config(tmp_path, train={**shorter, "max_steps": 20}), never, "the command")
    ended = tiny_config(tmp_path, train={**shorter, "max_steps": 32 + more})
    outcome = launch(ended, train_here, "the command")
    assert outcome.report["step"] == 32 + more
    assert directory_of(outcome.run_dir, 32 + more).is_dir()
    lines = [json.loads(x) for x in (outcome.run_dir / "metrics.jsonl").read_text().splitlines()]
    assert not more or (lines[-1]["step"] == 36 and "eval_cer" in lines[-1])
    assert evaluation_of(outcome.run_dir, 32 + more).is_file()
    assert launch(ended, never, "the command").was_finished


def test_two_lengths_are_refused_with_the_word_that_leaves_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"max_steps, max_minutes; set train\.max_minutes=null"):
        tiny_config(tmp_path, train={"max_minutes": 3})

"""DeepSpeed's ZeRO computes like the other engine; each resumes from the other's checkpoints."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from ocr.errors import UserError
from tests.support.commands import PROJECT, assert_refused, call
from tests.support.resuming import assert_equal_at, assert_same
from tests.support.tiny import tiny_config, tiny_context, tiny_task, tiny_vlm_config
from tests.support.together import fit_together
from trainers.config import TrainConfig
from trainers.config.deepspeed import filled
from trainers.loop.checkpoint import directory_of, verify_hashes
from trainers.loop.engines.deepspeed import STALE_SECONDS, imported, within
from trainers.loop.loop import fit

STEPS = 8
TRAIN = {
    "max_steps": STEPS,
    "save_steps": 2,
    "eval_steps": 4,
    "logging_steps": 1,
    "save_total_limit": STEPS,
}
CALM = {
    "learning_rate": 1e-4
}  # Adam makes 1e-4 of a last bit in a dozen steps of the usual rate, whoever adds up
MAKERS = {"ctc": tiny_config, "vlm": tiny_vlm_config}


def zero(stage: int, **changes: Any) -> dict[str, Any]:
    """The shipped JSON, under stage 3 with small tensors divided too."""
    content = json.loads((PROJECT / f"configs/deepspeed/zero{stage}.json").read_text())
    if stage == 3:
        content["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    return {"engine": "deepspeed", "deepspeed": {"config": {**content, **changes}}}


def made(family: str, where: Path, stage: int, workers: int = 1, **changes: Any) -> TrainConfig:
    """A tiny run; stage 0: the all-reduce engine."""
    return MAKERS[family](
        where,
        train=TRAIN,
        optimizer=CALM,
        workers=workers,
        **(zero(stage) if stage else {}),
        **changes,
    )


def run(config: TrainConfig, stop_after: int | None = None) -> Path:
    torch.set_num_threads(1)
    if config.workers > 1:
        fit_together(config, stop_after)
    else:
        fit(config, tiny_task(config), tiny_context(config), stop_after)
    return config.local_run_dir


def series(run_dir: Path, key: str) -> list[float]:
    return [
        line[key]
        for line in map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
        if key in line
    ]


def assert_like(run_dir: Path, reference: Path) -> None:
    """Losses within 1e-5 and the same readings; gradients' norms within 0.5 %.

    On some CPUs a last bit becomes 0.12 % of a CTC gradient's norm in these 8 steps.
    """
    for key, tolerance in (("loss", 1e-5), ("eval_loss", 1e-5), ("grad_norm", 5e-3)):
        assert series(run_dir, key) == pytest.approx(series(reference, key), rel=tolerance), key
    assert series(run_dir, "eval_cer") == series(reference, "eval_cer")


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The all-reduce engine's runs by one worker, which are those of any number."""
    return {family: run(made(family, tmp_path_factory.mktemp(family), 0)) for family in MAKERS}


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("family", MAKERS)
def test_losses_are_the_all_reduce_engines_and_a_stop_changes_no_bit(
    family: str, stage: int, golden: dict[str, Path], tmp_path: Path
) -> None:
    through = run(made(family, tmp_path / "through", stage))
    assert_like(through, golden[family])
    stopped = made(family, tmp_path / "stopped", stage)
    for step in (1, 3, 4, STEPS):
        run(stopped, step)
        assert_equal_at(step, stopped.local_run_dir, through) if step % 2 == 0 else None
    assert (stopped.local_run_dir / "metrics.jsonl").read_text() == (
        through / "metrics.jsonl"
    ).read_text()


@pytest.mark.parametrize(
    ("family", "stage"), [("ctc", 3), pytest.param("vlm", 3, marks=pytest.mark.long)]
)
def test_two_one_and_two_workers_and_the_other_engine_continue_one_run(
    family: str, stage: int, golden: dict[str, Path], tmp_path: Path
) -> None:
    by_turns = [
        made(family, tmp_path, stage, workers=2),
        made(family, tmp_path, stage),
        made(family, tmp_path, stage, workers=2),
        made(family, tmp_path, 0),
    ]
    for config, stop_after in zip(by_turns, (2, 4, 6, None), strict=True):
        run_dir = run(config, stop_after)
    assert_like(run_dir, golden[family])
    assert (run_dir / "samples.jsonl").read_text() == (golden[family] / "samples.jsonl").read_text()
    told = [
        line["text"]
        for line in map(json.loads, (run_dir / "timings.jsonl").read_text().splitlines())
        if line.get("event") == "restart"
    ]
    assert told[0] == "continues, equal to rounding, because workers 2 → 1, from step 2"
    assert told[1] == "continues, equal to rounding, because workers 1 → 2, from step 4"
    assert f"engine deepspeed zero{stage} " in told[2]
    assert "→ all_reduce" in told[2]


def test_offloaded_state_and_half_precision_are_the_other_engines_too(
    golden: dict[str, Path], tmp_path: Path
) -> None:
    ours = zero(2)
    ours["deepspeed"]["offload_optimizer"] = "cpu"
    assert_like(
        run(MAKERS["vlm"](tmp_path / "offloaded", train=TRAIN, optimizer=CALM, **ours)),
        golden["vlm"],
    )
    half: dict[str, Any] = {"train": TRAIN, "optimizer": CALM, "precision": "fp16"}  # its base too
    reference, divided = (
        run(tiny_vlm_config(tmp_path / name, **half, **more))
        for name, more in (("reference", {}), ("divided", zero(2)))
    )
    states = [
        verify_hashes(directory_of(where, STEPS)).state()["train"] for where in (divided, reference)
    ]
    assert states[0]["loss_scale"] == states[1]["loss_scale"]
    assert (
        0 < states[0]["skipped_steps"] == states[1]["skipped_steps"] < STEPS
    )  # the scale is found by overflows
    losses = [[loss or 0.0 for loss in series(where, "loss")] for where in (divided, reference)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize(
    ("bits", "optimizer"),
    [("load_in_4bit", "adamw"), ("load_in_4bit", "adamw_8bit"), ("load_in_8bit", "adamw")],
)
def test_zero_2_trains_on_a_quantised_base_and_a_stop_changes_no_bit(
    bits: str, optimizer: str, tmp_path: Path
) -> None:
    """QLoRA: the frozen base is whole on every worker, the adapter's state is divided."""

    def quantised(name: str, stage: int, max_steps: int = STEPS) -> TrainConfig:
        return tiny_vlm_config(
            tmp_path / name,
            train={**TRAIN, "max_steps": max_steps},
            optimizer={**CALM, "name": optimizer},
            model={bits: True},
            **(zero(stage) if stage else {}),
        )

    reference, through = run(quantised("reference", 0)), run(quantised("through", 2))
    for key in ("loss", "eval_loss"):  # blocks of the 8-bit state are cut elsewhere
        near = pytest.approx(series(reference, key), rel=1e-5 if optimizer == "adamw" else 1e-3)
        assert series(through, key) == near, key
    stopped = quantised("stopped", 2)
    for step in (3, 4, STEPS):
        run(stopped, step)
        assert_equal_at(step, stopped.local_run_dir, through) if step % 2 == 0 else None
    if optimizer == "adamw_8bit":
        held = verify_hashes(directory_of(through, STEPS)).optimizer()["state"]["zero_parts"]
        assert held[0][0]["state1"].dtype == torch.uint8
        with pytest.raises(UserError, match=r"resume with engine=deepspeed, or start a new run"):
            run(quantised("through", 0, STEPS + 1))


@pytest.mark.long
def test_the_8_bit_state_of_two_workers_continues_with_two_alone(tmp_path: Path) -> None:
    def eight(name: str, workers: int, max_steps: int = 4) -> TrainConfig:
        return tiny_vlm_config(
            tmp_path / name,
            train={**TRAIN, "max_steps": max_steps},
            optimizer={**CALM, "name": "adamw_8bit"},
            workers=workers,
            **zero(2),
        )

    through = run(eight("through", 2))
    for step in (2, None):
        stopped = run(eight("stopped", 2), step)
    assert_equal_at(4, stopped, through)
    with pytest.raises(UserError, match=r"the parts of 2 workers, this run has 1; set workers=2"):
        run(eight("through", 1, max_steps=5))


def test_a_rate_that_explodes_stops_before_the_step(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path, train=TRAIN, optimizer={"learning_rate": 1e20, "warmup_steps": 0}, **zero(1)
    )
    with pytest.raises(UserError, match="not finite"):
        run(config)


def test_checkpoints_have_one_form_whatever_the_engine(
    golden: dict[str, Path], tmp_path: Path
) -> None:
    ours, theirs = (
        verify_hashes(directory_of(where, STEPS))
        for where in (run(made("ctc", tmp_path, 3)), golden["ctc"])
    )
    assert {name: tensor.shape for name, tensor in ours.weights().items()} == {
        name: tensor.shape for name, tensor in theirs.weights().items()
    }
    assert_same(ours.optimizer()["param_groups"], theirs.optimizer()["param_groups"])
    assert {index: sorted(state) for index, state in ours.optimizer()["state"].items()} == {
        index: sorted(state) for index, state in theirs.optimizer()["state"].items()
    }


def test_everything_that_does_not_go_together_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        tiny_config(
            tmp_path,
            optimizer={"name": "adam"},
            **zero(
                2, gradient_clipping=1.0, fp16={"enabled": True}, train_micro_batch_size_per_gpu=7
            ),
        )
    told = str(caught.value)
    assert "optimizer.name=adam; what goes together:" in told
    assert "paged_adamw_32bit" in told
    assert "fp16 is set by precision here" in told
    assert "gradient_clipping is 1.0, this run's is 5.0; write auto" in told
    assert "train_micro_batch_size_per_gpu is 7, this run's is 5" in told
    with pytest.raises(UserError, match="a quantised base under zero3"):
        tiny_vlm_config(tmp_path, model={"load_in_4bit": True}, **zero(3))
    eight = {"name": "adamw_8bit"}
    with pytest.raises(UserError, match="adamw_8bit under zero3, whose checkpoints gather"):
        tiny_vlm_config(tmp_path, optimizer=eight, **zero(3))
    offloaded = zero(2)
    offloaded["deepspeed"]["offload_optimizer"] = "cpu"
    with pytest.raises(UserError, match="adamw_8bit and an offloaded optimizer"):
        tiny_vlm_config(tmp_path, optimizer=eight, **offloaded)
    with pytest.raises(
        UserError, match=r"needs deepspeed\.config, such as configs/deepspeed/zero2\.json"
    ):
        tiny_config(tmp_path, engine="deepspeed")
    with pytest.raises(UserError, match="without effect on engine=all_reduce"):
        tiny_config(tmp_path, deepspeed={"offload_optimizer": "cpu"})


def test_a_path_becomes_what_it_holds_and_auto_is_filled(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path,
        engine="deepspeed",
        deepspeed={"config": "configs/deepspeed/zero3.json", "offload_optimizer": "cpu"},
    )
    assert config.zero_stage == 3
    values = filled(config.deepspeed, config.train, config.optimizer)
    assert values["gradient_clipping"] == config.optimizer.max_grad_norm
    assert values["train_micro_batch_size_per_gpu"] == 5
    assert values["zero_optimization"]["offload_optimizer"] == {
        "device": "cpu",
        "pin_memory": False,
    }
    assert_refused(
        call("train", "configs/tiny.yaml", "engine=deepspeed", "deepspeed.config=zero9.json"),
        "zero9.json: no such file",
        "zero2.json",
    )


def test_a_lock_that_a_killed_build_left_is_removed_and_a_fresh_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIPI_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", "elsewhere")
    old, fresh = (tmp_path / "torch_extensions" / name / "lock" for name in ("old", "fresh"))
    for lock in (old, fresh):
        lock.parent.mkdir(parents=True)
        lock.touch()
    long_ago = time.time() - STALE_SECONDS - 60
    os.utime(old, (long_ago, long_ago))
    imported("cpu")
    assert not old.exists()
    assert fresh.exists()
    assert os.environ["TORCH_EXTENSIONS_DIR"] == str(tmp_path / "torch_extensions")


def test_a_start_that_never_ends_is_an_error_that_says_what_may_be_missing() -> None:
    with pytest.raises(UserError, match=r"not ready after 0\.1 s: another worker is missing"):
        within(0.1, lambda: time.sleep(5))
    with pytest.raises(ZeroDivisionError):
        within(5, lambda: 1 / 0)

"""Four ways to resume that failed for the Odia run, exact to the last bit, on the tiny model."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from ocr.errors import UserError
from tests.support.resuming import assert_equal_at, run_again
from tests.support.tiny import tiny_context, tiny_task, tiny_vlm_config, train_here
from tests.support.together import fit_together
from trainers.config import TrainConfig
from trainers.loop.checkpoint import directory_of, evaluations, verify_hashes
from trainers.loop.engines.engine import MOST_OVERFLOWS, LossScale, NotFiniteError
from trainers.loop.loop import fit
from trainers.runs.launch import launch

STEPS = 12
KINDS: dict[str, dict[str, Any]] = {
    "all losses, dropout, kornia": {},
    "gradient checkpointing, 8-bit AdamW": {
        "model": {"gradient_checkpointing": True},
        "lora": {"rank": 64},
        "optimizer": {"name": "adamw_8bit"},
    },
    "bf16 base, fp32 adapter": {"model": {"dtype": "bfloat16"}},
    "bf16 autocast": {"precision": "bf16"},
    "fp16 with a loss scale": {"precision": "fp16"},
    "4-bit base": {"model": {"load_in_4bit": True}},
    "8-bit base": {"model": {"load_in_8bit": True}},
    "Qwen2.5-VL, paged AdamW": {
        "model": {"architecture": "qwen2_5_vl"},
        "optimizer": {"name": "paged_adamw_8bit"},
    },
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def whole_run(storage: Path, **changes: Any) -> Path:
    """Undisturbed, every checkpoint kept."""
    config = tiny_vlm_config(
        storage,
        **{
            **changes,
            "train": {"save_steps": 1, "save_total_limit": STEPS + 1, **changes.get("train", {})},
        },
    )
    fit(config, tiny_task(config), tiny_context(config))
    return config.local_run_dir


def assert_same_logs(run_dir: Path, golden: Path) -> None:
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert (run_dir / name).read_text() == (golden / name).read_text()
    assert evaluations(run_dir) == evaluations(golden)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:.*Paged optimizers are not supported.*")
def test_resuming_from_a_checkpoint_changes_no_bit(kind: str, tmp_path: Path) -> None:
    golden = whole_run(tmp_path / "golden", **KINDS[kind])
    config = tiny_vlm_config(tmp_path / "stopped", **KINDS[kind])
    for step in range(1, STEPS + 1) if kind == next(iter(KINDS)) else (2, 4, 9, STEPS):
        run_again(config, stop_after=step)
        assert_equal_at(step, config.local_run_dir, golden)
    assert_same_logs(config.local_run_dir, golden)


def test_nine_tenths_of_the_8_bit_optimizers_state_are_bytes(tmp_path: Path) -> None:
    config = tiny_vlm_config(tmp_path, lora={"rank": 64}, optimizer={"name": "adamw_8bit"})
    run_again(config, stop_after=2)
    checkpoint = verify_hashes(directory_of(config.local_run_dir, 2))
    tensors = [
        t
        for state in checkpoint.optimizer()["state"].values()
        for t in state.values()
        if isinstance(t, torch.Tensor)
    ]
    moments = [t for t in tensors if t.numel() >= 512 and t.numel() != 256]
    eight_bit = sum(t.numel() * t.element_size() for t in moments if t.dtype == torch.uint8)
    assert eight_bit >= 0.9 * sum(t.numel() * t.element_size() for t in moments)


def test_a_run_from_adapter_weights_starts_from_them(tmp_path: Path) -> None:
    first = launch(tiny_vlm_config(tmp_path, run_name="first"), train_here, "test").run_dir
    weights = verify_hashes(directory_of(first, STEPS)).weights()
    best = launch(tiny_vlm_config(tmp_path, run_name="first"), train_here, "test").report[
        "best_step"
    ]
    kept = verify_hashes(directory_of(first, best)).weights()
    for source, expected in (
        (first, kept),
        (first / "bundle", kept),
        (directory_of(first, STEPS), weights),
    ):
        task = tiny_task(
            tiny_vlm_config(tmp_path, run_name="second", train={"init_from": str(source)})
        )
        live = dict(task.network.named_parameters())
        assert all(
            torch.equal(live[name], tensor) for name, tensor in expected.items() if "lora" in name
        )
    with pytest.raises(UserError, match=r"r is 8 there; set lora\.rank=8, which is 4"):
        tiny_task(tiny_vlm_config(tmp_path, train={"init_from": str(first)}, lora={"rank": 4}))
    with pytest.raises(UserError, match="trained on another base model"):
        tiny_task(
            tiny_vlm_config(
                tmp_path, train={"init_from": str(first)}, model={"architecture": "qwen2_5_vl"}
            )
        )


def test_a_finished_run_goes_on_when_it_is_made_longer(tmp_path: Path) -> None:
    config = tiny_vlm_config(tmp_path)
    assert launch(config, train_here, "test").report["step"] == STEPS
    longer = launch(
        tiny_vlm_config(tmp_path, train={"max_steps": STEPS + 4}), train_here, "test"
    ).report
    assert (longer["step"], longer["history"]["extended_at"]) == (STEPS + 4, [STEPS])


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_with_unequal_texts_and_images_finish_and_evaluate(
    workers: int, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {
        "workers": workers,
        "data": {"max_validation_samples": 5},
        "train": {"max_steps": 4, "save_steps": 2, "micro_batch_size": 2},
    }
    config = tiny_vlm_config(tmp_path, **changes)
    fit_together(config)
    assert set(evaluations(config.local_run_dir)) == {0, 4}
    if workers == 2:
        stopped = tiny_vlm_config(tmp_path / "again", **changes)
        shutil.copytree(config.local_run_dir, stopped.local_run_dir)
        shutil.rmtree(directory_of(stopped.local_run_dir, 4))
        fit_together(stopped)
        assert_equal_at(4, stopped.local_run_dir, config.local_run_dir)


def test_more_workers_change_no_more_than_rounding(tmp_path: Path) -> None:
    alone = tiny_vlm_config(tmp_path / "1", train={"max_steps": 4, "save_steps": 4})
    together = tiny_vlm_config(tmp_path / "2", workers=2, train={"max_steps": 4, "save_steps": 4})
    fit(alone, tiny_task(alone), tiny_context(alone))
    fit_together(together)
    ours, theirs = (
        verify_hashes(directory_of(each.local_run_dir, 4)).weights() for each in (alone, together)
    )
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-5) for name in ours)


def gradients(config: TrainConfig) -> list[torch.Tensor]:
    from trainers.loop.batches import micro_batches_of
    from trainers.loop.run_state import plan_of

    task = tiny_task(config)
    batch = task.batch(micro_batches_of(plan_of(config, task.widths), 0, 0, 1)[0], 0)
    torch.manual_seed(1)
    task.losses(batch, 1.0).sums_B.sum().backward()
    return [parameter.grad for parameter in task.network.parameters() if parameter.grad is not None]


def test_gradient_checkpointing_changes_no_gradient(tmp_path: Path) -> None:
    plain, saving = (
        gradients(tiny_vlm_config(tmp_path, model={"gradient_checkpointing": on}))
        for on in (False, True)
    )
    assert len(plain) == len(saving) > 20
    assert all(torch.equal(one, other) for one, other in zip(plain, saving, strict=True))


def test_an_overflow_is_skipped_and_logged_and_twenty_in_a_row_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_vlm_config(
        tmp_path, precision="fp16", train={"max_steps": 30, "save_steps": 30, "eval_steps": 30}
    )
    monkeypatch.setattr(LossScale.__init__, "__defaults__", (2.0**28, 0, 0))
    fit(config, tiny_task(config), tiny_context(config), stop_after=24)
    state = verify_hashes(directory_of(config.local_run_dir, 24)).state()["train"]
    assert 0 < state["skipped_steps"] < MOST_OVERFLOWS
    assert state["loss_scale"]["value"] == 2.0 ** (28 - state["skipped_steps"])
    assert (
        "overflow in fp16, no weight was changed"
        in (config.local_run_dir / "timings.jsonl").read_text()
    )
    shutil.rmtree(config.local_run_dir)
    monkeypatch.setattr(LossScale.__init__, "__defaults__", (2.0**120, 0, 0))
    with pytest.raises(NotFiniteError, match="not finite"):
        fit(config, tiny_task(config), tiny_context(config))

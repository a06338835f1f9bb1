"""Runs that are stopped, killed and resumed: how tests repeat them and compare their bits."""

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.tiny import tiny_context, tiny_task
from trainers.config import TrainConfig
from trainers.loop import faults
from trainers.loop.checkpoint import directory_of, evaluations, verify_hashes
from trainers.loop.loop import fit

TINY_YAML, TINY_STEPS, VLM_STEPS = "configs/tiny.yaml", 40, 12
VLM_WORDS = [
    f"train.max_steps={VLM_STEPS}",
    "train.save_steps=3",
    "train.eval_steps=6",
    "train.save_total_limit=20",
    "train.micro_batch_size=4",
    "data.max_validation_samples=8",
    "model.base_steps=0",
    "model.gradient_checkpointing=true",
    "lora.rank=64",
    "lora.dropout=0.1",
    "loss.focal_gamma=2.0",
    "loss.focal_alpha=0.25",
    "loss.label_smoothing=0.1",
    "loss.confusion_weight=2.0",
    "kornia.strength=1.0",
    "workers=2",
    "threads_per_worker=1",
    "precision=fp32",
]


class Died(Exception):
    """The process died, as far as a test within one process can tell."""


def die_at(point: str, step: int, config: TrainConfig, patch: pytest.MonkeyPatch) -> None:
    """Run until this process dies at a point, as far as one process can."""

    def die(name: str, at: int, rank: int = 0) -> None:
        if (name, at) == (point, step):
            raise Died

    with patch.context() as patched:
        patched.setattr(faults, "point", die)
        patched.setattr(shutil, "rmtree", lambda *_, **__: None)  # a dead process cleans nothing up
        with pytest.raises(Died):
            run_again(config)


def run_again(config: TrainConfig, **more: Any) -> None:
    """Run the same command again, with nothing kept but the run directory."""
    torch.manual_seed(torch.seed())  # a resumed process has another state of the global generator
    fit(config, tiny_task(config), tiny_context(config), **more)


def assert_equal_at(step: int, run_dir: Path, golden: Path) -> None:
    """Weights, changed buffers, optimizer state and metrics at `step` equal those of `golden`."""
    ours = verify_hashes(directory_of(run_dir, step))
    theirs = verify_hashes(directory_of(golden, step))
    weights, expected = ours.weights(), theirs.weights()
    assert list(weights) == list(expected)
    assert all(torch.equal(weights[name], expected[name]) for name in weights), (
        f"weights differ at step {step}"
    )
    assert_same(ours.optimizer(), theirs.optimizer())
    assert ours.metrics() == theirs.metrics()
    assert ours.state()["train"]["pending"] == theirs.state()["train"]["pending"]


def assert_same(one: Any, other: Any) -> None:
    """Nested dicts and lists with bit-equal tensors."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list):
        for left, right in zip(one, other, strict=True):
            assert_same(left, right)
    else:
        assert one == other


def assert_equal_to(golden: Path, run_dir: Path) -> None:
    """Final weights, optimizer, metrics and ledger are golden's to the last bit."""
    ours, theirs = (verify_hashes(directory_of(where, TINY_STEPS)) for where in (run_dir, golden))
    assert_same(ours.weights(), theirs.weights())
    assert_same(ours.optimizer(), theirs.optimizer())
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert (run_dir / name).read_text() == (golden / name).read_text()


def assert_vlm_equal_to(golden: Path, run_dir: Path) -> None:
    assert_equal_at(VLM_STEPS, run_dir, golden)
    assert (run_dir / "metrics.jsonl").read_text() == (golden / "metrics.jsonl").read_text()
    assert evaluations(run_dir) == evaluations(golden)


def wait_for(path: Path, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)

"""Each architecture through training: learning, stops, kills, 4 bits, DeepSpeed, merged exports.

Qwen3-VL is the default of the other tests.
"""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from ocr.bundle import open_bundle
from ocr.recognizers.factory import load
from ocr.recognizers.vlm.architectures import ARCHITECTURES
from ocr.settings import load_settings
from tests.support.commands import PROJECT, call
from tests.support.resuming import VLM_WORDS, assert_equal_at, assert_vlm_equal_to, run_again
from tests.support.tiny import tiny_context, tiny_task, tiny_vlm_config, train_here
from tests.support.together import fit_together
from tests.trainers.test_deepspeed import CALM, STEPS, TRAIN, assert_like, run, zero
from trainers.config import TrainConfig
from trainers.families.vlm import gguf
from trainers.loop.loop import fit
from trainers.runs.export import export_run
from trainers.runs.launch import launch

OTHERS = [name for name in ARCHITECTURES if name != "qwen3_vl"]
CONFIG = "configs/tiny_vlm.yaml"
KINDS: dict[str, dict[str, Any]] = {
    "all losses, dropout, kornia": {},
    "gradient checkpointing, 8-bit AdamW, 4-bit base": {
        "model": {"gradient_checkpointing": True, "load_in_4bit": True},
        "lora": {"rank": 64},
        "optimizer": {"name": "adamw_8bit"},
    },
    "8-bit base": {"model": {"load_in_8bit": True}},
    "bf16 autocast": {"precision": "bf16"},
    "fp16 with a loss scale": {"precision": "fp16"},
}

pytestmark = pytest.mark.parametrize("architecture", OTHERS)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def of(architecture: str, where: Path, **changes: Any) -> TrainConfig:
    """The tiny run on a base of this architecture, with random weights."""
    changes["model"] = {"architecture": architecture, **changes.get("model", {})}
    return tiny_vlm_config(where, **changes)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stop_changes_no_bit(architecture: str, kind: str, tmp_path: Path) -> None:
    every = {"save_steps": 1, "save_total_limit": 20}
    golden = of(architecture, tmp_path / "golden", train=every, **KINDS[kind])
    fit(golden, tiny_task(golden), tiny_context(golden))
    stopped = of(architecture, tmp_path / "stopped", **KINDS[kind])
    for step in range(1, 13) if kind == next(iter(KINDS)) else (2, 4, 9, 12):
        run_again(stopped, stop_after=step)
        assert_equal_at(step, stopped.local_run_dir, golden.local_run_dir)
    for name in ("metrics.jsonl", "samples.jsonl"):
        logs = [each.local_run_dir / name for each in (stopped, golden)]
        assert logs[0].read_text() == logs[1].read_text()


@pytest.mark.parametrize("point", ["step:8:1", "before_evaluation:6:1"])
def test_sigkill_of_a_worker_changes_no_bit(architecture: str, point: str, tmp_path: Path) -> None:
    words = [*VLM_WORDS, f"model.architecture={architecture}"]
    golden, killed, marker = (tmp_path / name for name in ("golden", "killed", "marker"))
    config = load_settings(TrainConfig, PROJECT / CONFIG, [*words, f"storage_path={golden}"])
    fit_together(config)
    storage = f"storage_path={killed}"
    done = call("train", CONFIG, *words, storage, LIPI_KILL_AT=f"{point}:{marker}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert marker.exists()
    assert_vlm_equal_to(config.local_run_dir, killed / "tiny-vlm")


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_deepspeed_trains_alike_and_a_stop_changes_no_bit(
    architecture: str, stage: int, tmp_path: Path
) -> None:
    calm: dict[str, Any] = {"train": TRAIN, "optimizer": CALM}
    reference = run(of(architecture, tmp_path / "reference", **calm))
    through = run(of(architecture, tmp_path / "through", **calm, **zero(stage)))
    assert_like(through, reference)
    stopped = of(architecture, tmp_path / "stopped", **calm, **zero(stage))
    for step in (2, STEPS):
        run(stopped, step)
        assert_equal_at(step, stopped.local_run_dir, through)
    together = of(architecture, tmp_path / "together", workers=2, **calm, **zero(stage))
    assert_like(run(together), reference)


def test_merged_weights_and_a_4_bit_base_go_through_the_gate(
    architecture: str, tmp_path: Path
) -> None:
    config = of(architecture, tmp_path, export={"merged_dtype": "float32"})
    run_dir = launch(config, train_here, "the command").run_dir
    merged = export_run(run_dir, ["format=merged", f"output={tmp_path / 'merged'}"]).bundle
    assert merged.backends["torch"] == merged.card["live_cer"]
    export_run(run_dir, ["export.quantization=nf4", f"output={tmp_path / 'nf4'}"])
    assert set(open_bundle(tmp_path / "nf4").backends) == {"torch", "nf4"}
    assert load(tmp_path / "merged").read(f"{PROJECT}/docs/pictures/lines.png").confidence > 0


def test_words_are_learnt_and_every_export_reads_what_the_network_reads(
    architecture: str, tmp_path: Path
) -> None:
    """The gate compares; a base in 4 bits may read a little worse and says so."""
    words = [f"model.architecture={architecture}", f"storage_path={tmp_path}"]
    config = load_settings(TrainConfig, PROJECT / CONFIG, [*words, "model.base_steps=900"])
    outcome = launch(config, train_here, "the command")
    assert outcome.report["before_training"]["eval_cer"] > 0.5
    assert outcome.report["eval_cer"] < 0.15
    merged = export_run(outcome.run_dir, ["format=merged", f"output={tmp_path / 'merged'}"]).bundle
    assert abs(merged.backends["torch"] - merged.card["live_cer"]) <= 0.003
    assert "base_sha256" in open_bundle(tmp_path / "merged").model
    export_run(outcome.run_dir, ["export.quantization=nf4", f"output={tmp_path / 'nf4'}"])
    assert open_bundle(tmp_path / "nf4").backends["nf4"] < 0.3
    load(tmp_path / "nf4")
    if checkout := os.environ.get("LIPI_LLAMA_CPP"):
        written = export_run(
            outcome.run_dir,
            ["format=gguf", f"output={tmp_path / 'gguf'}", f"export.llama_cpp={checkout}"],
        ).bundle
        assert abs(written.backends[gguf.READER] - written.card["live_cer"]) <= 0.003

"""vLLM reads what our own loop reads: merged models, adapters, one image or many.

Run by `make vllm`, in the environment that has vLLM; skipped elsewhere.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from ocr.bundle import open_bundle
from ocr.dataset.read import Dataset
from ocr.errors import UserError
from ocr.images import Pixels, open_image
from ocr.recognizers.factory import load
from ocr.sample import Reading
from tests.support.tiny import tiny_vlm_config, train_here
from trainers.runs.export import export_run
from trainers.runs.launch import launch


@pytest.fixture(scope="module")
def images() -> list[Pixels]:
    data = Dataset.open("odia_few_words", "validation")
    return [open_image(data.image_bytes(index), "RGB") for index in range(len(data))]


def assert_alike(theirs: list[Reading], ours: list[Reading], confidence: float = 1e-5) -> None:
    """Equal texts and numbers of tokens; how far the confidences may differ."""
    assert [reading.text for reading in theirs] == [reading.text for reading in ours]
    assert [reading.tokens for reading in theirs] == [reading.tokens for reading in ours]
    for one, other in zip(theirs, ours, strict=True):
        assert one.confidence == pytest.approx(other.confidence, abs=confidence)


def test_a_merged_model_reads_every_validation_line_alike_alone_and_in_a_batch(
    merged: Path, images: list[Pixels]
) -> None:
    ours, vllm = load(merged), load(merged, "vllm")
    together = vllm.read(images)
    assert len({reading.text for reading in together}) > 10
    assert_alike(together, ours.read(images))
    assert_alike([vllm.read([image])[0] for image in images[:16]], together[:16])


def test_an_adapter_reads_alike_with_its_vision_part(run_dir: Path, images: list[Pixels]) -> None:
    """Without it 11 of 96 texts are others."""
    bundle = run_dir / "bundle"
    assert open_bundle(bundle).model["lora"]["parts"] == ["language", "vision", "merger"]
    assert_alike(load(bundle, "vllm").read(images), load(bundle).read(images))


def small_run(folder: Path, **changes: Any) -> Path:
    """A run of few steps on a base of random weights."""
    config = tiny_vlm_config(folder, train={"max_steps": 2, "eval_on_start": False}, **changes)
    return launch(config, train_here, "the command").run_dir


@pytest.mark.parametrize("architecture", ["qwen2_5_vl", "qwen3_vl"])
def test_both_architectures_read_alike(
    architecture: str, tmp_path: Path, images: list[Pixels]
) -> None:
    model = {"architecture": architecture, "base_steps": 60}
    run = small_run(tmp_path, model=model, generation={"max_new_tokens": 12})
    bundle = export_run(run, ["format=merged", "export.merged_dtype=float32"]).bundle.path
    assert_alike(load(bundle, "vllm").read(images[:24]), load(bundle).read(images[:24]))


def test_a_reading_that_repeats_itself_ends(tmp_path: Path, images: list[Pixels]) -> None:
    """A period of under 8 tokens is seen as a multiple of it, up to 24 tokens later than by us."""
    run = small_run(tmp_path, generation={"max_new_tokens": 200})
    bundle = export_run(run, ["format=merged", "export.merged_dtype=float32"]).bundle.path
    for theirs, ours in zip(
        load(bundle, "vllm").read(images[:4]), load(bundle).read(images[:4]), strict=True
    ):
        assert theirs.tokens and ours.tokens
        assert abs(theirs.tokens[1] - ours.tokens[1]) <= 24
        assert theirs.tokens[1] < 100
        shorter, longer = sorted((theirs.text, ours.text), key=len)
        assert longer.startswith(shorter)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"lora": {"use_dora": True}}, "its adapter is a DoRA"),
        ({"model": {"load_in_4bit": True}}, "its base was quantised by bitsandbytes"),
    ],
    ids=["dora", "4 bits"],
)
def test_an_adapter_that_vllm_would_not_read_whole_is_refused(
    changes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=rf"{reason}.*; merge it with .* format=merged"):
        load(small_run(tmp_path, **changes) / "bundle", "vllm")


def test_vllm_for_another_device_is_refused(merged: Path) -> None:
    with pytest.raises(UserError, match="the installed vLLM reads on cpu, and cuda was asked for"):
        load(merged, "vllm", "cuda")


def test_the_gate_reads_with_vllm_too(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["format=merged", f"export.vllm={sys.executable}", f"output={tmp_path / 'checked'}"]
    bundle = export_run(run_dir, words).bundle
    assert (
        "vllm: 0 of 96 texts (0.0%) differ from those that torch reads" in capsys.readouterr().out
    )
    assert bundle.backends["vllm"] == bundle.backends["torch"]
    assert bundle.default_backend("cpu") == "torch"
    assert "| vllm | " in (bundle.path / "README.md").read_text()


def test_a_damaged_copy_is_refused_before_vllm_starts(merged: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(merged, tmp_path / "copy")
    (copy / "config.json").write_text((copy / "config.json").read_text() + " ")
    with pytest.raises(UserError, match="missing or not the file that was written"):
        load(copy, "vllm")

"""Exports: every backend reads what the network reads, or nothing is written.

Averages are means; a damaged file is refused.
"""

import re
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch

from ocr.bundle import open_bundle
from ocr.dataset.read import Dataset
from ocr.errors import UserError
from ocr.evaluation import Evaluation, Line
from ocr.files import read_json, write_json
from ocr.images import open_image
from ocr.recognizers.ensemble import Ensemble
from ocr.recognizers.factory import load, load_all
from ocr.sample import Reading
from tests.support.tiny import tiny_config, train_here
from trainers.families.ctc import export as exporting
from trainers.families.export_gate import GateFailed, require_agreement, require_like_texts
from trainers.loop.checkpoint import directory_of, steps_of, verify_hashes
from trainers.runs.export import averaged, export_run
from trainers.runs.launch import launch

ALL = "format=onnx"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 60 steps that writes something for every image, right or wrong."""
    torch.set_num_threads(1)
    train = {
        "max_steps": 60,
        "save_steps": 20,
        "eval_steps": 20,
        "save_total_limit": 3,
        "global_batch_size": 24,
        "micro_batch_size": 12,
    }
    data = {"max_train_samples": 1500, "max_validation_samples": 40}
    config = tiny_config(
        tmp_path_factory.mktemp("export"),
        train=train,
        data=data,
        optimizer={"learning_rate": 4e-3},
        model={"dropout": 0.0},
    )
    launch(config, train_here, "the command")
    return config.local_run_dir


def images(count: int) -> list[object]:
    data = Dataset.open("odia_words", "validation")
    return [open_image(data.image_bytes(index)) for index in range(count)]


def test_every_backend_reads_what_the_network_reads(run_dir: Path, tmp_path: Path) -> None:
    exported = export_run(run_dir, [f"output={tmp_path / 'bundle'}", ALL, "decoding.method=beam"])
    rates = exported.bundle.backends
    assert (
        set(rates) == {"torch", "onnx-fp32", "onnx-int8"}
        and max(rates.values()) - min(rates.values()) <= 0.003
    )
    assert exported.bundle.defaults == {"cpu": "onnx-int8", "cuda": "torch"}
    torch_reads, onnx_reads = (
        load(tmp_path / "bundle", backend).read(images(40)) for backend in ("torch", "onnx-fp32")
    )
    assert [reading.text for reading in torch_reads] == [reading.text for reading in onnx_reads]
    assert [reading.confidence for reading in torch_reads] == pytest.approx(
        [reading.confidence for reading in onnx_reads], abs=1e-4
    )


def test_a_neighbour_never_changes_what_int8_reads(run_dir: Path, tmp_path: Path) -> None:
    export_run(
        run_dir,
        [
            f"output={tmp_path / 'bundle'}",
            "export.backends=[onnx-int8]",
            "export.max_cer_difference=1",
        ],
    )
    reader = load(tmp_path / "bundle")
    together = reader.read(images(40))
    assert [reader.read([image])[0].text for image in images(40)] == [
        reading.text for reading in together
    ]


def test_the_gate_keeps_a_backend_that_reads_otherwise(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoilt(network: object, settings: object) -> bytes:
        model = onnx.load_model_from_string(exported(network, settings))
        bias = next(
            tensor for tensor in model.graph.initializer if tensor.name.endswith("classes.bias")
        )
        values = onnx.numpy_helper.to_array(bias).copy()
        values[1::2] += 9.0
        bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
        return bytes(model.SerializeToString())

    exported = exporting.to_onnx
    monkeypatch.setattr(exporting, "to_onnx", spoilt)
    with pytest.raises(GateFailed, match=r"backend onnx-fp32: CER .* first on sample synthetic:2:"):
        export_run(run_dir, [f"output={tmp_path / 'bundle'}", ALL])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("wrong", "refused"), [(1, False), (2, False), (10, True), (50, True)])
def test_the_gate_asks_no_more_than_the_samples_can_show(wrong: int, refused: bool) -> None:
    """Of fifty short words, one letter read otherwise is 0.4 points, and chance."""

    def read(otherwise: int) -> Evaluation:
        return Evaluation(
            tuple(
                Line(i, f"synthetic:2:{i}", "ଶବ୍ଦ", "ଶବ୍" if i < otherwise else "ଶବ୍ଦ", 1.0)
                for i in range(50)
            )
        )

    with pytest.raises(GateFailed) if refused else nullcontext():
        require_agreement("backend onnx-int8", read(wrong), read(0), 0.003)


def test_the_gate_lets_a_network_pass_that_has_learnt_next_to_nothing() -> None:
    """Of 2,000 guesses 10 turn out otherwise: 0.5 points at a CER of 100 %."""

    def read(right: int) -> Evaluation:
        texts = ["ଶବ୍ଦ" if i < right else "" for i in range(2000)]
        return Evaluation(
            tuple(Line(i, f"s:{i}", "ଶବ୍ଦ", text, 1.0) for i, text in enumerate(texts))
        )

    require_agreement("backend onnx-int8", read(10), read(0), 0.003)
    with pytest.raises(GateFailed):
        require_agreement("backend onnx-int8", read(30), read(0), 0.003)


def test_texts_that_differ_at_an_equal_cer_are_counted_printed_and_limited(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def read(wrong: set[int]) -> Evaluation:
        texts = ["ଶବ୍" if i in wrong else "ଶବ୍ଦ" for i in range(50)]
        return Evaluation(
            tuple(Line(i, f"s:{i}", "ଶବ୍ଦ", text, 1.0) for i, text in enumerate(texts))
        )

    assert read({1}).counts.cer == read({2}).counts.cer
    require_like_texts("vllm", read({1}), read({2}), 0.04)
    assert "vllm: 2 of 50 texts (4.0%) differ" in capsys.readouterr().out
    with pytest.raises(GateFailed, match=r"vllm: 4\.0% of the texts differ .* first on sample s:1"):
        require_like_texts("vllm", read({1}), read({2}), 0.02)


@pytest.mark.parametrize(
    "name", ["onnx-int8.onnx", "language_model.txt.gz", "weights.safetensors", "bundle.json"]
)
def test_one_wrong_bit_anywhere_and_the_bundle_is_refused(
    run_dir: Path, tmp_path: Path, name: str
) -> None:
    whole = run_dir / "bundle-beam"
    if not whole.exists():
        export_run(
            run_dir,
            [
                f"output={whole}",
                "export.backends=[torch, onnx-int8]",
                "decoding.method=beam",
                "export.max_cer_difference=1",
            ],
        )
    shutil.copytree(whole, tmp_path / "bundle")
    content = bytearray((tmp_path / "bundle" / name).read_bytes())
    content[len(content) // 2] ^= 4
    (tmp_path / "bundle" / name).write_bytes(content)
    with pytest.raises(
        UserError,
        match=re.escape(name) if name != "bundle.json" else "bundle is damaged|bundle.json",
    ):
        open_bundle(tmp_path / "bundle")


def test_half_weights_halve_the_file_and_are_what_was_measured(
    run_dir: Path, tmp_path: Path
) -> None:
    export_run(run_dir, [f"output={tmp_path / 'bundle'}", "export.half_weights=true"])
    half, full = (
        tmp_path / "bundle" / "weights.safetensors",
        run_dir / "bundle" / "weights.safetensors",
    )
    assert half.stat().st_size < 0.52 * full.stat().st_size


def test_an_average_is_the_mean_of_the_checkpoints(run_dir: Path, tmp_path: Path) -> None:
    exported = export_run(run_dir, [f"output={tmp_path / 'bundle'}", "average=2", "of=last"])
    assert exported.bundle.card["averaged_steps"] == [40, 60]
    first, second = (
        verify_hashes(directory_of(run_dir, step)).weights()["direct.weight"] for step in (40, 60)
    )
    assert torch.allclose(
        exported.bundle.weights()["direct.weight"], (first + second) / 2, atol=1e-7
    )
    assert averaged([{"n": torch.tensor(3)}, {"n": torch.tensor(5)}])["n"] == 5
    with pytest.raises(UserError, match=r"average=9 of=best: found 3 such checkpoints"):
        export_run(run_dir, ["average=9"])


def test_of_equal_checkpoints_the_runs_own_best_is_exported(run_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(run_dir, tmp_path / "run")
    for file in (tmp_path / "run").glob("*.eval.json"):
        write_json(file, {**read_json(file), "eval_cer": 0.5})
    exported = export_run(tmp_path / "run", [f"output={tmp_path / 'bundle'}"])
    assert exported.bundle.card["step"] == steps_of(run_dir)[0]


def test_an_export_takes_no_settings_of_the_training(run_dir: Path) -> None:
    with pytest.raises(UserError, match=r"train\.seed: settings of the training"):
        export_run(run_dir, ["train.seed=5"])


class Says:
    """A recogniser that says one thing."""

    reads_pages = False
    image_mode = "L"

    def __init__(self, text: str, confidence: float) -> None:
        self.name, self.reading = text, Reading(text, confidence)

    def read(self, images: list[object]) -> list[Reading]:
        return [self.reading] * len(images)


def test_an_ensemble_takes_the_text_that_its_members_are_together_surest_of() -> None:
    members = [Says("କ", 0.6), Says("ଖ", 0.4), Says("ଖ", 0.5)]
    assert Ensemble(members).read(images(1)) == [Reading("ଖ", pytest.approx(0.3))]  # type: ignore[arg-type]


def test_bundles_read_together_by_their_paths(run_dir: Path) -> None:
    alone, twice = (
        load(run_dir / "bundle").read(images(5)),
        load_all(f"{run_dir / 'bundle'},{run_dir / 'bundle'}").read(images(5)),
    )
    assert [replace(reading, confidence=0.0) for reading in alone] == [
        replace(reading, confidence=0.0) for reading in twice
    ]

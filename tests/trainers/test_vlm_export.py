"""Exports of a vision-language model: the gate finds the mistakes that a merge can make.

Bundles that pass open without our code, and in llama.cpp.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from torch import nn

from ocr.bundle import open_bundle
from ocr.dataset.read import Dataset
from ocr.errors import UserError
from ocr.evaluation import evaluate
from ocr.images import open_image
from ocr.recognizers.factory import load
from ocr.settings import load_settings
from tests.support.commands import PROJECT, assert_refused, call
from tests.support.tiny import train_here
from trainers.config import TrainConfig
from trainers.families.export_gate import GateFailed
from trainers.families.vlm import export as vlm
from trainers.families.vlm import gguf
from trainers.runs.export import export_run
from trainers.runs.launch import launch

FEW = [
    "train.max_steps=60",
    "data.max_validation_samples=24",
    "train.save_steps=30",
    "train.eval_steps=30",
    "train.eval_on_start=false",
]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose adapter reads words that its base cannot."""
    torch.set_num_threads(1)
    words = [*FEW, f"storage_path={tmp_path_factory.mktemp('vlm-export')}"]
    config = load_settings(TrainConfig, PROJECT / "configs" / "tiny_vlm.yaml", words)
    outcome = launch(config, train_here, "the command")
    assert outcome.report["eval_cer"] < 0.5
    return outcome.run_dir


@pytest.fixture(scope="module")
def merged(run_dir: Path) -> Path:
    return export_run(run_dir, ["format=merged"]).bundle.path


def images(count: int) -> list[Any]:
    data = Dataset.open("odia_few_words", "validation")
    return [open_image(data.image_bytes(index), "RGB") for index in range(count)]


def test_live_adapter_and_merged_read_alike_and_the_card_says_so(
    run_dir: Path, merged: Path
) -> None:
    bundle = open_bundle(merged)
    assert bundle.card["form"] == "merged"
    assert bundle.card["final"] is True
    assert (
        abs(bundle.backends["torch"] - bundle.card["live_cer"]) <= bundle.card["max_cer_difference"]
    )
    assert (
        load_file(merged / "model.safetensors")["model.visual.patch_embed.proj.weight"].dtype
        == torch.bfloat16
    )
    adapter, whole = (load(path).read(images(8)) for path in (run_dir / "bundle", merged))
    assert [reading.text for reading in adapter] == [reading.text for reading in whole]
    card = ModelCard.load(merged / "README.md")
    assert card.data.library_name == "transformers"
    assert card.data.eval_results[0].metric_value == pytest.approx(
        bundle.backends["torch"], abs=1e-6
    )
    for fact in (
        bundle.card["fingerprints"]["train"],
        "final result",
        f"{100 * bundle.card['live_cer']:.2f} %",
        bundle.card["base"]["sha256"][:16],
    ):
        assert fact in card.text


BARE = """
import sys, torch
from PIL import Image
from transformers import AutoModelForImageTextToText
kind, base, folder, inputs = sys.argv[1:]
model = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32)
if kind == "adapter":
    from peft import PeftModel
    model = PeftModel.from_pretrained(model, folder)
given = torch.load(inputs, weights_only=True)
assert not [name for name in sys.modules if name.split(".")[0] in ("ocr", "trainers")]
with torch.no_grad():
    torch.save(model.eval()(**given).logits, inputs + ".logits")
"""


def test_plain_peft_and_plain_transformers_give_our_logits(run_dir: Path, tmp_path: Path) -> None:
    whole = export_run(
        run_dir, ["format=merged", "export.merged_dtype=float32", f"output={tmp_path / 'float32'}"]
    ).bundle.path
    ours: Any = load(run_dir / "bundle")
    from ocr.recognizers.vlm.inputs import vision_inputs

    image = ours.prepared(images(1)[0])
    ids_BT = torch.tensor(
        [ours.prompt.ids(ours.base.patching.tokens(image.shape[2], image.shape[1]))]
    )
    given = {
        "input_ids": ids_BT,
        "mm_token_type_ids": (ids_BT == ours.prompt.image_token).int(),
        **vision_inputs([image], ours.base.patching),
    }
    with torch.no_grad():
        expected = ours.model(**given).logits
    for kind, base, folder in (
        ("adapter", ours.base.folder, run_dir / "bundle"),
        ("merged", whole, whole),
    ):
        inputs = tmp_path / f"{kind}.pt"
        torch.save(given, inputs)
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            BARE,
            kind,
            str(base),
            str(folder),
            str(inputs),
        ]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        torch.testing.assert_close(
            torch.load(f"{inputs}.logits", weights_only=True), expected, atol=1e-4, rtol=1e-4
        )


def scaled(share: float, only: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Merge wrongly: with a share of the adapter, in layers whose name has `only`."""

    def planted(merge: Callable[..., Any]) -> Callable[..., Any]:
        def faulty(task: Any) -> nn.Module:
            kept = {
                name: parameter.detach().clone()
                for name, parameter in task.network.model.named_parameters()
                if "lora_B" in name
            }
            with torch.no_grad():
                for name, parameter in task.network.model.named_parameters():
                    if name in kept and only in name:
                        parameter.mul_(share)
                try:
                    return merge(task)  # type: ignore[no-any-return]
                finally:
                    for name, parameter in task.network.model.named_parameters():
                        if name in kept:
                            parameter.copy_(kept[name])

        return faulty

    return planted


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (scaled(0.0), "CER"),
        (scaled(0.5), r"CER|confidences"),
        (scaled(0.0, "visual"), r"CER|confidences"),
    ],
    ids=["the adapter forgotten", "half of alpha", "the vision part dropped"],
)
def test_a_faulty_merge_is_not_written(
    fault: Callable[..., Any],
    message: str,
    run_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vlm, "merged_model", fault(vlm.merged_model))
    with pytest.raises(
        GateFailed,
        match=rf"^merged \(bundle\.unchecked\): .*({message}).*first on sample synthetic",
    ):
        export_run(run_dir, ["format=merged", f"output={tmp_path / 'bundle'}"])
    assert list(tmp_path.iterdir()) == []


def with_another_tokenizer(folder: Path) -> None:
    """Two pieces of text change places, as between the tokenizers of two bases."""
    values = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = values["model"]["vocab"]
    ids = sorted(vocabulary, key=vocabulary.get)
    shifted = {
        piece: vocabulary[ids[min(len(ids) - 1, place + 1) if place >= 7 else place]]
        for place, piece in enumerate(ids)
    }
    shifted[ids[-1]] = vocabulary[ids[7]]
    values["model"]["vocab"] = shifted
    (folder / "tokenizer.json").write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")


def with_a_flipped_bit(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = sorted(tensors)[0]
    tensors[name].view(-1).view(torch.int16)[0] ^= 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (with_another_tokenizer, "CER .* became "),
        (with_a_flipped_bit, r"\d tensors differ from those written, first "),
    ],
    ids=["a tokenizer from another base", "a flipped bit"],
)
def test_files_that_are_not_what_was_merged_are_not_kept(
    spoil: Callable[[Path], None],
    message: str,
    run_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write = vlm.write_model

    def spoiled(model: Any, base: Path, folder: Path) -> None:
        write(model, base, folder)
        spoil(folder)

    monkeypatch.setattr(vlm, "write_model", spoiled)
    with pytest.raises(GateFailed, match=message):
        export_run(run_dir, ["format=merged", f"output={tmp_path / 'bundle'}"])
    assert list(tmp_path.iterdir()) == []


def test_a_bit_that_flips_later_is_refused(merged: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(merged, tmp_path / "copy")
    with_a_flipped_bit(tmp_path / "copy")
    with pytest.raises(
        UserError, match=r"model\.safetensors: missing or not the file that was written"
    ):
        load(tmp_path / "copy")


def test_a_quantised_base_reads_with_its_own_cer_in_the_card(run_dir: Path, tmp_path: Path) -> None:
    exported = export_run(run_dir, ["export.quantization=nf4", f"output={tmp_path / 'nf4'}"])
    bundle = open_bundle(tmp_path / "nf4")
    assert set(bundle.backends) == {"torch", "nf4"}
    assert bundle.default_backend("cpu") == bundle.default_backend("cuda") == "nf4"
    data, default = Dataset.open("odia_few_words", "validation"), load(tmp_path / "nf4")
    assert any(type(module).__name__ == "Linear4bit" for module in default.model.modules())  # type: ignore[attr-defined]
    assert (
        evaluate(default, data, range(24)).counts.cer
        == bundle.backends["nf4"]
        == exported.evaluation.counts.cer
    )
    assert (
        evaluate(load(tmp_path / "nf4", "torch"), data, range(24)).counts.cer
        == bundle.backends["torch"]
    )
    assert (
        f"| nf4 (read with by default) | {100 * bundle.backends['nf4']:.2f} % |"
        in (tmp_path / "nf4" / "README.md").read_text()
    )
    with pytest.raises(UserError, match="no backend 'onnx-int8'; known: torch, nf4, int8"):
        load(tmp_path / "nf4", "onnx-int8")


def test_a_4_bit_run_is_merged_into_the_whole_base_and_reads_as_its_adapter_does_there(
    tmp_path: Path,
) -> None:
    torch.set_num_threads(1)
    words = [*FEW, f"storage_path={tmp_path}", "model.load_in_4bit=true"]
    run_dir = launch(
        load_settings(TrainConfig, PROJECT / "configs" / "tiny_vlm.yaml", words),
        train_here,
        "the command",
    ).run_dir
    bundle = export_run(
        run_dir, ["format=merged", "export.merged_dtype=float32", "export.max_cer_difference=0.1"]
    ).bundle
    assert bundle.backends["torch"] == bundle.card["whole_base_cer"]
    assert bundle.model["load_in_4bit"] is False
    assert not any(
        type(module).__name__ == "Linear4bit" for module in load(bundle.path).model.modules()
    )  # type: ignore[attr-defined]
    text = (bundle.path / "README.md").read_text()
    assert f"| the trained network, live | {100 * bundle.card['live_cer']:.2f} % |" in text
    assert "| its adapter on the base without quantisation |" in text


def test_a_checkout_of_llama_cpp_is_asked_for(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"format=gguf needs export\.llama_cpp=FOLDER"):
        export_run(run_dir, ["format=gguf"])
    with pytest.raises(UserError, match=r"no convert_hf_to_gguf\.py in this folder"):
        export_run(run_dir, ["format=gguf", f"export.llama_cpp={tmp_path}"])


def test_a_python_with_vllm_is_asked_for(run_dir: Path, tmp_path: Path) -> None:
    output = f"output={tmp_path / 'bundle'}"
    with pytest.raises(UserError, match=r"export\.vllm: nowhere: expected the Python of an env"):
        export_run(run_dir, ["export.vllm=nowhere", output])
    if importlib.util.find_spec("vllm") is None:
        with pytest.raises(UserError, match=r"^export\.vllm: .*: backend=vllm needs vLLM"):
            export_run(run_dir, [f"export.vllm={sys.executable}", output])
    assert list(tmp_path.iterdir()) == []


def test_the_converter_is_run_twice_and_its_last_words_are_told(
    merged: Path, tmp_path: Path
) -> None:
    commands = [
        gguf.command_of(tmp_path, merged, tmp_path / "m.gguf", "bfloat16", is_projector)
        for is_projector in (False, True)
    ]
    expected = [
        sys.executable,
        str(tmp_path / gguf.CONVERTER),
        str(merged),
        "--outfile",
        str(tmp_path / "m.gguf"),
        "--outtype",
        "bf16",
    ]
    assert commands == [expected, [*expected, "--mmproj"]]
    (tmp_path / gguf.CONVERTER).write_text("import no_such_package\n")
    with pytest.raises(
        UserError,
        match=r"exit status 1, its last line: "
        r"ModuleNotFoundError.*no_such_package.*requirements\.txt",
    ):
        gguf.convert(tmp_path, merged, tmp_path / "m.gguf", "bfloat16", is_projector=False)


@pytest.mark.skipif(
    "LIPI_LLAMA_CPP" not in os.environ,
    reason="LIPI_LLAMA_CPP names no llama.cpp checkout (docs/results.md: one from PyPI)",
)
def test_llama_cpp_reads_what_we_read(run_dir: Path, tmp_path: Path) -> None:
    exported = export_run(
        run_dir,
        [
            "format=gguf",
            f"output={tmp_path / 'gguf'}",
            f"export.llama_cpp={os.environ['LIPI_LLAMA_CPP']}",
        ],
    )
    assert sorted(file.name for file in exported.bundle.path.iterdir()) == [
        "README.md",
        "bundle.json",
        "manifest.json",
        "mmproj-tiny-vlm.gguf",
        "tiny-vlm.gguf",
    ]
    assert abs(exported.bundle.backends[gguf.READER] - exported.bundle.card["live_cer"]) <= 0.003


def test_the_hub_gets_a_token_from_the_environment_and_no_file_has_it(run_dir: Path) -> None:
    words = ("export", run_dir, "format=hub", "repo_id=someone/odia")
    assert_refused(
        call(*words, HF_ENDPOINT="http://127.0.0.1:9", HF_TOKEN="hf_secret"),
        "bundle is written; someone/odia was not pushed",
    )
    assert not [
        file for file in run_dir.rglob("*") if file.is_file() and b"hf_secret" in file.read_bytes()
    ]
    assert_refused(call("export", run_dir, "format=hub"), "format=hub needs repo_id=OWNER/NAME")


def test_a_vision_language_model_has_no_onnx(tmp_path: Path) -> None:
    """The config alone decides, before data or checkpoints are opened."""
    shutil.copy(PROJECT / "configs" / "tiny_vlm.yaml", tmp_path / "config.yaml")
    assert_refused(
        call("export", tmp_path, "format=onnx"),
        "format=onnx is for CTC networks, and this run has model.kind=tiny_vlm; "
        "for a CPU export format=gguf",
    )
    assert [file.name for file in tmp_path.iterdir()] == ["config.yaml"]


def test_a_ctc_run_has_nothing_to_merge(tmp_path: Path) -> None:
    from tests.support.tiny import tiny_config

    torch.set_num_threads(1)
    launch(tiny_config(tmp_path, train={"max_steps": 2}), train_here, "the command")
    with pytest.raises(
        UserError,
        match=r"expected one of bundle or onnx for model\.kind=compact, which has no adapter",
    ):
        export_run(tmp_path / "tiny", ["format=merged"])
    card = ModelCard.load(tmp_path / "tiny" / "bundle" / "README.md")
    assert card.data.tags == ["ocr", "lipi", "ctc"]

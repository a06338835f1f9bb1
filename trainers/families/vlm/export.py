"""A trained vision-language model becomes a bundle: its adapter in PEFT's own format, or the base with the adapter merged, as transformers saves it.

Either is opened again from the written files and read with before it is kept; see `trainers.families.export_gate` for the gate.
"""

import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ocr.bundle import Bundle, write_bundle
from ocr.evaluation import Evaluation, evaluate
from ocr.recognizers.ctc.calibration import Reliability, reliability
from ocr.recognizers.factory import load
from ocr.recognizers.vlm.adapter import adapted, adapter_files, fill
from ocr.recognizers.vlm.base_model import DTYPES
from ocr.recognizers.vlm.reading import VlmRecognizer
from ocr.settings import resolved
from trainers.families.export_gate import (
    Exported,
    require_agreement,
    require_like_confidences,
    require_no_worse,
    require_same_tensors,
)
from trainers.families.model_card import MODEL_CARD, card_text
from trainers.families.vlm.task import VlmTask

SHARD_SIZE = "5GB"
_NOT_OF_THE_MODEL = (
    "config.json",
    "generation_config.json",
    "README.md",
    "model.safetensors.index.json",
)


def export_adapter(task: VlmTask, path: Path, card: Mapping[str, Any]) -> Exported:
    """Write the adapter as it is now to `path`; GateFailed, and nothing written, where the bundle opened again reads otherwise."""
    model = {
        **resolved(task.config.vlm),
        "dtype": task.dtype,
        "lora": resolved(task.config.lora),
        "base_sha256": task.base.sha256,
    }
    written = {
        name: tensor.detach().cpu() for name, tensor in _adapter_of(task.network.model).items()
    }
    live = _read(task, task.recognizer)
    about = {**card, "form": "adapter", "live_cer": live.counts.cer}
    return _through_the_gate(
        task, path, model, adapter_files(task.network.model), None, about, written, live
    )


def export_merged(task: VlmTask, path: Path, card: Mapping[str, Any]) -> Exported:
    """Merge the adapter into a fresh copy of the base in `export.merged_dtype` and write that to `path`; GateFailed, and nothing written, where it reads otherwise.

    A base that was trained on in 4 or 8 bits is loaded whole, since a merge into quantised matrices would be rounded to them. What is merged has to read
    as the adapter on that base does then, and that no worse than the trained network, by `export.max_cer_difference`.
    """
    settings, dtype = task.config.vlm, task.config.export.merged_dtype
    model = {
        **resolved(settings),
        "dtype": dtype,
        "load_in_4bit": False,
        "load_in_8bit": False,
        "merged": True,
        "base_sha256": task.base.sha256,
    }
    expected = live = _read(task, task.recognizer)
    about = {**card, "form": "merged", "live_cer": live.counts.cer}
    if settings.quantised:
        expected = _read(task, _on_the_whole_base(task))
        about["whole_base_cer"] = expected.counts.cer
        require_no_worse(
            "the adapter on the base without quantisation",
            expected,
            live,
            task.config.export.max_cer_difference,
        )
    merged = merged_model(task).to(DTYPES[dtype])
    with folder_beside(path) as folder:
        write_model(merged, task.base.folder, folder)
        return _through_the_gate(
            task, path, model, {}, folder, about, merged.state_dict(), expected
        )


def merged_model(task: VlmTask) -> nn.Module:
    """The base on the CPU with the live adapter merged: W + s·B·A of every layer in fp32, in the dtype that the base is stored in."""
    model: Any = _whole(task, DTYPES[task.base.stored_dtype], "cpu")
    from peft.tuners.tuners_utils import BaseTunerLayer

    for layer in model.modules():
        if isinstance(layer, BaseTunerLayer):
            weight: Any = layer.get_base_layer().weight
            before = weight.dtype
            weight.data = weight.data.float()
            layer.merge(safe_merge=True)
            weight.data = weight.data.to(before)
    return model.unload()  # type: ignore[no-any-return]


def _whole(task: VlmTask, dtype: torch.dtype, device: str) -> nn.Module:
    """The live adapter on a fresh copy of the base without quantisation."""
    settings = task.config.vlm.model_copy(
        update={
            "load_in_4bit": False,
            "load_in_8bit": False,
            "device_map": None,
            "gradient_checkpointing": False,
        }
    )
    model = adapted(task.base.load(settings, dtype, device), task.base, task.config.lora)
    fill(model, _adapter_of(task.network.model), "the live adapter")
    return model


def _on_the_whole_base(task: VlmTask) -> VlmRecognizer:
    config = task.config
    return VlmRecognizer(
        _whole(task, DTYPES[task.dtype], str(task.device)).eval(),
        task.base,
        config.vlm,
        config.images,
        config.generation,
        config.run_name,
    )


def _read(task: VlmTask, recognizer: VlmRecognizer) -> Evaluation:
    return evaluate(recognizer, task.validation_data, task.judged)


def write_model(model: Any, base: Path, folder: Path) -> None:
    """What `from_pretrained` opens: weights and config of the model, tokenizer, processor and chat template of the base."""
    for file in sorted(base.iterdir()):
        if (
            file.suffix in (".json", ".jinja", ".txt", ".model")
            and file.name not in _NOT_OF_THE_MODEL
        ):
            shutil.copy(file, folder / file.name)
    model.config.dtype = model.dtype
    model.save_pretrained(folder, max_shard_size=SHARD_SIZE)


def _adapter_of(model: nn.Module) -> dict[str, Tensor]:
    from peft import get_peft_model_state_dict

    return dict(get_peft_model_state_dict(model, save_embedding_layers=False))


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """An empty folder on the same disk, gone afterwards where it was not taken."""
    folder = path.with_name(f"{path.name}.making")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _through_the_gate(
    task: VlmTask,
    path: Path,
    model: dict[str, Any],
    files: dict[str, bytes],
    prepared: Path | None,
    card: Mapping[str, Any],
    written: Mapping[str, Tensor],
    expected: Evaluation,
) -> Exported:
    """Write, open again, compare tensors and readings with what is expected, add what a quantised base reads, and put the bundle in its place."""
    settings = task.config.export
    unchecked = _bundle(
        task, path.with_name(f"{path.name}.unchecked"), model, {"torch": math.nan}, card
    )
    write_bundle(unchecked, files, prepared)
    try:
        opened = load(unchecked.path, "torch", str(task.device))
        assert isinstance(opened, VlmRecognizer)
        name = f"{card['form']} ({unchecked.path.name})"
        require_same_tensors(
            name,
            _adapter_of(opened.model) if card["form"] == "adapter" else opened.model.state_dict(),
            written,
        )
        read = _read(task, opened)
        require_agreement(name, read, expected, settings.max_cer_difference)
        require_like_confidences(name, read, expected, settings.max_confidence_difference)
        del opened
        found = {"torch": read, **_quantised_readings(task, unchecked)}
        served = settings.quantization or "torch"
        bundle = _bundle(
            task,
            path,
            model,
            {backend: each.counts.cer for backend, each in found.items()},
            {**card, **_figures(task, found[served])},
        )
        write_bundle(bundle, {**files, MODEL_CARD: card_text(bundle).encode()}, unchecked.path)
    finally:
        shutil.rmtree(unchecked.path, ignore_errors=True)
    return Exported(bundle, found[served], _trust(found[served]))


def _quantised_readings(task: VlmTask, bundle: Bundle) -> dict[str, Evaluation]:
    wanted = task.config.export.quantization
    return (
        {
            wanted: evaluate(
                load(bundle.path, wanted, str(task.device)), task.validation_data, task.judged
            )
        }
        if wanted
        else {}
    )


def _figures(task: VlmTask, served: Evaluation) -> dict[str, Any]:
    return {
        "judged_samples": served.counts.samples,
        "rates": served.counts.rates(),
        "confidence": {"expected_calibration_error": _trust(served).expected_error},
        "max_cer_difference": task.config.export.max_cer_difference,
        "base": {"name": task.base.name, "license": task.base.license, "sha256": task.base.sha256},
        "versions": {name: version(name) for name in ("torch", "transformers", "peft")},
    }


def _trust(read: Evaluation) -> Reliability:
    return reliability(
        [line.confidence for line in read.lines],
        [line.reading == line.reference for line in read.lines],
    )


def _bundle(
    task: VlmTask,
    path: Path,
    model: dict[str, Any],
    backends: dict[str, float],
    card: Mapping[str, Any],
) -> Bundle:
    config = task.config
    decoding, served = (
        {**resolved(config.generation), "images": resolved(config.images)},
        config.export.quantization or "torch",
    )
    return Bundle(
        path,
        "vlm",
        config.run_name,
        model,
        [],
        backends,
        {"cpu": served, "cuda": served},
        decoding,
        dict(card),
    )

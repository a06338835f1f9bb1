"""A trained vision-language model becomes a bundle: its adapter, or the base with it merged.

The adapter is in PEFT's own format, the merged model as transformers saves it. Either is opened
again from the written files and read with before it is kept (`trainers.families.export_gate`).
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

from ocr.bundle import DESCRIPTION, MANIFEST, Bundle, write_bundle
from ocr.evaluation import Evaluation, evaluate
from ocr.recognizers.ctc.calibration import Reliability, reliability
from ocr.recognizers.factory import load
from ocr.recognizers.vlm.adapter import adapted, adapter_files, fill
from ocr.recognizers.vlm.base_model import DTYPES
from ocr.recognizers.vlm.reading import VlmRecognizer
from ocr.retraining import FIRST
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
from trainers.families.vlm.vllm_reading import readings_of_vllm, require_python

SHARD_SIZE = "5GB"
_NOT_OF_THE_MODEL = (
    "config.json",
    "generation_config.json",
    "README.md",
    "model.safetensors.index.json",
    *(DESCRIPTION, MANIFEST, FIRST),  # of a merged model that is the base
)


def export_adapter(task: VlmTask, path: Path, card: Mapping[str, Any]) -> Exported:
    """Write the adapter as it is now to `path`.

    Raises GateFailed, and writes nothing, where the bundle opened again reads differently.
    """
    model = {
        **task.config.vlm.model_dump(mode="json", exclude_none=True),
        "dtype": task.dtype,
        "lora": task.config.lora.model_dump(mode="json", exclude_none=True),
        "base_sha256": task.base.sha256,
    }
    written = {
        name: tensor.detach().cpu() for name, tensor in _adapter_of(task.network.model).items()
    }
    require_python(task.config.export.vllm)
    live = _read(task, task.recognizer)
    about = {**card, "form": "adapter", "live_cer": live.counts.cer}
    return _through_the_gate(
        task, path, model, adapter_files(task.network.model), None, about, written, live
    )


def export_merged(task: VlmTask, path: Path, card: Mapping[str, Any]) -> Exported:
    """Merge the adapter into a new copy of the base in `export.merged_dtype`, written to `path`.

    Raises GateFailed, and writes nothing, where it reads differently. A base that was trained in 4
    or 8 bits is loaded whole, since a merge into quantised matrices would be rounded to them. The
    adapter on the whole base may then read no worse than the trained network, by
    `export.max_cer_difference`, and the merged model must read like it.
    """
    settings, dtype = task.config.vlm, task.config.export.merged_dtype
    model = {
        **settings.model_dump(mode="json", exclude_none=True),
        "dtype": dtype,
        "load_in_4bit": False,
        "load_in_8bit": False,
        "merged": True,
        "lora": task.config.lora.model_dump(mode="json", exclude_none=True),  # to go on with
        "base_sha256": task.base.sha256,
    }
    require_python(task.config.export.vllm)
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
    with scratch_folder(path) as folder:
        write_model(merged, task.base.folder, folder)
        return _through_the_gate(
            task, path, model, {}, folder, about, merged.state_dict(), expected
        )


def merged_model(task: VlmTask) -> nn.Module:
    """Return the base on the CPU with the live adapter merged: W + s·B·A of every layer.

    The sum is in fp32, the result in the dtype that the base is stored in.
    """
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
    """Return the live adapter on a new copy of the base without quantisation."""
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
    return evaluate(recognizer, task.validation_data, task.read_indices)


def write_model(model: Any, base: Path, folder: Path) -> None:
    """Write a folder that `from_pretrained` opens.

    Weights and config are the model's; tokenizer, processor and chat template are the base's.
    """
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
def scratch_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`, on the same disk; it is removed unless it was moved."""
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
    """Write a bundle, open it again, and compare its tensors and readings with the expected ones.

    Readings by bitsandbytes and by vLLM are added where `export.quantization` and `export.vllm` ask
    for them. Then the bundle replaces the one at `path`.
    """
    unchecked_path = path.with_name(f"{path.name}.unchecked")
    unchecked = _bundle(task, unchecked_path, model, {"torch": math.nan}, card)
    write_bundle(unchecked, files, prepared)
    try:
        read = _proved(task, unchecked, written, expected)
        readings = {
            "torch": read,
            **_quantised_readings(task, unchecked),
            **readings_of_vllm(task, unchecked, read),
        }
        served = readings[task.config.export.quantization or "torch"]
        rates = {backend: each.counts.cer for backend, each in readings.items()}
        bundle = _bundle(task, path, model, rates, {**card, **_figures(task, served)})
        write_bundle(bundle, {**files, MODEL_CARD: card_text(bundle).encode()}, unchecked.path)
    finally:
        shutil.rmtree(unchecked.path, ignore_errors=True)
    return Exported(bundle, served, _trust(served))


def _proved(
    task: VlmTask, unchecked: Bundle, written: Mapping[str, Tensor], expected: Evaluation
) -> Evaluation:
    """Return what the written bundle reads; GateFailed where its tensors or readings differ."""
    settings, form = task.config.export, unchecked.card["form"]
    opened = load(unchecked.path, "torch", str(task.device))
    assert isinstance(opened, VlmRecognizer)
    name = f"{form} ({unchecked.path.name})"
    tensors = _adapter_of(opened.model) if form == "adapter" else opened.model.state_dict()
    require_same_tensors(name, tensors, written)
    read = _read(task, opened)
    require_agreement(name, read, expected, settings.max_cer_difference)
    require_like_confidences(name, read, expected, settings.max_confidence_difference)
    return read


def _quantised_readings(task: VlmTask, bundle: Bundle) -> dict[str, Evaluation]:
    wanted = task.config.export.quantization
    if not wanted:
        return {}
    recognizer = load(bundle.path, wanted, str(task.device))
    return {wanted: evaluate(recognizer, task.validation_data, task.read_indices)}


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
    decoding = {**resolved(config.generation), "images": resolved(config.images)}
    served = config.export.quantization or "torch"
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

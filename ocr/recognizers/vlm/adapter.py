"""LoRA adapters in PEFT's own format: added to a base model, filled, and opened again.

An adapter that does not fit is refused; nothing is ignored.
"""

import json
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ocr.bundle import OTHER_VERSION, Bundle, opening
from ocr.errors import UserError
from ocr.recognizers.vlm.adapter_config import ADAPTER_CONFIG
from ocr.recognizers.vlm.architectures import Architecture
from ocr.recognizers.vlm.base_model import DTYPES, Base
from ocr.recognizers.vlm.find import find_base
from ocr.recognizers.vlm.reading import PromptedReader, VlmRecognizer
from ocr.recognizers.vlm.settings import (
    GenerationSettings,
    ImageSettings,
    LoraSettings,
    TinyVlmSettings,
    VlmSettings,
)
from ocr.recognizers.vlm.vllm_engine import VLLM, load_vllm, prepare_vllm
from ocr.settings import parse_settings

QUANTISED = ("nf4", "int8")
ADAPTER = "adapter_model.safetensors"


def adapted(model: nn.Module, base: Base, lora: LoraSettings) -> nn.Module:
    """Return the base model with a fresh adapter, initialised from torch's global generator.

    UserError where a part of `lora.parts` matches no layer.
    """
    from peft import LoraConfig, get_peft_model

    names = [name for name, _ in model.named_modules()]
    _require_layers(names, lora, base)
    patterns = layers_of(lora, base.architecture)
    options: dict[str, Any] = {
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "use_rslora": lora.use_rslora,
        "use_dora": lora.use_dora,
    }
    made = LoraConfig(r=lora.rank, target_modules="|".join(patterns.values()), **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # from transformers to peft
        peft_model = get_peft_model(model, made)
    peft_model.peft_config["default"].base_model_name_or_path = base.name
    return peft_model


def layers_of(lora: LoraSettings, architecture: Architecture) -> dict[str, str]:
    """Return, for each of `lora.parts`, the expression of whole names that its layers match."""
    patterns: dict[str, str] = {part: architecture.targets[part] for part in lora.parts}
    if lora.target_modules is None:
        return patterns
    wanted = "|".join(map(re.escape, lora.target_modules))
    return {part: rf"(?=.*\.(?:{wanted})$){pattern}" for part, pattern in patterns.items()}


def layer_names(names: Iterable[str], lora: LoraSettings, architecture: Architecture) -> set[str]:
    """Return the last parts of the names of all linear layers in `lora.parts`."""
    return {
        name.rpartition(".")[2]
        for name in names
        if any(re.fullmatch(architecture.targets[part], name) for part in lora.parts)
    }


def _require_layers(names: Sequence[str], lora: LoraSettings, base: Base) -> None:
    """Raise UserError where a part, or a name of `lora.target_modules`, matches no layer."""
    known = layer_names(names, lora, base.architecture)
    if unknown := sorted(set(lora.target_modules or ()) - known):
        raise UserError(
            f"lora.target_modules: {base.name} has no layer {', '.join(unknown)} in "
            f"{', '.join(lora.parts)}; known: {', '.join(sorted(known))}"
        )
    unmatched = [
        part
        for part, pattern in layers_of(lora, base.architecture).items()
        if not any(re.fullmatch(pattern, name) for name in names)
    ]
    if unmatched:
        raise UserError(
            f"lora.parts: {base.name} has no layer of the names that belong to "
            f"{', '.join(unmatched)}"
        )


def fill(model: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Load weights under PEFT's own names into an adapted model.

    UserError lists the weights that are missing, unexpected or of another shape.
    `PeftModel.from_pretrained` loads nothing and only warns where names differ.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    own = get_peft_model_state_dict(model, save_embedding_layers=False)
    differing = sorted(set(own) ^ set(weights)) or [
        f"{name} {list(weights[name].shape)}"
        for name in own
        if own[name].shape != weights[name].shape
    ]
    if differing:
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise UserError(
            f"{where}: an adapter of another shape ({', '.join(differing[:3])}{more} differ); "
            "set lora.rank, lora.parts and lora.target_modules as it was trained"
        )
    set_peft_model_state_dict(model, dict(weights))


def adapter_files(model: nn.Module) -> dict[str, bytes]:
    """Return the files that `PeftModel.from_pretrained` opens: the adapter's weights and config."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save

    weights = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in get_peft_model_state_dict(model, save_embedding_layers=False).items()
    }
    config = model.peft_config["default"].to_dict()  # type: ignore[index, union-attr]
    plain = {
        key: sorted(value) if isinstance(value, set) else value for key, value in config.items()
    }
    return {
        ADAPTER: save(weights, metadata={"format": "pt"}),
        ADAPTER_CONFIG: json.dumps(
            {**plain, "inference_mode": True}, indent=2, default=str
        ).encode(),
    }


def read_adapter(folder: Path) -> dict[str, Tensor]:
    """Return the weights of an adapter as PEFT saves it; UserError where there is none."""
    if not (folder / ADAPTER).is_file():
        raise UserError(f"{folder}: no adapter here ({ADAPTER} is missing)")
    with opening(folder / ADAPTER):
        return load_file(folder / ADAPTER)


def require_base(base: Base, sha256: str | None, where: str) -> None:
    """Raise UserError where an adapter was trained on another base model."""
    if sha256 is not None and sha256 != base.sha256:
        raise UserError(
            f"{where}: trained on another base model than {base.name} (whose weights hash to "
            f"{base.sha256[:12]}…, the adapter's to {sha256[:12]}…)"
        )


def model_settings(values: Mapping[str, Any], where: str) -> VlmSettings | TinyVlmSettings:
    """Return the base model's settings from a bundle's plain values."""
    kinds: dict[str, type[VlmSettings | TinyVlmSettings]] = {
        "vlm": VlmSettings,
        "tiny_vlm": TinyVlmSettings,
    }
    kind = values.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        raise UserError(
            f"{where}: unknown network {kind!r}; known: {', '.join(kinds)}; {OTHER_VERSION}"
        )
    with opening(Path(where)):
        return parse_settings(kinds[kind], values, where)


def quantised(
    settings: VlmSettings | TinyVlmSettings, backend: str, where: str
) -> VlmSettings | TinyVlmSettings:
    """Return the settings for a backend's quantisation; UserError for an unknown backend."""
    if backend in ("torch", VLLM):
        return settings
    if backend not in QUANTISED:
        raise UserError(
            f"{where}: a vision-language model has no backend {backend!r}; known: torch, "
            f"{', '.join(QUANTISED)}, {VLLM}"
        )
    return settings.model_copy(
        update={"load_in_4bit": backend == "nf4", "load_in_8bit": backend == "int8"}
    )


def load_vlm(bundle: Bundle, backend: str | None, device: str | None) -> PromptedReader:
    """Return the recogniser of a bundle, on a GPU where there is one.

    A merged bundle holds the whole model. Otherwise its base model is found again, proved by its
    hash, and gets the adapter. Backends: torch as it was trained; nf4 and int8 with the base
    model's matrices quantised (bitsandbytes); vllm, where it is installed.
    """
    where, values = str(bundle.path), dict(bundle.model)
    sha256, lora, is_merged = (
        values.pop("base_sha256", None),
        values.pop("lora", {}),
        values.pop("merged", False),
    )
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    backend = backend or bundle.default_backend(device)
    settings = quantised(model_settings(values, where), backend, where)
    assert settings.dtype != "auto"  # sealed as it was trained
    if backend == VLLM:
        prepare_vllm(where)
    base = Base(bundle.path, bundle.name) if is_merged else find_base(settings)
    if not is_merged:
        require_base(base, sha256, where)
    with opening(bundle.path):
        lora_settings = None if is_merged else parse_settings(LoraSettings, lora, where)
        decoding = dict(bundle.decoding)
        images = parse_settings(ImageSettings, decoding.pop("images", {}), where)
        generation = parse_settings(GenerationSettings, decoding, where)
    if backend == VLLM:
        return load_vllm(bundle, base, settings, lora_settings, images, generation, device)
    model = base.load(settings, DTYPES[settings.dtype], device)
    if lora_settings:
        model = adapted(model, base, lora_settings)
        fill(model, read_adapter(bundle.path), where)
    return VlmRecognizer(model.eval(), base, settings, images, generation, bundle.name)

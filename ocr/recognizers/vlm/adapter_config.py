"""PEFT's adapter_config.json beside an adapter: what it says must be what the run does.

The weights alone fit any scale, so an adapter of another alpha would load and read wrongly.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ocr.errors import UserError
from ocr.recognizers.vlm.settings import LoraSettings

ADAPTER_CONFIG = "adapter_config.json"
_OURS = {"r": "rank", "lora_alpha": "alpha", "use_rslora": "use_rslora", "use_dora": "use_dora"}
_NO_EFFECT = {  # on the reading of an adapter whose weights have the names of the run's
    *("task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
    *("inference_mode", "target_modules", "exclude_modules", "lora_dropout", "layers_pattern"),
    *("layers_to_transform", "megatron_core", "megatron_config", "loftq_config", "eva_config"),
    *("corda_config", "lora_ga_config", "qalora_group_size", "runtime_config"),
    *("ensure_weight_tying", "init_lora_weights", "rank_pattern", "alpha_pattern"),
}
_CHANGES_THE_BASE = re.compile(r"pissa|olora|loftq|corda|lora_ga", re.IGNORECASE)
_QUANTISED_COPY = re.compile(r"(-unsloth)?(-bnb-4bit|-bnb-8bit|-4bit|-8bit)?$")
_CACHED = re.compile(r"models--(.+?)--(.+?)/snapshots/")


def require_adapter_config(folder: Path, lora: LoraSettings, base: str | None) -> None:
    """Raise UserError that names each key of adapter_config.json that differs from the run.

    `base` is the name of the base model; None where the adapter's base is known by its hash.
    """
    file = folder / ADAPTER_CONFIG
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError(f"expected a mapping, got {type(config).__name__}")
    except FileNotFoundError:
        raise UserError(
            f"{folder}: {ADAPTER_CONFIG} is missing, so the scale of the adapter is unknown; "
            "put it beside the weights, as PEFT saves it"
        ) from None
    except (OSError, ValueError) as problem:
        raise UserError(f"{file}: cannot be read: {problem}") from None
    differing = [*_differences(config, lora), *(_other_base(config, base) if base else ())]
    if differing:
        raise UserError("\n".join([f"{file}: another adapter than the run's", *differing]))


def require_equal(trained: LoraSettings, lora: LoraSettings, where: str) -> None:
    """Raise UserError where an adapter was trained with another rank, scale or kind."""
    differing = [
        f"  {key} is {getattr(trained, key)} there, lora.{key} is {getattr(lora, key)}"
        for key in _OURS.values()
        if getattr(trained, key) != getattr(lora, key)
    ]
    if differing:
        raise UserError("\n".join([f"{where}: another adapter than the run's", *differing]))


def _differences(config: Mapping[str, Any], lora: LoraSettings) -> Iterator[str]:
    from peft import LoraConfig

    plain = LoraConfig().to_dict()  # type: ignore[no-untyped-call]
    default = json.loads(json.dumps(plain, default=str))
    for key, ours in _OURS.items():
        found, wanted = config.get(key, default[key]), getattr(lora, ours)
        if found != wanted:
            yield f"  {key} is {found} there; set lora.{ours}={found}, which is {wanted}"
    for key, ours in (("rank_pattern", "rank"), ("alpha_pattern", "alpha")):
        if any(value != getattr(lora, ours) for value in (config.get(key) or {}).values()):
            yield f"  {key} is {config[key]}; a run has one lora.{ours} for all layers"
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and _CHANGES_THE_BASE.search(start):
        yield (
            f"  init_lora_weights is {start}, which changes the base's weights; convert the "
            "adapter to plain LoRA with PEFT"
        )
    for key, value in config.items():
        if key not in {*_OURS, *_NO_EFFECT} and value and value != default.get(key):
            yield f"  {key} is {value}; a run has {default.get(key)}, and no setting for it"


def _other_base(config: Mapping[str, Any], base: str) -> Iterator[str]:
    """Yield a difference where the adapter names another base model than the run's."""
    named = str(config.get("base_model_name_or_path") or "")
    if named and _bare(named) != _bare(base):
        yield (
            f"  base_model_name_or_path is {named}, the run's base model is {base}; if they are "
            "the same weights, write the run's name there"
        )


def _bare(name: str) -> str:
    """Return the name of a model without its owner, folder or quantisation."""
    cached = _CACHED.search(name.replace("\\", "/"))
    last = cached[2] if cached else PurePosixPath(name.replace("\\", "/")).name
    return _QUANTISED_COPY.sub("", last.lower())

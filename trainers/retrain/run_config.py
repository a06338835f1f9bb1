"""The config of a retraining's runs: a bundle's own settings, to be trained further."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ocr.bundle import Bundle
from ocr.errors import UserError
from ocr.recognizers.vlm.settings import VlmSettings
from ocr.retraining import RetrainConfig
from ocr.settings import parse_settings
from trainers.config import TrainConfig

_CTC_MICRO_BATCH, _CTC_RATE, _VLM_RATE = 16, 1e-3, 1e-4
_MAX_CER_DIFFERENCE = 0.01
_QUANTISED = ("nf4", "int8")  # backends
_FAMILIES = ("ctc", "vlm")


@dataclass(frozen=True, slots=True)
class Start:
    """The recogniser that is trained further, and where every worker finds it: a path or address.

    A merged vision-language model has no adapter to go on with: it becomes the base of a new one.
    """

    bundle: Bundle
    address: str

    @property
    def is_merged(self) -> bool:
        """Whether it is a base with its adapter merged into it."""
        return bool(self.bundle.model.get("merged"))


@dataclass(frozen=True, slots=True)
class RunData:
    """The data sets of a run, as `data.train`, `data.validation` and `data.replay` take them."""

    train: str
    validation: str
    replay: str

    @property
    def is_fold(self) -> bool:
        """Whether a part of the corrections validates."""
        return self.validation != self.replay


def require_family(bundle: Bundle) -> None:
    """Raise UserError for a bundle that cannot be trained further."""
    if bundle.family not in _FAMILIES:
        raise UserError(
            f"{bundle.path}: expected a bundle of the family {' or '.join(_FAMILIES)}, got "
            f"{bundle.family}; name the bundle that it was exported from"
        )


def run_config(
    config: RetrainConfig, start: Start, name: str, storage_path: str, data: RunData
) -> TrainConfig:
    """Return the config of the run `name`; UserError where the bundle's settings do not fit."""
    of_family = _of_vlm if start.bundle.family == "vlm" else _of_ctc
    values = {
        "run_name": name,
        "storage_path": storage_path,
        "data": {
            "train": data.train,
            "validation": data.validation,
            "replay": data.replay,
            "replay_ratio": config.replay_ratio,
        },
        "workers": config.workers,
        "threads_per_worker": config.threads_per_worker,
        "device": config.device,
        **of_family(config, start, data.is_fold),
    }
    return parse_settings(TrainConfig, values, f"{storage_path}: {name}")


def _of_ctc(config: RetrainConfig, start: Start, is_fold: bool) -> dict[str, Any]:
    bundle = start.bundle
    return {
        "train": _loop(config, start.address, _CTC_MICRO_BATCH),
        "optimizer": {"learning_rate": config.learning_rate or _CTC_RATE, "warmup_steps": 10},
        "model": _without(bundle.model, "alphabet", "character_dict_path"),
        "augment": {"strength": config.augment},
        "decoding": _without(bundle.decoding, "calibration"),
        "export": {
            # a fold has too few lines for the gate of a quantised backend
            "backends": ["torch"] if is_fold else list(bundle.backends),
            "half_weights": not is_fold,
            **_export(config),
        },
    }


def _of_vlm(config: RetrainConfig, start: Start, is_fold: bool) -> dict[str, Any]:
    """Return the settings of an adapter that goes on, or of a new one on a merged model."""
    bundle = start.bundle
    model = _without(bundle.model, "lora", "base_sha256", "merged")
    export = _export(config)
    if start.is_merged:
        known = VlmSettings.model_fields.keys() - {"revision", "subfolder"}  # of its own base
        own = {key: value for key, value in model.items() if key in known}
        model = {**own, "kind": "vlm", "name_or_path": start.address}
        export["merged_dtype"] = model["dtype"]
    if not is_fold:
        served = (backend for backend in _QUANTISED if backend in bundle.backends)
        export["quantization"] = next(served, None)
    return {
        "train": _loop(config, None if start.is_merged else start.address, 1),
        "optimizer": {
            "learning_rate": config.learning_rate or _VLM_RATE,
            "warmup_steps": 10,
            "max_grad_norm": 1.0,
        },
        "model": model,
        "lora": bundle.model.get("lora", {}),
        "loss": {"name": "cross_entropy"},
        "images": bundle.decoding.get("images", {}),
        "generation": _without(bundle.decoding, "images"),
        "kornia": {"strength": config.augment},
        "export": export,
    }


def _export(config: RetrainConfig) -> dict[str, Any]:
    return {
        "max_cer_difference": _MAX_CER_DIFFERENCE,
        "initial_share": config.initial_share,
    }


def _loop(config: RetrainConfig, init_from: str | None, micro_batch: int) -> dict[str, Any]:
    epochs = config.num_epochs
    length = {"max_steps": config.max_steps} if epochs is None else {"num_epochs": epochs}
    asked = config.micro_batch_size or micro_batch
    return {
        **length,
        "global_batch_size": config.global_batch_size,
        "micro_batch_size": min(asked, config.global_batch_size),
        "save_steps": config.save_steps,
        "eval_steps": 1_000_000,  # once, at the end: the lines that decide must not choose
        "logging_steps": 5,
        "seed": config.seed,
        "init_from": init_from,
    }


def _without(values: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in keys}

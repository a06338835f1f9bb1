"""A run's identity, and the environment that must be equal for a resume to be exact."""

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from ocr.settings import flattened, given_settings
from trainers.config import TrainConfig

_KINDS = ("kind", "name")
_LIBRARIES = ("torch", "numpy", "pillow", "lipi-ocr")
# not part of the identity: the content counts, by its fingerprint, not the folder
_WHERE_DATA_LIES = (
    "data.train",
    "data.validation",
    "data.validation_ratio",
    "data.split.by",
    "data.split.on_leak",
    "data.split.seed",
    "data.replay",
    "train.init_from",
)


def identity(config: TrainConfig, fingerprints: dict[str, str]) -> str:
    """Return the SHA-256 of the settings with on_resume=refuse and of the data.

    Every checkpoint's manifest has it. Settings at their defaults are left out (but for those that
    name a kind), so that a later version with a new setting continues the run.
    """
    given = given_settings(config)
    settings = {
        key: value
        for key, (value, rule) in flattened(config).items()
        if rule == "refuse"
        and key not in _WHERE_DATA_LIES
        and (key in given or key.rpartition(".")[2] in _KINDS)
    }
    return hashlib.sha256(json.dumps([settings, fingerprints], sort_keys=True).encode()).hexdigest()


def refused_changes(old: TrainConfig, new: TrainConfig, changed: dict[str, str]) -> list[str]:
    """Return the changed settings (key → rule) that would make another run, as `key: old → new`."""
    before, after = flattened(old), flattened(new)

    def value(settings: Mapping[str, tuple[Any, Any]], key: str) -> Any:
        return settings[key][0] if key in settings else "absent"

    return [
        f"{key}: {value(before, key)} → {value(after, key)}"
        for key, rule in changed.items()
        if rule == "refuse" and key not in _WHERE_DATA_LIES
    ]


def environment(
    config: TrainConfig, threads_per_worker: int, device: str, precision: str
) -> dict[str, Any]:
    """Return all that determines the last bit besides config and step."""
    uses_deepspeed = config.engine == "deepspeed"
    libraries = (*_LIBRARIES, "deepspeed") if uses_deepspeed else _LIBRARIES
    return {
        "workers": config.worker_count,
        "threads_per_worker": threads_per_worker,
        "device": device.partition(":")[0],
        "precision": precision,
        "deterministic": config.deterministic,
        "engine": config.deepspeed.summary if uses_deepspeed else config.engine,
        **{library: version(library) for library in libraries},
    }

"""A run's identity: what makes it this run and not another, and what must be equal for a resume to be exact."""

import hashlib
import json
from importlib.metadata import version
from typing import Any

from ocr.settings import flattened, given_settings
from trainers.config import TrainConfig

_KINDS = ("kind", "name")
_LIBRARIES = ("torch", "numpy", "pillow", "lipi-ocr")
_WHERE_DATA_LIES = (
    "data.train",
    "data.validation",
    "data.validation_ratio",
    "data.replay",
    "train.init_from",
)  # the content counts, by its fingerprint, not the folder


def identity(config: TrainConfig, fingerprints: dict[str, str]) -> str:
    """SHA-256 of the settings that refuse to change and of the data; every checkpoint's manifest carries it.

    Settings at their defaults are left out (but for those that name a kind), so that a later version with a new setting continues the run.
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
    """Of the changed settings (key → rule), those that would make it another run, as `key: old → new`."""
    before, after = flattened(old), flattened(new)
    return [
        f"{key}: {before[key][0] if key in before else 'absent'} → {after[key][0] if key in after else 'absent'}"
        for key, rule in changed.items()
        if rule == "refuse" and key not in _WHERE_DATA_LIES
    ]


def environment(
    config: TrainConfig, threads_per_worker: int, device: str, precision: str
) -> dict[str, Any]:
    """What decides the last bit besides config and step."""
    return {
        "workers": config.workers,
        "threads_per_worker": threads_per_worker,
        "device": device.partition(":")[0],
        "precision": precision,
        "deterministic": config.deterministic,
        "engine": config.deepspeed.told if config.engine == "deepspeed" else config.engine,
        **{
            library: version(library)
            for library in (*_LIBRARIES, *(("deepspeed",) if config.engine == "deepspeed" else ()))
        },
    }

"""A run's identity, and the environment that must be equal for a resume to be exact."""

import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ocr.settings import flattened, given_settings
from ocr.version import VERSION
from trainers.config import TrainConfig

_KINDS = ("kind", "name")
_LIBRARIES = ("torch", "numpy", "pillow")
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


def hardware(device: str) -> str:
    """Return what of this process's machine decides the last bit: another processor sums otherwise.

    A CPU by its vendor and the instructions that torch and oneDNN use, a GPU by its name and the
    versions of CUDA, cuDNN and NCCL.
    """
    import torch

    if device.partition(":")[0] == "cuda":
        nccl = ".".join(map(str, torch.cuda.nccl.version()))  # type: ignore[no-untyped-call]
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        name = torch.cuda.get_device_name(device)
        return f"{name}, CUDA {torch.version.cuda}, cuDNN {cudnn}, NCCL {nccl}"
    most = os.environ.get("ONEDNN_MAX_CPU_ISA", "")
    words = (_cpu_vendor(), torch.backends.cpu.get_cpu_capability(), most)
    return " ".join(word for word in words if word)


def _joined(machines: Sequence[str]) -> str:
    return " + ".join(machines) if len(set(machines)) > 1 else machines[0]


def _cpu_vendor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    vendors = [line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")]
    return vendors[0] if vendors else platform.machine()


def environment(
    config: TrainConfig,
    threads_per_worker: int,
    device: str,
    precision: str,
    machines: Sequence[str] = (),
) -> dict[str, Any]:
    """Return all that determines the last bit besides config and step.

    `machines`: the `hardware` of every worker, in rank order; without them, of as many workers as
    the config has.
    """
    uses_deepspeed = config.engine == "deepspeed"
    libraries = (*_LIBRARIES, "deepspeed") if uses_deepspeed else _LIBRARIES
    return {
        "workers": len(machines) or config.worker_count,
        "threads_per_worker": threads_per_worker,
        "device": device.partition(":")[0],
        "precision": precision,
        "deterministic": config.deterministic,
        "engine": config.deepspeed.summary if uses_deepspeed else _all_reduce(config),
        **{library: version(library) for library in libraries},
        "lipi-ocr": VERSION,
        **({"hardware": _joined(machines)} if machines else {}),
    }


def _all_reduce(config: TrainConfig) -> str:
    return config.engine if config.reduce == "fp64" else f"{config.engine} in {config.reduce}"

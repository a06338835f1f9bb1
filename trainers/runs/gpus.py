"""Whether there is a GPU to train on, answered before anything is downloaded or built.

No torch here, and Ray only where there is a cluster to ask.
"""

import os
from pathlib import Path

from ocr.errors import UserError
from ocr.ray_address import names_cluster
from ocr.recognizers.vlm.settings import VlmSettings
from trainers.config import TrainConfig


def find_gpu() -> tuple[bool, str]:
    """Return whether there is a GPU, and the reason to think so.

    LIPI_ACCELERATOR (gpu or cpu) decides, else the cluster of RAY_ADDRESS, else this machine's
    devices. A cluster that scales from zero shows no GPU at rest: set LIPI_ACCELERATOR for it.
    """
    if accelerator := os.environ.get("LIPI_ACCELERATOR"):
        if accelerator not in ("gpu", "cpu"):
            raise UserError(f"LIPI_ACCELERATOR: expected gpu or cpu, got {accelerator!r}")
        return accelerator == "gpu", f"LIPI_ACCELERATOR={accelerator}"
    if names_cluster():
        address = os.environ["RAY_ADDRESS"]
        from trainers.ray_cluster import gpus_of_the_cluster

        count = gpus_of_the_cluster()
        gpus = f"{count:g} GPU{'' if count == 1 else 's'}"
        return count > 0, f"the Ray cluster at {address} has {gpus}"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip()
    if visible in ("", "-1", "none", "NoDevFiles"):
        return False, "this machine has no GPU that CUDA_VISIBLE_DEVICES shows"
    exists = any(Path("/dev").glob("nvidia[0-9]*"))
    return exists, f"this machine has {'a' if exists else 'no'} GPU"


def require_gpu(config: TrainConfig) -> None:
    """Raise UserError for a model that takes weeks on a CPU where there is no GPU.

    device=cpu asks for just that.
    """
    if not config.needs_gpu:
        return
    assert isinstance(config.model, VlmSettings)
    exists, why = find_gpu()
    if not exists:
        raise UserError(
            f"model.kind=vlm ({config.model.name_or_path}) needs a GPU, and {why}; "
            "to see such a run on any machine, try configs/tiny_vlm.yaml. "
            "Set LIPI_ACCELERATOR=gpu where GPUs come only when a run asks for them; "
            "device=cpu to train on the CPU nevertheless, very slowly"
        )

"""Whether there is a GPU to train on, answered before anything is downloaded or built: no torch here, and Ray only where there is a cluster to ask."""

import os
from pathlib import Path

from ocr.errors import UserError
from trainers.config import TrainConfig


def find_gpu() -> tuple[bool, str]:
    """Whether there is one, and what says so: LIPI_ACCELERATOR (gpu or cpu), else the cluster of RAY_ADDRESS, else this machine's devices.

    A cluster that scales from zero says it by LIPI_ACCELERATOR, since at rest it shows none.
    """
    if said := os.environ.get("LIPI_ACCELERATOR"):
        if said not in ("gpu", "cpu"):
            raise UserError(f"LIPI_ACCELERATOR={said}: gpu or cpu is expected")
        return said == "gpu", f"LIPI_ACCELERATOR={said}"
    if address := os.environ.get("RAY_ADDRESS"):
        from trainers.on_ray import gpus_of_the_cluster

        found = gpus_of_the_cluster()
        return (
            found > 0,
            f"the Ray cluster at {address} has {found:g} GPU{'' if found == 1 else 's'}",
        )
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in (
        "",
        "-1",
        "none",
        "NoDevFiles",
    )
    there = not hidden and any(Path("/dev").glob("nvidia[0-9]*"))
    return there, "this machine has a GPU" if there else "this machine has no GPU" + (
        " that CUDA_VISIBLE_DEVICES shows" if hidden else ""
    )


def require_gpu(config: TrainConfig) -> None:
    """UserError for a model that takes weeks on a CPU where there is no GPU, unless device=cpu asks for just that."""
    if config.model.kind != "vlm" or config.device == "cpu":
        return
    there, why = find_gpu()
    if not there:
        raise UserError(
            f"model.kind=vlm ({config.model.name_or_path}) needs a GPU, and {why}; to see such a run on any machine, try configs/tiny_vlm.yaml. "
            "LIPI_ACCELERATOR=gpu where GPUs come only when a run asks for them; device=cpu to train on the CPU all the same, very slowly"
        )

"""Ray's cluster: joined or started, asked for GPUs; the only place where its options are set.

Ray is imported here, in trainers/on_ray.py and in trainers/sweep/ alone.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# of a cluster started here; with Ray's 15 everything else on the machine goes first
os.environ.setdefault("RAY_worker_niceness", "0")

import ray

from ocr.errors import UserError, first_line
from ocr.ray_address import NoCluster, require_cluster
from trainers.config import TrainConfig

_OBJECT_STORE_BYTES = 100_000_000  # no data of ours passes through it
_SHARED_FOLDERS = ("/mnt", "/shared", "/efs", "/nfs")


def _start(cores: int | None = None) -> None:
    """Join the cluster of RAY_ADDRESS, or with `cores` start a local one."""
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if cores is None:
        require_cluster()
        try:
            ray.init(**options)
        except (ConnectionError, ray.exceptions.AuthenticationError) as problem:
            raise NoCluster(
                f"RAY_ADDRESS={os.environ['RAY_ADDRESS']}: {first_line(problem)}"
            ) from None
        return
    ray.init(
        "local",
        num_cpus=cores,
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        **options,
    )


@contextmanager
def connected(config: TrainConfig, waiting: int = 0) -> Iterator[int]:
    """Connect to Ray, and yield the number of threads for each worker.

    Ray is this process's own (in a trial of a sweep), else the cluster of RAY_ADDRESS (in a job,
    the job's), else a local one. A local one has an extra core for each process that only waits.
    """
    if ray.is_initialized():
        yield config.threads_per_worker or 1
        return
    joined = bool(os.environ.get("RAY_ADDRESS"))
    cores = os.cpu_count() or 1
    needed = config.workers * (config.threads_per_worker or 1)
    _start(None if joined else max(cores, needed) + waiting)
    try:
        _refuse_local_storage_on_many_nodes(config)
        share = max(1, int(ray.cluster_resources().get("CPU", cores)) // config.workers)
        here = min(share, cores) if joined else max(1, cores // config.workers)
        yield config.threads_per_worker or here
    finally:
        ray.shutdown()


def _refuse_local_storage_on_many_nodes(config: TrainConfig) -> None:
    nodes = [node for node in ray.nodes() if node["Alive"]]
    storage = Path(config.storage_path)
    shared = any(storage.is_relative_to(folder) for folder in _SHARED_FOLDERS)
    if len(nodes) > 1 and not shared:
        raise UserError(
            f"storage_path {storage}: {len(nodes)} nodes cannot share a local folder; "
            "name one under /mnt that all of them mount"
        )


def gpus_of_the_cluster() -> float:
    """Return how many GPUs the cluster of RAY_ADDRESS has now."""
    if ray.is_initialized():
        return float(ray.cluster_resources().get("GPU", 0))
    _start()
    try:
        return float(ray.cluster_resources().get("GPU", 0))
    finally:
        ray.shutdown()


def uses_gpu(config: TrainConfig) -> bool:
    """Return whether each worker gets a GPU; UserError where GPUs are needed and too few.

    A cluster that scales (LIPI_ACCELERATOR=gpu) is asked for GPUs that it does not show yet.
    """
    count = ray.cluster_resources().get("GPU", 0)
    scales = bool(os.environ.get("RAY_ADDRESS")) and os.environ.get("LIPI_ACCELERATOR") == "gpu"
    enough = count >= config.workers or scales
    if not enough and (config.device == "cuda" or config.needs_gpu):
        raise UserError(
            f"device: {config.device}: expected {config.workers} GPUs, Ray has {count:g}; "
            "set fewer workers, or device=cpu"
        )
    return enough and config.device != "cpu"


def gpus_of_a_worker(config: TrainConfig) -> int:
    """Return 1; with model.device_map=auto the number of the machine that has most."""
    if not config.spreads_over_gpus:
        return 1
    return int(max(node["Resources"].get("GPU", 1) for node in ray.nodes() if node["Alive"]))

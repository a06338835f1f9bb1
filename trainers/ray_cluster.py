"""Ray's cluster: joined or started, asked for GPUs; the only place where its options are set.

Ray is imported here, in on_ray.py, finish_on_ray.py and trainers/sweep/ alone.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# of a cluster started here; with Ray's 15 everything else on the machine goes first
os.environ.setdefault("RAY_worker_niceness", "0")

import ray
import torch
from ray.train import ScalingConfig

from ocr.errors import UserError, first_line
from ocr.local_ray import protect_token, start_local_ray
from ocr.ray_address import NoCluster, names_cluster, require_cluster
from trainers.config import TrainConfig
from trainers.ray_preflight import preflight
from trainers.runs.places import Cluster, Node, automatic, idle_gpus, lacking

_GROW_S = 30.0  # between looks whether a run with fewer workers than it may have can grow


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
        protect_token()
        return
    start_local_ray(num_cpus=cores, include_dashboard=False, **options)


@contextmanager
def connected(config: TrainConfig, waiting: int = 0) -> Iterator[int]:
    """Connect to Ray, and yield the number of threads for each worker.

    Ray is this process's own (in a trial of a sweep), else the cluster of RAY_ADDRESS (in a job,
    the job's), else a local one. A local one has an extra core for each process that only waits.
    """
    if ray.is_initialized():
        yield config.threads_asked or 1
        return
    joined = names_cluster()
    cores = os.cpu_count() or 1
    needed = config.worker_count * (config.threads_asked or 1)
    _start(None if joined else max(cores, needed) + waiting)
    try:
        if joined:
            preflight(config.storage_path)
        share = max(1, int(ray.cluster_resources().get("CPU", cores)) // config.worker_count)
        here = min(share, cores) if joined else max(1, cores // config.worker_count)
        yield config.threads_asked or here
    finally:
        ray.shutdown()


def gpus_of_the_cluster() -> float:
    """Return how many GPUs the cluster of RAY_ADDRESS has now."""
    if ray.is_initialized():
        return float(ray.cluster_resources().get("GPU", 0))
    _start()
    try:
        return float(ray.cluster_resources().get("GPU", 0))
    finally:
        ray.shutdown()


def cluster_now() -> Cluster:
    """Return the nodes of the cluster that this process is connected to."""
    nodes = [
        Node(node["Resources"], node.get("Labels", {})) for node in ray.nodes() if node["Alive"]
    ]
    joined = names_cluster()
    where = "the cluster" if joined else "this machine"
    most = ray._private.state.state.get_max_resources_from_cluster_config() if joined else None
    return Cluster(nodes, where, most)


def with_workers(config: TrainConfig) -> TrainConfig:
    """Return the config with a number where it says `workers: auto`, and print which and why.

    Asks the cluster of RAY_ADDRESS, else this machine.
    """
    if config.workers != "auto":
        return config
    if names_cluster():
        _start()
        try:
            cluster = cluster_now()
        finally:
            ray.shutdown()
    else:
        here = {"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}
        cluster = Cluster([Node(here)], "this machine")
    count, why = automatic(config, cluster)
    print(f"workers=auto: {count}, since {why}", flush=True)
    return config.model_copy(update={"workers": count})


def require_places(config: TrainConfig, wanted: dict[str, float]) -> None:
    """Print what the workers wait for, if anything.

    Raises UserError where no node has it and none is said to come.
    """
    cluster = cluster_now()
    if "GPU" in wanted and (line := idle_gpus(config, cluster, int(wanted["GPU"]))):
        print(line, flush=True)
    if not (lack := lacking(config, cluster, wanted)):
        return
    what, nobody_has_it = lack
    if nobody_has_it and not cluster.most and os.environ.get("LIPI_ACCELERATOR") != "gpu":
        raise UserError(
            f"{what}; correct resources_per_worker, accelerator_type or label_selector, or add "
            "such a node"
        )
    print(f"waiting for nodes: {what}", flush=True)


def uses_gpu(config: TrainConfig) -> bool:
    """Return whether each worker gets a GPU; UserError where GPUs are needed and too few.

    A cluster that scales (LIPI_ACCELERATOR=gpu) is asked for GPUs that it does not show yet.
    """
    count = ray.cluster_resources().get("GPU", 0)
    scales = names_cluster() and os.environ.get("LIPI_ACCELERATOR") == "gpu"
    each = int(config.resources_per_worker.get("GPU", 1))
    enough = count >= config.least_workers * each or scales
    if not enough and (config.device == "cuda" or config.needs_gpu):
        raise UserError(
            f"device: {config.device}: expected {config.least_workers * each} GPUs, "
            f"Ray has {count:g}; "
            "set fewer workers, or device=cpu"
        )
    return enough and each > 0 and config.device != "cpu"


def gpus_of_a_worker(config: TrainConfig) -> int:
    """Return resources_per_worker.GPU or 1; with model.device_map=auto a whole machine's GPUs."""
    if not config.spreads_over_gpus or "GPU" in config.resources_per_worker:
        return int(config.resources_per_worker.get("GPU", 1))
    return int(max(node["Resources"].get("GPU", 1) for node in ray.nodes() if node["Alive"]))


def scaling(config: TrainConfig, wanted: dict[str, float], use_gpu: bool) -> ScalingConfig:
    """Return Ray Train's word for the workers; `wanted`: of each."""
    most, least = config.worker_count, config.least_workers
    # Ray Train's own class has these, the one that its stubs name does not
    more: dict[str, Any] = {
        "num_workers": most if least == most else (least, most),
        "elastic_resize_monitor_interval_s": _GROW_S,
        "label_selector": config.label_selector or None,
    }
    return ScalingConfig(
        use_gpu=use_gpu,
        resources_per_worker=wanted,
        accelerator_type=config.accelerator_type,
        **more,
    )

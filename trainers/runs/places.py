"""Where a run's workers fit: how many `workers: auto` are, and what no node of a cluster has."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from trainers.config import TrainConfig

_ACCELERATOR = "accelerator_type:"


@dataclass(frozen=True, slots=True)
class Node:
    """One machine of a cluster: all it has, by Ray's names, and its labels."""

    resources: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Nodes that are there, and the resources that an autoscaler may bring the cluster to.

    `most` is None where nothing says so.
    """

    nodes: Sequence[Node]
    where: str = "the cluster"
    most: Mapping[str, float] | None = None

    def total(self, resource: str) -> float:
        """Return how much of a resource the nodes that are there have together."""
        return sum(node.resources.get(resource, 0) for node in self.nodes)

    def may_have(self, resource: str) -> float:
        """Return how much of a resource the cluster has, or may get."""
        return max(self.total(resource), (self.most or {}).get(resource, 0))


def needs(config: TrainConfig, threads: int, gpus: int) -> dict[str, float]:
    """Return what each worker reserves, by Ray's names."""
    wanted: dict[str, float] = {"CPU": threads, "GPU": gpus, **config.resources_per_worker}
    if gpus == 0:
        wanted.pop("GPU")
    return {name: amount for name, amount in wanted.items() if amount}


def fitting(config: TrainConfig, cluster: Cluster, wanted: Mapping[str, float]) -> int:
    """Return for how many workers the nodes that are there have room, other work left aside."""
    return sum(
        min(int(node.resources.get(name, 0) // amount) for name, amount in wanted.items())
        for node in allowed(config, cluster.nodes)
    )


def automatic(config: TrainConfig, cluster: Cluster) -> tuple[int, str]:
    """Return the number of workers that `workers: auto` stands for, and why."""
    if config.spreads_over_gpus:
        return 1, "model.device_map=auto spreads one copy over all GPUs"
    on_gpu = config.device != "cpu" and config.resources_per_worker.get("GPU") != 0
    gpus = int(config.resources_per_worker.get("GPU", 1)) if on_gpu else 0
    unit = "GPU" if gpus and cluster.may_have("GPU") else "CPU"
    wanted = needs(config, config.threads_asked or 1, gpus if unit == "GPU" else 0)
    there = fitting(config, cluster, wanted)
    limits = cluster.most or {}
    may_get = [int(limits[name] // amount) for name, amount in wanted.items() if name in limits]
    room, most = max(there, min(may_get, default=0)), config.train.micro_batches
    verb = "has" if room == there else "may get"
    kind = "GPUs" if unit == "GPU" else "cores"
    why = f"{cluster.where} {verb} {kind} for {room}, and a step has "
    return max(1, min(room, most)), f"{why}{_counted(most, 'micro-batch', 'micro-batches')}"


def speed_up(config: TrainConfig) -> str | None:
    """Return what several workers gain at most, the wait for each other and for data left aside.

    A step takes as long as the worker with the most micro-batches.
    """
    workers, batches = config.worker_count, config.train.micro_batches
    if workers == 1:
        return None
    rounds = -(-batches // workers)
    step = _counted(batches, "micro-batch", "micro-batches")
    return (
        f"{workers} workers: a step's {step} in {_counted(rounds, 'round', 'rounds')}, "
        f"{batches / rounds:.3g} times as fast as one at most"
    )


def idle_gpus(config: TrainConfig, cluster: Cluster, gpus_each: int) -> str | None:
    """Return a line about GPUs that would do nothing; None where all are of use."""
    workers, most = config.worker_count, config.train.micro_batches
    total, used = int(cluster.total("GPU")), workers * gpus_each
    if config.spreads_over_gpus or used >= total:
        return None
    line = f"{used} of {total} GPUs {'is' if used == 1 else 'are'} used; "
    if workers < most:
        return f"{line}workers=auto uses {min(total // gpus_each, most) * gpus_each}"
    size = config.train.micro_batch_size
    return (
        f"{line}a step has {most} × {size} samples: a new run with a smaller "
        "train.micro_batch_size has work for more"
    )


def lacking(
    config: TrainConfig, cluster: Cluster, wanted: Mapping[str, float]
) -> tuple[str, bool] | None:
    """Return what the cluster lacks for this run, and whether no node has it at all.

    None where there is room, other work left aside.
    """
    asked = " ".join(f"{name}={amount:g}" for name, amount in wanted.items())
    chosen = " ".join(f"{key}={value}" for key, value in config.label_selector.items())
    kind = f" on an {config.accelerator_type}" if config.accelerator_type else ""
    place = f"{asked}{kind}{' on nodes with ' + chosen if chosen else ''}"
    room, workers = fitting(config, cluster, wanted), config.least_workers
    if room >= workers:
        return None
    if room:
        return f"{workers} workers need {place} each, {cluster.where} has room for {room}", False
    has = "; ".join(sorted({_described(node) for node in cluster.nodes}))
    return f"a worker needs {place}, and no node has that: {has}", True


def allowed(config: TrainConfig, nodes: Iterable[Node]) -> list[Node]:
    """Return the nodes with the labels and the kind of GPU that the run asks for."""
    kind = config.accelerator_type
    return [
        node
        for node in nodes
        if (not kind or f"{_ACCELERATOR}{kind}" in node.resources)
        and all(matches(node.labels.get(key), want) for key, want in config.label_selector.items())
    ]


def matches(label: str | None, want: str) -> bool:
    """Return whether a node's label is what a selector wants, in Ray's four forms."""
    is_not, rest = want.startswith("!"), want.removeprefix("!")
    listed = re.fullmatch(r"in\((.*)\)", rest)
    values = [value.strip() for value in listed[1].split(",")] if listed else [rest]
    return (label in values) != is_not


def _described(node: Node) -> str:
    hidden = ("node:", "memory", "object_store_memory")  # every node has them
    has = [
        name if name.startswith(_ACCELERATOR) else f"{name}={amount:g}"
        for name, amount in sorted(node.resources.items())
        if not name.startswith(hidden)
    ]
    labels = [f"{k}={v}" for k, v in sorted(node.labels.items()) if k != "ray.io/node-id"]
    return " ".join(has + labels)


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"

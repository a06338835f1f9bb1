"""How many trials there is room for: asked anew before each trial, since nodes come and go."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray.tune.search import ConcurrencyLimiter

from ocr.ray_address import names_cluster
from trainers.config import TrainConfig
from trainers.sweep.decider import Suggestions
from trainers.sweep.settings import SweepConfig

DRIVER_CPUS = 0.01  # of a trial that only waits for its own workers
_LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class Slots:
    """The resources of a trial, and the most trials at once that the settings allow."""

    cpus: float
    gpus: float
    threads: int
    most: int | None

    def at_once(self, resources: Mapping[str, float]) -> int:
        """Return the number of trials with room, so that each that starts can continue.

        `resources`: cores and GPUs, by Ray's names. GPUs that a scaling cluster does not show yet
        limit nothing.
        """
        room = [resources.get("CPU", 1) / self.cpus]
        if self.gpus and resources.get("GPU"):
            room.append(resources["GPU"] / self.gpus)
        return min(math.floor(min(room) + 1e-6), self.most or 10**6)


def slots_of(sweep: SweepConfig, base: TrainConfig, use_gpu: bool) -> Slots:
    """Return what each trial of the sweep needs."""
    threads = base.threads_per_worker or 1
    cpus = float(threads) if base.worker_count == 1 else base.worker_count * threads + DRIVER_CPUS
    return Slots(cpus, float(base.worker_count if use_gpu else 0), threads, sweep.max_concurrent)


def lack_of(
    slots: Slots, base: TrainConfig, resources: Mapping[str, float], waiting: int
) -> list[str]:
    """Return a mistake where there is no room for a single trial.

    `waiting` of the cores are counted for processes that only wait.
    """
    if slots.at_once(resources):
        return []
    return [
        f"workers={base.worker_count} threads_per_worker={slots.threads}: a trial needs "
        f"{slots.cpus:g} cores and {slots.gpus:g} GPUs, the cluster has "
        f"{resources.get('CPU', 0) - waiting:g} cores and {resources.get('GPU', 0):g} GPUs"
    ]


def resources_of_the_cluster() -> dict[str, float]:
    """Return what the cluster has, or what its autoscaler may add up to where that is more."""
    there = ray.cluster_resources()
    most = ray._private.state.state.get_max_resources_from_cluster_config() or {}
    if not names_cluster():
        return dict(there)
    return {name: max(there.get(name, 0.0), most.get(name, 0)) for name in {*there, *most}}


class Places(ConcurrencyLimiter):
    """Gives Tune another suggestion while there is room for one more trial."""

    def __init__(self, suggestions: Suggestions, slots: Slots) -> None:
        self._slots = slots
        self._looked_at = time.monotonic()
        super().__init__(suggestions, max_concurrent=self._room())

    def suggest(self, trial_id: str) -> Any:
        """Return the next suggestion; None where all places are taken."""
        if time.monotonic() - self._looked_at >= _LOOK_S:
            before, self.max_concurrent = self.max_concurrent, self._room()
            self._looked_at = time.monotonic()
            if before != self.max_concurrent:
                print(f"room for {self.max_concurrent} trials at once, not {before}", flush=True)
        return super().suggest(trial_id)

    def _room(self) -> int:
        """Return 1 at least: with no node left, the next trial waits for one."""
        return max(1, self._slots.at_once(resources_of_the_cluster()))

"""What a run on Ray waits for: said after seconds, and bounded."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence

import ray

from ocr.errors import GivenUp
from trainers.config import TrainConfig
from trainers.ray_cluster import cluster_now
from trainers.ray_pulse import pulse_of
from trainers.runs.places import fitting

_FIRST_S, _AGAIN_S, _LOOK_S = 5.0, 30.0, 1.0
_CHECK_S = 0.2


def run_checked(work: Callable[[], object], checks: Sequence[Callable[[], None]]) -> None:
    """Run `work` in a thread, and the checks beside it, each of which may end it by raising.

    In the main thread Ray Train would take the signals, and a blocked `ray.get` would delay them.
    """
    failed: list[BaseException] = []
    is_done = threading.Event()

    def run() -> None:
        try:
            work()
        except BaseException as problem:  # noqa: BLE001  (raised again in the thread that waits)
            failed.append(problem)
        finally:
            is_done.set()

    threading.Thread(target=run, name="lipi-fit", daemon=True).start()
    while not is_done.wait(_CHECK_S):
        for check in checks:
            check()
    if failed:
        raise failed[0]


class Waiting:
    """Looks, from the driver, whether the workers live; else prints what they wait for."""

    def __init__(self, config: TrainConfig, run: str, wanted: Mapping[str, float]) -> None:
        self._workers, self._most_minutes = config.least_workers, config.wait_minutes
        self._config, self._run, self._wanted = config, run, dict(wanted)
        self._pulse, self._alive_at = b"", time.monotonic()
        self._said_at, self._looked_at = 0.0, 0.0

    def check(self) -> None:
        """Look once a second; raises GivenUp after `wait_minutes` without the resources."""
        now = time.monotonic()
        if now - self._looked_at < _LOOK_S:
            return
        self._looked_at = now
        pulse = pulse_of(self._run)
        if pulse != self._pulse or not self._is_placing():
            self._lives(pulse, now)
            return
        waited = now - self._alive_at
        if waited >= _FIRST_S and now - self._said_at >= _AGAIN_S:
            self._said_at = now
            print(f"waiting since {waited:.0f} s for {self._what()}", flush=True)
        if self._most_minutes is not None and waited > 60 * self._most_minutes:
            raise GivenUp(
                f"waited wait_minutes={self._most_minutes:g} for {self._what()}; "
                "checkpoints are intact: run the same command when they are there"
            )

    def _lives(self, pulse: bytes, now: float) -> None:
        if self._said_at:
            print(f"there is room after {now - self._alive_at:.0f} s", flush=True)
        self._pulse, self._alive_at, self._said_at = pulse, now, 0.0

    def _is_placing(self) -> bool:
        """Whether the workers' group of this run, or one like it, has no place yet."""
        sizes = range(self._workers, self._config.worker_count + 1)
        if len(sizes) > 1:  # then Ray asks for a group only once there is room for the fewest
            return fitting(self._config, cluster_now(), self._wanted) < self._workers
        groups = ray.util.placement_group_table().values()
        return any(
            group["state"] in ("PENDING", "RESCHEDULING") and len(group["bundles"]) in sizes
            for group in groups
        )

    def _what(self) -> str:
        each = _amounts(self._wanted)
        nodes = [node for node in ray.nodes() if node["Alive"]]
        free = ray.available_resources()
        there = ray.cluster_resources()
        have = ", ".join(
            f"{name} {free.get(name, 0.0):g} of {there.get(name, 0.0):g} free"
            for name in self._wanted
        )
        many = f"{self._workers} workers" if self._workers > 1 else "1 worker"
        machines = f"{len(nodes)} node{'' if len(nodes) == 1 else 's'}"
        return f"{many} with {each} each; the cluster has {machines}, {have}"


def _amounts(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {amount:g}" for name, amount in resources.items())

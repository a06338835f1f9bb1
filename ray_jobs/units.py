"""Units of a data set as Ray tasks: the `map_units` of `ocr.dataset.build`."""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from ocr.local_ray import start_local_ray
from ocr.ray_address import require_cluster

UnitT = TypeVar("UnitT")


def as_ray_tasks(
    workers: int,
) -> Callable[[Callable[[UnitT], int], Sequence[UnitT]], Iterator[int]]:
    """Return a function that runs at most `workers` units at once, here or on RAY_ADDRESS.

    A unit whose process dies is retried in another.
    """

    def map_units(work: Callable[[UnitT], int], units: Sequence[UnitT]) -> Iterator[int]:
        import ray

        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
        if require_cluster():
            ray.init(**quiet)
        else:
            start_local_ray(num_cpus=workers, include_dashboard=False, **quiet)
        try:
            yield from _results(work, units, workers)
        finally:
            ray.shutdown()

    return map_units


def _results(work: Callable[[UnitT], int], units: Sequence[UnitT], workers: int) -> Iterator[int]:
    import ray

    def read_unit(unit: UnitT) -> int:
        return work(unit)

    task: Any = ray.remote(num_cpus=1, max_retries=3)(read_unit)
    waiting, running = list(reversed(units)), set[Any]()
    while waiting or running:
        free = min(len(waiting), workers - len(running))
        running |= {task.remote(waiting.pop()) for _ in range(free)}
        done, rest = ray.wait(list(running))
        running = set(rest)
        try:
            yield from ray.get(done)
        except ray.exceptions.RayTaskError as failed:
            raise failed.cause from None

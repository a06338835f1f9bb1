"""Units of a data set as Ray tasks (`ocr.dataset.build` takes it as `map_units`)."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

_OBJECT_STORE_BYTES = 100_000_000  # only numbers travel through it
UnitT = TypeVar("UnitT")


def as_ray_tasks(
    workers: int,
) -> Callable[[Callable[[UnitT], int], Sequence[UnitT]], Iterator[int]]:
    """At most `workers` units at a time on the cluster that RAY_ADDRESS names, or here; a unit whose process dies is given to another."""

    def map_units(work: Callable[[UnitT], int], units: Sequence[UnitT]) -> Iterator[int]:
        import ray

        store: dict[str, Any] = (
            {} if "RAY_ADDRESS" in os.environ else {"object_store_memory": _OBJECT_STORE_BYTES}
        )
        ray.init(
            num_cpus=None if "RAY_ADDRESS" in os.environ else workers,
            log_to_driver=False,
            logging_level=logging.WARNING,
            **store,
        )

        def read_unit(unit: UnitT) -> int:
            return work(unit)

        task: Any = ray.remote(num_cpus=1, max_retries=3)(read_unit)
        waiting, running = list(reversed(units)), set[Any]()
        while waiting or running:
            running |= {
                task.remote(waiting.pop()) for _ in range(min(len(waiting), workers - len(running)))
            }
            done, rest = ray.wait(list(running))
            running = set(rest)
            try:
                yield from ray.get(done)
            except ray.exceptions.RayTaskError as failed:
                raise failed.cause from None
        ray.shutdown()

    return map_units

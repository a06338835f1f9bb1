"""Sources → a data set: train.parquet, validation.parquet, dataset.json, skipped.jsonl and a card in the folder `output`.

python ray_jobs/prepare.py configs/data/odia_words.yaml output=/tmp/words workers=2

Killed, the same command goes on where it was. With workers > 1 the units are Ray tasks, here or on the cluster that RAY_ADDRESS names.
"""

import logging
import os
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocr.dataset.config import PrepareConfig
from ocr.settings import load_settings
from ray_jobs import command

if TYPE_CHECKING:
    from ocr.dataset.parts import Work


def main(arguments: Namespace) -> None:
    """Build the data set that the config describes, and push it where `format` is hub."""
    config = load_settings(PrepareConfig, arguments.config, arguments.overrides)
    from ocr.dataset.build import build, in_this_process

    print(build(config, _as_ray_tasks(config.workers) if config.workers > 1 else in_this_process))
    if config.format == "hub":
        from ocr.dataset.push import push

        print(push(config))


def _as_ray_tasks(workers: int) -> Callable[[Callable[["Work"], int], Sequence["Work"]], Iterator[int]]:
    """At most `workers` units at a time, each a task that Ray gives to another process when its own dies."""
    import ray

    def map_units(work: Callable[["Work"], int], works: Sequence["Work"]) -> Iterator[int]:
        ray.init(num_cpus=None if "RAY_ADDRESS" in os.environ else workers, log_to_driver=False, logging_level=logging.WARNING)
        task: Any = ray.remote(num_cpus=1, max_retries=3)(lambda one: work(one))
        waiting = list(reversed(works))
        running: set[Any] = set()
        while waiting or running:
            running |= {task.remote(waiting.pop()) for _ in range(min(len(waiting), workers - len(running)))}
            done, rest = ray.wait(list(running))
            running = set(rest)
            yield from ray.get(done)
        ray.shutdown()

    return map_units


if __name__ == "__main__":
    command.run(main, __doc__, config={"type": Path, "metavar": "CONFIG"}, overrides={"nargs": "*", "metavar": "key=value"})

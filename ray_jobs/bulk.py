"""Files read by many processes through Ray Data: `on_workers` of `ocr.reading.command`.

A task is some files; it is done again elsewhere where its worker or its node dies. A result that is
there is never written again, so each file is written once, and read once more at most for each
death. Files whose worker died with them again and again are read alone, and then refused.
"""

import logging
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import chain
from typing import TYPE_CHECKING, Any, cast

from ocr.bundle import open_bundle
from ocr.errors import UserError
from ocr.local_ray import start_local_ray
from ocr.ray_address import names_cluster, require_cluster
from ocr.reading.config import ReadConfig
from ocr.reading.inputs import Input
from ocr.reading.outputs import Results
from ocr.reading.run import Outcome, write_each
from ocr.recognizers.factory import load_all
from ocr.recognizers.recognizer import Recognizer
from ocr.writers.formats import FORMATS

if TYPE_CHECKING:
    import pyarrow as pa

_IMAGES = 64  # of a task: half a second of lines, a minute of pages
_TASKS = 10_000  # most of a command; above it tasks have more files
_RETRIES = 3
_QUIET = ("ray.data", "ray.data._internal", "ray.data.exceptions")


def on_ray(
    bundle: str, config: ReadConfig
) -> Callable[[Sequence[Input]], Iterable[Outcome]] | None:
    """Return what reads files on Ray's workers; None where this process is to read.

    UserError where the settings ask for workers and have no output.
    """
    if config.output is None and config.workers:
        raise UserError("workers=N writes files: set output=FOLDER or s3://…")
    if config.output is None or not (config.workers or names_cluster()):
        return None
    needs_gpu = _asks_for_gpu(bundle, config)  # a bundle that is none is refused before Ray starts

    def read(items: Sequence[Input]) -> Iterator[Outcome]:
        with _ray(config.workers) as resources:
            gpus = int(resources.get("GPU", 0)) if needs_gpu else 0
            workers = config.workers or gpus or int(resources["CPU"])
            left = {item.name: item for item in items}
            for alone in (False, True):
                tasks = _tasks(list(left.values()), workers, 1 if alone else _IMAGES)
                for one in _read(tasks, bundle, config, workers, 1 if gpus else 0):
                    if left.pop(one.file, None):
                        yield one
                if not left:
                    return
            for name in left:
                why = f"{name}: the process that read it died {1 + _RETRIES} times"
                yield Outcome(name, error=why)

    return read


def _asks_for_gpu(bundle: str, config: ReadConfig) -> bool:
    families = {open_bundle(name).family for name in bundle.split(",")}
    return (config.device or "cuda").startswith("cuda") and (
        "vlm" in families or config.device is not None
    )


@contextmanager
def _ray(workers: int | None) -> Iterator[dict[str, float]]:
    """Join the cluster of RAY_ADDRESS, else start a Ray; yield what it has of CPU and GPU."""
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
    # Ray's core warns of each pool of Ray Data's that its arguments are in the object store
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    if require_cluster():
        ray.init(**quiet)
    else:
        start_local_ray(num_cpus=workers, include_dashboard=False, **quiet)
    try:
        yield ray.cluster_resources()
    finally:
        ray.shutdown()


def _tasks(items: Sequence[Input], workers: int, most: int) -> list[list[Input]]:
    """Divide files into tasks: PDF and TIFF files, which have many pages, alone."""
    most = max(1, min(most, len(items) // (4 * workers)))
    tasks = list[list[Input]]()
    for item in items:
        is_alone = item.name.lower().endswith((".pdf", ".tif", ".tiff"))
        if not tasks or is_alone or len(tasks[-1]) >= most:
            tasks.append([])
        tasks[-1].append(item)
        if is_alone:
            tasks.append([])
    tasks = [task for task in tasks if task]
    together = -(-len(tasks) // _TASKS)
    return [list(chain(*tasks[i : i + together])) for i in range(0, len(tasks), together)]


def _read(
    tasks: list[list[Input]], bundle: str, config: ReadConfig, workers: int, gpus: int
) -> Iterator[Outcome]:
    """Yield what became of the files, in the order of their ends; some may be missing."""
    import ray
    from ray import cloudpickle
    from ray.util.annotations import RayDeprecationWarning

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # files of a task that failed too often are missing here
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    rows = [{"names": [i.name for i in t], "targets": [i.target for i in t]} for t in tasks]
    with warnings.catch_warnings(category=RayDeprecationWarning, action="ignore"):
        read = ray.data.from_items(rows, override_num_blocks=len(rows)).flat_map(
            Reader,
            fn_constructor_args=(bundle, config, os.getcwd()),
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers),
            num_cpus=1,
            num_gpus=gpus,
            max_task_retries=_RETRIES,  # Ray's default is without end, and has no other name yet
        )
    for block in read.iter_batches(batch_size=None, batch_format="pyarrow"):
        for row in cast("pa.Table", block).to_pylist():
            if (stop := row.pop("stop")) is not None:
                raise cloudpickle.loads(stop) from None
            yield Outcome(**row)


class Reader:
    """A recogniser in a process of Ray's, which reads and writes the files of one task."""

    def __init__(self, bundle: str, config: ReadConfig, folder: str) -> None:
        if os.path.isdir(folder):
            os.chdir(folder)  # the command's, for the paths that it was given
        self._bundle, self._config = bundle, config
        self._recognizer: Recognizer | None = None

    def __call__(self, task: dict[str, Any]) -> list[dict[str, Any]]:
        """Return a row for each file; where the command must end, one that says why."""
        from ray import cloudpickle

        try:
            done = self._written(
                [Input(*pair) for pair in zip(task["names"], task["targets"], strict=True)]
            )
        except Exception as problem:  # noqa: BLE001  raised again by the command
            return [{**asdict(Outcome("")), "stop": cloudpickle.dumps(problem)}]
        return [{**asdict(one), "stop": None} for one in done]

    def _written(self, items: Sequence[Input]) -> list[Outcome]:
        config = self._config
        if self._recognizer is None:
            self._recognizer = load_all(self._bundle, config.backend, config.device)
        results = Results(str(config.output), FORMATS[config.format], config.pages)
        return list(write_each(self._recognizer, items, config, results))

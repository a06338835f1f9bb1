"""The end of a run on a cluster: a task where a worker would be, not the driver on the head.

The head of a cluster often has neither a GPU nor the memory to read with a vision-language model.
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import ray
import torch

from ocr.errors import GivenUp, last_line
from ocr.ray_address import names_cluster
from trainers.config import TrainConfig
from trainers.ray_cluster import connected, gpus_of_a_worker, require_places, uses_gpu
from trainers.runs.finish import finish_here
from trainers.runs.job import Job
from trainers.runs.places import needs

T = TypeVar("T")
_POLL_S = 0.5


def finish(job: Job, command: str) -> None:
    """Export, read and report, by `at_a_worker`. Results are files of the run."""
    log = job.run_dir / "ray" / f"finish_{job.attempt:04d}.log"
    config = job.config
    if not config.threads_asked:  # then the checkpoint's, as in training
        config = config.model_copy(update={"threads_per_worker": job.threads_per_worker})
    at_a_worker(config, "export and report", log, _finish_there, job, command)


def _finish_there(job: Job, command: str) -> None:
    finish_here(job.here(), command)


def at_a_worker(
    config: TrainConfig, what: str, log: Path, work: Callable[..., T], *arguments: Any
) -> T:
    """Return what `work` returns in a task with the resources of one worker of the run.

    Without RAY_ADDRESS the driver's machine is the only one, so the driver does it. A task whose
    process dies is retried `max_failures` times, then GivenUp. `what` is said, and `log` has the
    task's output.
    """
    if not names_cluster():
        return work(*arguments)
    one = config.model_copy(update={"workers": 1})
    with connected(one) as share:
        threads = one.threads_asked or share
        wanted = needs(one, threads, gpus_of_a_worker(one) if uses_gpu(one) else 0)
        require_places(one, wanted)
        asked = " ".join(f"{name}={amount:g}" for name, amount in wanted.items())
        print(f"{what}: as a task with {asked}", flush=True)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
        remote: Any = ray.remote(_in_task).options(
            num_cpus=wanted.pop("CPU"),
            num_gpus=wanted.pop("GPU", 0),
            memory=wanted.pop("memory", None),
            resources=wanted,
            accelerator_type=one.accelerator_type,
            label_selector=one.label_selector or None,
            max_retries=one.max_failures,
        )
        task = remote.remote(threads, log, Path.cwd(), work, arguments)
        undone = f"{config.shown_address}: training is done, {what} are not"
        result: T = _result(task, log, undone)
        return result


def _result(task: Any, log: Path, undone: str) -> Any:
    """Wait for the task, print its lines as they come, and return its result."""
    with open(log, encoding="utf-8") as lines:
        is_done = False
        while not is_done:
            is_done = bool(ray.wait([task], timeout=_POLL_S)[0])
            if new := lines.read():
                print(new, end="", flush=True)
    try:
        return ray.get(task)
    except ray.exceptions.RayTaskError as failed:
        raise failed.cause from None
    except ray.exceptions.RayError as problem:
        raise GivenUp(
            f"{undone}: {last_line(problem)}; run the same command to resume"
        ) from problem


def _in_task(
    threads: int, log: Path, started_in: Path, work: Callable[..., T], arguments: tuple[Any, ...]
) -> T:
    if started_in.is_dir():
        os.chdir(started_in)
    # beside an endpoint that answers people; a process may have several tasks
    os.nice(max(0, int(os.environ.get("LIPI_NICE", "0")) - os.nice(0)))
    torch.set_num_threads(threads)
    log.parent.mkdir(parents=True, exist_ok=True)  # a run in a bucket: this node's own
    with open(log, "a", encoding="utf-8", buffering=1) as lines, contextlib.redirect_stdout(lines):
        return work(*arguments)

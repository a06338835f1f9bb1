"""The end of a run on a cluster: a task where a worker would be, not the driver on the head.

The head of a cluster often has neither a GPU nor the memory to read with a vision-language model.
"""

import contextlib
import os
from pathlib import Path
from typing import Any

import ray
import torch

from ocr.errors import GivenUp, last_line
from ocr.ray_address import names_cluster
from trainers.on_ray import threads_of
from trainers.ray_cluster import connected, gpus_of_a_worker, require_places, uses_gpu
from trainers.runs.finish import finish_here
from trainers.runs.job import Job
from trainers.runs.places import needs

_POLL_S = 0.5


def finish(job: Job, command: str) -> None:
    """Export, read and report, in a task with the resources of one worker.

    Without RAY_ADDRESS the driver's machine is the only one, so the driver does it. A task whose
    process dies is retried `max_failures` times, then GivenUp. Results are files of the run.
    """
    if not names_cluster():
        finish_here(job, command)
        return
    one = job.config.model_copy(update={"workers": 1})
    with connected(one) as share:
        threads = threads_of(job, share)
        wanted = needs(one, threads, gpus_of_a_worker(one) if uses_gpu(one) else 0)
        require_places(one, wanted)
        asked = " ".join(f"{name}={amount:g}" for name, amount in wanted.items())
        print(f"export and report: as a task with {asked}", flush=True)
        log = job.run_dir / "ray" / f"finish_{job.attempt:04d}.log"
        log.parent.mkdir(exist_ok=True)
        log.write_bytes(b"")
        remote: Any = ray.remote(_finish_in_task).options(
            num_cpus=wanted.pop("CPU"),
            num_gpus=wanted.pop("GPU", 0),
            memory=wanted.pop("memory", None),
            resources=wanted,
            accelerator_type=one.accelerator_type,
            label_selector=one.label_selector or None,
            max_retries=one.max_failures,
        )
        _wait(remote.remote(job, command, threads, log, Path.cwd()), log, job)


def _wait(task: Any, log: Path, job: Job) -> None:
    """Wait for the task and print its lines as they come."""
    with open(log, encoding="utf-8") as lines:
        is_done = False
        while not is_done:
            is_done = bool(ray.wait([task], timeout=_POLL_S)[0])
            if new := lines.read():
                print(new, end="", flush=True)
    try:
        ray.get(task)
    except ray.exceptions.RayTaskError as failed:
        raise failed.cause from None
    except ray.exceptions.RayError as problem:
        raise GivenUp(
            f"{job.config.shown_address}: training is done, export and report are not: "
            f"{last_line(problem)}; run the same command to resume"
        ) from problem


def _finish_in_task(job: Job, command: str, threads: int, log: Path, started_in: Path) -> None:
    if started_in.is_dir():
        os.chdir(started_in)
    torch.set_num_threads(threads)
    log.parent.mkdir(parents=True, exist_ok=True)  # a run in a bucket: this node's own
    with open(log, "a", encoding="utf-8", buffering=1) as lines, contextlib.redirect_stdout(lines):
        finish_here(job.here(), command)

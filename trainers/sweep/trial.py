"""One trial of a sweep, in Tune's actor: a run that reports its evaluations to Tune."""

import os
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # read in Tune's actor too

import torch
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback

from ocr.errors import UserError, first_line
from ocr.system_errors import is_out_of_memory
from trainers import on_ray
from trainers.config import TrainConfig
from trainers.loop import checkpoint as checkpoints
from trainers.loop.bucket import RunInBucket
from trainers.loop.lease import LeaseTrouble, SweepLease
from trainers.loop.loop import fit
from trainers.loop.workers import Workers
from trainers.runs.job import Data, Job
from trainers.runs.launch import train_only
from trainers.sweep import space


def run_trial(
    given: dict[str, Any],
    base: TrainConfig,
    folder: str,
    threads: int,
    on_gpu: bool,
    started_in: Path,
    sweep: SweepLease,
) -> None:
    """Train the trial to its end.

    A user's mistake, such as a rate that diverges, is the trial's result, not the sweep's end. The
    loss of its directory to another process is neither: Tune starts the trial again.
    """
    if started_in.is_dir():
        os.chdir(started_in)
    reporter = _Reporter()
    try:
        config = space.trial_config(base, given["values"], folder, given["id"])
        changes = {"threads_per_worker": threads, "skip_preflight": True, "list_samples": False}
        config = config.model_copy(update=changes)
        _report_again(config, reporter)
        device = "cuda" if on_gpu else "cpu"
        here = partial(_train_here, device=device, reporter=reporter)
        train_only(config, here if config.worker_count == 1 else _train_nested, sweep)
    except LeaseTrouble as trouble:
        reporter.report_trouble(str(trouble))
        raise
    except UserError as mistake:
        reporter.report_failure(str(mistake))
    except Exception as problem:
        if not is_out_of_memory(problem):
            raise
        reporter.report_failure(f"out of memory: {first_line(problem)}")


def _report_again(config: TrainConfig, reporter: "_Reporter") -> None:
    """Report the evaluations before a process died: Tune may not have received them."""
    if bucket := RunInBucket.of(config):
        bucket.fetch_checkpoints()
    run_dir = config.local_run_dir
    if run_dir.is_dir():
        for step, result in sorted(checkpoints.evaluations(run_dir).items()):
            reporter.report({**result, "step": step})


def _train_here(job: Job, data: Data, device: str, reporter: "_Reporter") -> None:
    threads = on_ray.threads_of(job, 1)
    torch.set_num_threads(threads)
    task, context = on_ray.task_and_context(device, job, threads, Workers(), data)
    reporter.began_at, bucket = time.time(), context.bucket
    with bucket.logs_pushed() if bucket else nullcontext():
        fit(job.config, task, context, on_evaluation=lambda result, _: reporter.report(result))


def _train_nested(job: Job, _: Data) -> None:
    callback: Any = TuneReportCallback()
    on_ray.train(job, [callback])


@dataclass(slots=True)
class _Reporter:
    """Reports evaluations to Tune, each with the seconds since the one before."""

    began_at: float = field(default_factory=time.time)
    _last: float = field(default_factory=time.monotonic)

    def report(self, result: dict[str, Any]) -> None:
        """Report one evaluation."""
        now = time.monotonic()
        elapsed, self._last = now - self._last, now
        numbers = {key: value for key, value in result.items() if isinstance(value, (int, float))}
        tune.report({**numbers, "elapsed": elapsed, "began_at": self.began_at})

    def report_failure(self, reason: str) -> None:
        """Report that the trial failed."""
        tune.report({"failed": reason, "elapsed": 0.0, "began_at": self.began_at})

    def report_trouble(self, reason: str) -> None:
        """Report why the trial could not be trained; it is not over."""
        tune.report({"trouble": reason, "elapsed": 0.0, "began_at": self.began_at})

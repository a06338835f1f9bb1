"""Runs under Ray Train.

Ray places the workers, restarts them, and carries metrics and a pointer to the checkpoint.
Checkpoints are saved, verified, chosen and resumed from by trainers/loop/checkpoint.py. Neither
Ray's snapshot nor its checkpoint manager can lose a run.
"""

import json
import os
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

# a report waits for this poll; read when ray.train is imported
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")

import ray.train
import ray.util.metrics
import torch
from ray.train import FailureConfig, RunConfig, WorkerGroupError
from ray.train.torch import TorchTrainer, get_device
from ray.tune import Callback

from ocr.errors import GivenUp, UserError, last_line
from ocr.place import Place
from ocr.ray_address import NoCluster
from ocr.system_errors import is_out_of_memory, mistake_of
from trainers.config import TrainConfig
from trainers.families.task import Task
from trainers.loop.bucket import RunInBucket, place_of
from trainers.loop.checkpoint import Checkpoint, again
from trainers.loop.doing import Doing
from trainers.loop.engines.engine import NotFiniteError
from trainers.loop.exported import Exported
from trainers.loop.lease import LostLease, OldGroup, require_latest
from trainers.loop.loop import fit
from trainers.loop.notices import Notices
from trainers.loop.progress import progress_of
from trainers.loop.run_state import RunContext
from trainers.loop.workers import Workers
from trainers.ray_cluster import connected, gpus_of_a_worker, require_places, scaling, uses_gpu
from trainers.ray_network import RaysNetwork
from trainers.ray_notices import Ending, RayNotices
from trainers.ray_pulse import Pulse
from trainers.ray_waiting import Waiting, run_checked
from trainers.ray_watchdog import Watchdog
from trainers.runs.identity import environment, hardware
from trainers.runs.job import Data, Job
from trainers.runs.memory import MemoryWatch, less_memory, too_large
from trainers.runs.places import needs, speed_up

_LONGEST_WAIT_S = 60  # before a retry


def train(job: Job, callbacks: Sequence[Callback] = ()) -> None:
    """Train to the end of the run.

    Failures of workers, and of Ray itself, are retried `max_failures` times each. Then GivenUp, but
    where a checkpoint is newer than before these failures: a run of weeks has many.
    """
    failure, saved = 0, job.saved_steps()[-1:]
    while True:
        try:
            with (
                connected(job.config) as share,
                progress_of(job.config),
                MemoryWatch(job.run_dir),
            ):
                _train_once(job, threads_of(job, share), callbacks)
            return
        except NoCluster as problem:
            if failure:  # it was there before
                raise _given_up(job, problem) from problem
            raise
        except (UserError, GivenUp):
            raise
        except Exception as problem:  # the run directory has all that a retry needs
            if mistake := _mistake(job, problem):
                raise mistake from problem
            of_workers = isinstance(problem, WorkerGroupError)  # restarted max_failures × already
            failure = job.config.max_failures + 1 if of_workers else failure + 1
            if failure > job.config.max_failures:
                if (now := job.saved_steps()[-1:]) <= saved:
                    raise _given_up(job, problem) from problem
                failure, saved = 0, now
            wait = min(_LONGEST_WAIT_S, 2**failure)
            what = f"Ray stopped ({last_line(problem)})"
            print(f"{what}; resuming from the last checkpoint in {wait} s", flush=True)
            time.sleep(wait)


def _mistake(job: Job, problem: BaseException) -> UserError | None:
    """Return the message for a full disk or a folder that may not be written; else None."""
    return mistake_of(problem, job.run_dir, again(job.run_dir))


def _given_up(job: Job, problem: Exception) -> GivenUp:
    failures = job.config.max_failures + 1
    stand = "Checkpoints are intact" if job.saved_steps() else "There is no checkpoint yet"
    needs_less = f"; or {less_memory(job.config)}" if is_out_of_memory(problem) else ""
    return GivenUp(
        f"{job.config.shown_address}: stopped after {failures} "
        f"failure{'' if failures == 1 else 's'}: {last_line(problem)}. "
        f"{stand}; run the same command to resume{needs_less}"
    )


def threads_of(job: Job, share: int) -> int:
    """Return the threads of each worker.

    They are given, else the checkpoint's (so that the resume is exact), else the worker's share.
    """
    return job.config.threads_asked or job.threads_per_worker or share


def _train_once(job: Job, threads: int, callbacks: Sequence[Callback]) -> None:
    use_gpu = uses_gpu(job.config)
    wanted = needs(job.config, threads, gpus_of_a_worker(job.config) if use_gpu else 0)
    require_places(job.config, wanted)
    if line := speed_up(job.config):
        print(line, flush=True)
    place, ray_dir, outcome = place_of(job.config), job.run_dir / "ray", _outcome_name(job)
    trainer = TorchTrainer(
        _train_worker,
        train_loop_config={
            "job": job,
            "threads": threads,
            "outcome": outcome,
            "started_in": str(Path.cwd()),
        },
        torch_config=RaysNetwork(backend="nccl" if use_gpu else "gloo"),
        scaling_config=scaling(job.config, wanted, use_gpu),
        run_config=RunConfig(
            name=Path(outcome).stem,
            storage_path=str(ray_dir),
            failure_config=FailureConfig(max_failures=job.config.max_failures),
            callbacks=list(callbacks),
        ),
    )
    waiting = Waiting(job.config, job.run_id, wanted)
    watchdog = Watchdog(job.config, job.run_id, job.run_dir)
    try:
        with Ending(job.run_id) as ending:
            run_checked(trainer.fit, (ending.check, waiting.check, watchdog.check))
    finally:
        result = place.json(outcome) or {}
        if "lost" in result:
            raise LostLease(result["lost"])
        if "error" in result:
            raise UserError(result["error"])
    if not result:
        raise RuntimeError("the workers returned without an outcome")


def _outcome_name(job: Job) -> str:
    """Return the file for the workers' last word, after emptying Ray's folder for this attempt."""
    place = place_of(job.config)
    require_latest(place, job.attempt)  # else the folder is another attempt's
    shutil.rmtree(job.run_dir / "ray", ignore_errors=True)
    (job.run_dir / "ray").mkdir(parents=True)
    if not place.is_local:
        place.delete_folder("ray")
    # Ray resumes silently from an equal name
    return f"ray/attempt_{job.attempt:04d}_{uuid.uuid4().hex[:8]}.json"


def _train_worker(setup: dict[str, Any]) -> None:
    """Train, in each Ray Train worker.

    A user's mistake, or the loss of the run to another attempt, goes into the outcome file, since
    Ray would restart a worker that raises.
    """
    job, outcome = setup["job"].here(), setup["outcome"]
    place = _settle_in(job, setup)
    if place.has(outcome):
        return
    workers = Workers.here()
    try:
        with Pulse(job.run_id, workers.rank, workers.world) as doing:
            _fit(job, setup["threads"], workers, doing)
        if workers.first:
            place.write_json(outcome, {"finished": True})
    except OldGroup:
        raise
    except LostLease as loss:
        place.write_json(outcome, {"lost": str(loss)})
        if workers.world > 1:
            raise  # as below
    except UserError as mistake:
        is_shared = isinstance(mistake, NotFiniteError)  # raised by all workers together
        if workers.first or not is_shared:
            place.write_json(outcome, {"error": str(mistake)})
        if workers.world > 1 and not is_shared:
            # the others wait for this worker: Ray ends them, and the next group reads the outcome
            raise
    except Exception as problem:
        message = _mistake(job, problem) or too_large(
            job, problem, place, f"{outcome}.{workers.rank}.memory"
        )
        if message is None:
            raise
        place.write_json(outcome, {"error": str(message)})
        if workers.world > 1:
            raise


def _settle_in(job: Job, setup: dict[str, Any]) -> Place:
    """Make this process a worker of the run; return where the run lives."""
    if bucket := RunInBucket.of(job.config):
        bucket.fetch_checkpoints()
    if not job.run_dir.is_dir():  # of a node that came after the preflight
        raise FileNotFoundError(
            f"{socket.gethostname()}: {job.run_dir} is not there; this node does not share it"
        )
    if Path(setup["started_in"]).is_dir():  # Ray starts workers in another folder
        os.chdir(setup["started_in"])
    os.nice(int(os.environ.get("LIPI_NICE", "0")))  # beside an endpoint that answers people
    torch.set_num_threads(setup["threads"])
    return place_of(job.config)


def _fit(job: Job, threads: int, workers: Workers, doing: Doing) -> None:
    devices = get_device()  # several for a worker with several GPUs
    first = devices[0] if isinstance(devices, list) else devices
    task, context = task_and_context(str(first), job, threads, workers)
    began_at, bucket = time.time(), context.bucket
    nodes = set(workers.gather(ray.get_runtime_context().get_node_id()))
    with (
        bucket.logs_pushed() if bucket and workers.first else nullcontext(),
        Exported(job.config.run_name, job.run_dir, ray.util.metrics.Gauge) as exported,
        RayNotices(job.run_id, nodes) if workers.first else nullcontext(Notices()) as notices,
    ):
        fit(
            job.config,
            task,
            replace(context, notices=notices, doing=doing),
            on_evaluation=lambda result, checkpoint: _report_to_ray(
                {**result, "began_at": began_at}, None if bucket else checkpoint
            ),
            on_line=exported.line,
        )


def task_and_context(
    device: str, job: Job, threads: int, workers: Workers, data: Data | None = None
) -> tuple[Task, RunContext]:
    """Return all that the loop needs to train on this device, with torch's threads as they are set.

    `data`: where this process has opened it already.
    """
    config = job.config
    precision = precision_on(config, device)
    if device != "cpu" and config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    context = RunContext(
        job.run_dir,
        job.run_id,
        job.attempt,
        environment(config, threads, device, precision, workers.gather(hardware(device))),
        workers,
        device,
        precision,
        bucket=RunInBucket.of(config),
    )
    return (data or Data.of_job(job)).task(config, device, precision), context


def precision_on(config: TrainConfig, device: str) -> str:
    """Return `precision`; on auto bf16 on GPUs that compute it natively, else fp32.

    A CPU with AVX-512 BF16 trained the compact network 1.3 times slower in it than in fp32, one
    without 8 times (docs/results.md).
    """
    if config.precision != "auto":
        return config.precision
    if device != "cpu" and torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16"
    return "fp32"


def _report_to_ray(metrics: dict[str, Any], checkpoint: Checkpoint | None) -> None:
    """Report metrics, and from the first worker a pointer to our checkpoint in a shared folder.

    A report is a barrier, so every worker calls it at every evaluation.
    """
    with tempfile.TemporaryDirectory() as folder:
        pointer = None
        if checkpoint:
            about = {**asdict(checkpoint), "path": str(checkpoint.path)}
            (Path(folder) / "pointer.json").write_text(json.dumps(about))
            pointer = ray.train.Checkpoint.from_directory(folder)
        ray.train.report(metrics, checkpoint=pointer)

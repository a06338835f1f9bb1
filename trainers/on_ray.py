"""Runs under Ray Train.

Ray places the workers, restarts them, and carries metrics and a pointer to the checkpoint.
Checkpoints are saved, verified, chosen and resumed from by trainers/loop/checkpoint.py. Neither
Ray's snapshot nor its checkpoint manager can lose a run.
"""

import json
import os
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# a report waits for this poll; read when ray.train is imported
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")

import psutil
import ray.train
import ray.util.metrics
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.tune import Callback

from ocr.errors import GivenUp, UserError, last_line
from ocr.files import read_json, shown, write_json
from ocr.ray_address import NoCluster
from ocr.system_errors import mistake_of
from trainers.config import TrainConfig
from trainers.families.task import Task
from trainers.loop.checkpoint import Checkpoint, again, steps_of
from trainers.loop.engines.engine import NotFiniteError
from trainers.loop.exported import Exported
from trainers.loop.lease import LostLease
from trainers.loop.loop import fit
from trainers.loop.progress import Progress
from trainers.loop.run_state import RunContext
from trainers.loop.workers import Workers
from trainers.ray_cluster import connected, gpus_of_a_worker, require_places, uses_gpu
from trainers.runs.identity import environment
from trainers.runs.job import Data, Job
from trainers.runs.places import needs

_MEMORY_POLL_SECONDS = 5.0


def train(job: Job, callbacks: Sequence[Callback] = ()) -> None:
    """Train to the end of the run.

    Failures of workers, and of Ray itself, are retried `max_failures` times each; then GivenUp.
    """
    for failure in range(job.config.max_failures + 1):
        try:
            with (
                connected(job.config) as share,
                Progress(job.run_dir, job.config.train.max_steps),
                _MemoryWatch(job.run_dir),
            ):
                _train_once(job, threads_of(job, share), callbacks)
            return
        except NoCluster as problem:
            if failure:  # it was there before
                raise _given_up(job, problem) from problem
            raise
        except UserError:
            raise
        except WorkerGroupError as problem:  # Ray has already restarted the workers max_failures ×
            raise _mistake(job, problem) or _given_up(job, problem) from problem
        except Exception as problem:  # of Ray itself: the run directory has all that a retry needs
            if mistake := _mistake(job, problem):
                raise mistake from problem
            if failure == job.config.max_failures:
                raise _given_up(job, problem) from problem
            print(
                f"Ray stopped ({last_line(problem)}); resuming from the last checkpoint", flush=True
            )


def _mistake(job: Job, problem: BaseException) -> UserError | None:
    """Return the message for a full disk or a folder that may not be written; else None."""
    return mistake_of(problem, job.run_dir, again(job.run_dir))


def _given_up(job: Job, problem: Exception) -> GivenUp:
    failures = job.config.max_failures + 1
    stand = "Checkpoints are intact" if steps_of(job.run_dir) else "There is no checkpoint yet"
    return GivenUp(
        f"{shown(job.run_dir)}: stopped after {failures} "
        f"failure{'' if failures == 1 else 's'}: {last_line(problem)}. "
        f"{stand}; run the same command to resume"
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
    ray_dir = job.run_dir / "ray"
    shutil.rmtree(ray_dir, ignore_errors=True)
    ray_dir.mkdir()
    # Ray resumes silently from an equal name
    name = f"attempt_{job.attempt:04d}_{uuid.uuid4().hex[:8]}"
    outcome = ray_dir / f"{name}.json"
    trainer = TorchTrainer(
        _train_worker,
        train_loop_config={
            "job": job,
            "threads": threads,
            "outcome": str(outcome),
            "started_in": str(Path.cwd()),
        },
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
        scaling_config=_scaling(job.config, wanted, use_gpu),
        run_config=RunConfig(
            name=name,
            storage_path=str(ray_dir),
            failure_config=FailureConfig(max_failures=job.config.max_failures),
            callbacks=list(callbacks),
        ),
    )
    result: dict[str, Any] = {}
    try:
        trainer.fit()
    finally:
        if outcome.is_file():
            result = read_json(outcome)
        if "error" in result:
            raise UserError(result["error"])
    if not result:
        raise RuntimeError("the workers returned without an outcome")


def _scaling(config: TrainConfig, wanted: dict[str, float], use_gpu: bool) -> ScalingConfig:
    # Ray Train's own class has it, the one that its stubs name does not
    labels: dict[str, Any] = {"label_selector": config.label_selector or None}
    return ScalingConfig(
        num_workers=config.worker_count,
        use_gpu=use_gpu,
        resources_per_worker=wanted,
        accelerator_type=config.accelerator_type,
        **labels,
    )


def _train_worker(setup: dict[str, Any]) -> None:
    """Train, in each Ray Train worker.

    A user's mistake goes into the outcome file, since Ray would restart a worker that raises.
    """
    job, outcome = setup["job"], Path(setup["outcome"])
    if outcome.is_file():
        return
    if Path(setup["started_in"]).is_dir():  # Ray starts workers in another folder
        os.chdir(setup["started_in"])
    os.nice(int(os.environ.get("LIPI_NICE", "0")))  # beside an endpoint that answers people
    torch.set_num_threads(setup["threads"])
    workers = Workers.here()
    try:
        _fit(job, setup["threads"], workers)
        if workers.first:
            write_json(outcome, {"finished": True})
    except LostLease:
        raise
    except UserError as mistake:
        is_shared = isinstance(mistake, NotFiniteError)  # raised by all workers together
        if workers.first or not is_shared:
            write_json(outcome, {"error": str(mistake)})
        if workers.world > 1 and not is_shared:
            # the others wait for this worker: Ray ends them, and the next group reads the outcome
            raise
    except Exception as problem:
        message = _mistake(job, problem)
        if message is None:
            raise
        write_json(outcome, {"error": str(message)})
        if workers.world > 1:
            raise


def _fit(job: Job, threads: int, workers: Workers) -> None:
    devices = get_device()  # several for a worker with several GPUs
    first = devices[0] if isinstance(devices, list) else devices
    task, context = task_and_context(str(first), job, threads, workers)
    began_at = time.time()
    with Exported(job.config.run_name, job.run_dir, ray.util.metrics.Gauge) as exported:
        fit(
            job.config,
            task,
            context,
            on_evaluation=lambda result, checkpoint: _report_to_ray(
                {**result, "began_at": began_at}, checkpoint
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
        environment(config, threads, device, precision),
        workers,
        device,
        precision,
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
    """Report metrics, and from the first worker a pointer to our checkpoint.

    A report is a barrier, so every worker calls it at every evaluation.
    """
    with tempfile.TemporaryDirectory() as folder:
        pointer = None
        if checkpoint:
            about = {
                "path": str(checkpoint.path),
                "step": checkpoint.step,
                "manifest_sha256": checkpoint.manifest_sha256,
            }
            (Path(folder) / "pointer.json").write_text(json.dumps(about))
            pointer = ray.train.Checkpoint.from_directory(folder)
        ray.train.report(metrics, checkpoint=pointer)


class _MemoryWatch:
    """Writes the peak memory of this process and its children, Ray included, to timings.jsonl.

    Memory is PSS, so shared pages count once.
    """

    def __init__(self, run_dir: Path) -> None:
        self._file, self._peak, self._stopped = run_dir / "timings.jsonl", 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, name="lipi-memory", daemon=True)

    def __enter__(self) -> "_MemoryWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopped.wait(_MEMORY_POLL_SECONDS):
            processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
            used = sum(map(_pss, processes))
            if used > self._peak * 1.02:
                self._peak = used
                with open(self._file, "a", encoding="utf-8") as file:
                    file.write(json.dumps({"step": 0, "memory_mib": round(used / 2**20)}) + "\n")


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except (psutil.Error, AttributeError):  # gone meanwhile, or not Linux
        return 0

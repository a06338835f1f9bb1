"""Runs under Ray Train: the only file of the trainers that knows Ray.

Ray places the workers, restarts them and carries metrics and a pointer to the checkpoint; what is saved, verified, chosen and
continued is ours (trainers/loop/checkpoint.py), so neither Ray's snapshot nor its checkpoint manager can lose a run.
"""

import json
import logging
import os
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault(
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2"
)  # a report waits for this poll; read when ray.train is imported
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault(
    "RAY_worker_niceness", "0"
)  # of a cluster started here; Ray's 15 lets everything else on the machine go first

import psutil
import ray
import ray.train
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.tune import Callback

from ocr.errors import GivenUp, UserError
from ocr.files import read_json, write_json
from trainers.config import TrainConfig
from trainers.families.task import Task
from trainers.loop.checkpoint import Checkpoint
from trainers.loop.engines.engine import NotFiniteError
from trainers.loop.lease import LostLease
from trainers.loop.loop import Place, fit
from trainers.loop.progress import Progress
from trainers.loop.workers import Workers
from trainers.runs.identity import environment
from trainers.runs.launch import Data, Job, shown

_OBJECT_STORE_BYTES = 100_000_000  # nothing of ours travels through it
_MEMORY_POLL_SECONDS = 5.0


def train(job: Job, callbacks: Sequence[Callback] = ()) -> None:
    """Train to the end of the run; deaths of workers, and of Ray itself, are survived `max_failures` times each; then GivenUp."""
    for failure in range(job.config.max_failures + 1):
        try:
            with (
                connected(job.config) as share,
                Progress(job.run_dir, job.config.train.max_steps),
                _MemoryWatch(job.run_dir),
            ):
                _train_once(job, threads_of(job, share), callbacks)
            return
        except UserError:
            raise
        except (
            WorkerGroupError
        ) as problem:  # Ray has restarted the workers max_failures times already
            raise _given_up(job, problem) from problem
        except (
            Exception
        ) as problem:  # whatever Ray itself dies of, the run directory tells where to go on
            if failure == job.config.max_failures:
                raise _given_up(job, problem) from problem
            print(
                f"Ray stopped ({_last_line(problem)}); going on from the last checkpoint",
                flush=True,
            )


def _given_up(job: Job, problem: Exception) -> GivenUp:
    deaths = job.config.max_failures + 1
    return GivenUp(
        f"{shown(job.run_dir)}: gave up at death {deaths}: {_last_line(problem)}; the checkpoints stand: give the same command again to go on"
    )


def threads_of(job: Job, share: int) -> int:
    """Threads of each worker: as given, else the checkpoint's, so that continuing is exact, else the worker's share of the cores."""
    return job.config.threads_per_worker or job.threads_per_worker or share


@contextmanager
def connected(config: TrainConfig, waiting: int = 0) -> Iterator[int]:
    """Ray: the one that this process is in (a trial of a sweep), the cluster of RAY_ADDRESS (inside a job, its own), else a local one, which
    counts a core more for each process that only waits. Gives the threads for each worker.
    """
    if ray.is_initialized():
        yield config.threads_per_worker or 1
        return
    joined = bool(os.environ.get("RAY_ADDRESS"))
    cores = os.cpu_count() or 1
    if joined:
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    else:
        needed = config.workers * (config.threads_per_worker or 1)
        ray.init(
            "local",
            num_cpus=max(cores, needed) + waiting,
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    try:
        _refuse_local_storage_on_many_nodes(config)
        share = max(1, int(ray.cluster_resources().get("CPU", cores)) // config.workers)
        yield config.threads_per_worker or (
            min(share, cores) if joined else max(1, cores // config.workers)
        )
    finally:
        ray.shutdown()


def _refuse_local_storage_on_many_nodes(config: TrainConfig) -> None:
    nodes = [node for node in ray.nodes() if node["Alive"]]
    shared = any(
        Path(config.storage_path).is_relative_to(place)
        for place in ("/mnt", "/shared", "/efs", "/nfs")
    )
    if len(nodes) > 1 and not shared:
        raise UserError(
            f"storage_path {config.storage_path}: {len(nodes)} nodes cannot share a local folder; name one under /mnt that all of them mount"
        )


def _train_once(job: Job, threads: int, callbacks: Sequence[Callback]) -> None:
    use_gpu = uses_gpu(job.config)
    ray_dir = job.run_dir / "ray"
    shutil.rmtree(ray_dir, ignore_errors=True)
    ray_dir.mkdir()
    name = f"attempt_{job.attempt:04d}_{uuid.uuid4().hex[:8]}"  # Ray resumes silently from an equal name
    trainer = TorchTrainer(
        _train_worker,
        train_loop_config={
            "job": job,
            "threads": threads,
            "outcome": str(ray_dir / f"{name}.json"),
            "started_in": str(Path.cwd()),
        },
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=job.config.workers,
            use_gpu=use_gpu,
            resources_per_worker={
                "CPU": threads,
                **({"GPU": _gpus_of_a_worker(job.config)} if use_gpu else {}),
            },
        ),
        run_config=RunConfig(
            name=name,
            storage_path=str(ray_dir),
            failure_config=FailureConfig(max_failures=job.config.max_failures),
            callbacks=list(callbacks),
        ),
    )
    try:
        trainer.fit()
    finally:
        outcome = (
            read_json(ray_dir / f"{name}.json") if (ray_dir / f"{name}.json").is_file() else {}
        )
        if "error" in outcome:
            raise UserError(outcome["error"])
    if not outcome:
        raise RuntimeError("the workers returned without an end")


def gpus_of_the_cluster() -> float:
    """How many GPUs the cluster of RAY_ADDRESS has now."""
    if ray.is_initialized():
        return float(ray.cluster_resources().get("GPU", 0))
    ray.init(log_to_driver=False, logging_level=logging.ERROR)
    try:
        return float(ray.cluster_resources().get("GPU", 0))
    finally:
        ray.shutdown()


def uses_gpu(config: TrainConfig) -> bool:
    """Whether each worker gets one. A cluster that scales (LIPI_ACCELERATOR=gpu) is asked for GPUs that it does not show yet."""
    found = ray.cluster_resources().get("GPU", 0)
    will_come = bool(os.environ.get("RAY_ADDRESS")) and os.environ.get("LIPI_ACCELERATOR") == "gpu"
    there = found >= config.workers or will_come
    if not there and (
        config.device == "cuda" or (config.device == "auto" and config.model.kind == "vlm")
    ):
        raise UserError(
            f"device: {config.device}: {config.workers} GPUs are needed, Ray has {found:g}; set fewer workers, or device=cpu"
        )
    return there and config.device != "cpu"


def _gpus_of_a_worker(config: TrainConfig) -> int:
    """One; with device_map=auto all of the machine that has most."""
    if config.family == "ctc" or not config.vlm.device_map:
        return 1
    return int(max(node["Resources"].get("GPU", 1) for node in ray.nodes() if node["Alive"]))


def _train_worker(setup: dict[str, Any]) -> None:
    """In each Ray Train worker. A user's mistake goes into the outcome file, since Ray would start a worker that raises again."""
    job, outcome = setup["job"], Path(setup["outcome"])
    if outcome.is_file():
        return
    if Path(setup["started_in"]).is_dir():
        os.chdir(
            setup["started_in"]
        )  # Ray starts workers elsewhere, and data may be named by relative paths
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
        if workers.first or not isinstance(mistake, NotFiniteError):
            write_json(outcome, {"error": str(mistake)})
        if workers.world > 1 and not isinstance(mistake, NotFiniteError):
            raise  # the others wait for this worker: let Ray end them; the restarted group finds the outcome


def _fit(job: Job, threads: int, workers: Workers) -> None:
    found = (
        get_device()
    )  # several for a worker with several GPUs; the first one holds what is not spread
    task, place = placed(str(found[0] if isinstance(found, list) else found), job, threads, workers)
    began_at = time.time()
    fit(
        job.config,
        task,
        place,
        on_evaluation=lambda result, checkpoint: _report_to_ray(
            {**result, "began_at": began_at}, checkpoint
        ),
    )


def placed(
    device: str, job: Job, threads: int, workers: Workers, data: Data | None = None
) -> tuple[Task, Place]:
    """What the loop needs to train on this device, with torch's threads as they are set; `data` where this process has opened it already."""
    config = job.config
    precision = precision_on(config, device)
    if device != "cpu" and config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    place = Place(
        job.run_dir,
        job.run,
        job.attempt,
        environment(config, threads, device, precision),
        workers,
        device,
        precision,
    )
    return (data or Data.open(config)).task(config, device, precision), place


def precision_on(config: TrainConfig, device: str) -> str:
    """fp32, bf16 or fp16 autocast: as `precision` says; on auto bf16 on GPUs that compute it natively.

    A CPU with AVX-512 BF16 trained the compact network 1.3 times slower in it than in fp32, one without 8 times (docs/log.md).
    """
    if config.precision != "auto":
        return config.precision
    return (
        "bf16"
        if device != "cpu" and torch.cuda.is_bf16_supported(including_emulation=False)
        else "fp32"
    )


def _report_to_ray(metrics: dict[str, Any], checkpoint: Checkpoint | None) -> None:
    """Metrics, and from the first worker a pointer to our checkpoint; a barrier, so every worker calls it at every evaluation."""
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
    """Notes the peak memory (PSS, so shared pages count once) of this process and its children, Ray included, in timings.jsonl."""

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
            used = sum(
                _pss(process)
                for process in [psutil.Process(), *psutil.Process().children(recursive=True)]
            )
            if used > self._peak * 1.02:
                self._peak = used
                with open(self._file, "a", encoding="utf-8") as file:
                    file.write(json.dumps({"step": 0, "memory_mib": round(used / 2**20)}) + "\n")


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except (psutil.Error, AttributeError):  # gone meanwhile, or not Linux
        return 0


def _last_line(problem: BaseException) -> str:
    return next(
        (line.strip() for line in reversed(str(problem).splitlines()) if line.strip()),
        type(problem).__name__,
    )

"""A run so small that it can be stopped at every step: 200 word images, 40 steps, an epoch boundary, short batches, accumulation."""

from pathlib import Path
from typing import Any

from ocr.dataset.read import Dataset
from ocr.files import write_json
from ocr.settings import parse_settings
from trainers.config import TrainConfig
from trainers.ctc import CtcTask, check
from trainers.launch import Data, Job
from trainers.loop import Place, fit
from trainers.run import environment, identity
from trainers.workers import Workers

TINY: dict[str, Any] = {
    "run_name": "tiny",
    "data": {"train": "odia_words", "max_train_samples": 200, "max_validation_samples": 20},
    "train": {"max_steps": 40, "global_batch_size": 12, "micro_batch_size": 5, "save_steps": 5, "eval_steps": 8, "logging_steps": 3, "log_samples": True},
    "optimizer": {"learning_rate": 1e-3, "warmup_steps": 5},
    "model": {"kind": "compact", "size": "small", "dropout": 0.2},
    "threads_per_worker": 1,
    "precision": "fp32",
}


def tiny_config(storage: Path, **changes: dict[str, Any] | Any) -> TrainConfig:
    """TINY under `storage`, with groups updated and single settings replaced by `changes`."""
    values = {**TINY, "storage_path": str(storage)}
    for key, change in changes.items():
        values[key] = {**values.get(key, {}), **change} if isinstance(change, dict) else change
    return parse_settings(TrainConfig, values, "tiny")


def tiny_place(config: TrainConfig, workers: Workers | None = None) -> Place:
    """The run's directory, made if need be, and its identity, as the launcher would give them."""
    train, validation = Dataset.open(config.data.train, "train"), Dataset.open(config.data.train, "validation")
    run = identity(config, {"train": train.fingerprint, "validation": validation.fingerprint})
    run_dir = config.local_run_dir
    run_dir.mkdir(parents=True, exist_ok=True)
    if not (run_dir / "run.json").exists():
        write_json(run_dir / "run.json", {"run": run})
    return Place(run_dir, run, 1, environment(config, 1, "cpu", "fp32"), workers or Workers())


def tiny_task(config: TrainConfig) -> CtcTask:
    """A fresh network with the data of `config`."""
    train, validation = Dataset.open(config.data.train, "train"), Dataset.open(config.data.train, "validation")
    return CtcTask(config, check(config, train, validation), train, validation)


def train_here(job: Job) -> None:
    """What trainers.on_ray.train does, in this process."""
    place = Place(job.run_dir, job.run, job.attempt, environment(job.config, 1, "cpu", "fp32"))
    fit(job.config, Data.open(job.config).task(job.config, "cpu"), place)

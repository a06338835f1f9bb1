"""A run so small that it can be stopped at every step: 200 word images, 40 steps.

It has an epoch boundary, short batches and accumulation.
"""

from pathlib import Path
from typing import Any

from ocr.dataset.read import Dataset
from ocr.files import write_json
from ocr.settings import parse_settings
from trainers.config import TrainConfig
from trainers.loop.bucket import RunInBucket
from trainers.loop.loop import fit
from trainers.loop.run_state import RunContext
from trainers.loop.workers import Workers
from trainers.runs.identity import environment, identity
from trainers.runs.job import Data, Job

TINY: dict[str, Any] = {
    "run_name": "tiny",
    "data": {"train": "odia_words", "max_train_samples": 200, "max_validation_samples": 20},
    "train": {
        "max_steps": 40,
        "global_batch_size": 12,
        "micro_batch_size": 5,
        "save_steps": 5,
        "eval_steps": 8,
        "logging_steps": 3,
        "log_samples": True,
    },
    "optimizer": {"learning_rate": 1e-3, "warmup_steps": 5},
    "model": {"kind": "compact", "size": "small", "dropout": 0.2},
    "threads_per_worker": 1,
    "precision": "fp32",
}


TINY_VLM: dict[str, Any] = {
    "run_name": "tiny-vlm",
    "data": {"train": "odia_few_words", "max_train_samples": 40, "max_validation_samples": 6},
    "train": {
        "max_steps": 12,
        "global_batch_size": 6,
        "micro_batch_size": 3,
        "save_steps": 3,
        "eval_steps": 4,
        "logging_steps": 2,
        "log_samples": True,
        "eval_on_start": True,
        "compute_train_metrics": True,
    },
    "optimizer": {"learning_rate": 2e-3, "warmup_steps": 3, "max_grad_norm": 1.0},
    "model": {"kind": "tiny_vlm", "base_steps": 0, "instruction": "OCR"},
    "images": {"max_side_px": 160, "min_pixels": 1024, "max_pixels": 8192},
    "lora": {"rank": 8, "dropout": 0.1, "parts": ["language", "vision", "merger"]},
    "loss": {
        "name": "cross_entropy",
        "focal_gamma": 2.0,
        "focal_alpha": 0.25,
        "label_smoothing": 0.1,
        "confusion_weight": 2.0,
    },
    "kornia": {"strength": 1.0},
    "generation": {"max_new_tokens": 6, "max_eval_samples": 4},
    "threads_per_worker": 1,
    "precision": "fp32",
}


def tiny_vlm_config(storage: Path, **changes: dict[str, Any] | Any) -> TrainConfig:
    """TINY_VLM under `storage`, changed as `tiny_config` does."""
    return _changed(TINY_VLM, storage, changes)


def tiny_config(storage: Path | str, **changes: dict[str, Any] | Any) -> TrainConfig:
    """TINY under `storage`, with groups updated and single settings replaced by `changes`."""
    return _changed(TINY, storage, changes)


def _changed(run: dict[str, Any], storage: Path | str, changes: dict[str, Any]) -> TrainConfig:
    values = {**run, "storage_path": str(storage)}
    for key, change in changes.items():
        values[key] = {**values.get(key, {}), **change} if isinstance(change, dict) else change
    return parse_settings(TrainConfig, values, "tiny")


def tiny_context(config: TrainConfig, workers: Workers | None = None) -> RunContext:
    """The run's directory, made if need be, and its identity, as the launcher would give them."""
    train, validation = (
        Dataset.open(config.data.train, "train"),
        Dataset.open(config.data.train, "validation"),
    )
    run = identity(config, {"train": train.fingerprint, "validation": validation.fingerprint})
    run_dir = config.local_run_dir
    run_dir.mkdir(parents=True, exist_ok=True)
    if not (run_dir / "run.json").exists():
        write_json(run_dir / "run.json", {"run": run})
    return RunContext(
        run_dir,
        run,
        1,
        environment(config, 1, "cpu", config.precision),
        workers or Workers(),
        precision=config.precision,
    )


def tiny_task(config: TrainConfig) -> Any:
    """A fresh network with the data of `config`."""
    return Data.open(config).task(config, "cpu", config.precision)


def train_here(job: Job) -> None:
    """What trainers.on_ray.train does, in this process."""
    precision = "fp32" if job.config.precision == "auto" else job.config.precision
    bucket = RunInBucket.of(job.config)
    if bucket:
        bucket.fetch_checkpoints()
    place = RunContext(
        job.run_dir,
        job.run_id,
        job.attempt,
        environment(job.config, 1, "cpu", precision),
        precision=precision,
        bucket=bucket,
    )
    fit(job.config, Data.open(job.config).task(job.config, "cpu", precision), place)

"""A finished run, to look at, to resume and to damage."""

import shutil
from pathlib import Path
from typing import Any

import torch

from tests.support.tiny import tiny_config, train_here
from trainers.config import TrainConfig
from trainers.runs.job import Job
from trainers.runs.launch import launch

SHORT = {"max_steps": 15, "save_steps": 5, "eval_steps": 10, "log_samples": False}


def finished_in(folder: Path) -> Path:
    """Return a run of 15 steps with checkpoints at 10 and 15, its report and its bundle."""
    torch.set_num_threads(1)
    config = tiny_config(folder, train=SHORT)
    launch(config, train_here, "the command")
    return config.local_run_dir


def copied(run_dir: Path, folder: Path) -> Path:
    """Return a copy to damage."""
    shutil.copytree(run_dir, folder / "tiny")
    return folder / "tiny"


def config_at(run_dir: Path, **changes: Any) -> TrainConfig:
    """Return the config of a copy."""
    return tiny_config(run_dir.parent, **{"train": SHORT, **changes})


def never(job: Job) -> None:
    """Train a run that has nothing left to train."""
    raise AssertionError("nothing is left to train")

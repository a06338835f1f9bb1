"""The state of a run: context, plan and length, best step, and how exactly it resumed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ocr.errors import UserError
from ocr.files import read_object
from ocr.place import Place
from trainers.config import TrainConfig
from trainers.loop import checkpoint as checkpoints
from trainers.loop.batches import Plan
from trainers.loop.bucket import RunInBucket
from trainers.loop.checkpoint import Checkpoint
from trainers.loop.doing import Doing
from trainers.loop.notices import Notices
from trainers.loop.workers import Workers

EXACT = "exact"
Evaluations = dict[int, dict[str, Any]]  # step → rates


@dataclass(frozen=True, slots=True)
class RunContext:
    """The run directory, identity, workers and device of a process that trains.

    `environment` holds all that must be equal for a resume to be exact.
    """

    run_dir: Path
    run_id: str
    attempt: int
    environment: dict[str, Any]
    workers: Workers = field(default_factory=Workers)
    device: str = "cpu"
    precision: str = "fp32"
    notices: Notices = field(default_factory=Notices)
    doing: Doing = field(default_factory=Doing)
    bucket: RunInBucket | None = None

    @property
    def place(self) -> Place:
        """Where the run lives: its folder, or its address in a bucket."""
        return self.bucket.place if self.bucket else Place(self.run_dir)


@dataclass(slots=True)
class TrainState:
    """All that changes from step to step besides weights and optimizer; plain data.

    Every checkpoint holds it. `step_seconds`: of the steps up to this one, waits for data and
    steps that were lost and repeated left out.
    """

    step: int = 0
    samples: int = 0
    max_steps: int | None = None
    loss_sum: float = 0.0
    loss_weight: float = 0.0
    pending: dict[str, Any] | None = None
    training_seconds: float = 0.0
    step_seconds: float = 0.0
    skipped_steps: int = 0
    loss_scale: dict[str, Any] | None = None
    resumed_at: list[dict[str, Any]] = field(default_factory=list)
    extended_at: list[int] = field(default_factory=list)

    def resume(
        self, max_steps: int | None, before: dict[str, Any], now: dict[str, Any]
    ) -> "TrainState":
        """Add this resume to the history: how exact, and whether the run is longer now.

        `before` and `now` are the environments of the checkpoint and of this process.
        """
        self.resumed_at.append({"step": self.step, "exactness": exactness(before, now)})
        if max_steps is not None and max_steps != self.max_steps:
            self.extended_at += [self.step] if self.max_steps is not None else []
            self.max_steps = max_steps
        return self


def plan_of(config: TrainConfig, widths: Sequence[int], replayed: int = 0) -> Plan:
    """Return the order of the run's samples, of which the last `replayed` are the replay pool."""
    train = config.train
    per_epoch = min(replayed, round(config.data.replay_ratio * (len(widths) - replayed)))
    return Plan(
        np.asarray(widths, np.int32),
        train.global_batch_size,
        train.micro_batch_size,
        train.seed,
        replayed,
        per_epoch,
    )


def in_steps(config: TrainConfig, plan: Plan) -> TrainConfig:
    """Return the config with save_epochs, eval_epochs and warmup_epochs turned into steps."""
    train, optimizer = config.train, config.optimizer
    lengths = {"save_steps": train.save_epochs, "eval_steps": train.eval_epochs}
    steps = {key: epochs * plan.steps_per_epoch for key, epochs in lengths.items() if epochs}
    warmup = {}
    if optimizer.warmup_epochs is not None:
        warmup = {"warmup_steps": round(optimizer.warmup_epochs * plan.steps_per_epoch)}
    return config.model_copy(
        update={
            "train": train.model_copy(update=steps),
            "optimizer": optimizer.model_copy(update=warmup),
        }
    )


def planned_steps(config: TrainConfig, plan: Plan) -> int | None:
    """Return the run's length in optimizer steps; None until max_minutes is turned into steps."""
    if config.train.num_epochs is not None:
        return math.ceil(config.train.num_epochs * plan.steps_per_epoch)
    return config.train.max_steps


def is_over(config: TrainConfig, state: TrainState, evaluations: Evaluations) -> bool:
    """Return whether the last step was taken, or patience ran out."""
    if state.max_steps is not None and state.step >= state.max_steps:
        return True
    patience, best = config.train.early_stopping_patience, best_step(config, evaluations)
    if patience is None or best is None:
        return False
    return sum(step > best for step in evaluations) >= patience


def best_step(config: TrainConfig, evaluations: Evaluations) -> int | None:
    """Return the step of the first evaluation that none beats by more than the threshold."""
    metric, best = config.train.metric_for_best_model, None
    threshold = config.train.early_stopping_threshold
    for step, result in sorted(evaluations.items()):
        if best is None or result[metric] < evaluations[best][metric] - threshold:
            best = step
    return best


def find(run_dir: Path, run_id: str) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest good checkpoint, and the problems of newer ones.

    The checkpoint is None only for a run that never published one. Raises UserError where
    checkpoints were written and none is good: no run starts anew silently.
    """
    checkpoint, damaged = checkpoints.newest_good(run_dir, run_id)
    published = (read_object(run_dir / "run.json") or {}).get("last_published")
    if checkpoint is None and (damaged or published is not None):
        missing = f"{checkpoints.directory_of(run_dir, published or 0)}: missing"
        problems = "".join(f"\n  {problem}" for problem in damaged or [missing])
        raise UserError(
            f"{run_dir}: no checkpoint of this run is good:{problems}\n"
            f"restore one from a copy, or move {run_dir} away to start anew"
        )
    return checkpoint, damaged


def exactness(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Return `exact`, or `equal to rounding, because workers 4 → 2`.

    Checkpoints of earlier versions do not say their hardware; it counts as equal. With
    `reduce: exact` any number of workers does.
    """
    unknown = {"hardware"} - (before.keys() & now.keys())
    if str(now.get("engine")).endswith(" in exact"):
        unknown.add("workers")
    differing = [
        f"{key.replace('_', ' ')} {before.get(key)} → {now.get(key)}"
        for key in {**before, **now}
        if before.get(key) != now.get(key) and key not in unknown
    ]
    return f"equal to rounding, because {', '.join(differing)}" if differing else EXACT

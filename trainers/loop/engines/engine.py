"""One optimizer step over all workers: what every engine shares, and the steps that differ.

An engine accumulates gradients of micro-batches, sums them over the workers, and steps with their
weighted mean, clipped.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from torch import Tensor

from ocr.errors import UserError
from ocr.keyed import key_of
from trainers.config import OptimizerSettings, TrainConfig
from trainers.families.task import Losses, MicroBatch, Task
from trainers.loop import checkpoint as checkpoints
from trainers.loop.notices import NOTHING
from trainers.loop.workers import Workers

MOST_OVERFLOWS, STEPS_TO_GROW = 20, 2000


class NotFiniteError(UserError):
    """An infinite or undefined loss, gradient or weight; the optimizer step was not taken."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """One optimizer step over all workers: mean loss, its weight, samples, and gradient norm.

    The norm is the one before clipping. `overflow`: the half-precision gradient was not finite and
    no weight was changed; the loss is then 0, with weight 0. `notice`: the first worker's.
    """

    loss: float
    weight: float
    samples: int
    grad_norm: float
    overflow: bool = False
    notice: float = NOTHING


@dataclass(slots=True)
class LossScale:
    """The factor of fp16 losses before the backward pass; plain numbers.

    It keeps small gradients from vanishing (Micikevicius et al. 2018).
    """

    value: float = 2.0**16
    good_steps: int = 0
    overflows: int = 0  # in a row

    @property
    def is_hopeless(self) -> bool:
        """Whether one more overflow is too many."""
        return self.overflows + 1 >= MOST_OVERFLOWS

    def learn(self, finite: bool) -> None:
        """Halve the scale after an overflow, double it after 2,000 good steps."""
        self.overflows = 0 if finite else self.overflows + 1
        self.good_steps = self.good_steps + 1 if finite else 0
        if not finite:
            self.value /= 2
        elif self.good_steps == STEPS_TO_GROW:
            self.value, self.good_steps = self.value * 2, 0


def rounded(sums: Tensor, grid: float | None) -> Tensor:
    """Return fp64 sums rounded to multiples of 1 / grid, a power of two; None: as they are.

    fp64 adds such numbers without rounding while a total stays below 2^53 / grid.
    """
    return sums if grid is None else (sums * grid).round_() / grid


@dataclass(slots=True)
class _Totals:
    """One worker's sums over the micro-batches of a step."""

    loss: float = 0.0
    weight: float = 0.0
    samples: int = 0
    not_finite: list[int] = field(default_factory=list)  # indices of samples

    def add(self, micro_batch: MicroBatch, losses: Losses, grid: float | None) -> None:
        self.loss += float(rounded(losses.sums_B.sum(dtype=torch.float64), grid))
        self.weight += float(rounded(losses.weights_B.sum(dtype=torch.float64), grid))
        self.samples += len(micro_batch.samples)
        finite = torch.isfinite(losses.sums_B).tolist()
        pairs = zip(micro_batch.samples, finite, strict=True)
        self.not_finite += [index for index, good in pairs if not good]


class Engine(ABC):
    """The optimizer of a run, made when the network holds the weights to start from.

    Its `state_dict` has torch's own form, whatever the engine and the number of workers.
    """

    reads_together = False  # whether all workers must read the same images at once
    grid: float | None = None  # of sums that are equal for any number of workers
    is_at_last = False  # whether the micro-batch at hand is this worker's last of the step

    def __init__(
        self, task: Task, config: TrainConfig, workers: Workers, device: str, precision: str
    ) -> None:
        self.task, self.seed, self.workers = task, config.train.seed, workers
        self.device = torch.device(device)
        self.autocast_dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
        self.scale = LossScale() if precision == "fp16" else None
        self.parameters = [
            parameter for parameter in task.network.parameters() if parameter.requires_grad
        ]

    def take_step(
        self,
        micro_batches: Sequence[MicroBatch],
        batches: Sequence[Any],
        rate: float,
        notice: float = NOTHING,
    ) -> StepResult:
        """Take one optimizer step over all workers' micro-batches.

        Raises NotFiniteError on all workers together.
        """
        mine = _Totals()
        with self._accumulation():
            for micro_batch, batch in zip(micro_batches, batches, strict=True):
                self.is_at_last = micro_batch is micro_batches[-1]
                losses = self._accumulate(micro_batch, batch)
                if micro_batch.weight:
                    mine.add(micro_batch, losses, self.grid)
            bad = mine.not_finite
            statistics, (loss, weight, samples, all_bad, notice) = self._all_reduce(
                [mine.loss, mine.weight, float(mine.samples), float(len(bad)), notice]
            )
            if all_bad and not self.scale:
                self._stop_together("loss", micro_batches, bad)
            scale = self.scale.value if self.scale else 1.0
            self._normalise(None if all_bad else weight * scale)
        grad_norm = math.inf if all_bad else self._update(rate)
        finite = math.isfinite(grad_norm)  # the same on every worker: all have the same sums
        if not finite and (self.scale is None or self.scale.is_hopeless):
            indices = [index for each in micro_batches for index in each.samples]
            self._stop_together("gradient", micro_batches, indices)
        if self.scale:
            self.scale.learn(finite)
        if not finite:
            return self._forget_step(round(samples), notice)
        self.task.absorb(statistics)
        return StepResult(loss / weight, weight, round(samples), grad_norm, notice=notice)

    def weights(self) -> dict[str, Tensor]:
        """Return all that training changes, whole, on the CPU; every worker calls it."""
        return checkpoints.trained_state(self.task.network)

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return the optimizer's whole state in torch's form, on the CPU; every worker calls it."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the state that any engine's `state_dict` returned."""

    def _accumulation(self) -> AbstractContextManager[Any]:
        """Return the context around a step's micro-batches, the all-reduce and the mean."""
        return nullcontext()

    @abstractmethod
    def _accumulate(self, micro_batch: MicroBatch, batch: Any) -> Losses:
        """Add the micro-batch's gradient to the step's, and return its losses without their graph.

        At weight 0 the gradient is computed and not counted.
        """

    @abstractmethod
    def _all_reduce(self, scalars: list[float]) -> tuple[list[Tensor], list[float]]:
        """Return the task's statistics and the scalars, summed over the workers."""

    @abstractmethod
    def _normalise(self, weight: float | None) -> None:
        """Divide the sums of gradients by this weight; None: drop them."""

    @abstractmethod
    def _update(self, rate: float) -> float:
        """Clip and step, and return the gradient's norm before clipping.

        Where the norm is not finite no weight changes.
        """

    def _losses(self, micro_batch: MicroBatch, batch: Any) -> Losses:
        """Return a micro-batch's losses, every random number keyed by step and index."""
        torch.manual_seed(key_of(self.seed, micro_batch.step, micro_batch.index))
        with torch.autocast(
            self.device.type, self.autocast_dtype, enabled=self.autocast_dtype is not None
        ):
            return self.task.losses(batch, micro_batch.weight)

    def _total(self, sums_B: Tensor, micro_batch: MicroBatch) -> Tensor:
        """Return the scalar that the backward pass starts from."""
        return sums_B.sum() * micro_batch.weight * (self.scale.value if self.scale else 1.0)

    def _forget_step(self, samples: int, notice: float) -> StepResult:
        for sums in self.task.statistics():
            sums.zero_()
        return StepResult(0.0, 0.0, samples, 0.0, overflow=True, notice=notice)

    def _stop_together(
        self, what: str, micro_batches: Sequence[MicroBatch], mine: Sequence[int]
    ) -> NoReturn:
        """Raise the same NotFiniteError on every worker."""
        everyone = self.workers.gather(list(mine))
        ids = sorted({self.task.train_ids[index] for indices in everyone for index in indices})
        named = ", ".join(ids[:8]) + (" …" if len(ids) > 8 else "")
        raise NotFiniteError(
            f"step {micro_batches[0].step + 1}: the {what} is not finite; samples: {named}; "
            "no weight was changed by this step. "
            "Look at these samples, or lower optimizer.learning_rate"
        )


def optimizer_of(settings: OptimizerSettings, task: Task) -> torch.optim.Optimizer:
    """Return the optimizer that the settings name, for the task's network.

    Weight decay is on matrices and kernels alone; layers that give the classes may have their own.
    """
    common: dict[str, Any] = {"lr": settings.learning_rate, "betas": settings.betas}
    groups = _groups(settings, task)
    if settings.name in ("adamw", "adam"):
        kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
        return kind(groups, fused=True, **common)
    bitsandbytes = _bitsandbytes(settings.name)
    kinds = {
        "adamw_8bit": "AdamW8bit",
        "paged_adamw_8bit": "PagedAdamW8bit",
        "paged_adamw_32bit": "PagedAdamW32bit",
    }
    return getattr(bitsandbytes.optim, kinds[settings.name])(groups, **common)  # type: ignore[no-any-return]


def _groups(settings: OptimizerSettings, task: Task) -> list[dict[str, Any]]:
    apart = task.class_layers if settings.head_weight_decay is not None else ()
    named = [
        (name.partition(".")[0] in apart, parameter)
        for name, parameter in task.network.named_parameters()
        if parameter.requires_grad
    ]
    body = [p for is_head, p in named if p.ndim >= 2 and not is_head]
    head = [p for is_head, p in named if p.ndim >= 2 and is_head]
    groups: list[dict[str, Any]] = [
        {"params": body, "weight_decay": settings.weight_decay},
        {"params": head, "weight_decay": settings.head_weight_decay},
        {"params": [p for _, p in named if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def copied(value: Any) -> Any:
    """Return a deep copy of a state_dict on the CPU."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return {key: copied(inner) for key, inner in value.items()}
    return [copied(inner) for inner in value] if isinstance(value, list) else value


def _bitsandbytes(name: str) -> Any:
    try:
        import bitsandbytes
    except ImportError as problem:
        raise UserError(
            f"optimizer.name={name} needs the package bitsandbytes ({problem}); "
            "install it, or set adamw"
        ) from None
    return bitsandbytes

"""One optimizer step over all workers: what every engine shares, and the steps in which they differ.

An engine gathers gradients of micro-batches, lets them meet the other workers', and steps with their weighted mean, clipped.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from ocr.errors import UserError
from trainers.config import OptimizerSettings, TrainConfig
from trainers.families.task import Losses, Task
from trainers.loop import checkpoint as checkpoints
from trainers.loop.batches import Turn
from trainers.loop.keyed_random import key_of
from trainers.loop.workers import Workers

MOST_OVERFLOWS, STEPS_TO_GROW = 20, 2000


class NotFiniteError(UserError):
    """A loss, gradient or weight became infinite or not a number; the optimizer step was not taken."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """Of one optimizer step, over all workers: its mean loss, the weight of it, how many samples, the gradient's norm before clipping.

    `overflow`: the half-precision gradient was not finite and no weight was changed; the loss counts nothing then.
    """

    loss: float
    weight: float
    samples: int
    grad_norm: float
    overflow: bool = False


@dataclass(slots=True)
class LossScale:
    """What fp16 losses are multiplied by before the backward pass, so that small gradients are not lost (Micikevicius et al. 2018); plain numbers."""

    value: float = 2.0**16
    good_steps: int = 0
    overflows: int = 0  # in a row

    @property
    def is_hopeless(self) -> bool:
        """Whether one more overflow is too many."""
        return self.overflows + 1 >= MOST_OVERFLOWS

    def learn(self, finite: bool) -> None:
        """Half of it after an overflow, twice after 2,000 good steps."""
        self.overflows = 0 if finite else self.overflows + 1
        self.good_steps = self.good_steps + 1 if finite else 0
        if not finite:
            self.value /= 2
        elif self.good_steps == STEPS_TO_GROW:
            self.value, self.good_steps = self.value * 2, 0


class Engine(ABC):
    """Made when the network holds the weights to start from; `state_dict` is of one form, torch's own, whatever the engine and the number of workers."""

    reads_together = False  # whether a network can only be read with by all workers at once, each the same images

    def __init__(
        self, task: Task, config: TrainConfig, workers: Workers, device: str, precision: str
    ) -> None:
        self.task, self.seed, self.workers, self.device = (
            task,
            config.train.seed,
            workers,
            torch.device(device),
        )
        self.autocast_dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
        self.scale = LossScale() if precision == "fp16" else None
        self.parameters = [
            parameter for parameter in task.network.parameters() if parameter.requires_grad
        ]

    def take_step(self, turns: Sequence[Turn], batches: Sequence[Any], rate: float) -> StepResult:
        """One optimizer step over this worker's turns and every other worker's; NotFiniteError on all of them together."""
        loss_sum, weight, samples, bad = 0.0, 0.0, 0, list[int]()
        with self._one_meeting():
            for turn, batch in zip(turns, batches, strict=True):
                losses = self._gather(turn, batch)
                if turn.weight:
                    loss_sum, weight = (
                        loss_sum + float(losses.sums_B.sum(dtype=torch.float64)),
                        weight + float(losses.weights_B.sum(dtype=torch.float64)),
                    )
                    samples += len(turn.samples)
                    bad += [
                        index
                        for index, finite in zip(
                            turn.samples, torch.isfinite(losses.sums_B).tolist(), strict=True
                        )
                        if not finite
                    ]
            statistics, (loss_sum, weight, samples_met, bad_met) = self._meet(
                [loss_sum, weight, float(samples), float(len(bad))]
            )
            if bad_met and not self.scale:
                self._stop_together("loss", turns, bad)
            self._average(None if bad_met else weight * (self.scale.value if self.scale else 1.0))
        grad_norm = math.inf if bad_met else self._update(rate)
        finite = math.isfinite(grad_norm)  # the same on every worker: all have the same sums
        if not finite and (self.scale is None or self.scale.is_hopeless):
            self._stop_together(
                "gradient", turns, [index for turn in turns for index in turn.samples]
            )
        if self.scale:
            self.scale.learn(finite)
        if not finite:
            return self._forget_step(round(samples_met))
        self.task.absorb(statistics)
        return StepResult(loss_sum / weight, weight, round(samples_met), grad_norm)

    def weights(self) -> dict[str, Tensor]:
        """What training changes, whole, on the CPU; every worker calls it."""
        return checkpoints.trained_state(self.task.network)

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state, whole, in the form of torch's own optimizers, on the CPU; every worker calls it."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what some engine's `state_dict` gave."""

    def _one_meeting(self) -> AbstractContextManager[Any]:
        """Around the micro-batches of a step, the meeting and the mean."""
        return nullcontext()

    @abstractmethod
    def _gather(self, turn: Turn, batch: Any) -> Losses:
        """Losses of each sample, without their graph; their gradient is added to the step's, or computed and not counted at weight 0."""

    @abstractmethod
    def _meet(self, scalars: list[float]) -> tuple[list[Tensor], list[float]]:
        """The task's statistics and the scalars, summed over the workers."""

    @abstractmethod
    def _average(self, weight: float | None) -> None:
        """Turn the sums of gradients into the mean by this weight; None: let them go."""

    @abstractmethod
    def _update(self, rate: float) -> float:
        """Clip and step; the gradient's norm before clipping. Where that is not finite no weight changes."""

    def _losses(self, turn: Turn, batch: Any) -> Losses:
        """Of a micro-batch, every draw in it keyed by its place in the run."""
        torch.manual_seed(key_of(self.seed, turn.step, turn.index))
        with torch.autocast(
            self.device.type, self.autocast_dtype, enabled=self.autocast_dtype is not None
        ):
            return self.task.losses(batch, turn.weight)

    def _total(self, sums_B: Tensor, turn: Turn) -> Tensor:
        """What the backward pass starts from."""
        return sums_B.sum() * turn.weight * (self.scale.value if self.scale else 1.0)

    def _forget_step(self, samples: int) -> StepResult:
        for sums in self.task.statistics():
            sums.zero_()
        return StepResult(0.0, 0.0, samples, 0.0, overflow=True)

    def _stop_together(self, what: str, turns: Sequence[Turn], mine: Sequence[int]) -> NoReturn:
        """Raise on every worker, with the same message."""
        ids = sorted(
            {
                self.task.train_ids[index]
                for indices in self.workers.gather(list(mine))
                for index in indices
            }
        )
        named = ", ".join(ids[:8]) + (" …" if len(ids) > 8 else "")
        raise NotFiniteError(
            f"step {turns[0].step + 1}: the {what} is not finite; samples: {named}; no weight was changed by this step. "
            "Look at these samples, or lower optimizer.learning_rate"
        )


def optimizer_of(settings: OptimizerSettings, network: nn.Module) -> torch.optim.Optimizer:
    """The optimizer that the settings name; weight decay on matrices and kernels alone, another one on the layers that give the classes where that is asked for."""
    apart = getattr(network, "class_layers", ()) if settings.head_weight_decay is not None else ()
    named = [
        (name.partition(".")[0] in apart, parameter)
        for name, parameter in network.named_parameters()
        if parameter.requires_grad
    ]
    groups: list[dict[str, Any]] = [
        {
            "params": [p for head, p in named if p.ndim >= 2 and not head],
            "weight_decay": settings.weight_decay,
        },
        {
            "params": [p for head, p in named if p.ndim >= 2 and head],
            "weight_decay": settings.head_weight_decay,
        },
        {"params": [p for _, p in named if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    common: dict[str, Any] = {"lr": settings.learning_rate, "betas": settings.betas}
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


def copied(value: Any) -> Any:
    """A deep copy of a state_dict on the CPU."""
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
            f"optimizer.name={name} needs the package bitsandbytes ({problem}); install it, or take adamw"
        ) from None
    return bitsandbytes

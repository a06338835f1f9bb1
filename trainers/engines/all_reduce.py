"""Data parallelism with one all-reduce a step, of one flat buffer in a fixed order.

DistributedDataParallel rebuilds its buckets after the first step, so a restarted run would sum in another order. The sums are
taken in fp64, where adding fp32 gradients loses next to nothing: Adam would blow the last bit of an fp32 sum, which another
number of workers changes, up to 1e-4 of the weights in 20 steps.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from ocr.errors import UserError
from trainers.batches import Turn
from trainers.config import OptimizerSettings
from trainers.random import key_of
from trainers.task import Losses, Task
from trainers.workers import Workers

MOST_OVERFLOWS, STEPS_TO_GROW = 20, 2000
_SCALARS = 4  # loss, weight, samples, samples whose loss is not finite


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


class AllReduceEngine:
    """Backward passes, the all-reduce, the mean, clipping and the optimizer step."""

    def __init__(self, task: Task, settings: OptimizerSettings, seed: int, workers: Workers, device: str, precision: str) -> None:
        self.task, self.seed, self.workers, self.device = task, seed, workers, torch.device(device)
        self.autocast_dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
        self.scale = LossScale() if precision == "fp16" else None
        self.max_grad_norm = settings.max_grad_norm
        self.parameters = [parameter for parameter in task.network.parameters() if parameter.requires_grad]
        self.optimizer = _optimizer(settings, task.network)
        pieces = [sum(parameter.numel() for parameter in self.parameters), *(sums.numel() for sums in task.statistics()), _SCALARS]
        self._flat = torch.zeros(sum(pieces), dtype=torch.float64, device=self.device)  # all that crosses workers: gradients, statistics, scalars
        self._gradients, *self._statistics, self._scalars = torch.split(self._flat, pieces)

    def take_step(self, turns: Sequence[Turn], batches: Sequence[Any], rate: float) -> StepResult:
        """One optimizer step over this worker's turns and every other worker's; NotFiniteError on all of them together."""
        self._gradients.zero_()
        loss_sum, weight, samples, bad = 0.0, 0.0, 0, list[int]()
        for turn, batch in zip(turns, batches, strict=True):
            losses = self._backward(turn, batch)
            if turn.weight:
                loss_sum, weight = loss_sum + float(losses.sums_B.sum(dtype=torch.float64)), weight + float(losses.weights_B.sum(dtype=torch.float64))
                samples += len(turn.samples)
                bad += [index for index, finite in zip(turn.samples, torch.isfinite(losses.sums_B).tolist(), strict=True) if not finite]
        gradients, statistics, (loss_sum, weight, samples_met, bad_met) = self._meet([loss_sum, weight, float(samples), float(len(bad))])
        if bad_met and not self.scale:
            self._stop_together("loss", turns, bad)
        scaled = weight * (self.scale.value if self.scale else 1.0)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            # with the parameter's own strides: torch's fused optimizers walk through memory and take equal layouts for granted
            parameter.grad = torch.empty_like(parameter).copy_((gradient / scaled).view_as(parameter))
        grad_norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm))
        finite = math.isfinite(grad_norm) and not bad_met  # the same on every worker: all have the same sums
        if not finite and (self.scale is None or self.scale.is_hopeless):
            self._stop_together("gradient", turns, [index for turn in turns for index in turn.samples])
        if self.scale:
            self.scale.learn(finite)
        if not finite:
            return self._forget_step(round(samples_met))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.task.absorb(statistics)
        return StepResult(loss_sum / weight, weight, round(samples_met), grad_norm)

    def _forget_step(self, samples: int) -> StepResult:
        for sums in self.task.statistics():
            sums.zero_()
        return StepResult(0.0, 0.0, samples, 0.0, overflow=True)

    def _backward(self, turn: Turn, batch: Any) -> Losses:
        """Losses of each sample; their gradient is added to the step's, or computed and not counted at weight 0."""
        self.optimizer.zero_grad(set_to_none=True)
        torch.manual_seed(key_of(self.seed, turn.step, turn.index))
        with torch.autocast(self.device.type, self.autocast_dtype, enabled=self.autocast_dtype is not None):
            losses = self.task.losses(batch, turn.weight)
        total = losses.sums_B.sum() * turn.weight * (self.scale.value if self.scale else 1.0)
        total.backward()  # type: ignore[no-untyped-call]
        for gathered, parameter in zip(self._split(self._gradients), self.parameters, strict=True):
            if parameter.grad is not None:
                gathered += parameter.grad.reshape(-1)
        return Losses(losses.sums_B.detach(), losses.weights_B.detach())

    def _meet(self, scalars: list[float]) -> tuple[list[Tensor], list[Tensor], list[float]]:
        """Sums of gradients, statistics and scalars over the workers, by one all-reduce of one flat fp64 buffer."""
        for place, sums in zip(self._statistics, self.task.statistics(), strict=True):
            place.copy_(sums.reshape(-1))
        self._scalars.copy_(torch.tensor(scalars, dtype=torch.float64))
        self.workers.sum(self._flat)
        return self._split(self._gradients), self._statistics, self._scalars.tolist()

    def _split(self, flat: Tensor) -> list[Tensor]:
        """The flat buffer as one piece for each parameter."""
        return list(torch.split(flat, [parameter.numel() for parameter in self.parameters]))

    def _stop_together(self, what: str, turns: Sequence[Turn], mine: Sequence[int]) -> NoReturn:
        """Raise on every worker, with the same message."""
        ids = sorted({self.task.train_ids[index] for indices in self.workers.gather(list(mine)) for index in indices})
        named = ", ".join(ids[:8]) + (" …" if len(ids) > 8 else "")
        raise NotFiniteError(
            f"step {turns[0].step + 1}: the {what} is not finite; samples: {named}; no weight was changed by this step. "
            "Look at these samples, or lower optimizer.learning_rate"
        )


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


def _optimizer(settings: OptimizerSettings, network: nn.Module) -> torch.optim.Optimizer:
    """The optimizer that the settings name; weight decay on matrices and kernels alone, another one on the layers that give the classes where that is asked for."""
    apart = getattr(network, "class_layers", ()) if settings.head_weight_decay is not None else ()
    named = [(name.partition(".")[0] in apart, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for head, p in named if p.ndim >= 2 and not head], "weight_decay": settings.weight_decay},
        {"params": [p for head, p in named if p.ndim >= 2 and head], "weight_decay": settings.head_weight_decay},
        {"params": [p for _, p in named if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    common: dict[str, Any] = {"lr": settings.learning_rate, "betas": settings.betas}
    if settings.name in ("adamw", "adam"):
        kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
        return kind(groups, fused=True, **common)
    bitsandbytes = _bitsandbytes(settings.name)
    kinds = {"adamw_8bit": "AdamW8bit", "paged_adamw_8bit": "PagedAdamW8bit", "paged_adamw_32bit": "PagedAdamW32bit"}
    return getattr(bitsandbytes.optim, kinds[settings.name])(groups, **common)  # type: ignore[no-any-return]


def _bitsandbytes(name: str) -> Any:
    try:
        import bitsandbytes
    except ImportError as problem:
        raise UserError(f"optimizer.name={name} needs the package bitsandbytes ({problem}); install it, or take adamw") from None
    return bitsandbytes

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
from trainers.task import Task
from trainers.workers import Workers


class NotFiniteError(UserError):
    """A loss, gradient or weight became infinite or not a number; the optimizer step was not taken."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """Of one optimizer step, over all workers: the mean loss of its samples, their number, the gradient's norm before clipping."""

    loss: float
    samples: int
    grad_norm: float


class AllReduceEngine:
    """Backward passes, the all-reduce, the mean, clipping and the optimizer step."""

    def __init__(self, task: Task, settings: OptimizerSettings, seed: int, workers: Workers, device: str, bf16: bool) -> None:
        self.task, self.seed, self.workers, self.device, self.bf16 = task, seed, workers, torch.device(device), bf16
        self.max_grad_norm = settings.max_grad_norm
        self.parameters = [parameter for parameter in task.network.parameters() if parameter.requires_grad]
        self.optimizer = _optimizer(settings, task.network)
        self._gradients = torch.zeros(sum(parameter.numel() for parameter in self.parameters), dtype=torch.float64, device=self.device)

    def take_step(self, turns: Sequence[Turn], batches: Sequence[Any], rate: float) -> StepResult:
        """One optimizer step over this worker's turns and every other worker's; NotFiniteError on all of them together."""
        self._gradients.zero_()
        loss_sum, samples, bad = 0.0, 0, []
        for turn, batch in zip(turns, batches, strict=True):
            losses_B = self._backward(turn, batch)
            if turn.weight:
                loss_sum, samples = loss_sum + float(losses_B.sum(dtype=torch.float64)), samples + len(losses_B)
                bad += [index for index, finite in zip(turn.samples, torch.isfinite(losses_B).tolist(), strict=True) if not finite]
        gradients, statistics, (loss_sum, samples_met, bad_met) = self._meet([loss_sum, float(samples), float(len(bad))])
        if bad_met:
            self._stop_together("loss", turns, bad)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            # with the parameter's own strides: torch's fused optimizers walk through memory and take equal layouts for granted
            parameter.grad = torch.empty_like(parameter).copy_((gradient / samples_met).view_as(parameter))
        grad_norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm))
        if not math.isfinite(grad_norm):  # the same on every worker: all have the same sum
            self._stop_together("gradient", turns, [index for turn in turns for index in turn.samples])
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.task.absorb(statistics)
        return StepResult(loss_sum / samples_met, round(samples_met), grad_norm)

    def _backward(self, turn: Turn, batch: Any) -> Tensor:
        """Loss of each sample, [B]; its gradient is added to the step's, or computed and not counted at weight 0."""
        self.optimizer.zero_grad(set_to_none=True)
        torch.manual_seed(key_of(self.seed, turn.step, turn.index))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            losses_B = self.task.losses(batch, turn.weight)
        (losses_B.sum() * turn.weight).backward()  # type: ignore[no-untyped-call]
        for total, parameter in zip(self._split(self._gradients), self.parameters, strict=True):
            if parameter.grad is not None:
                total += parameter.grad.reshape(-1)
        return losses_B.detach()

    def _meet(self, scalars: list[float]) -> tuple[list[Tensor], list[Tensor], list[float]]:
        """Sums of gradients, statistics and scalars over the workers, by one all-reduce of one flat fp64 buffer."""
        pieces = [self._gradients, *self.task.statistics(), torch.tensor(scalars, dtype=torch.float64, device=self.device)]
        flat = self.workers.sum(torch.cat([piece.double() for piece in pieces]))
        gradients, *statistics, tail = torch.split(flat, [piece.numel() for piece in pieces])
        return self._split(gradients), statistics, tail.tolist()

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


def _optimizer(settings: OptimizerSettings, network: nn.Module) -> torch.optim.Optimizer:
    """AdamW or Adam; weight decay on matrices and kernels alone, another one on the layers that give the classes where that is asked for."""
    apart = getattr(network, "class_layers", ()) if settings.head_weight_decay is not None else ()
    named = [(name.partition(".")[0] in apart, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for head, p in named if p.ndim >= 2 and not head], "weight_decay": settings.weight_decay},
        {"params": [p for head, p in named if p.ndim >= 2 and head], "weight_decay": settings.head_weight_decay},
        {"params": [p for _, p in named if p.ndim < 2], "weight_decay": 0.0},
    ]
    kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
    return kind([group for group in groups if group["params"]], lr=settings.learning_rate, betas=settings.betas, fused=True)

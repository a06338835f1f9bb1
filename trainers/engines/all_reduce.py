"""Data parallelism with one all-reduce a step, of one flat buffer in a fixed order.

DistributedDataParallel rebuilds its buckets after the first step, so a restarted run would sum in another order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ocr.errors import UserError
from trainers.batches import Turn
from trainers.config import OptimizerSettings
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

    def __init__(self, task: Task, settings: OptimizerSettings, workers: Workers, device: str, bf16: bool) -> None:
        self.task, self.workers, self.device, self.bf16 = task, workers, torch.device(device), bf16
        self.max_grad_norm = settings.max_grad_norm
        self.parameters = [parameter for parameter in task.network.parameters() if parameter.requires_grad]
        self.optimizer = _optimizer(settings, self.parameters)

    def take_step(self, turns: Sequence[Turn], batches: Sequence[Any], rate: float) -> StepResult:
        """One optimizer step over this worker's turns and every other worker's; NotFiniteError on all of them together."""
        self.optimizer.zero_grad(set_to_none=True)
        loss_sum, samples, bad = 0.0, 0, []
        for turn, batch in zip(turns, batches, strict=True):
            losses_B = self._backward(turn, batch)
            loss_sum += turn.weight * float(losses_B.sum(dtype=torch.float64))
            samples += round(turn.weight) * len(losses_B)
            bad += [self.task.train_ids[i] for i, ok in zip(turn.samples, torch.isfinite(losses_B).tolist(), strict=True) if not ok]
        gradients, statistics, (loss_sum, weight, bad_count) = self._meet([loss_sum, float(samples), float(len(bad))])
        self._require_finite(turns, bad, bad_count)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient.view_as(parameter) / weight
        grad_norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm))
        self._require_finite(turns, [] if _is_finite(grad_norm) else [self.task.train_ids[i] for t in turns for i in t.samples], int(not _is_finite(grad_norm)))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.task.absorb(statistics)
        return StepResult(loss_sum / weight, round(weight), grad_norm)

    def _backward(self, turn: Turn, batch: Any) -> Tensor:
        self.task.statistics(turn.weight)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            losses_B: Tensor = self.task.losses(batch)
        (losses_B.sum() * turn.weight).backward()  # type: ignore[no-untyped-call]
        return losses_B.detach()

    def _meet(self, scalars: list[float]) -> tuple[list[Tensor], list[Tensor], list[float]]:
        """Sum gradients, statistics and scalars over the workers: one flat fp32 buffer, scalars beside it in fp64 precision halves."""
        statistics = self.task.statistics()
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        pieces = [*gradients, *statistics]
        tail = torch.tensor(scalars, dtype=torch.float32, device=self.device)
        flat = torch.cat([piece.reshape(-1).float() for piece in pieces] + [tail])
        parts = self.workers.sum(flat).split([piece.numel() for piece in [*pieces, tail]])
        return list(parts[: len(gradients)]), list(parts[len(gradients) : -1]), parts[-1].tolist()

    def _require_finite(self, turns: Sequence[Turn], bad: list[str], bad_count: float) -> None:
        if not bad_count:
            return
        named = sorted({name for names in self.workers.gather(bad) for name in names})
        what = "loss" if len(named) < sum(len(turn.samples) for turn in turns) else "loss or gradient"
        raise NotFiniteError(
            f"step {turns[0].step + 1}: the {what} is not finite for {len(named)} samples: {', '.join(named[:8])}{' …' if len(named) > 8 else ''}; "
            "no weight was changed by it. Look at these samples, or lower optimizer.learning_rate"
        )


def _is_finite(value: float) -> bool:
    return value - value == 0.0


def _optimizer(settings: OptimizerSettings, parameters: Sequence[Tensor]) -> torch.optim.Optimizer:
    """AdamW or Adam; weight decay on matrices and kernels alone."""
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
    return kind([group for group in groups if group["params"]], lr=settings.learning_rate, betas=settings.betas, fused=True)

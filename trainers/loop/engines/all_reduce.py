"""Data parallelism with one all-reduce a step, of one flat buffer in a fixed order.

DistributedDataParallel rebuilds its buckets after the first step, so a restarted run would sum in another order. The sums are
taken in fp64, where adding fp32 gradients loses next to nothing: Adam would blow the last bit of an fp32 sum, which another
number of workers changes, up to 1e-4 of the weights in 20 steps.
"""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from trainers.config import TrainConfig
from trainers.families.task import Losses, Task
from trainers.loop.batches import Turn
from trainers.loop.engines.engine import Engine, copied, optimizer_of
from trainers.loop.workers import Workers

_SCALARS = 4  # loss, weight, samples, samples whose loss is not finite


class AllReduceEngine(Engine):
    """Every worker holds the whole network and the whole optimizer."""

    def __init__(
        self, task: Task, config: TrainConfig, workers: Workers, device: str, precision: str
    ) -> None:
        super().__init__(task, config, workers, device, precision)
        self.optimizer, self.max_grad_norm = (
            optimizer_of(config.optimizer, task.network),
            config.optimizer.max_grad_norm,
        )
        pieces = [
            sum(parameter.numel() for parameter in self.parameters),
            *(sums.numel() for sums in task.statistics()),
            _SCALARS,
        ]
        self._flat = torch.zeros(
            sum(pieces), dtype=torch.float64, device=self.device
        )  # all that crosses workers: gradients, statistics, scalars
        self._gradients, *self._statistics, self._scalars = torch.split(self._flat, pieces)

    def state_dict(self) -> dict[str, Any]:
        """See Engine."""
        return dict(copied(self.optimizer.state_dict()))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See Engine."""
        self.optimizer.load_state_dict(dict(state))
        for parameter, held in self.optimizer.state.items():
            for key, value in held.items():
                if (
                    isinstance(value, Tensor)
                    and value.shape == parameter.shape
                    and value.stride() != parameter.stride()
                ):  # of an engine that holds them otherwise; see _average
                    held[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)

    def _one_meeting(self) -> AbstractContextManager[Any]:
        self._gradients.zero_()
        return super()._one_meeting()

    def _gather(self, turn: Turn, batch: Any) -> Losses:
        self.optimizer.zero_grad(set_to_none=True)
        losses = self._losses(turn, batch)
        self._total(losses.sums_B, turn).backward()  # type: ignore[no-untyped-call]
        for gathered, parameter in zip(self._split(self._gradients), self.parameters, strict=True):
            if parameter.grad is not None:
                gathered += parameter.grad.reshape(-1)
        return Losses(losses.sums_B.detach(), losses.weights_B.detach())

    def _meet(self, scalars: list[float]) -> tuple[list[Tensor], list[float]]:
        """With the sums of gradients, by one all-reduce of one flat fp64 buffer."""
        for place, sums in zip(self._statistics, self.task.statistics(), strict=True):
            place.copy_(sums.reshape(-1))
        self._scalars.copy_(torch.tensor(scalars, dtype=torch.float64))
        self.workers.sum(self._flat)
        return self._statistics, self._scalars.tolist()

    def _average(self, weight: float | None) -> None:
        if weight is None:
            return
        for parameter, gradient in zip(self.parameters, self._split(self._gradients), strict=True):
            # with the parameter's own strides: torch's fused optimizers walk through memory and take equal layouts for granted
            parameter.grad = torch.empty_like(parameter).copy_(
                (gradient / weight).view_as(parameter)
            )

    def _update(self, rate: float) -> float:
        grad_norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm))
        if math.isfinite(grad_norm):
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
        return grad_norm

    def _split(self, flat: Tensor) -> list[Tensor]:
        """The flat buffer as one piece for each parameter."""
        return list(torch.split(flat, [parameter.numel() for parameter in self.parameters]))

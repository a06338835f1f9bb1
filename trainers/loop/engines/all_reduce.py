"""Data parallelism by sums of one flat buffer, whose buckets and their order never change.

DistributedDataParallel rebuilds its buckets after the first step, so a restarted run would sum in
another order. Those here are summed behind the backward pass of a step's last micro-batch.

`reduce: fp64`: adding fp32 gradients loses next to nothing. Another number of workers changes the
last bit of an fp32 sum; Adam would magnify that to 1e-4 of the weights within 20 steps.
`reduce: fp32`: the gradients have a buffer of their own, of half the bytes, and the rest stays in
fp64: equal bits for a given number of workers, and for no other.
`reduce: exact`: what each micro-batch adds is rounded to a grid of 2^-32 first. fp64 adds such
numbers without rounding up to 2 million, in any order, so the bits are equal for any number of
workers.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from trainers.config import TrainConfig
from trainers.families.task import Losses, MicroBatch, Task
from trainers.loop.engines.buckets import Buckets
from trainers.loop.engines.engine import Engine, copied, optimizer_of, rounded
from trainers.loop.engines.zero_8bit import require_whole
from trainers.loop.workers import Workers

_GRID = 2.0**32
_SCALARS = 5  # loss, weight, samples, samples whose loss is not finite, notice


class AllReduceEngine(Engine):
    """Every worker holds the whole network and the whole optimizer."""

    def __init__(
        self, task: Task, config: TrainConfig, workers: Workers, device: str, precision: str
    ) -> None:
        super().__init__(task, config, workers, device, precision)
        self.optimizer = optimizer_of(config.optimizer, task)
        self.max_grad_norm = config.optimizer.max_grad_norm
        self.grid = _GRID if config.reduce == "exact" else None
        count = sum(parameter.numel() for parameter in self.parameters)
        others = [*(sums.numel() for sums in task.statistics()), _SCALARS]
        # all that crosses workers: statistics, scalars, gradients
        if config.reduce != "fp32":
            flat = self._zeros(sum(others) + count, torch.float64)
            self._flats = [flat]
            *rest, self._gradients = torch.split(flat, [*others, count])
        else:
            self._gradients = self._zeros(count, torch.float32)
            exact = self._zeros(sum(others), torch.float64)
            self._flats = [self._gradients, exact]
            rest = list(torch.split(exact, others))
        *self._statistics, self._scalars = rest
        self._buckets = Buckets(
            self._flats[0], [parameter.numel() for parameter in self.parameters], workers
        )

    def state_dict(self) -> dict[str, Any]:
        """Return torch's own state, copied to the CPU."""
        return dict(copied(self.optimizer.state_dict()))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the state, with strides as `_normalise` makes those of gradients."""
        require_whole(state)
        self.optimizer.load_state_dict(dict(state))
        for parameter, held in self.optimizer.state.items():
            for key, value in held.items():
                if not isinstance(value, Tensor) or value.shape != parameter.shape:
                    continue
                if value.stride() != parameter.stride():  # another engine wrote it
                    held[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)

    @contextmanager
    def _accumulation(self) -> Iterator[None]:
        for flat in self._flats:
            flat.zero_()
        with ExitStack() as hooks:
            totals = self._split(self._gradients)
            for index, parameter in enumerate(self.parameters):
                add = self._adds(index, totals[index])
                hook = parameter.register_post_accumulate_grad_hook(add)  # type: ignore[no-untyped-call]
                hooks.callback(hook.remove)
            yield

    def _adds(self, index: int, total: Tensor) -> Callable[[Tensor], None]:
        """Return what moves a parameter's gradient into its part of the buffer."""

        def add(parameter: Tensor) -> None:
            assert parameter.grad is not None
            scale = self.scale.value if self.scale else 1.0
            total.add_(self._rounded(parameter.grad.reshape(-1), scale))
            parameter.grad = None
            if self.is_at_last:
                self._buckets.filled(index)

        return add

    def _accumulate(self, micro_batch: MicroBatch, batch: Any) -> Losses:
        self.optimizer.zero_grad(set_to_none=True)
        losses = self._losses(micro_batch, batch)
        self._total(losses.sums_B, micro_batch).backward()  # type: ignore[no-untyped-call]
        if self.grid:
            self._add_statistics()
        return Losses(losses.sums_B.detach(), losses.weights_B.detach())

    def _rounded(self, gradient: Tensor, scale: float) -> Tensor:
        return gradient if self.grid is None else rounded(gradient.double(), self.grid / scale)

    def _add_statistics(self) -> None:
        """Move what a micro-batch has added to the statistics into the flat buffer, rounded."""
        for part, sums in zip(self._statistics, self.task.statistics(), strict=True):
            part += rounded(sums.reshape(-1).double(), self.grid)
            sums.zero_()

    def _all_reduce(self, scalars: list[float]) -> tuple[list[Tensor], list[float]]:
        """Sum gradients, statistics and scalars, which are in one flat buffer; in fp32 in two."""
        if self.grid is None:
            for part, sums in zip(self._statistics, self.task.statistics(), strict=True):
                part.copy_(sums.reshape(-1))
        self._scalars.copy_(torch.tensor(scalars, dtype=torch.float64))
        self._buckets.finish()
        for flat in self._flats[1:]:
            self.workers.sum(flat)
        return self._statistics, self._scalars.tolist()

    def _normalise(self, weight: float | None) -> None:
        if weight is None:
            return
        for parameter, gradient in zip(self.parameters, self._split(self._gradients), strict=True):
            # with the parameter's strides: torch's fused optimizers expect equal memory layouts
            mean = (gradient / weight).view_as(parameter)
            parameter.grad = torch.empty_like(parameter).copy_(mean)

    def _update(self, rate: float) -> float:
        grad_norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm))
        if math.isfinite(grad_norm):
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
        return grad_norm

    def _zeros(self, count: int, dtype: torch.dtype) -> Tensor:
        return torch.zeros(count, dtype=dtype, device=self.device)

    def _split(self, flat: Tensor) -> list[Tensor]:
        """Return the parts of the flat buffer, one for each parameter."""
        return list(torch.split(flat, [parameter.numel() for parameter in self.parameters]))

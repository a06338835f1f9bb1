"""What every trainer of benchmarks/ctc.py is measured with.

It runs in each one's environment and needs torch alone.
"""

import time
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

WARM_UP_STEPS = 3


@dataclass(frozen=True, slots=True)
class Request:
    """What to measure on the images x.png with their texts x.gt.txt in `data`/train and
    `data`/validation.

    `options` are the trainer's own; `judged` images of the validation split are read, those that
    come first by name; null: all.
    """

    data: str
    output: str
    cpu_seconds: float
    judged: int | None
    seed: int
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """Samples per CPU second, the CPU seconds that this took, what was read, and, where it was
    training, what of.
    """

    rate: float
    cpu_seconds: float
    readings: list[str]
    parameters: int = 0
    input: str = ""
    batch: float = 0.0


class Enough(Exception):
    """The CPU seconds that were allowed are used."""


class Meter:
    """Counts samples and this process's CPU seconds, all its threads together, after every
    optimizer step; raises Enough there at the limit.
    """

    def __init__(self, cpu_seconds: float) -> None:
        self._limit = cpu_seconds
        self._samples = self._pixel_columns = 0
        self._marks: list[tuple[float, int]] = []

    def watch(self, network: nn.Module) -> None:
        """From here on the seconds count.

        The network's first argument is its images, [B, C, H, W].
        """
        self._network = network
        network.register_forward_pre_hook(self._before_forward)
        self._hook = register_optimizer_step_post_hook(self._after_step)
        self._began = time.process_time()

    @property
    def share(self) -> float:
        """Of the allowed seconds that are used, up to 1."""
        return min(1.0, (time.process_time() - self._began) / self._limit)

    @property
    def rate(self) -> float:
        """Samples per CPU second after the first steps."""
        (began, before), (ended, after) = self._marks[WARM_UP_STEPS - 1], self._marks[-1]
        return (after - before) / (ended - began)

    def result(self, readings: list[str]) -> Result:
        """The figures of the steps so far."""
        parameters = sum(parameter.numel() for parameter in self._network.parameters())
        pixels = f"{self._channels}×{self._height}×{self._pixel_columns / self._samples:.0f}"
        return Result(
            self.rate,
            self._marks[-1][0] - self._began,
            readings,
            parameters,
            pixels,
            self._samples / len(self._marks),
        )

    def _before_forward(self, network: nn.Module, arguments: tuple[Any, ...]) -> None:
        if network.training:
            batch, self._channels, self._height, width = arguments[0].shape
            self._samples += batch
            self._pixel_columns += batch * width

    def _after_step(self, *_: Any) -> None:
        self._marks.append((time.process_time(), self._samples))
        if self._marks[-1][0] - self._began >= self._limit and len(self._marks) > WARM_UP_STEPS:
            self._hook.remove()
            raise Enough

"""What every trainer of benchmarks/vlm.py starts from and is measured with."""

import ctypes
import gc
import os
import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meter import WARM_UP_STEPS, Enough, Request
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from ocr.settings import load_settings
from trainers.config import TrainConfig
from trainers.families.vlm.task import VlmBatch, VlmTask
from trainers.loop.batches import micro_batches_of
from trainers.loop.run_state import plan_of
from trainers.runs.job import Data

AFTER_STEPS = (
    8  # planned beyond those that are measured, so that batches are made ahead to the last
)


@dataclass(frozen=True, slots=True)
class Trained:
    """What a trainer took after its warm-up; the peak is of the resident set, above what it was
    with the weights and the adapter in it.

    `losses` are of all steps, means over the answer tokens; `tokens` and `answer_tokens` are those
    of an average sample, padding apart.
    """

    rate: float
    cpu_seconds: float
    peak_bytes: int
    losses: list[float]
    parameters: int
    trained_parameters: int
    tokens: float
    answer_tokens: float


class Bench:
    """Ours as everyone gets it.

    The base, a fresh adapter that the seed draws, and the batches that our plan makes.
    """

    def __init__(self, request: Request) -> None:
        self.steps: int = request.options["steps"]
        length = f"train.max_steps={self.steps + AFTER_STEPS}"
        self.config = load_settings(
            TrainConfig,
            Path(request.options["config"]),
            [*request.options["overrides"], f"storage_path={request.output}", length],
        )
        self.data = Data.open(self.config)
        task = self.data.task(self.config, "cpu", "fp32")
        assert isinstance(task, VlmTask)
        self.task, self.plan = task, plan_of(self.config, task.widths)

    def batch(self, step: int) -> VlmBatch:
        """Of a step, decoded, scaled and collated now: it is one micro-batch."""
        (turn,) = micro_batches_of(self.plan, step, 0, 1)
        return self.task.batch(turn, self.plan.epoch_of(step))

    def sizes(self, step: int) -> tuple[int, int, int]:
        """Samples, tokens and answer tokens of a step."""
        (micro_batch,) = self.plan.step(step)
        texts = [self.data.train.texts[self.data.usable.train[index]] for index in micro_batch]
        return (
            len(micro_batch),
            sum(self.task.widths[index] for index in micro_batch),
            sum(len(self.task.fitting.answer(text)) for text in texts),
        )

    def seen(self, ids_BT: Tensor) -> Tensor:
        """Which tokens are no padding, [B, T]; padding is no token of a text."""
        return ids_BT != self.task.fitting.prompt.padding_token


class Watch:
    """From its making on memory counts; notes this process's CPU seconds, all threads together,
    after every optimizer step, and raises Enough after the last.

    It stops its own process before training and after every step, until another one lets it go on,
    so that trainers can take turns.
    """

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._marks: list[float] = []
        for tensor in bench.task.network.state_dict().values():
            tensor.sum()  # weights are mapped from their file: a page counts once it was read
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        self._weights = _memory("VmRSS")
        self._hook = register_optimizer_step_post_hook(self._after_step)
        _let_others()

    def result(self, losses: list[float]) -> Trained:
        """The figures of the steps after the warm-up."""
        peak = _memory("VmHWM") - self._weights
        sizes = [self._bench.sizes(step) for step in range(WARM_UP_STEPS, self._bench.steps)]
        samples, tokens, answer_tokens = (sum(column) for column in zip(*sizes, strict=True))
        seconds = self._marks[-1] - self._marks[WARM_UP_STEPS - 1]
        counts = [
            (parameter.numel(), parameter.requires_grad)
            for parameter in self._bench.task.network.parameters()
        ]
        parameters, trained = (
            sum(count for count, _ in counts),
            sum(count for count, is_trained in counts if is_trained),
        )
        return Trained(
            samples / seconds,
            seconds,
            peak,
            losses,
            parameters,
            trained,
            tokens / samples,
            answer_tokens / samples,
        )

    def _after_step(self, *_: Any) -> None:
        self._marks.append(time.process_time())
        if len(self._marks) == self._bench.steps:
            self._hook.remove()
            raise Enough
        _let_others()


def _let_others() -> None:
    """Wait for SIGCONT."""
    os.kill(os.getpid(), signal.SIGSTOP)


def _memory(name: str) -> int:
    """Bytes, from the kernel's account of this process."""
    found = re.search(rf"{name}:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert found, name
    return int(found[1]) * 1024

"""Which samples make which step: functions of seed, data and batch sizes, never of the workers."""

import queue
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ocr.keyed import generator
from trainers.families.task import MicroBatch

SHUFFLE_WINDOW_BATCHES = 4  # batches of similar widths are cut from random windows of so many

BatchT = TypeVar("BatchT")
StepIndices = tuple[tuple[int, ...], ...]  # sample indices of each micro-batch of a step


@dataclass(frozen=True, eq=False)
class Plan:
    """The order of a run's samples: `step(n)` gives the micro-batches of step n, from 0.

    It takes 8 bytes a sample, 12 where two epochs meet: `python benchmarks/order.py`.
    """

    widths: NDArray[np.int32]
    global_batch_size: int
    micro_batch_size: int
    seed: int
    replay_pool: int = 0  # number of replay samples, at the end of the list
    replay_per_epoch: int = 0  # number of replay samples that each epoch uses

    @property
    def samples_per_epoch(self) -> int:
        """The number of samples in one epoch."""
        return len(self.widths) - self.replay_pool + self.replay_per_epoch

    @property
    def steps_per_epoch(self) -> int:
        """The number of optimizer steps in one epoch; the last may be smaller, never dropped."""
        return -(-self.samples_per_epoch // self.global_batch_size)

    def members(self, epoch: int) -> NDArray[np.int32]:
        """Return the samples of an epoch, not yet in order."""
        always = len(self.widths) - self.replay_pool
        numbers = np.arange(len(self.widths), dtype=np.int32)
        if not self.replay_pool:
            return numbers
        order = generator(self.seed, "replay", epoch).permutation(numbers[always:])
        return np.concatenate([numbers[:always], order[: self.replay_per_epoch]])

    def epoch_of(self, step: int) -> int:
        """Return the epoch that the step belongs to, from 0."""
        return step // self.steps_per_epoch

    def step(self, step: int) -> StepIndices:
        """Return the micro-batches of the step, each a tuple of training sample indices."""
        shuffled, batches = _epoch(self, self.epoch_of(step))
        size, window_size = self.global_batch_size, self.global_batch_size * SHUFFLE_WINDOW_BATCHES
        window, place = divmod(int(batches[step % self.steps_per_epoch]), SHUFFLE_WINDOW_BATCHES)
        members = shuffled[window * window_size :][:window_size]
        by_width = members[np.argsort(self.widths[members], kind="stable")]
        return _cut(by_width[place * size : (place + 1) * size].tolist(), self.micro_batch_size)


@lru_cache(maxsize=2)
def _epoch(plan: Plan, epoch: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the samples of an epoch, shuffled, and the order of the batches that are cut of them.

    A window of some batches is sorted by width before it is cut, so samples of a batch are alike.
    A short batch ends the epoch.
    """
    random = generator(plan.seed, "order", epoch)
    shuffled = random.permutation(plan.members(epoch))
    batches = np.arange(plan.steps_per_epoch, dtype=np.int32)
    random.shuffle(batches)
    if len(shuffled) % plan.global_batch_size:
        short = batches == len(batches) - 1
        batches = np.concatenate([batches[~short], batches[short]])
    return shuffled, batches


def _cut(batch: list[int], size: int) -> StepIndices:
    return tuple(tuple(batch[start : start + size]) for start in range(0, len(batch), size))


def micro_batches_of(plan: Plan, step: int, rank: int, world: int) -> list[MicroBatch]:
    """Return micro-batches rank, rank + world, … of the step.

    Every worker gets the same number; a missing one is a repeat of weight 0.
    """
    indices = plan.step(step)
    rounds, last = -(-len(indices) // world), len(indices) - 1
    return [
        MicroBatch(step, min(i, last), indices[min(i, last)], float(i <= last))
        for i in range(rank, rank + rounds * world, world)
    ]


# the CTC network's training thread stood still for 8 % of its time at 5 ms, for 5 % at this
_SWITCH_S = 0.0005


class Prefetcher(Generic[BatchT]):
    """Makes the batches of coming steps in a thread, so that the training thread rarely waits.

    Until `close`, a thread that wants Python's interpreter lock gets it after 0.5 ms, not 5.
    """

    def __init__(
        self, steps: Sequence[int] | range, make: Callable[[int], BatchT], ahead: int = 3
    ) -> None:
        self._interval = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_S)
        self._queue: queue.Queue[Any] = queue.Queue(ahead)
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._work, args=(steps, make), name="lipi-batches", daemon=True
        )
        self._thread.start()

    def __iter__(self) -> Iterator[BatchT]:
        while True:
            item, problem = self._queue.get()
            if problem is not None:
                raise problem
            if item is None:
                return
            yield item

    def close(self) -> None:
        """Stop making batches and wait for the thread."""
        self._stopped.set()
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.05)
            except queue.Empty:
                continue
        sys.setswitchinterval(self._interval)

    def _work(self, steps: Sequence[int] | range, make: Callable[[int], BatchT]) -> None:
        try:
            for step in steps:
                if self._stopped.is_set():
                    return
                self._put((make(step), None))
            self._put((None, None))
        except BaseException as problem:  # noqa: BLE001  (raised by the training thread)
            self._put((None, problem))

    def _put(self, item: Any) -> None:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

"""Which samples make which step: pure functions of the seed, the data and the batch sizes, never of the number of workers."""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from trainers.loop.keyed_random import generator

POOL_BATCHES = 4  # batches of like width are cut from random pools of so many

BatchT = TypeVar("BatchT")
MicroBatches = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Plan:
    """The order of a run: `step(n)` gives the micro-batches, as sample indices, of the n-th optimizer step (from 0)."""

    widths: tuple[int, ...]
    global_batch_size: int
    micro_batch_size: int
    seed: int
    pool: int = 0  # so many of the last samples are a pool, of which a pass takes only
    drawn: int = 0  # so many, drawn anew for each

    @property
    def samples_per_epoch(self) -> int:
        """Samples in one pass."""
        return len(self.widths) - self.pool + self.drawn

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass; the last one may be smaller, never dropped."""
        return -(-self.samples_per_epoch // self.global_batch_size)

    def members(self, epoch: int) -> NDArray[np.int64]:
        """The samples of a pass, in no order yet."""
        always = len(self.widths) - self.pool
        if not self.pool:
            return np.arange(always)
        return np.concatenate(
            [
                np.arange(always),
                always + generator(self.seed, "replay", epoch).permutation(self.pool)[: self.drawn],
            ]
        )

    def epoch_of(self, step: int) -> int:
        """The pass that the step belongs to, from 0."""
        return step // self.steps_per_epoch

    def step(self, step: int) -> MicroBatches:
        """Micro-batches of the step: each a tuple of indices into the training split."""
        return _epoch(self, self.epoch_of(step))[step % self.steps_per_epoch]


@lru_cache(maxsize=2)
def _epoch(plan: Plan, epoch: int) -> tuple[MicroBatches, ...]:
    """All steps of a pass: shuffled, sorted by width inside random pools, cut, and the full batches shuffled again."""
    draw = generator(plan.seed, "order", epoch)
    order = draw.permutation(plan.members(epoch))
    widths = np.asarray(plan.widths)
    pool = plan.global_batch_size * POOL_BATCHES
    batches = []
    for start in range(0, len(order), pool):
        members = order[start : start + pool]
        members = members[np.argsort(widths[members], kind="stable")]
        batches += [
            members[i : i + plan.global_batch_size]
            for i in range(0, len(members), plan.global_batch_size)
        ]
    draw.shuffle(batches)
    batches.sort(
        key=lambda batch: len(batch) < plan.global_batch_size
    )  # stable: the short one, if any, ends the epoch
    return tuple(
        tuple(
            tuple(batch[i : i + plan.micro_batch_size].tolist())
            for i in range(0, len(batch), plan.micro_batch_size)
        )
        for batch in batches
    )


@dataclass(frozen=True, slots=True)
class Turn:
    """One forward pass of one worker: a micro-batch of a step, and the weight 0 when it is only company."""

    step: int
    index: int
    samples: tuple[int, ...]
    weight: float


def turns_of(plan: Plan, step: int, rank: int, world: int) -> list[Turn]:
    """Micro-batches rank, rank + world, … of the step; every worker gets as many, a missing one being a repeat of weight 0."""
    micro_batches = plan.step(step)
    rounds = -(-len(micro_batches) // world)
    mine = [rank + turn * world for turn in range(rounds)]
    return [
        Turn(
            step,
            min(i, len(micro_batches) - 1),
            micro_batches[min(i, len(micro_batches) - 1)],
            float(i < len(micro_batches)),
        )
        for i in mine
    ]


class Prefetcher(Generic[BatchT]):
    """Makes the batches of coming steps in a thread, a few ahead, so that the training thread rarely waits."""

    def __init__(
        self, steps: Sequence[int] | range, make: Callable[[int], BatchT], ahead: int = 3
    ) -> None:
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

    def _work(self, steps: Sequence[int] | range, make: Callable[[int], BatchT]) -> None:
        try:
            for step in steps:
                if self._stopped.is_set():
                    return
                self._put((make(step), None))
            self._put((None, None))
        except BaseException as problem:  # noqa: BLE001  handed to the training thread, which raises it
            self._put((None, problem))

    def _put(self, item: Any) -> None:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

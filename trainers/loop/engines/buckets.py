"""A flat buffer summed over the workers bucket by bucket, while the backward pass still runs.

A backward pass makes gradients from the last layer to the first, so buckets are cut from the end
of the buffer. Each is summed when the last micro-batch has filled it and the ones behind it are on
their way: the order is the buffer's, on every worker and in every run, whatever order gradients
come in. (DistributedDataParallel, Li et al. 2020, cuts anew after the first step.)
"""

from collections.abc import Sequence

import torch
from torch import Tensor, distributed

from trainers.loop.workers import Workers

BUCKET_BYTES = 32 * 2**20  # one sum of a few ms for small networks; ten of them for an adapter


class Buckets:
    """The buckets of one step; `filled` once for each parameter, then `finish`."""

    def __init__(
        self,
        flat: Tensor,
        sizes: Sequence[int],
        workers: Workers,
        most_bytes: int = BUCKET_BYTES,
    ) -> None:
        """`sizes`: of the parameters, which fill the end of `flat`; what is before them waits.

        What lies before the parameters is summed with the first of them, in `finish`.
        """
        self._workers, self._head = workers, len(flat) - sum(sizes)
        self._bucket_of, self._counts = list[int](), list[int]()
        most, held = most_bytes // flat.element_size(), list[int]()
        for size in reversed(sizes):
            if not held or held[-1] + size > most:
                held.append(0)
                self._counts.append(0)
            held[-1] += size
            self._counts[-1] += 1
            self._bucket_of.insert(0, len(held) - 1)
        held[-1] += self._head
        self._buckets = list(reversed(torch.split(flat, held[::-1])))
        self._left, self._on_the_way = list(self._counts), list[distributed.Work]()
        self._begun = 0

    def filled(self, index: int) -> None:
        """A parameter's sum of this worker is complete; begin what can be begun."""
        self._left[self._bucket_of[index]] -= 1
        early = len(self._buckets) - bool(self._head)
        while self._begun < early and not self._left[self._begun]:
            self._begin()

    def finish(self) -> None:
        """Sum what is left, and wait for all of it."""
        while self._begun < len(self._buckets):
            self._begin()
        for work in self._on_the_way:
            work.wait()
        self._left, self._begun = list(self._counts), 0
        self._on_the_way.clear()

    def _begin(self) -> None:
        work = self._workers.begin_sum(self._buckets[self._begun])
        self._on_the_way += [work] if work else []
        self._begun += 1

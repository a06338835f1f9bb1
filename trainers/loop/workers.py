"""The workers of a run and their exchanges; for one worker every exchange is the identity."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed


@dataclass(frozen=True, slots=True)
class Workers:
    """This process's rank among `world` workers; torch.distributed is initialised if world > 1."""

    rank: int = 0
    world: int = 1

    @classmethod
    def here(cls) -> "Workers":
        """Return the workers of torch.distributed where it is initialised, else a single one."""
        if distributed.is_available() and distributed.is_initialized():
            return cls(distributed.get_rank(), distributed.get_world_size())
        return cls()

    @property
    def first(self) -> bool:
        """Whether this is the worker that writes files."""
        return self.rank == 0

    def sum(self, flat: Tensor) -> Tensor:
        """Sum every worker's tensor, in place."""
        if self.world > 1:
            distributed.all_reduce(flat)
        return flat

    def begin_sum(self, flat: Tensor) -> distributed.Work | None:
        """Begin to sum every worker's tensor, in place; None where there is nothing to wait for."""
        return distributed.all_reduce(flat, async_op=True) if self.world > 1 else None

    def sum_counts(self, values: list[float]) -> list[float]:
        """Return the sums of every worker's numbers, in float64, so exact for counts."""
        vector = torch.tensor(values, dtype=torch.float64)
        if self.world > 1 and distributed.get_backend() == "nccl":
            return self.sum(vector.cuda()).cpu().tolist()
        return self.sum(vector).tolist()

    def gather(self, value: Any) -> list[Any]:
        """Return every worker's small picklable value, in rank order, on every worker."""
        if self.world == 1:
            return [value]
        gathered: list[Any] = [None] * self.world
        distributed.all_gather_object(gathered, value)
        return gathered

    def from_first(self, value: Any) -> Any:
        """Return the first worker's value, on every worker."""
        if self.world == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

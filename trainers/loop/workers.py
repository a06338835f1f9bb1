"""The workers of a run and what they tell each other; alone, every exchange is the identity."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed


@dataclass(frozen=True, slots=True)
class Workers:
    """This process's place among `world` workers; torch.distributed is initialised when world > 1."""

    rank: int = 0
    world: int = 1

    @classmethod
    def here(cls) -> "Workers":
        """From torch.distributed where it is initialised, else a single worker."""
        if distributed.is_available() and distributed.is_initialized():
            return cls(distributed.get_rank(), distributed.get_world_size())
        return cls()

    @property
    def first(self) -> bool:
        """Whether this is the worker that writes files."""
        return self.rank == 0

    def sum(self, flat: Tensor) -> Tensor:
        """Sum of every worker's tensor, in place."""
        if self.world > 1:
            distributed.all_reduce(flat)
        return flat

    def sum_counts(self, values: list[float]) -> list[float]:
        """Sums of every worker's numbers, exact in float64 for counts."""
        vector = torch.tensor(values, dtype=torch.float64)
        if self.world > 1 and distributed.get_backend() == "nccl":
            return self.sum(vector.cuda()).cpu().tolist()
        return self.sum(vector).tolist()

    def gather(self, value: Any) -> list[Any]:
        """Every worker's small picklable value, in rank order, on every worker."""
        if self.world == 1:
            return [value]
        gathered: list[Any] = [None] * self.world
        distributed.all_gather_object(gathered, value)
        return gathered

    def from_first(self, value: Any) -> Any:
        """The first worker's value, on every worker."""
        if self.world == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

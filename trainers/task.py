"""What the loop asks of a model family; the loop knows nothing else about it."""

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from ocr.recognizers.base import Recognizer
from ocr.scoring import Counts
from trainers.batches import Turn


class Task(Protocol):
    """A model family at work: a network, its data, its loss and how it reads."""

    @property
    def network(self) -> nn.Module:
        """What is trained."""
        ...

    @property
    def recognizer(self) -> Recognizer:
        """The live one: it reads with the network as it is now."""
        ...

    @property
    def widths(self) -> tuple[int, ...]:
        """Of each usable training sample, what batches of like size are made by."""
        ...

    @property
    def replayed(self) -> int:
        """How many of the last training samples are the pool that passes draw replay from."""
        ...

    @property
    def train_ids(self) -> Sequence[str]:
        """Of each usable training sample."""
        ...

    @property
    def validation(self) -> tuple[int, ...]:
        """Indices into the validation split of the samples that can be read."""
        ...

    def batch(self, turn: Turn, epoch: int) -> Any:
        """Everything `losses` needs for a micro-batch; called in the loader's thread."""
        ...

    def losses(self, batch: Any, weight: float) -> Tensor:
        """The loss of each sample, [B], with its graph; at weight 0 nothing of the batch may stay in the network's statistics."""
        ...

    def statistics(self) -> list[Tensor]:
        """Sums that the normalisation layers gathered since the last `absorb`."""
        ...

    def absorb(self, statistics: Sequence[Tensor]) -> None:
        """Move the running statistics by sums over all workers."""
        ...

    def evaluate(self, indices: Sequence[int]) -> tuple[Counts, float, int]:
        """Read these validation samples by `recognizer.read`'s own code: their counts, the sum of their losses and of how many."""
        ...

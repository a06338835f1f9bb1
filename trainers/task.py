"""What the loop asks of a model family; the loop knows nothing else about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from ocr.recognizers.base import Recognizer
from ocr.scoring import Counts
from trainers.batches import Turn


@dataclass(frozen=True, slots=True)
class Line:
    """One validation sample as it was read."""

    index: int
    id: str
    reference: str
    reading: str
    confidence: float


class Task(Protocol):
    """A model family at work: a network, its data, its loss and how it reads."""

    network: nn.Module
    recognizer: Recognizer
    widths: tuple[int, ...]
    train_ids: Sequence[str]
    validation_size: int

    def batch(self, turn: Turn, epoch: int) -> Any:
        """Everything `losses` needs for a micro-batch; called in the loader's thread."""
        ...

    def losses(self, batch: Any) -> Tensor:
        """The loss of each sample, [B], with its graph."""
        ...

    def statistics(self, weight: float | None = None) -> list[Tensor]:
        """Sums that the normalisation layers gathered in this step; with `weight`, what the next forward pass adds counts so much."""
        ...

    def absorb(self, statistics: Sequence[Tensor]) -> None:
        """Move the running statistics by sums over all workers."""
        ...

    def evaluate(self, indices: Sequence[int]) -> tuple[Counts, float, list[Line]]:
        """Read these validation samples: their counts, the sum of their losses, and the lines."""
        ...

    def write_bundle(self, path: Path, rates: dict[str, float], card: dict[str, Any]) -> None:
        """Write what serving needs, with the weights that the network holds now."""
        ...

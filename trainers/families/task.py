"""What the loop asks of a model family; the loop knows nothing else about it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from ocr.dataset.joined import Joined
from ocr.dataset.read import Dataset
from ocr.recognizers.recognizer import Recognizer
from ocr.scoring import COUNTS_SIZE, Counts
from trainers.config import TrainConfig
from trainers.loop.batches import Turn

Trained = Dataset | Joined


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What a data set holds for a network: usable samples as indices into their split, and why others are left out."""

    train: tuple[int, ...]
    widths: tuple[int, ...]  # of each training sample, what batches of like size are made by
    validation: tuple[int, ...]
    skipped: dict[str, int]
    replayed: int = 0  # of the training samples, so many at the end are only replayed
    unknown_characters: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Losses:
    """Of each sample of a micro-batch, [B]: the weighted sum of its losses, with its graph, and the sum of the weights; the loss is Σ sums / Σ weights."""

    sums_B: Tensor
    weights_B: Tensor


@dataclass(frozen=True, slots=True)
class Judged:
    """Sums over validation samples, of one worker or of all; `teacher_forced` counts what is read when every token before is the right one."""

    counts: Counts = field(default_factory=Counts)
    loss_sum: float = 0.0
    loss_weight: float = 0.0
    teacher_forced: Counts | None = None

    def as_vector(self) -> list[float]:
        """To travel between workers; of one length for one family."""
        forced = self.teacher_forced.as_vector() if self.teacher_forced else []
        return [*self.counts.as_vector(), self.loss_sum, self.loss_weight, *forced]

    @classmethod
    def from_vector(cls, vector: Sequence[float]) -> "Judged":
        """Back from `as_vector`, or from a sum of several."""
        loss_sum, loss_weight, *forced = vector[COUNTS_SIZE:]
        return cls(
            Counts.from_vector(vector[:COUNTS_SIZE]),
            loss_sum,
            loss_weight,
            Counts.from_vector(forced) if forced else None,
        )

    def rates(self) -> dict[str, float]:
        """As metrics.jsonl has them."""
        forced = (
            {
                f"{name}_teacher_forced": rate
                for name, rate in self.teacher_forced.rates().items()
                if name in ("eval_cer", "eval_wer")
            }
            if self.teacher_forced
            else {}
        )
        return {
            "eval_loss": self.loss_sum / max(1.0, self.loss_weight),
            **self.counts.rates(),
            **forced,
        }


class Task(Protocol):
    """A model family at work: a network, its data, its loss and how it reads."""

    @property
    def config(self) -> TrainConfig:
        """Of the run."""
        ...

    @property
    def validation_data(self) -> Dataset:
        """What judges."""
        ...

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

    @property
    def judged(self) -> Sequence[int]:
        """Those of `validation` that are read by themselves to judge a network: all, or a fixed part where reading takes long."""
        ...

    def batch(self, turn: Turn, epoch: int) -> Any:
        """Everything `losses` needs for a micro-batch; called in the loader's thread."""
        ...

    def losses(self, batch: Any, weight: float) -> Losses:
        """The losses of a micro-batch; at weight 0 nothing of it may stay in the task's statistics."""
        ...

    def statistics(self) -> list[Tensor]:
        """The live sums that were gathered since the last `absorb` (running means, confusions …); zero them to forget a step."""
        ...

    def absorb(self, statistics: Sequence[Tensor]) -> None:
        """Move the running statistics by sums over all workers, and start the next step's."""
        ...

    def train_metrics(self) -> dict[str, float]:
        """What `absorb` counted of training batches since the last call, for the step's line of metrics.jsonl."""
        ...

    def evaluate(self, indices: Sequence[int]) -> Judged:
        """Read these validation samples by `recognizer.read`'s own code."""
        ...

    def example(self) -> dict[str, str]:
        """One validation sample as it is read now: id, reference, reading; empty where the family shows none."""
        ...

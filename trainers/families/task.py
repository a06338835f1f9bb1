"""What the training loop asks of a model family; the loop knows nothing else about it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from ocr.dataset.read import Dataset
from ocr.recognizers.recognizer import Recognizer
from ocr.scoring import COUNTS_SIZE, Counts
from trainers.config import TrainConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class UsableSamples:
    """The samples that a network can use, as indices into their splits, and why others are not."""

    train: tuple[int, ...]
    widths: tuple[int, ...]  # size of each training sample; batches group similar sizes
    validation: tuple[int, ...]
    skipped: dict[str, int]  # reason → number of samples
    replayed: int = 0  # number of training samples, at the end, that are only replayed
    unknown_characters: dict[str, int] = field(default_factory=dict)

    @property
    def vocabulary_size(self) -> int | None:
        """The number of characters that the network can write; None where it is not limited."""
        return None


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """One forward pass of one worker: some samples of a step.

    `samples` are indices of usable training samples. Weight 0: a filler that keeps workers in step.
    """

    step: int
    index: int
    samples: tuple[int, ...]
    weight: float


@dataclass(frozen=True, slots=True)
class Losses:
    """Per-sample results of a micro-batch, [B].

    `sums_B`: weighted loss sums, attached to the graph; `weights_B`: their weights.
    The loss of a batch is sums.sum() / weights.sum().
    """

    sums_B: Tensor
    weights_B: Tensor


@dataclass(frozen=True, slots=True)
class EvaluationSums:
    """Sums over validation samples, of one worker or of all.

    `teacher_forced` counts readings whose every token follows the right tokens.
    """

    counts: Counts = field(default_factory=Counts)
    loss_sum: float = 0.0
    loss_weight: float = 0.0
    teacher_forced: Counts | None = None

    def as_vector(self) -> list[float]:
        """Return the sums as numbers to add up between workers, always as many for one family."""
        forced = self.teacher_forced.as_vector() if self.teacher_forced else []
        return [*self.counts.as_vector(), self.loss_sum, self.loss_weight, *forced]

    @classmethod
    def from_vector(cls, vector: Sequence[float]) -> "EvaluationSums":
        """Return the sums of one `as_vector`, or of several added up."""
        loss_sum, loss_weight, *forced = vector[COUNTS_SIZE:]
        return cls(
            Counts.from_vector(vector[:COUNTS_SIZE]),
            loss_sum,
            loss_weight,
            Counts.from_vector(forced) if forced else None,
        )

    def rates(self) -> dict[str, float]:
        """Return the loss and the error rates under their names in metrics.jsonl."""
        rates = {"eval_loss": self.loss_sum / max(1.0, self.loss_weight), **self.counts.rates()}
        if self.teacher_forced:
            forced = self.teacher_forced.rates()
            rates |= {f"{name}_teacher_forced": forced[name] for name in ("eval_cer", "eval_wer")}
        return rates


class Task(Protocol):
    """A model family in training: a network, its data, its loss and how it reads."""

    @property
    def config(self) -> TrainConfig:
        """The run's config."""
        ...

    @property
    def validation_data(self) -> Dataset:
        """The validation split."""
        ...

    @property
    def network(self) -> nn.Module:
        """The network that is trained."""
        ...

    @property
    def class_layers(self) -> Collection[str]:
        """The names of the network's children that give the classes (head_weight_decay)."""
        ...

    @property
    def parameters_used_directly(self) -> Sequence[tuple[nn.Module, nn.Parameter]]:
        """Parameters used without a call of their layer, and by which module; for DeepSpeed."""
        ...

    @property
    def recognizer(self) -> Recognizer:
        """The recogniser that reads with the network as it is now."""
        ...

    @property
    def widths(self) -> tuple[int, ...]:
        """Size of each training sample (columns for CTC, tokens for VLM).

        Batches group similar sizes.
        """
        ...

    @property
    def replayed(self) -> int:
        """The number of training samples, at the end, from which each epoch picks its replay."""
        ...

    @property
    def train_ids(self) -> Sequence[str]:
        """The id of each usable training sample."""
        ...

    @property
    def validation(self) -> tuple[int, ...]:
        """Indices into the validation split of the samples that can be read."""
        ...

    @property
    def read_indices(self) -> Sequence[int]:
        """The indices of `validation` that text is read for.

        All of them, or a fixed part where reading is slow.
        """
        ...

    def batch(self, micro_batch: MicroBatch, epoch: int) -> Any:
        """Return everything that `losses` needs for a micro-batch; the loader's thread calls it."""
        ...

    def losses(self, batch: Any, weight: float) -> Losses:
        """Return a micro-batch's losses; with weight 0 the task's statistics must not change."""
        ...

    def statistics(self) -> list[Tensor]:
        """Return the live sums since the last `absorb` (running means, confusions …).

        Zeroing them forgets a step.
        """
        ...

    def absorb(self, statistics: Sequence[Tensor]) -> None:
        """Update the running statistics by sums over all workers, and start the next step's."""
        ...

    def train_metrics(self) -> dict[str, float]:
        """Return the error rates of training batches since the last call, for metrics.jsonl."""
        ...

    def evaluate(self, indices: Sequence[int]) -> EvaluationSums:
        """Read these validation samples by `recognizer.read`'s own code."""
        ...

    def example(self) -> dict[str, str]:
        """Return id, reference and reading of one validation sample; empty for a family without."""
        ...

"""The data sets of a run: two splits, opened once, and a view of some of their samples."""

from collections.abc import Sequence
from functools import cached_property

from ocr.dataset.joined import Joined
from ocr.dataset.prepared import open_splits, open_training
from ocr.dataset.read import Dataset
from trainers.config import TrainConfig

Trained = Dataset | Joined


class Splits:
    """The training and the validation split of a config, opened at first use and then kept."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config

    @cached_property
    def _own(self) -> tuple[Dataset, Dataset]:
        data = self.config.data
        return open_splits(
            data.train,
            data.validation,
            data.validation_ratio,
            self.config.max_skipped,
            data.split,
        )

    @property
    def own_train(self) -> Dataset:
        """The training split without the samples that are replayed."""
        return self._own[0]

    @cached_property
    def train(self) -> Trained:
        """The training split, followed by the samples of `data.replay`, if any."""
        replay = self.config.data.replay
        if replay is None:
            return self.own_train
        return Joined(self.own_train, open_training(replay, self.config.max_skipped))

    @property
    def validation(self) -> Dataset:
        """The validation split."""
        return self._own[1]

    @property
    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of each split's content."""
        return {"train": self.train.fingerprint, "validation": self.validation.fingerprint}


class Subset:
    """The samples of `data` at `indices`; an index into the subset is an index into `indices`."""

    def __init__(self, data: Trained, indices: Sequence[int]) -> None:
        self.data, self.indices, self.location = data, indices, data.location

    def __len__(self) -> int:
        return len(self.indices)

    @cached_property
    def ids(self) -> list[str]:
        """Ids in order."""
        return [self.data.ids[index] for index in self.indices]

    @cached_property
    def texts(self) -> list[str]:
        """Normalised texts in order."""
        return [self.data.texts[index] for index in self.indices]

    def image_bytes(self, index: int) -> bytes:
        """Return the encoded image file of one sample."""
        return self.data.image_bytes(self.indices[index])

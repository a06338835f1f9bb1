"""Every sample looked at before training, whatever the family: who trains, who judges, and why others are left out."""

from collections import Counter
from collections.abc import Callable

from ocr.dataset.joined import Joined
from ocr.dataset.prepared import told
from ocr.dataset.read import Dataset
from ocr.errors import UserError
from ocr.images import ImageRefused
from trainers.config import TrainConfig
from trainers.families.task import Checked, Trained

Size = Callable[
    [Trained, int, bool], int
]  # (data, index, whether it trains) → what batches of like size are made by; ImageRefused


def training_indices(config: TrainConfig, train: Trained) -> tuple[range, range]:
    """Of the samples that train, and of those that are only replayed."""
    own = len(train.first) if isinstance(train, Joined) else len(train)
    return range(min(own, config.data.max_train_samples or own)), range(own, len(train))


def check_samples(
    config: TrainConfig, train: Trained, validation: Dataset, size_of: Size
) -> Checked:
    """Ask `size_of` about every sample; UserError where too much is wrong (`max_skipped`) or nothing is left."""
    training, replayed = training_indices(config, train)
    judged = range(min(len(validation), config.data.max_validation_samples or len(validation)))
    skipped, examples = Counter[str](), dict[str, str]()

    def size(data: Trained, index: int, trains: bool) -> int | None:
        try:
            return size_of(data, index, trains)
        except ImageRefused as refused:
            skipped[refused.reason] += 1
            examples.setdefault(refused.reason, str(refused))
            return None

    sizes = {index: found for index in training if (found := size(train, index, True)) is not None}
    readable = tuple(index for index in judged if size(validation, index, False) is not None)
    _require_enough(
        config, len(sizes), len(readable), len(training) + len(judged), skipped, examples
    )
    pool = {index: found for index in replayed if (found := size(train, index, True)) is not None}
    sizes |= pool
    return Checked(
        train=tuple(sizes),
        widths=tuple(sizes.values()),
        validation=readable,
        skipped=dict(skipped.most_common()),
        replayed=len(pool),
    )


def _require_enough(
    config: TrainConfig,
    train: int,
    validation: int,
    all: int,
    skipped: Counter[str],
    examples: dict[str, str],
) -> None:
    reasons = "".join(
        f"\n  {count:,} {reason}, such as {examples[reason]}"
        for reason, count in skipped.most_common(5)
    )
    if skipped.total() > config.max_skipped * all:
        raise UserError(
            f"{told(config.data.train)}: {skipped.total():,} of {all:,} samples cannot be used, more than max_skipped={config.max_skipped:g}; mend them or raise it{reasons}"
        )
    if train + validation < config.data.min_samples:
        raise UserError(
            f"{told(config.data.train)}: {train + validation} usable samples, data.min_samples={config.data.min_samples} are needed; collect more, or lower it{reasons}"
        )
    if train < config.workers:
        raise UserError(
            f"{told(config.data.train)}: {train} training samples for {config.workers} workers; every worker needs at least one{reasons}"
        )
    if not validation:
        raise UserError(
            f"{told(config.data.validation or config.data.train)}: no validation sample that can be read{reasons}"
        )

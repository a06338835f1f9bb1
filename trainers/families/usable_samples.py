"""The check of every sample before training: which are used, and why others are not."""

from collections import Counter
from collections.abc import Callable

from ocr.dataset.joined import Joined
from ocr.dataset.prepared import describe_data
from ocr.dataset.read import Dataset
from ocr.errors import UserError
from ocr.images import ImageRefused
from trainers.config import TrainConfig
from trainers.families.splits import Trained
from trainers.families.task import UsableSamples

# (data, index, is it for training) → the size that batches group by; raises ImageRefused
Size = Callable[[Trained, int, bool], int]


def training_indices(config: TrainConfig, train: Trained) -> tuple[range, range]:
    """Return the indices of the run's own training samples, and of those that are only replayed."""
    own = len(train.first) if isinstance(train, Joined) else len(train)
    return range(min(own, config.data.max_train_samples or own)), range(own, len(train))


def find_usable(
    config: TrainConfig, train: Trained, validation: Dataset, size_of: Size
) -> UsableSamples:
    """Ask `size_of` about every sample.

    Raises UserError where too many cannot be used (`max_skipped`), or none is left.
    """
    training, replay = training_indices(config, train)
    reading = range(min(len(validation), config.data.max_validation_samples or len(validation)))
    skipped, examples = Counter[str](), dict[str, str]()

    def size(data: Trained, index: int, trains: bool) -> int | None:
        try:
            return size_of(data, index, trains)
        except ImageRefused as refused:
            skipped[refused.reason] += 1
            examples.setdefault(refused.reason, str(refused))
            return None

    def sizes_of(indices: range) -> dict[int, int]:
        sizes = ((index, size(train, index, True)) for index in indices)
        return {index: known for index, known in sizes if known is not None}

    sizes = sizes_of(training)
    readable = tuple(index for index in reading if size(validation, index, False) is not None)
    reasons = _reasons(skipped, examples)
    _refuse_many_skipped(config, skipped.total(), len(training) + len(reading), reasons)
    _require_enough(config, len(sizes), len(readable), reasons)
    replay_sizes = sizes_of(replay)
    sizes |= replay_sizes
    return UsableSamples(
        train=tuple(sizes),
        widths=tuple(sizes.values()),
        validation=readable,
        skipped=dict(skipped.most_common()),
        replayed=len(replay_sizes),
    )


def _reasons(skipped: Counter[str], examples: dict[str, str]) -> str:
    """Return the five commonest reasons, a line each, with an example."""
    return "".join(
        f"\n  {count:,} {reason}, such as {examples[reason]}"
        for reason, count in skipped.most_common(5)
    )


def _refuse_many_skipped(config: TrainConfig, skipped: int, samples: int, reasons: str) -> None:
    if skipped > config.max_skipped * samples:
        raise UserError(
            f"{describe_data(config.data.train)}: {skipped:,} of {samples:,} samples "
            f"cannot be used, more than max_skipped={config.max_skipped:g}; "
            f"fix them, or raise max_skipped{reasons}"
        )


def _require_enough(config: TrainConfig, train: int, validation: int, reasons: str) -> None:
    data = config.data
    if train + validation < data.min_samples:
        raise UserError(
            f"{describe_data(data.train)}: {train + validation} usable samples, fewer than "
            f"data.min_samples={data.min_samples}; collect more, or lower data.min_samples{reasons}"
        )
    if train < config.worker_count:
        raise UserError(
            f"{describe_data(data.train)}: {train} training samples for "
            f"{config.worker_count} workers; every worker needs at least one; "
            f"set workers={max(1, train)}{reasons}"
        )
    if not validation:
        raise UserError(
            f"{describe_data(data.validation or data.train)}: "
            f"no validation sample that can be read{reasons}"
        )

"""Which sample goes to which split, and what to do where one split stays empty."""

from collections.abc import Mapping, Sequence

from ocr.dataset.config import PrepareConfig
from ocr.keyed import share_of

_NEAR_SEEDS, _SEEDS = 10, 1000  # tried for a division near the ratio; for any division at all


def is_held_out(name: str, value: str, seed: int, ratio: float) -> bool:
    """Return whether a fact of this name and value belongs to validation."""
    key = value if name == "text" else f"{name}={value}"
    return share_of(key, f"split {seed}") < ratio


def distance(share: float, ratio: float) -> float:
    """Return how far a division is from the ratio; 1 where a split is empty, the farthest."""
    return abs(share - ratio) if 0 < share < 1 else 1.0


def dividing_seed(name: str, values: Sequence[str], ratio: float, first: int = 0) -> int | None:
    """Return the seed, from `first` on, that divides these values nearest to the ratio.

    Ten are tried, more where a split would be empty. None: all have one value.
    """
    if len(set(values)) < 2 or not ratio:
        return None
    best, nearest = None, 1.0
    for number, seed in enumerate(range(first, first + _SEEDS), start=1):
        held_out = sum(is_held_out(name, value, seed, ratio) for value in values)
        if (far := distance(held_out / len(values), ratio)) < nearest:
            best, nearest = seed, far
        if nearest <= ratio / 2 or (number >= _NEAR_SEEDS and best is not None):
            break
    return best


def empty_split(
    config: PrepareConfig, kept: Mapping[str, int], samples: Sequence[tuple[str, str]]
) -> str:
    """Return a line about a split without samples, with what to set; empty where both have some.

    `samples` are ids and texts of what was kept.
    """
    empty = next((split for split, count in kept.items() if not count), None)
    if empty is None:
        return ""
    other = f"a run with this data set as data.train needs another one in data.{empty}"
    if empty == "train":
        other = "it can only be data.validation of a run"
    return f"NO {empty} SAMPLES, so no file for them: {_remedy(config, samples)}; else {other}"


def _remedy(config: PrepareConfig, samples: Sequence[tuple[str, str]]) -> str:
    split = config.split
    given = {source.split for source in config.sources}
    if "auto" not in given:
        return f"every source has split={given.pop()}; give one of them another split"
    if not split.validation_ratio:
        return "split.validation_ratio is 0; set it, such as split.validation_ratio=0.1"
    for name, column in (("text", 1), ("id", 0)):
        values = [sample[column] for sample in samples]
        seed = dividing_seed(name, values, split.validation_ratio, split.seed)
        if seed is not None:
            return (
                f"all fell into one split by {', '.join(split.by)}; "
                f"set split.by=[{name}] split.seed={seed}"
            )
    return "one sample cannot be divided; add samples"

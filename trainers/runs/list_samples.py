"""The samples of a run, listed before training: each one with its problems."""

from collections import Counter

from ocr.dataset.read import Dataset
from ocr.images import ImageRefused, image_size
from ocr.linting import KINDS, lint
from trainers.families.splits import Trained
from trainers.families.task import UsableSamples

SHOWN = 100


def table(train: Trained, validation: Dataset, usable: UsableSamples) -> str:
    """Return a line for each of the first hundred samples and each with a problem, then counts."""
    lines, problems = list[str](), Counter[str]()
    for split, samples, used in (
        ("train", train, set(usable.train)),
        ("validation", validation, set(usable.validation)),
    ):
        for index in range(len(samples)):
            its_problems = [] if index in used else ["not used"]
            its_problems += _faults(samples, index)
            problems.update(its_problems)
            if its_problems or len(lines) < SHOWN:
                listed = f"  ! {', '.join(its_problems)}" if its_problems else ""
                name = f"{split:<11}{samples.ids[index]:<36}"
                size = f"{_size(samples, index):>11}"
                lines.append(f"{name} {size}  {samples.texts[index]}{listed}")
    return "\n".join([*lines, *_counts(train, usable, problems)])


def _counts(train: Trained, usable: UsableSamples, problems: Counter[str]) -> list[str]:
    characters = len(set().union(*train.texts))
    reasons = [f"{count:,} not used: {reason}" for reason, count in usable.skipped.items()]
    faults = [
        f"{count:,} with {fault}" for fault, count in problems.most_common() if fault != "not used"
    ]
    return [
        f"{len(usable.train):,} training samples, {len(usable.validation):,} validation samples, "
        f"{characters} characters",
        *(reasons + faults or ["no problem found"]),
    ]


def _faults(samples: Trained, index: int) -> list[str]:
    """Return the label linter's findings, without remarks."""
    return sorted(
        {
            finding.kind
            for finding in lint(samples.texts[index])
            if KINDS[finding.kind].severity != "remark"
        }
    )


def _size(samples: Trained, index: int) -> str:
    try:
        width, height = image_size(samples.image_bytes(index))
    except ImageRefused as refused:
        return refused.reason
    return f"{width}×{height}"

"""What a run would learn from, listed before it starts: each sample, and what is wrong with it."""

from collections import Counter

from ocr.dataset.read import Dataset
from ocr.images import ImageRefused, image_size
from ocr.linting import KINDS, lint
from trainers.families.task import Checked, Trained

SHOWN = 100


def table(train: Trained, validation: Dataset, checked: Checked) -> str:
    """A line for each of the first hundred samples and for every one with a problem, then the counts of both."""
    lines, problems = list[str](), Counter[str]()
    for split, samples, used in (
        ("train", train, set(checked.train)),
        ("validation", validation, set(checked.validation)),
    ):
        for index in range(len(samples)):
            found = [*([] if index in used else ["not used"]), *_faults(samples, index)]
            problems.update(found)
            if found or len(lines) < SHOWN:
                told = f"  ! {', '.join(found)}" if found else ""
                lines.append(
                    f"{split:<11}{samples.ids[index]:<36} {_size(samples, index):>11}  {samples.texts[index]}{told}"
                )
    summary = f"{len(checked.train):,} samples train, {len(checked.validation):,} judge, {len(set().union(*train.texts))} characters"
    reasons = [f"{count:,} not used: {reason}" for reason, count in checked.skipped.items()]
    faults = [
        f"{count:,} with {fault}" for fault, count in problems.most_common() if fault != "not used"
    ]
    return "\n".join([*lines, summary, *(reasons + faults or ["no problem found"])])


def _faults(samples: Trained, index: int) -> list[str]:
    """What the label linter finds, remarks left out."""
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

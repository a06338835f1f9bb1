"""What an export gives, and the gate that every kind of bundle passes: the written files, opened again, are and read what was trained."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ocr.bundle import Bundle
from ocr.errors import UserError
from ocr.evaluation import Evaluation
from ocr.recognizers.ctc.calibration import Reliability


class GateFailed(UserError):
    """What was written is not, or does not read, what was trained."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A written bundle: what its default backend reads, how far confidence can be trusted, and what a CTC network reads by best path."""

    bundle: Bundle
    evaluation: Evaluation
    reliability: Reliability
    greedy: Evaluation | None = None


def require_agreement(backend: str, found: Evaluation, reference: Evaluation, most: float) -> None:
    """GateFailed where the CERs differ by more than `most`, with the first sample that reads differently."""
    if abs(found.counts.cer - reference.counts.cer) <= most:
        return
    first = next(
        pair
        for pair in zip(reference.lines, found.lines, strict=True)
        if pair[0].reading != pair[1].reading
    )
    raise GateFailed(
        f"{backend}: CER {found.counts.cer:.2%}, the trained network {reference.counts.cer:.2%}, more than "
        f"export.max_cer_difference={most:g} apart; first on sample {first[0].id}: {first[0].reading!r} became {first[1].reading!r}. "
        f"No bundle was written; leave the backend out of export.backends, or raise the difference"
    )


def require_no_worse(backend: str, found: Evaluation, reference: Evaluation, most: float) -> None:
    """GateFailed where the CER is higher by more than `most`."""
    if found.counts.cer - reference.counts.cer > most:
        require_agreement(backend, found, reference, most)


def require_like_confidences(
    backend: str, found: Evaluation, reference: Evaluation, most: float
) -> None:
    """GateFailed where the mean difference of the samples' confidences is above `most`: a wrong scale shows there before it shows in the text."""
    differences = [
        abs(ours.confidence - theirs.confidence)
        for ours, theirs in zip(found.lines, reference.lines, strict=True)
    ]
    if statistics.mean(differences) <= most:
        return
    first = next(place for place, difference in enumerate(differences) if difference > most)
    raise GateFailed(
        f"{backend}: its confidences are {statistics.mean(differences):.3f} from the trained network's in the mean, more than "
        f"export.max_confidence_difference={most:g}; first on sample {found.lines[first].id}: {reference.lines[first].confidence:.3f} became "
        f"{found.lines[first].confidence:.3f}. No bundle was written"
    )


def require_same_tensors(
    backend: str, found: Mapping[str, Tensor], written: Mapping[str, Tensor]
) -> None:
    """GateFailed where a tensor that was opened again is not the very one that was written."""
    differing = sorted(set(found) ^ set(written)) or [
        name for name in written if not torch.equal(found[name].cpu(), written[name].cpu())
    ]
    if differing:
        raise GateFailed(
            f"{backend}: {len(differing)} tensors are not what was written, first {differing[0]}; no bundle was written: look at the disk"
        )

"""An export's result, and the gate that every kind of bundle passes.

The files, opened again after writing, hold and read the same as the trained network.
"""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ocr.bundle import Bundle
from ocr.errors import UserError
from ocr.evaluation import Evaluation, compare
from ocr.recognizers.ctc.calibration import Reliability


class GateFailed(UserError):
    """Written files that differ from the trained network, or read differently."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A written bundle, its default backend's readings, and how far confidences can be trusted.

    `greedy`: a CTC network's readings by best path.
    """

    bundle: Bundle
    evaluation: Evaluation
    reliability: Reliability
    greedy: Evaluation | None = None


def require_agreement(backend: str, read: Evaluation, reference: Evaluation, most: float) -> None:
    """Raise GateFailed where the CERs differ by more than `most`, naming a first sample.

    A hundredth of the network's own errors passes too: what has learnt next to nothing guesses, and
    guesses hang on the last bit. So does a difference that the samples cannot show (paired
    bootstrap, 95 %): of fifty short words, one letter is more than the default of `most`.
    """
    if abs(read.counts.cer - reference.counts.cer) <= max(most, reference.counts.cer / 100):
        return
    comparison = compare(reference, read)
    if comparison.low <= 0 <= comparison.high:
        return
    theirs, ours = next(
        pair
        for pair in zip(reference.lines, read.lines, strict=True)
        if pair[0].reading != pair[1].reading
    )
    raise GateFailed(
        f"{backend}: CER {read.counts.cer:.2%}, the trained network {reference.counts.cer:.2%}, "
        f"more than export.max_cer_difference={most:g} apart; first on sample {theirs.id}: "
        f"{theirs.reading!r} became {ours.reading!r}. No bundle was written; "
        "leave the backend out of export.backends, or raise the difference"
    )


def require_no_worse(backend: str, read: Evaluation, reference: Evaluation, most: float) -> None:
    """Raise GateFailed where the CER is higher by more than `most`."""
    if read.counts.cer - reference.counts.cer > most:
        require_agreement(backend, read, reference, most)


def require_like_texts(backend: str, read: Evaluation, reference: Evaluation, most: float) -> None:
    """Print the share of samples that read differently; raise GateFailed where it is above `most`.

    Two engines round differently, and an equal CER can hide that each misreads other samples.
    """
    differing = [
        (theirs, ours)
        for theirs, ours in zip(reference.lines, read.lines, strict=True)
        if theirs.reading != ours.reading
    ]
    share = len(differing) / max(1, len(read.lines))
    print(
        f"{backend}: {len(differing):,} of {len(read.lines):,} texts ({share:.1%}) differ from "
        "those that torch reads",
        flush=True,
    )
    if share <= most:
        return
    theirs, ours = differing[0]
    raise GateFailed(
        f"{backend}: {share:.1%} of the texts differ from those that torch reads, more than "
        f"export.max_text_difference={most:g}; first on sample {theirs.id}: {theirs.reading!r} "
        f"became {ours.reading!r}. No bundle was written"
    )


def require_like_confidences(
    backend: str, read: Evaluation, reference: Evaluation, most: float
) -> None:
    """Raise GateFailed where the confidences differ by more than `most` on average.

    A wrong scale shows in confidences before it shows in the text.
    """
    differences = [
        abs(ours.confidence - theirs.confidence)
        for ours, theirs in zip(read.lines, reference.lines, strict=True)
    ]
    mean = statistics.mean(differences)
    if mean <= most:
        return
    first = next(index for index, difference in enumerate(differences) if difference > most)
    ours, theirs = read.lines[first], reference.lines[first]
    raise GateFailed(
        f"{backend}: its confidences differ from the trained network's by {mean:.3f} on average, "
        f"more than export.max_confidence_difference={most:g}; first on sample {ours.id}: "
        f"{theirs.confidence:.3f} became {ours.confidence:.3f}. No bundle was written"
    )


def require_same_tensors(
    backend: str, read: Mapping[str, Tensor], written: Mapping[str, Tensor]
) -> None:
    """Raise GateFailed where a tensor that was opened again differs from the written one."""
    differing = sorted(set(read) ^ set(written)) or [
        name for name in written if not torch.equal(read[name].cpu(), written[name].cpu())
    ]
    if differing:
        raise GateFailed(
            f"{backend}: {len(differing)} tensors differ from those written, "
            f"first {differing[0]}; no bundle was written: check the disk"
        )

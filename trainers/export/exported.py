"""What an export gives, and the gate that every kind of bundle passes."""

from dataclasses import dataclass

from ocr.bundle import Bundle
from ocr.errors import UserError
from ocr.evaluation import Evaluation
from ocr.recognizers.ctc.calibration import Reliability


class GateFailed(UserError):
    """A backend reads otherwise than the network that was trained."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A written bundle: what its default backend reads, how far confidence can be trusted, and what a CTC network reads by best path."""

    bundle: Bundle
    evaluation: Evaluation
    reliability: Reliability
    greedy: Evaluation | None = None


def require_agreement(backend: str, found: Evaluation, reference: Evaluation, most: float) -> None:
    """GateFailed where the CERs differ by more than `most`."""
    if abs(found.counts.cer - reference.counts.cer) <= most:
        return
    first = next(pair for pair in zip(reference.lines, found.lines, strict=True) if pair[0].reading != pair[1].reading)
    raise GateFailed(
        f"backend {backend}: CER {found.counts.cer:.2%}, the trained network {reference.counts.cer:.2%}, more than "
        f"export.max_cer_difference={most:g} apart; first on sample {first[0].id}: {first[0].reading!r} became {first[1].reading!r}. "
        f"No bundle was written; leave the backend out of export.backends, or raise the difference"
    )

"""Whether a retrained recogniser is better: it may have forgotten next to nothing, and must read what was corrected with fewer errors, by lines it was not trained on."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ocr.evaluation import Comparison, Evaluation

BETTER, UNSURE, REFUSED = "better", "too few to be sure", "refused"
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Figures:
    """Two recognisers on the same lines: CERs, and the 95 % interval of new − old (paired bootstrap)."""

    samples: int
    old_cer: float
    new_cer: float
    low: float
    high: float
    old_errors: int
    new_errors: int

    @classmethod
    def of(cls, found: Comparison) -> "Figures":
        """From a comparison."""
        old, new = found.old.counts, found.new.counts
        return cls(
            old.samples,
            old.cer,
            new.cer,
            found.low,
            found.high,
            old.character_edits,
            new.character_edits,
        )

    def __str__(self) -> str:
        return f"CER {self.old_cer:.2%} → {self.new_cer:.2%} on {self.samples:,} lines (95 % interval of the difference {100 * self.low:+.2f} to {100 * self.high:+.2f} points)"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`better`: promote it; `too few to be sure`: a person decides; `refused`: `why` says so, and `worse` holds the lines that lost."""

    verdict: Literal["better", "too few to be sure", "refused"]
    why: tuple[str, ...]
    base: Figures
    corrections: Figures
    judged_by: Literal["held-out lines", "folds"]
    worse: tuple[dict[str, Any], ...]

    def as_json(self) -> dict[str, Any]:
        """As verdict.json holds it."""
        return asdict(self)


def judge(base: Comparison, corrections: Comparison, held_out: bool, max_loss: float) -> Verdict:
    """`base`: both on the base's validation lines; `corrections`: both on corrected lines that the new one, or for folds a sister of it, was not trained on."""
    kept, gained = Figures.of(base), Figures.of(corrections)
    why, sure = list[str](), False
    if kept.high > max_loss:
        why.append(f"it forgets: {kept}; the upper end may be {100 * max_loss:+.2f} points at most")
    if held_out:
        sure = gained.high < 0
        if not sure:
            why.append(
                f"not better beyond doubt on held-out corrections: {gained}; the whole interval has to lie below 0"
            )
    elif gained.new_errors >= gained.old_errors:
        why.append(
            f"no fewer errors on corrections held out in turn: {gained.old_errors} → {gained.new_errors} in {gained.samples} lines"
        )
    verdict: Literal["better", "too few to be sure", "refused"] = (
        "refused" if why else "better" if sure else "too few to be sure"
    )
    if verdict == "better":
        why.append(f"held-out corrections: {gained}; nothing forgotten: {kept}")
    elif verdict == "too few to be sure":
        why.append(
            f"{gained.old_errors} → {gained.new_errors} errors in {gained.samples} lines held out in turn, too few for an interval; nothing forgotten: {kept}"
        )
    worse = [*_worse(corrections, "correction"), *_worse(base, "base")]
    return Verdict(
        verdict, tuple(why), kept, gained, "held-out lines" if held_out else "folds", tuple(worse)
    )


def joined(parts: Sequence[Evaluation]) -> Evaluation:
    """Several evaluations as one."""
    return Evaluation(tuple(line for part in parts for line in part.lines))


def _worse(found: Comparison, kind: str) -> list[dict[str, Any]]:
    """The lines that lost most."""
    lost = [
        (old, new)
        for old, new in found.changed
        if new.counts.character_edits > old.counts.character_edits
    ]
    return [
        {"kind": kind, "id": old.id, "text": old.reference, "old": old.reading, "new": new.reading}
        for old, new in lost[:_SHOWN]
    ]

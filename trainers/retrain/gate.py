"""The promotion gate: whether a retrained recogniser is better than the one before.

It may have forgotten next to nothing. It must read corrected lines that it was not trained on with
fewer errors.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ocr.evaluation import Comparison, Evaluation
from ocr.retraining import BETTER, REFUSED, UNSURE

_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Figures:
    """CERs of two recognisers on the same lines.

    `low` to `high` is the 95 % interval of new − old (paired bootstrap).
    """

    samples: int
    old_cer: float
    new_cer: float
    low: float
    high: float
    old_errors: int
    new_errors: int

    @classmethod
    def of(cls, comparison: Comparison) -> "Figures":
        """Return the figures of a comparison."""
        old, new = comparison.old.counts, comparison.new.counts
        return cls(
            old.samples,
            old.cer,
            new.cer,
            comparison.low,
            comparison.high,
            old.character_edits,
            new.character_edits,
        )

    def __str__(self) -> str:
        return (
            f"CER {self.old_cer:.2%} → {self.new_cer:.2%} on {self.samples:,} lines "
            f"(95 % interval of the difference {100 * self.low:+.2f} to "
            f"{100 * self.high:+.2f} points)"
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's decision: BETTER (promote), UNSURE (a person decides) or REFUSED.

    `why` gives the reasons, `worse` the lines that lost. `base` compares with the live recogniser,
    `since_first` with the first of its chain, on the same lines; None where that is the live one.
    """

    verdict: str
    why: tuple[str, ...]
    base: Figures
    since_first: Figures | None
    corrections: Figures
    judged_by: Literal["held-out lines", "folds"]
    worse: tuple[dict[str, Any], ...]

    def as_json(self) -> dict[str, Any]:
        """Return the verdict as verdict.json has it."""
        return asdict(self)


def decide(
    before: Comparison,
    corrections: Comparison,
    held_out: bool,
    max_forgetting: float,
    since_first: Comparison | None = None,
) -> Verdict:
    """Return the verdict.

    `before`: both recognisers on the validation data of the first one's training; `since_first`:
    the first of the chain and the new one on the same. `corrections`: old and new on corrected
    lines that the new one, or for folds another of its kind, was not trained on.
    """
    kept, gained = Figures.of(before), Figures.of(corrections)
    first = Figures.of(since_first) if since_first else None
    forgotten, not_gained = _forgotten(kept, first, max_forgetting), _not_gained(gained, held_out)
    why = forgotten + not_gained
    verdict = REFUSED if why else BETTER if held_out else UNSURE
    in_all = f", {first} since the first model" if first else ""
    if verdict == BETTER:
        why.append(f"held-out corrections: {gained}; nothing forgotten: {kept}{in_all}")
    elif verdict == UNSURE:
        why.append(
            f"{gained.old_errors} → {gained.new_errors} errors in {gained.samples} lines held out "
            f"in turn, too few for an interval; nothing forgotten: {kept}{in_all}"
        )
    elif not not_gained:
        why.append(
            f"corrections held out: {gained.old_errors} → {gained.new_errors} errors in "
            f"{gained.samples} lines; if they count more, set gate.max_forgetting, or promote it"
        )
    worse = (*_worse(corrections, "correction"), *_worse(before, "base"))
    judged_by: Literal["held-out lines", "folds"] = "held-out lines" if held_out else "folds"
    return Verdict(verdict, tuple(why), kept, first, gained, judged_by, worse)


def _forgotten(kept: Figures, first: Figures | None, most: float) -> list[str]:
    """Return the reasons to refuse what forgets.

    The limit holds against the first of the chain too: each of several retrainings may lose a
    little, all of them together no more than one.
    """
    allowed = f"the upper end may be {100 * most:+.2f} points at most"
    why = [f"it forgets: {kept}; {allowed}"] if kept.high > most else []
    if first is not None and first.high > most:
        why.append(f"it forgets, with the retrainings before it: {first}; {allowed}")
    return why


def _not_gained(gained: Figures, held_out: bool) -> list[str]:
    """Return the reasons to refuse what reads corrections no better."""
    why = list[str]()
    if held_out and gained.high >= 0:
        why.append(
            f"not better beyond doubt on held-out corrections: {gained}; "
            "the whole interval must be below 0"
        )
    if not held_out and gained.new_errors >= gained.old_errors:
        why.append(
            f"no fewer errors on corrections held out in turn: "
            f"{gained.old_errors} → {gained.new_errors} in {gained.samples} lines"
        )
    return why


def joined(parts: Sequence[Evaluation]) -> Evaluation:
    """Return several evaluations as one."""
    return Evaluation(tuple(line for part in parts for line in part.lines))


def _worse(comparison: Comparison, kind: str) -> list[dict[str, Any]]:
    """Return the lines with more errors than before."""
    lost = [
        (old, new)
        for old, new in comparison.changed
        if new.counts.character_edits > old.counts.character_edits
    ]
    return [
        {"kind": kind, "id": old.id, "text": old.reference, "old": old.reading, "new": new.reading}
        for old, new in lost[:_SHOWN]
    ]

"""Sentences and tables of the page, from the report's values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from trainers.report import formats
from trainers.report.records import finite


@dataclass(frozen=True, slots=True)
class Figure:
    """One of the large numbers; `note` says what it counts."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Confusion:
    """A confused pair; `share` is its count over the commonest one's, for the bar."""

    expected: str
    read: str
    count: int
    share: float


def verdict(report: Mapping[str, Any]) -> str:
    """Return the run's result in one sentence."""
    time, unit = formats.duration(report.get("training_seconds"))
    opening = str(report.get("status") or "unknown").capitalize()
    effort = f" after {formats.count(report['step'])} steps" if finite(report.get("step")) else ""
    effort += f" in {time} {unit}" if finite(report.get("training_seconds")) else ""
    if not finite(report.get("eval_cer")):
        return f"{opening}{effort}; nothing was evaluated."
    samples = report.get("validation_samples")
    samples = f"{formats.count(samples)} " if finite(samples) else ""
    wrong = f"{formats.percent(report['eval_cer'])} of the characters wrong"
    if not finite(report.get("eval_exact_match")):
        return f"{opening}{effort}: {wrong}."
    exact = formats.percent(report["eval_exact_match"])
    right = f"{exact} of {samples}validation samples read without any error"
    return f"{opening}{effort}: {wrong}, {right}."


def figures(report: Mapping[str, Any]) -> list[Figure]:
    """Return the large numbers of the page."""
    time, unit = formats.duration(report.get("training_seconds"))
    samples, seen = report.get("validation_samples"), report.get("samples_seen")
    listed = [
        Figure(
            "CER",
            formats.percent(report.get("eval_cer")),
            "of the characters wrong"
            + (f", {formats.count(samples)} validation samples" if finite(samples) else ""),
        ),
        Figure(
            "Grapheme CER",
            formats.percent(report.get("eval_grapheme_cer")),
            "of the written units wrong",
        ),
        Figure(
            "Exact", formats.percent(report.get("eval_exact_match")), "of samples without any error"
        ),
        Figure("WER", formats.percent(report.get("eval_wer")), "of the words wrong"),
        Figure("Steps", formats.count(report.get("step")), _step_note(report)),
        Figure(
            "Samples/s",
            formats.decimal(report.get("samples_per_second")),
            f"{formats.count(seen)} seen" if finite(seen) else "",
        ),
        Figure(unit.capitalize(), time, str(report.get("device") or "")),
    ]
    return [
        replace(figure, note="not measured") if figure.value == formats.MISSING else figure
        for figure in listed
    ]


def _step_note(report: Mapping[str, Any]) -> str:
    limit, epochs, best = report.get("max_steps"), report.get("epoch"), report.get("best_step")
    notes = [f"of {formats.count(limit)}"] if finite(limit) else []
    notes += [f"{formats.decimal(epochs)} epochs"] if finite(epochs) else []
    notes += [f"best {formats.count(best)}"] if finite(best) else []
    return " · ".join(notes)


def confusions(pairs: Sequence[Sequence[Any]]) -> list[Confusion]:
    """Return the confused pairs with the lengths of their bars."""
    most = max((number for _, _, number in pairs), default=0) or 1
    return [Confusion(expected, read, number, number / most) for expected, read, number in pairs]


def before_and_after(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return one sample's text, and its readings before training and by the kept weights.

    Empty where no such sample was read.
    """
    check = part(report, "inference_check")
    wanted = {
        "reference": "reference",
        "before training": "reading_before",
        "after training": "reading",
    }
    return [(name, check[key]) for name, key in wanted.items() if check.get(key) is not None]


def facts(held_out: Mapping[str, Any], under: str = "") -> list[tuple[str, str]]:
    """Return nested facts as flat (name, value) rows."""
    rows: list[tuple[str, str]] = []
    for key, fact in held_out.items():
        name = f"{under}{key}".replace("_", " ")
        rows += (
            facts(fact, f"{name}: ")
            if isinstance(fact, Mapping) and fact
            else [(name, formats.value(fact))]
        )
    return rows


def trust(report: Mapping[str, Any]) -> str:
    """Return how the bundle reads, and how far its confidences can be trusted."""
    error = part(report, "confidence").get("expected_calibration_error")
    decoding = part(report, "decoding")
    if "max_new_tokens" in decoding:  # a vision-language model
        text = "The bundle writes its readings token by token, each with a probability."
        if finite(error):
            text += (
                f" Their product is {formats.percent(error)} off on average as a confidence "
                "(expected calibration error)."
            )
        return text
    method = {
        "greedy": "the best class of each column",
        "beam": "a beam with a character language model",
        "closed": "the likeliest entry of its dictionary",
    }
    text = f"The bundle reads by {method.get(str(decoding.get('method')), 'its own decoding')}"
    greedy = report.get("greedy_cer")
    if finite(greedy) and greedy != report.get("eval_cer"):
        text += f"; by best path alone {formats.percent(greedy)} of the characters are wrong"
    text += "."
    if finite(error):
        text += (
            f" Its confidence is {formats.percent(error)} off on average "
            "(expected calibration error, fitted on one half, measured on the other)."
        )
    return text


def devices_of(report: Mapping[str, Any], backend: str) -> str:
    """Return the devices where the backend is the one that reads."""
    return ", ".join(
        device for device, chosen in part(report, "default_backend").items() if chosen == backend
    )


def survival(report: Mapping[str, Any]) -> str:
    """Return a sentence on how much the interruptions changed."""
    history = part(report, "history")
    times = len(history.get("resumed_at") or ())
    exactness = str(history.get("exactness") or "exact")
    if not times:
        return "It ran from the first step to the last without a stop."
    again = {1: "once", 2: "twice"}.get(times, f"{times} times")
    if exactness == "exact":
        return (
            f"It was resumed {again}, and its weights are those of a run that was never stopped, "
            "bit for bit."
        )
    return (
        f"It was resumed {again}. "
        f"Its weights against those of a run that was never stopped: {exactness}."
    )


def machine(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (name, value) rows on the network and the machine."""
    memory = report.get("peak_memory_mib")
    rows = [
        ("parameters", formats.size(report.get("parameters"))),
        *(
            [("trained", formats.size(report["trained_parameters"]))]
            if report.get("trained_parameters") != report.get("parameters")
            else []
        ),
        ("device", formats.value(report.get("device"))),
        ("precision", formats.value(report.get("precision"))),
        ("workers", formats.value(report.get("workers"))),
        ("threads per worker", formats.value(report.get("threads_per_worker"))),
        ("peak memory", f"{formats.count(memory)} MiB" if finite(memory) else formats.MISSING),
        ("validation loss", formats.decimal(report.get("eval_loss"))),
        ("readings that loop", formats.percent(report.get("eval_repetition_rate"))),
    ]
    return [(name, shown) for name, shown in rows if shown != formats.MISSING]


def part(report: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return a group of the report; empty where it is missing."""
    return report.get(key) or {}

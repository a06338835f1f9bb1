"""The page: from the report's values to what the template shows, and both files written whole."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from ocr.files import write_atomically, write_json
from trainers.report import formats
from trainers.report.curves import Chart, Marks, draw_charts, draw_reliability
from trainers.report.lines import ReportLine, mark_line
from trainers.report.notices import notices
from trainers.report.records import Records, finite, read_records

_EVALUATION_COLUMNS = {
    "eval_loss": ("loss", formats.decimal),
    "eval_cer": ("CER", formats.percent),
    "eval_cer_teacher_forced": ("CER, teacher-forced (optimistic)", formats.percent),
    "eval_grapheme_cer": ("grapheme CER", formats.percent),
    "eval_wer": ("WER", formats.percent),
    "eval_exact_match": ("exact", formats.percent),
}
_SYMBOLS = {"resumed": "↻", "extended": "»", "best": "◯"}


@dataclass(frozen=True, slots=True)
class Figure:
    """One of the big numbers; `note` says what it counts."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Confusion:
    """A pair that was mixed up; `share` of the commonest one's count, for the bar."""

    expected: str
    read: str
    count: int
    share: float


@dataclass(frozen=True, slots=True)
class Stop:
    """A place on the line from the first step to the last, in per cent of its length."""

    kind: Literal["resumed", "extended", "best"]
    step: int
    place: float
    note: str


def write_report(run_dir: Path, report: dict[str, Any], lines: Sequence[ReportLine]) -> None:
    """Write `run_dir/report.json` and the self-contained `run_dir/report.html`, each whole or not at all.

    The curves come from `metrics.jsonl` and `timings.jsonl` beside them, where there are any. Numbers that are not
    finite become null. The same input gives the same bytes.
    """
    values = formats.plain(report)
    page = render(
        values,
        lines,
        read_records(run_dir / "metrics.jsonl"),
        read_records(run_dir / "timings.jsonl"),
    )
    write_json(run_dir / "report.json", values)
    write_atomically(run_dir / "report.html", page.encode())


def render(
    report: Mapping[str, Any], lines: Sequence[ReportLine], metrics: Records, timings: Records
) -> str:
    """The page as HTML; every text of the run is escaped, and nothing in it reaches for a network."""
    data = _part(report, "data")
    return _template().render(
        title=str(report.get("run_name") or "training run"),
        status=str(report.get("status") or "unknown"),
        verdict=verdict(report),
        notices=notices(report, metrics, timings),
        figures=_figures(report),
        charts=_charts(report, metrics, timings),
        columns=[label for label, _ in _evaluation_columns(metrics).values()],
        evaluations=_evaluations(report, metrics),
        groups=[
            (group, [mark_line(line) for line in lines if line.group == group])
            for group in ("worst", "random")
        ],
        check=_before_and_after(report),
        confusions=_confusions(report.get("confusions") or []),
        reliability=draw_reliability(_part(report, "confidence").get("reliability") or []),
        trust=_trust(report),
        backends=[
            (name, formats.percent(cer), _devices_of(report, name))
            for name, cer in _part(report, "backends").items()
        ],
        splits=[(name, _part(data, name)) for name in ("train", "validation") if data.get(name)],
        skipped=_part(data, "skipped"),
        unknown=_part(data, "unknown_characters"),
        held_out=_facts(_part(data, "held_out")),
        stops=_stops(report),
        symbols=_SYMBOLS,
        survival=_survival(report),
        steps=report.get("step"),
        machine=_machine(report),
        config=yaml.safe_dump(
            report.get("config") or {}, allow_unicode=True, sort_keys=False, width=100
        )
        if report.get("config")
        else "",
        versions=_part(report, "versions"),
        command=report.get("command"),
        bundle=report.get("bundle"),
        f=formats,
    )


def verdict(report: Mapping[str, Any]) -> str:
    """What came of it in one sentence."""
    time, unit = formats.duration(report.get("training_seconds"))
    opening = str(report.get("status") or "unknown").capitalize()
    effort = f" after {formats.count(report['step'])} steps" if finite(report.get("step")) else ""
    effort += f" in {time} {unit}" if finite(report.get("training_seconds")) else ""
    if not finite(report.get("eval_cer")):
        return f"{opening}{effort}; nothing was evaluated."
    samples = (
        f"{formats.count(report['validation_samples'])} "
        if finite(report.get("validation_samples"))
        else ""
    )
    found = f"{formats.percent(report['eval_cer'])} of the characters wrong"
    if not finite(report.get("eval_exact_match")):
        return f"{opening}{effort}: {found}."
    exact = f"{formats.percent(report['eval_exact_match'])} of {samples}validation samples read without any error"
    return f"{opening}{effort}: {found}, {exact}."


def _figures(report: Mapping[str, Any]) -> list[Figure]:
    time, unit = formats.duration(report.get("training_seconds"))
    samples, seen = report.get("validation_samples"), report.get("samples_seen")
    figures = [
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
        for figure in figures
    ]


def _step_note(report: Mapping[str, Any]) -> str:
    limit, epochs, best = report.get("max_steps"), report.get("epoch"), report.get("best_step")
    notes = [f"of {formats.count(limit)}"] if finite(limit) else []
    notes += [f"{formats.decimal(epochs)} epochs"] if finite(epochs) else []
    notes += [f"best {formats.count(best)}"] if finite(best) else []
    return " · ".join(notes)


def _charts(report: Mapping[str, Any], metrics: Records, timings: Records) -> tuple[Chart, ...]:
    resumed = (stop.get("step") for stop in _part(report, "history").get("resumed_at") or ())
    return draw_charts(
        metrics,
        timings,
        Marks(report.get("best_step"), tuple(step for step in resumed if finite(step))),
    )


def _evaluation_columns(metrics: Records) -> dict[str, tuple[str, Any]]:
    return {key: column for key, column in _EVALUATION_COLUMNS.items() if metrics.series(key)}


def _evaluations(report: Mapping[str, Any], metrics: Records) -> list[tuple[str, list[str], bool]]:
    """(step, cells, is the best) of every line of metrics.jsonl that has an evaluation."""
    columns = _evaluation_columns(metrics)
    rows = {
        line["step"]: line
        for line in metrics.lines
        if "step" in line and any(key in line for key in columns)
    }
    return [
        (
            formats.count(step),
            [spell(line.get(key)) for key, (_, spell) in columns.items()],
            step == report.get("best_step"),
        )
        for step, line in sorted(rows.items())
    ]


def _confusions(pairs: Sequence[Sequence[Any]]) -> list[Confusion]:
    most = max((number for _, _, number in pairs), default=0) or 1
    return [Confusion(expected, read, number, number / most) for expected, read, number in pairs]


def _before_and_after(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """One sample's text, and how it was read before training and by the kept weights; empty where no such sample was read."""
    check = _part(report, "inference_check")
    wanted = {
        "reference": "reference",
        "before training": "reading_before",
        "after training": "reading",
    }
    return (
        [(name, check[key]) for name, key in wanted.items() if check.get(key) is not None]
        if check
        else []
    )


def _facts(held_out: Mapping[str, Any], under: str = "") -> list[tuple[str, str]]:
    """Nested facts as flat (name, value) rows."""
    rows: list[tuple[str, str]] = []
    for key, fact in held_out.items():
        name = f"{under}{key}".replace("_", " ")
        rows += (
            _facts(fact, f"{name}: ")
            if isinstance(fact, Mapping) and fact
            else [(name, formats.value(fact))]
        )
    return rows


def _stops(report: Mapping[str, Any]) -> list[Stop]:
    history, last = _part(report, "history"), report.get("step")
    if not finite(last) or not last:
        return []
    stops: list[Stop] = []
    for stop in history.get("resumed_at") or ():
        stops.append(
            Stop(
                "resumed",
                stop["step"],
                _place(stop["step"], last),
                str(stop.get("exactness") or ""),
            )
        )
    for step in history.get("extended_at") or ():
        stops.append(Stop("extended", step, _place(step, last), "max_steps was raised"))
    if finite(report.get("best_step")):
        stops.append(
            Stop(
                "best",
                report["best_step"],
                _place(report["best_step"], last),
                "these weights were kept",
            )
        )
    return sorted(stops, key=lambda stop: (stop.step, stop.kind))


def _place(step: float, last: float) -> float:
    return round(100 * min(1.0, max(0.0, step / last)), 2)


def _trust(report: Mapping[str, Any]) -> str:
    """How far the confidence of a reading can be taken at its word."""
    error = _part(report, "confidence").get("expected_calibration_error")
    if "max_new_tokens" in _part(report, "decoding"):
        error_told = (
            f" Their product is {formats.percent(error)} off on average as a confidence (expected calibration error)."
            if finite(error)
            else ""
        )
        return (
            f"The bundle writes its readings token by token, each with a probability.{error_told}"
        )
    method = {
        "greedy": "the best class of each column",
        "beam": "a beam with a character language model",
        "closed": "the likeliest entry of its dictionary",
    }
    read = f"The bundle reads by {method.get(str(_part(report, 'decoding').get('method')), 'its own decoding')}"
    greedy = report.get("greedy_cer")
    read += (
        f"; by best path alone {formats.percent(greedy)} of the characters are wrong"
        if finite(greedy) and greedy != report.get("eval_cer")
        else ""
    )
    trusted = (
        f" Its confidence is {formats.percent(error)} off on average (expected calibration error, fitted on one half, measured on the other)."
        if finite(error)
        else ""
    )
    return f"{read}.{trusted}"


def _devices_of(report: Mapping[str, Any], backend: str) -> str:
    """Where the backend is the one that reads."""
    return ", ".join(
        device for device, chosen in _part(report, "default_backend").items() if chosen == backend
    )


def _survival(report: Mapping[str, Any]) -> str:
    """How much the interruptions changed, in a sentence."""
    history = _part(report, "history")
    times = len(history.get("resumed_at") or ())
    exactness = str(history.get("exactness") or "exact")
    if not times:
        return "It ran from the first step to the last without a stop."
    again = {1: "once", 2: "twice"}.get(times, f"{times} times")
    if exactness == "exact":
        return f"It was taken up again {again}, and its weights are those of a run that was never stopped, bit for bit."
    return f"It was taken up again {again}. Its weights against those of a run that was never stopped: {exactness}."


def _machine(report: Mapping[str, Any]) -> list[tuple[str, str]]:
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


def _part(report: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    return report.get(key) or {}


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2")

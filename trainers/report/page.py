"""The page: the report's values become the template's, and both files are written whole."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from ocr.files import write_atomically, write_json
from ocr.templates import environment
from trainers.config.metrics import LABELS, is_rate
from trainers.report import formats
from trainers.report.charts import Chart, Marks
from trainers.report.curves import draw_charts, draw_reliability
from trainers.report.lines import ReportLine, mark_line
from trainers.report.notices import notices
from trainers.report.records import Records, finite, read_records
from trainers.report.texts import (
    before_and_after,
    confusions,
    devices_of,
    facts,
    figures,
    machine,
    part,
    survival,
    trust,
    verdict,
)

_SYMBOLS = {"resumed": "↻", "extended": "»", "best": "◯"}


@dataclass(frozen=True, slots=True)
class Stop:
    """A mark on the line from the first step to the last; `place` is in per cent of its length."""

    kind: Literal["resumed", "extended", "best"]
    step: int
    place: float
    note: str


def write_report(run_dir: Path, report: dict[str, Any], lines: Sequence[ReportLine]) -> None:
    """Write report.json and the self-contained report.html, each whole or not at all.

    The curves come from `metrics.jsonl` and `timings.jsonl` beside them, if any. Numbers that are
    not finite become null. The same input gives the same bytes.
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
    """Return the page as HTML; every text of the run is escaped, no part loads from a network."""
    return (
        environment(Path(__file__).parent)
        .get_template("page.html.j2")
        .render(
            title=str(report.get("run_name") or "training run"),
            status=str(report.get("status") or "unknown"),
            verdict=verdict(report),
            notices=notices(report, metrics, timings),
            figures=figures(report),
            charts=_charts(report, metrics, timings),
            columns=[label for label, _ in _evaluation_columns(metrics).values()],
            evaluations=_evaluations(report, metrics),
            groups=[
                (group, [mark_line(line) for line in lines if line.group == group])
                for group in ("worst", "random")
            ],
            stops=_stops(report),
            symbols=_SYMBOLS,
            f=formats,
            **_of_bundle(report),
            **_of_data(report),
            **_of_run(report),
        )
    )


def _of_bundle(report: Mapping[str, Any]) -> dict[str, Any]:
    backends = part(report, "backends").items()
    return {
        "check": before_and_after(report),
        "confusions": confusions(report.get("confusions") or []),
        "reliability": draw_reliability(part(report, "confidence").get("reliability") or []),
        "trust": trust(report),
        "backends": [
            (name, formats.percent(cer), devices_of(report, name)) for name, cer in backends
        ],
        "bundle": report.get("bundle"),
    }


def _of_data(report: Mapping[str, Any]) -> dict[str, Any]:
    data = part(report, "data")
    return {
        "splits": [(name, part(data, name)) for name in ("train", "validation") if data.get(name)],
        "skipped": part(data, "skipped"),
        "unknown": part(data, "unknown_characters"),
        "held_out": facts(part(data, "held_out")),
    }


def _of_run(report: Mapping[str, Any]) -> dict[str, Any]:
    config = report.get("config")
    config_yaml = yaml.safe_dump(config, allow_unicode=True, sort_keys=False, width=100)
    return {
        "survival": survival(report),
        "steps": report.get("step"),
        "machine": machine(report),
        "config": config_yaml if config else "",
        "versions": part(report, "versions"),
        "command": report.get("command"),
    }


def _charts(report: Mapping[str, Any], metrics: Records, timings: Records) -> tuple[Chart, ...]:
    resumed = (stop.get("step") for stop in part(report, "history").get("resumed_at") or ())
    return draw_charts(
        metrics,
        timings,
        Marks(report.get("best_step"), tuple(step for step in resumed if finite(step))),
    )


def _evaluation_columns(metrics: Records) -> dict[str, tuple[str, Any]]:
    """Return the heading and the format of each metric that an evaluation has."""
    return {
        key: (label, formats.percent if is_rate(key) else formats.decimal)
        for key, label in LABELS.items()
        if metrics.series(key)
    }


def _evaluations(report: Mapping[str, Any], metrics: Records) -> list[tuple[str, list[str], bool]]:
    """Return (step, cells, is the best) of every line of metrics.jsonl with an evaluation."""
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


def _stops(report: Mapping[str, Any]) -> list[Stop]:
    history, last = part(report, "history"), report.get("step")
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

"""Notices: problems of a run that an engineer should look at first."""

from collections.abc import Mapping
from typing import Any

from trainers.report.formats import count, percent
from trainers.report.records import Records, finite, median

_LOADER_WAIT_LIMIT = 0.1
_REPETITION_LIMIT = 0.001
_LATE_SHARE = 0.8


def notices(report: Mapping[str, Any], metrics: Records, timings: Records) -> list[str]:
    """Return a sentence for each problem, with its number and the remedy."""
    of_files = (_no_metrics(metrics), _unreadable(metrics), _unreadable(timings), _loader(timings))
    of_report = (_loops(report), _best(report), _unknown(report), _skipped(report))
    return [notice for notice in of_files + of_report if notice]


def _no_metrics(metrics: Records) -> str:
    return (
        ""
        if metrics.lines
        else f"{metrics.name} is missing or empty: there are no training curves."
    )


def _unreadable(records: Records) -> str:
    if not records.unreadable:
        return ""
    lines = "1 line" if records.unreadable == 1 else f"{count(records.unreadable)} lines"
    return f"{lines} of {records.name} could not be read, and the curves lack them."


def _loader(timings: Records) -> str:
    wait = median([share for _, share in timings.series("loader_wait_share")])
    if wait is None or wait < _LOADER_WAIT_LIMIT:
        return ""
    return (
        f"Training waited {percent(wait)} of its time for data: "
        "more CPU cores or smaller images would speed it up."
    )


def _loops(report: Mapping[str, Any]) -> str:
    rate = report.get("eval_repetition_rate")
    if not finite(rate) or rate <= _REPETITION_LIMIT:
        return ""
    return (
        f"{percent(rate)} of the readings repeat a piece over and over "
        "where the reference does not."
    )


def _best(report: Mapping[str, Any]) -> str:
    best, last = report.get("best_step"), report.get("step")
    if not finite(best) or not finite(last) or best >= _LATE_SHARE * last:
        return ""
    return (
        f"The best step was {count(best)} of {count(last)}: the rest did not help, "
        "so more data or augmentation would do more than more steps."
    )


def _unknown(report: Mapping[str, Any]) -> str:
    unknown = (report.get("data") or {}).get("unknown_characters") or {}
    if not unknown:
        return ""
    characters = "1 character of the data is"
    if len(unknown) > 1:
        characters = f"{count(len(unknown))} characters of the data are"
    return (
        f"{characters} not in the alphabet ({count(sum(unknown.values()))}×): "
        "the model cannot write what it has no class for."
    )


def _skipped(report: Mapping[str, Any]) -> str:
    data = report.get("data") or {}
    skipped = sum((data.get("skipped") or {}).values())
    kept = sum((data.get(split) or {}).get("samples") or 0 for split in ("train", "validation"))
    if not skipped or skipped < 0.01 * (skipped + kept):
        return ""
    share = percent(skipped / (skipped + kept))
    return f"{count(skipped)} samples were skipped ({share}); the reasons are under Data."

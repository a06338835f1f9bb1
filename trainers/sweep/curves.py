"""The charts of a sweep: every trial's learning curve, and each setting against the metric."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.ticker import FuncFormatter

from trainers.config.metrics import is_rate
from trainers.report.charts import (
    EVAL,
    INK,
    MUTED,
    TRAIN,
    Chart,
    Marks,
    finished,
    new_axes,
    scale_values,
    styled,
    tick_percent,
)
from trainers.report.formats import decimal, percent
from trainers.sweep.ledger import Trial
from trainers.sweep.settings import Range

_LINES: dict[str, dict[str, Any]] = {
    "best": {"color": EVAL, "lw": 2.2, "zorder": 4},
    "finished": {"color": TRAIN, "lw": 1.2},
}
_LABELS = {"finished": "finished", "stopped": "stopped early"}


def _tick(metric: str) -> Callable[[float], str]:
    return tick_percent if is_rate(metric) else "{:g}".format


def learning_curves(trials: Sequence[Trial], best: Trial, metric: str) -> Chart:
    """Return a chart with a line per trial.

    Lines of trials that were stopped early are thin; the best trial's is thick.
    """
    lines = [(trial, points) for trial in trials if (points := _points(trial, metric))]
    with styled("sweep-curves"):
        axes = new_axes()
        log = scale_values(axes, [point for _, points in lines for point in points], _tick(metric))
        labelled = set[str]()
        for trial, points in lines:
            kind = "best" if trial.id == best.id else trial.status
            look = _LINES.get(kind, {"color": MUTED, "lw": 1, "ls": (0, (3, 2))})
            label = f"best ({best.id})" if kind == "best" else _LABELS.get(kind, kind)
            axes.plot(
                *zip(*points, strict=True),
                marker="o",
                ms=2.6,
                label=None if label in labelled else label,
                **look,
            )
            labelled.add(label)
        lowest = best.best(metric)
        value = (percent if is_rate(metric) else decimal)(lowest[1]) if lowest else "no value"
        summary = f"{len(lines)} trials; the best one, {best.id}, at {value}"
        return finished(axes, "Learning curves", log, Marks(), summary)


def _points(trial: Trial, metric: str) -> list[tuple[float, float]]:
    evaluations = sorted(trial.evaluations.items())
    return [(step, result[metric]) for step, result in evaluations if metric in result]


def setting_against_metric(
    key: str, where: Range, trials: Sequence[Trial], best: Trial, metric: str
) -> Chart | None:
    """Return a chart with a dot per trial: its value of the setting, and its lowest metric.

    None with fewer than two trials.
    """
    known = [(trial, lowest[1]) for trial in trials if (lowest := trial.best(metric)) is not None]
    if len(known) < 2:
        return None
    numeric = all(
        isinstance(trial.values[key], (int, float)) and not isinstance(trial.values[key], bool)
        for trial, _ in known
    )
    names = sorted({str(trial.values[key]) for trial, _ in known})
    across: dict[str, float] = {
        trial.id: float(value) if numeric else names.index(str(value))  # type: ignore[arg-type]
        for trial, value in ((trial, trial.values[key]) for trial, _ in known)
    }
    with styled(f"sweep-{key}"):
        axes = new_axes()
        log = scale_values(axes, [(0, value) for _, value in known], _tick(metric))
        _dots(axes, known, across)
        _ring(axes, best, across, metric)
        low, high = min(across.values()), max(across.values())
        if where.log_uniform is not None or (numeric and low > 0 and high / low > 12):
            axes.set_xscale("log")
        elif not numeric:
            axes.set_xticks(range(len(names)), names)
        return _with_own_axis(axes, key, numeric, log)


def _dots(axes: Any, known: Sequence[tuple[Trial, float]], across: Mapping[str, float]) -> None:
    for status, color in (("stopped", MUTED), ("finished", TRAIN)):
        dots = [(across[trial.id], value) for trial, value in known if trial.status == status]
        if dots:
            columns = zip(*dots, strict=True)
            axes.plot(*columns, ls="", marker="o", ms=5, color=color, label=_LABELS[status])


def _ring(axes: Any, best: Trial, across: Mapping[str, float], metric: str) -> None:
    """Ring the best trial."""
    lowest = best.best(metric)
    assert lowest
    look: dict[str, Any] = {"marker": "o", "ms": 10, "mfc": "none", "mec": INK, "mew": 1.4}
    axes.plot([across[best.id]], [lowest[1]], ls="", label="best", **look)


def _with_own_axis(axes: Any, key: str, numeric: bool, log: bool) -> Chart:
    left = axes.get_xlim()
    if numeric:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    summary = f"{key} against the metric, a dot for each trial"
    return finished(axes, key, log, Marks(), summary, key, left=left[0])

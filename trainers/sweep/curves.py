"""The drawings of a sweep: every trial's learning curve, and each setting against the metric."""

from collections.abc import Sequence
from typing import Any

from matplotlib.ticker import FuncFormatter

from trainers.report.curves import (
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


def learning_curves(trials: Sequence[Trial], best: Trial, metric: str) -> Chart:
    """A line a trial; those stopped early are thin and end where they were stopped, the best one stands out."""
    spell, tick = (decimal, "{:g}".format) if metric == "eval_loss" else (percent, tick_percent)
    lines = [
        (
            trial,
            [
                (step, result[metric])
                for step, result in sorted(trial.evaluations.items())
                if metric in result
            ],
        )
        for trial in trials
    ]
    lines = [(trial, points) for trial, points in lines if points]
    with styled("sweep-curves"):
        axes = new_axes()
        log = scale_values(axes, [point for _, points in lines for point in points], tick)
        labelled = set[str]()
        for trial, points in lines:
            kind = "best" if trial.id == best.id else trial.status
            look: dict[str, Any] = {
                "best": {"color": EVAL, "lw": 2.2, "zorder": 4},
                "finished": {"color": TRAIN, "lw": 1.2},
            }.get(kind, {"color": MUTED, "lw": 1, "ls": (0, (3, 2))})
            label = {
                "best": f"best ({best.id})",
                "finished": "finished",
                "stopped": "stopped early",
            }.get(kind, kind)
            axes.plot(
                *zip(*points, strict=True),
                marker="o",
                ms=2.6,
                label=None if label in labelled else label,
                **look,
            )
            labelled.add(label)
        found = best.best(metric)
        summary = f"{len(lines)} trials; the best one, {best.id}, at {spell(found[1]) if found else 'no value'}"
        return finished(axes, "Learning curves", log, Marks(), summary)


def setting_against_metric(
    key: str, where: Range, trials: Sequence[Trial], best: Trial, metric: str
) -> Chart | None:
    """A dot a trial: its value of the setting, and its lowest metric; None where there is nothing to see."""
    known = [(trial, found[1]) for trial in trials if (found := trial.best(metric)) is not None]
    if len(known) < 2:
        return None
    numeric = all(
        isinstance(trial.values[key], (int, float)) and not isinstance(trial.values[key], bool)
        for trial, _ in known
    )
    names = sorted({str(trial.values[key]) for trial, _ in known})
    places: dict[str, float] = {
        trial.id: float(value) if numeric else names.index(str(value))  # type: ignore[arg-type]
        for trial, value in ((trial, trial.values[key]) for trial, _ in known)
    }
    with styled(f"sweep-{key}"):
        axes = new_axes()
        log = scale_values(
            axes,
            [(0, value) for _, value in known],
            "{:g}".format if metric == "eval_loss" else tick_percent,
        )
        for status, color in (("stopped", MUTED), ("finished", TRAIN)):
            dots = [(places[trial.id], value) for trial, value in known if trial.status == status]
            if dots:
                axes.plot(
                    *zip(*dots, strict=True),
                    ls="",
                    marker="o",
                    ms=5,
                    color=color,
                    label="stopped early" if status == "stopped" else status,
                )
        lowest = best.best(metric)
        assert lowest
        axes.plot(
            [places[best.id]],
            [lowest[1]],
            ls="",
            marker="o",
            ms=10,
            mfc="none",
            mec=INK,
            mew=1.4,
            label="best",
        )
        if where.log_uniform is not None or (
            numeric
            and min(places.values()) > 0
            and max(places.values()) / min(places.values()) > 12
        ):
            axes.set_xscale("log")
        elif not numeric:
            axes.set_xticks(range(len(names)), names)
        return _with_own_axis(axes, key, numeric, log)


def _with_own_axis(axes: Any, key: str, numeric: bool, log: bool) -> Chart:
    left = axes.get_xlim()
    if numeric:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    summary = f"{key} against the metric, a dot for each trial"
    return finished(axes, key, log, Marks(), summary, key, left=left[0])

"""Curves of the training report: loss, error rate, learning rate, speed and reliability."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MultipleLocator

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
from trainers.report.formats import count, decimal, percent
from trainers.report.records import Points, Records, by_step, event_steps, running_mean, thin

_MOST_POINTS = 600
_SMOOTH_FROM_POINTS = 60


def draw_charts(metrics: Records, timings: Records, marks: Marks) -> tuple[Chart, ...]:
    """Return the charts of loss, error rate, learning rate and speed; empty ones are left out."""
    charts = (
        _loss(metrics, marks),
        _error_rate(metrics, marks),
        _learning_rate(metrics, marks),
        _speed(timings, marks),
    )
    return tuple(chart for chart in charts if chart is not None)


def _loss(metrics: Records, marks: Marks) -> Chart | None:
    train, held_out = by_step(metrics.series("loss")), by_step(metrics.series("eval_loss"))
    if not train and not held_out:
        return None
    with styled("loss"):
        axes = new_axes()
        log = scale_values(axes, train + held_out, "{:g}".format)
        _training_line(axes, train)
        _evaluation_line(axes, held_out, "validation", marks, decimal)
        return finished(axes, "Loss", log, marks, _summary("Loss", train or held_out, decimal))


def _error_rate(metrics: Records, marks: Marks) -> Chart | None:
    cer, grapheme_cer = (
        by_step(metrics.series("eval_cer")),
        by_step(metrics.series("eval_grapheme_cer")),
    )
    if not cer:
        return None
    with styled("error-rate"):
        axes = new_axes()
        log = scale_values(axes, cer + grapheme_cer, tick_percent)
        if grapheme_cer:
            axes.plot(
                *_columns(grapheme_cer),
                color=MUTED,
                lw=1.2,
                ls=(0, (3, 2)),
                marker="s",
                ms=2.6,
                label="grapheme CER",
            )
        _evaluation_line(axes, cer, "CER", marks, percent, below=bool(grapheme_cer))
        return finished(
            axes, "Character error rate", log, marks, _summary("Character error rate", cer, percent)
        )


def _learning_rate(metrics: Records, marks: Marks) -> Chart | None:
    rate = by_step(metrics.series("learning_rate"))
    if not rate:
        return None
    with styled("learning-rate"):
        axes = new_axes()
        axes.set_ylim(0, max(y for _, y in rate) * 1.12 or 1)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.3g}"))
        axes.plot(*_columns(thin(rate, _MOST_POINTS)), color=TRAIN, lw=1.6)
        return finished(
            axes, "Learning rate", False, marks, _summary("Learning rate", rate, "{:.3g}".format)
        )


def _speed(timings: Records, marks: Marks) -> Chart | None:
    speed = timings.series("samples_per_second")
    if not speed:
        return None
    restarts = tuple(event_steps(timings, "restart"))
    with styled("speed"):
        axes = new_axes()
        axes.set_ylim(0, max(y for _, y in speed) * 1.15 or 1)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: count(y)))
        for stretch in _between_restarts(speed):
            alone: dict[str, Any] = {"marker": "o", "ms": 3} if len(stretch) == 1 else {}
            axes.plot(*_columns(thin(stretch, _MOST_POINTS)), color=TRAIN, lw=1.4, **alone)
        return finished(
            axes,
            "Samples per second",
            False,
            Marks(marks.best_step, restarts or marks.resumed),
            _summary("Samples per second", speed, decimal),
        )


def draw_reliability(bins: Sequence[Sequence[float]]) -> Chart | None:
    """Return the chart of confidence against the share of right readings.

    It has a dot for each bin (confidence, share, count); the dashed line is perfect calibration.
    """
    points = [(confidence, share) for confidence, share, _ in bins]
    if not points:
        return None
    with styled("reliability"):
        axes = new_axes()
        axes.plot([0, 1], [0, 1], color=MUTED, lw=1, ls=(0, (3, 2)))
        axes.plot(*_columns(points), color=EVAL, lw=1.4, marker="o", ms=4)
        axes.set_ylim(0, 1.02)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MultipleLocator(0.25))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
        axes.set_xlim(0, 1.02)
        worst = max(points, key=lambda point: abs(point[0] - point[1]))
        summary = (
            f"Confidence and truth are furthest apart at {percent(worst[0])} confidence, "
            f"where {percent(worst[1])} are right"
        )
        return finished(axes, "Right, by confidence", False, Marks(), summary, "confidence")


def _between_restarts(points: Points) -> list[Points]:
    """Cut where the steps go back: timings keep steps that were taken twice."""
    stretches: list[Points] = []
    for point in points:
        if stretches and point[0] > stretches[-1][-1][0]:
            stretches[-1].append(point)
        else:
            stretches.append([point])
    return stretches


def _training_line(axes: Axes, points: Points) -> None:
    """Plot the raw line, behind its running mean where it has many points."""
    smooth = len(points) >= _SMOOTH_FROM_POINTS
    raw: dict[str, Any] = {"lw": 0.8, "alpha": 0.38} if smooth else {"lw": 1.6, "label": "training"}
    marker: dict[str, Any] = {"marker": "o", "ms": 3} if len(points) == 1 else {}
    axes.plot(*_columns(thin(points, _MOST_POINTS)), color=TRAIN, **raw, **marker)
    if smooth:
        window = max(5, len(points) // 40)
        axes.plot(
            *_columns(thin(running_mean(points, window), _MOST_POINTS)),
            color=TRAIN,
            lw=1.8,
            label="training (running mean)",
        )


def _evaluation_line(
    axes: Axes, points: Points, label: str, marks: Marks, spell: Any, below: bool = False
) -> None:
    """Plot the points as a line, the best one ringed and labelled.

    The label is `below` where another line runs above.
    """
    shown = points if len(points) <= 60 else thin(points, 120)
    axes.plot(
        *_columns(shown),
        color=EVAL,
        lw=1.5,
        marker="o",
        ms=3.6 if len(points) <= 60 else 1.8,
        label=label,
        zorder=3,
    )
    for step, value in (point for point in points if point[0] == marks.best_step):
        axes.plot([step], [value], ls="", marker="o", ms=9, mfc="none", mec=INK, mew=1.3, zorder=4)
        right = step > (points[0][0] + points[-1][0]) / 2
        axes.annotate(
            f"best {spell(value)}",
            (step, value),
            xytext=(4 if right else -4, -17 if below else 11),
            textcoords="offset points",
            ha="right" if right else "left",
            color=INK,
            fontweight="bold",
        )


def _summary(name: str, points: Points, spell: Any) -> str:
    (first, start), (last, end) = points[0], points[-1]
    return f"{name}: {spell(start)} at step {count(first)}, {spell(end)} at step {count(last)}"


def _columns(points: Points) -> tuple[Sequence[float], Sequence[float]]:
    return [x for x, _ in points], [y for _, y in points]

"""The curves as small inline SVGs that take their colours and fonts from the page, the same bytes for the same points.

Every colour below is a stand-in that `_inline` turns into a CSS variable, so one drawing serves light and dark.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    MultipleLocator,
    NullFormatter,
    NullLocator,
)

from trainers.report.formats import count, decimal, percent
from trainers.report.records import Points, Records, by_step, event_steps, running_mean, thin

INK, MUTED, GRID, TRAIN, EVAL, CARD = (
    "#010101",
    "#020202",
    "#030303",
    "#040404",
    "#050505",
    "#060606",
)
_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    TRAIN: "--train",
    EVAL: "--eval",
    CARD: "--card",
}
_SIZE_IN = (5.4, 2.9)
_MOST_POINTS = 600
_LOG_FROM_RATIO = 12.0
_SMOOTH_FROM_POINTS = 60
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 10.5,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.labelcolor": MUTED,
    "lines.solid_capstyle": "round",
}


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing with its heading, and a sentence that says what it shows to who cannot see it."""

    title: str
    scale: str
    svg: str
    summary: str


@dataclass(frozen=True, slots=True)
class Marks:
    """Steps that stand out in every chart: the best one, and those where the run was taken up again."""

    best_step: int | None = None
    resumed: tuple[float, ...] = ()


def draw_charts(metrics: Records, timings: Records, marks: Marks) -> tuple[Chart, ...]:
    """Loss, error rate, learning rate and speed; one without a point is left out."""
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
    """Confidence against the share of readings that is right, a dot for each bin (confidence, share, count); the dashed line is perfect honesty."""
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
        summary = f"Confidence and truth lie furthest apart at {percent(worst[0])} confidence, where {percent(worst[1])} are right"
        return finished(axes, "Right, by confidence", False, Marks(), summary, "confidence")


def _between_restarts(points: Points) -> list[Points]:
    """Cut where the steps go back: timings keep what was done twice."""
    stretches: list[Points] = []
    for point in points:
        if stretches and point[0] > stretches[-1][-1][0]:
            stretches[-1].append(point)
        else:
            stretches.append([point])
    return stretches


def _training_line(axes: Axes, points: Points) -> None:
    """The raw line; behind its running mean where it has enough points to be noisy."""
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
    """The points joined, the best one ringed and named, `below` where another line runs above."""
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


def new_axes() -> Axes:
    """An empty drawing of the page's size and style."""
    figure = Figure(figsize=_SIZE_IN, layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    figure.patch.set_alpha(0)
    axes.patch.set_alpha(0)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=4)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: count(x)))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    return axes


def scale_values(axes: Axes, points: Points, spell: Any) -> bool:
    """A log axis where all is above zero and spans more than a decade or so, else a linear one from zero."""
    values = [y for _, y in points]
    low, high = min(values), max(values)
    log = low > 0 and high / low > _LOG_FROM_RATIO
    if log:
        axes.set_yscale("log")
        axes.set_ylim(low / (high / low) ** 0.16, high * 1.3)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 3) if high / low > 60 else (1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(min(0, low), high * 1.15 or 1)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: spell(y)))
    return log


def finished(
    axes: Axes,
    title: str,
    log: bool,
    marks: Marks,
    summary: str,
    across: str = "step",
    left: float = 0,
) -> Chart:
    """The drawing as the page shows it."""
    for step in marks.resumed:
        axes.axvline(step, color=MUTED, lw=1, ls=(0, (1, 2)), zorder=1)
    axes.margins(x=0.02)
    axes.set_xlim(left=left)
    axes.set_xlabel(across, labelpad=2)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="upper right", handlelength=1.7, borderaxespad=0.1, labelspacing=0.3)
    buffer = io.StringIO()
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return Chart(title, "log scale" if log else "", _inline(buffer.getvalue(), summary), summary)


def styled(name: str) -> Any:
    """The page's style for one drawing; its name salts the ids, which must not meet those of another in the page."""
    return matplotlib.rc_context({**_STYLE, "svg.hashsalt": f"lipi-{name}"})


def _inline(svg: str, summary: str) -> str:
    """Only what the page needs: no metadata, namespaces (HTML has them), unused ids, size or colour of its own."""
    opening = re.search(r'<svg[^>]*viewBox="([^"]*)"[^>]*>', svg)
    assert opening is not None
    body = re.sub(
        r"<metadata>.*?</metadata>\s*|<!--.*?-->\s*",
        "",
        svg[opening.end() :].strip(),
        flags=re.DOTALL,
    )
    body = re.sub(r'<g id="[^"]*"', "<g", body).replace("xlink:href", "href")
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, f"var({variable})")
    return f'<svg viewBox="{opening[1]}" role="img" aria-label="{summary}">\n{body}'


def _summary(name: str, points: Points, spell: Any) -> str:
    (first, start), (last, end) = points[0], points[-1]
    return f"{name}: {spell(start)} at step {count(first)}, {spell(end)} at step {count(last)}"


def _columns(points: Points) -> tuple[Sequence[float], Sequence[float]]:
    return [x for x, _ in points], [y for _, y in points]


def tick_percent(rate: float) -> str:
    """An error rate beside an axis."""
    return f"{rate * 100:g}%" if rate >= 1e-6 else f"{rate:.0%}"

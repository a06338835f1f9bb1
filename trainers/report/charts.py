"""Charts as small inline SVGs with the page's colours and fonts; same points, same bytes.

Every colour below is a placeholder that `_inline` turns into a CSS variable, so that one chart
serves light and dark pages.
"""

import io
import re
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
    NullFormatter,
    NullLocator,
)

from trainers.report.formats import count
from trainers.report.records import Points

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
_LOG_FROM_RATIO = 12.0
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
    """A chart with its heading, and a sentence that describes it to people who cannot see it."""

    title: str
    scale: str
    svg: str
    summary: str


@dataclass(frozen=True, slots=True)
class Marks:
    """Steps that every chart marks: the best one, and those where the run was resumed."""

    best_step: int | None = None
    resumed: tuple[float, ...] = ()


def new_axes() -> Axes:
    """Return empty axes of the page's size and style."""
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
    """Set a log axis for positive values of a wide range, else a linear one from zero.

    Returns whether the axis is logarithmic.
    """
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
    """Return the chart as the page shows it."""
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
    """Return the page's style for one chart, as a context.

    The name salts the ids, so that charts of one page have different ones.
    """
    return matplotlib.rc_context({**_STYLE, "svg.hashsalt": f"lipi-{name}"})


def _inline(svg: str, summary: str) -> str:
    """Return the parts of an SVG that the page needs.

    Metadata, namespaces (HTML has them), unused ids, sizes and colours are removed.
    """
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


def tick_percent(rate: float) -> str:
    """Return an error rate as an axis label."""
    return f"{rate * 100:g}%" if rate >= 1e-6 else f"{rate:.0%}"

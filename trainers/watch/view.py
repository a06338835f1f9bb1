"""A run's status in a terminal, once or for as long as the run goes on."""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from trainers.report import formats
from trainers.report.records import Points
from trainers.watch.files import RunFiles
from trainers.watch.status import Status, status_of

_BARS = "▁▂▃▄▅▆▇█"
_POLL_SECONDS, _REST = 1.0, 20.0
_CURVE_COLUMNS = 40


def watch(run: str | Path, once: bool = False, console: Console | None = None) -> None:
    """Show the run until it ends; once where asked, where it has ended, or without a terminal.

    Raises UserError where the folder is not a run's.
    """
    files, console = RunFiles(run), console or Console()
    status = status_of(files, time.time())
    if once or not status.is_live or not console.is_terminal:
        console.print(view(status))
        return
    with Live(view(status), console=console, auto_refresh=False) as live:
        pause = _POLL_SECONDS
        while status.is_live:
            time.sleep(pause)
            began = time.perf_counter()
            status = status_of(files, time.time())
            live.update(view(status), refresh=True)
            # training has the machine: long logs are read less often
            pause = max(_POLL_SECONDS, _REST * (time.perf_counter() - began))


def view(status: Status) -> RenderableType:
    """Return the panel of a run."""
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="dim", no_wrap=True)
    rows.add_column(ratio=1)
    for name, shown in _rows(status):
        rows.add_row(name, shown)
    color = "green" if status.is_live or status.state == "finished" else "yellow"
    title = Text.assemble((status.name, "bold"), "  ", (status.state, color))
    return Panel(Group(rows), title=title, title_align="left", border_style=color, padding=(1, 2))


def _rows(status: Status) -> list[tuple[str, RenderableType]]:
    epoch = f"   epoch {status.epoch:.2f}" if status.epoch is not None else ""
    speed = formats.decimal(status.speeds[-1][1] if status.speeds else None)
    workers = "1 worker" if status.workers == 1 else f"{formats.count(status.workers)} workers"
    restarts = "1 restart" if status.restarts == 1 else f"{status.restarts} restarts"
    rows: list[tuple[str, RenderableType]] = [
        ("step", _progress(status, epoch)),
        ("time", _time(status)),
        ("samples/s", Text(f"{sparkline(status.speeds)}  {speed}")),
        ("loss", _curve(status.losses, formats.decimal, "cyan")),
        ("CER", _curve(status.error_rates, formats.percent, "magenta")),
        ("workers", Text(f"{workers} {status.device}".rstrip() + f"   {restarts}")),
        ("checkpoint", _checkpoint(status)),
    ]
    if status.sample:
        rows.append((f"read at {status.sample_step:,}", _sample(status)))
    if status.last_event:
        rows.append(("last event", Text(status.last_event, style="yellow")))
    if status.unreadable:
        rows.append(("unreadable", Text(f"{status.unreadable} in metrics.jsonl and timings.jsonl")))
    return rows


def _progress(status: Status, epoch: str) -> RenderableType:
    total = formats.count(status.max_steps) if status.max_steps else "a number not known yet"
    line = Table.grid(padding=(0, 2))
    total_steps, style = status.max_steps or 1, "green"
    bar = ProgressBar(total_steps, status.step, _CURVE_COLUMNS, complete_style=style)
    line.add_row(bar, Text(f"{status.step:,} of {total}{epoch}"))
    return line


def _time(status: Status) -> Text:
    """Return the time left and what became of the time so far."""
    parts = []
    if status.eta_seconds is not None:
        parts.append(f"{_in_words(status.eta_seconds)} left")
    elif status.is_live:
        parts.append("left: not known yet")
    if status.goodput is not None:
        parts.append(f"{status.goodput:.1%} in steps (goodput)")
    if status.wait_share is not None:
        parts.append(f"{status.wait_share:.1%} waiting for data")
    return Text("   ".join(parts) or formats.MISSING)


def _in_words(seconds: float) -> str:
    minutes = round(seconds) // 60
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{minutes} min {round(seconds) % 60:02} s"


def _checkpoint(status: Status) -> Text:
    return Text("none yet" if status.checkpoint is None else f"step {status.checkpoint:,}")


def _curve(points: Points, shown: Callable[[float], str], color: str) -> Text:
    """Return a sparkline with its last and its lowest value."""
    if not points:
        return Text("none yet")
    last, best = points[-1][1], min(value for _, value in points)
    return Text.assemble(
        (sparkline(points), color), f"  {shown(last)}   ", (f"lowest {shown(best)}", "dim")
    )


def _sample(status: Status) -> Text:
    expected = status.sample.get("reference", "")
    reading = status.sample.get("reading", "")
    right = expected == reading
    return Text.assemble(
        ("expected  ", "dim"), expected, ("\nread      ", "dim"), (reading, "" if right else "red")
    )


def sparkline(points: Points, columns: int = _CURVE_COLUMNS) -> str:
    """Return the means of at most `columns` stretches as bars, the lowest to the highest.

    Heights are logarithmic where all means are positive, so that a first loss hides no later one.
    """
    values = _means([value for _, value in points], columns)
    if not values:
        return ""
    if min(values) > 0:
        values = [math.log(value) for value in values]
    low, high = min(values), max(values)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((value - low) * scale)] for value in values)


def _means(values: Sequence[float], most: int) -> list[float]:
    size = max(1, math.ceil(len(values) / most))
    stretches = [values[start : start + size] for start in range(0, len(values), size)]
    return [sum(stretch) / len(stretch) for stretch in stretches]

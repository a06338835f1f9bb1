"""What a run wrote down, line by line, and the series of points in it."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeGuard

Points = list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Records:
    """The objects of a JSON-lines file in order; `unreadable` counts the lines that were none (a torn last line …)."""

    name: str
    lines: tuple[dict[str, Any], ...] = ()
    unreadable: int = 0

    def series(self, key: str) -> Points:
        """(step, value) of every line that has a finite `key`, in the file's order."""
        return [
            (line["step"], line[key])
            for line in self.lines
            if finite(line.get("step")) and finite(line.get(key))
        ]


def read_records(path: Path) -> Records:
    """The lines of `path`; a missing file has none."""
    if not path.is_file():
        return Records(path.name)
    rows = [row for row in path.read_bytes().splitlines() if row.strip()]
    lines = tuple(line for line in map(_parse, rows) if line is not None)
    return Records(path.name, lines, len(rows) - len(lines))


def by_step(points: Points) -> Points:
    """Sorted by step, the last value of a step that stands twice."""
    return sorted(dict(points).items())


def event_steps(records: Records, event: str) -> list[float]:
    """Where in the run each `event` fell: its own step, else that of the line before it."""
    steps, latest = [], 0.0
    for line in records.lines:
        latest = line["step"] if finite(line.get("step")) else latest
        if line.get("event") == event:
            steps.append(latest)
    return steps


def running_mean(points: Points, window: int) -> Points:
    """The mean over the `window` neighbours of each point, fewer at the ends."""
    half, last = window // 2, len(points)
    sums = list(accumulate((y for _, y in points), initial=0.0))
    spans = [(max(0, i - half), min(last, i + half + 1)) for i in range(last)]
    return [
        (x, (sums[end] - sums[start]) / (end - start))
        for (x, _), (start, end) in zip(points, spans, strict=True)
    ]


def thin(points: Points, most: int) -> Points:
    """At most `most` points that look the same as a line: the lowest and the highest of each stretch."""
    if len(points) <= most:
        return points
    size = math.ceil(2 * len(points) / most)
    kept: Points = []
    for start in range(0, len(points), size):
        stretch = points[start : start + size]
        kept += sorted({min(stretch, key=_value), max(stretch, key=_value)})
    return kept


def median(values: Sequence[float]) -> float | None:
    """The middle value, the upper of two; None of nothing."""
    return sorted(values)[len(values) // 2] if values else None


def finite(value: object) -> TypeGuard[float]:
    """Whether it is a number that can be drawn; True and False are not numbers."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _value(point: tuple[float, float]) -> float:
    return point[1]


def _parse(row: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(row)
    except ValueError:  # also UnicodeDecodeError: a line cut inside a character
        return None
    return line if isinstance(line, dict) else None

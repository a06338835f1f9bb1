"""The lines that a run wrote, and the series of points in them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeGuard

from ocr.json_lines import lines_of

Points = list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Records:
    """The objects of a JSON-lines file in order; `unreadable` counts lines without one."""

    name: str
    lines: tuple[dict[str, Any], ...] = ()
    unreadable: int = 0

    def series(self, key: str) -> Points:
        """Return (step, value) of every line with a finite `key`, in the file's order."""
        return [
            (line["step"], line[key])
            for line in self.lines
            if finite(line.get("step")) and finite(line.get(key))
        ]


def read_records(path: Path) -> Records:
    """Return the lines of `path`; a missing file has none."""
    return records_of(path.name, path.read_bytes() if path.is_file() else b"")


def records_of(name: str, content: bytes) -> Records:
    """Return the lines of a file's content."""
    lines = lines_of(content)
    return Records(name, lines.values, lines.unreadable)


def by_step(points: Points) -> Points:
    """Return the points by step; of a step with two values the last one."""
    return sorted(dict(points).items())


def event_steps(records: Records, event: str) -> list[float]:
    """Return the step of each `event`: its own, else that of the line before."""
    steps, latest = [], 0.0
    for line in records.lines:
        latest = line["step"] if finite(line.get("step")) else latest
        if line.get("event") == event:
            steps.append(latest)
    return steps


def running_mean(points: Points, window: int) -> Points:
    """Return the mean over `window` neighbours of each point, fewer at the ends."""
    half, last = window // 2, len(points)
    sums = list(accumulate((y for _, y in points), initial=0.0))
    spans = [(max(0, i - half), min(last, i + half + 1)) for i in range(last)]
    return [
        (x, (sums[end] - sums[start]) / (end - start))
        for (x, _), (start, end) in zip(points, spans, strict=True)
    ]


def thin(points: Points, most: int) -> Points:
    """Return at most `most` points that look the same as a line.

    These are the lowest and the highest of each stretch.
    """
    if len(points) <= most:
        return points
    size = math.ceil(2 * len(points) / most)
    kept: Points = []
    for start in range(0, len(points), size):
        stretch = points[start : start + size]
        kept += sorted({min(stretch, key=_value), max(stretch, key=_value)})
    return kept


def median(values: Sequence[float]) -> float | None:
    """Return the middle value, the upper of two; None without values."""
    return sorted(values)[len(values) // 2] if values else None


def finite(value: object) -> TypeGuard[float]:
    """Return whether the value is a finite number; True and False are not numbers."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _value(point: tuple[float, float]) -> float:
    return point[1]

"""Whether a page lies upside down: where it is read with doubt, a few lines are read both ways."""

from collections.abc import Sequence

import numpy as np

from ocr.pages.line import PageLine
from ocr.sample import Reading

_SURE = 0.5  # mean confidence of a page's lines, from which on nothing is tried
_SURER = 0.1  # gain of the mean confidence by which a page is upside down
_FEW = 5  # lines that are read both ways


def doubtful(lines: Sequence[PageLine], readings: Sequence[Reading]) -> list[int]:
    """Return the lines, by their indices, that tell whether a page is upside down.

    The longest ones; none where the page was read surely.
    """
    if not lines or np.mean([reading.confidence for reading in readings]) >= _SURE:
        return []
    longest = sorted(range(len(lines)), key=lambda index: -_length(lines[index]))
    return longest[:_FEW]


def by_half(line: PageLine) -> PageLine:
    """Return a line as it is read from the other side of the page."""
    return PageLine(np.roll(line.polygon, 2, axis=0), line.degrees + 180)


def is_upside_down(as_it_lies: Sequence[Reading], turned: Sequence[Reading]) -> bool:
    """Return whether lines are read more surely when they are turned by half."""
    before, after = (
        float(np.mean([reading.confidence for reading in readings]))
        for readings in (as_it_lies, turned)
    )
    return after >= before + _SURER


def _length(line: PageLine) -> float:
    return float(np.hypot(*(line.polygon[1] - line.polygon[0])))

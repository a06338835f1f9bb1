"""A line of a page: where it is, and the direction of its writing."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ocr.images import Polygon, box_of


@dataclass(frozen=True, slots=True)
class PageLine:
    """One line: its four corners on the page in pixels, clockwise from the top left of its text.

    `degrees` is the direction of its writing, clockwise from left to right.
    """

    polygon: Polygon
    degrees: float

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, width and height of the upright rectangle around the line."""
        return box_of(self.polygon)


def page_direction(lines: Sequence[PageLine]) -> float:
    """Return the direction of a page's writing in degrees: that of its middle line, 0 of none."""
    return float(np.median([line.degrees for line in lines])) if lines else 0.0


def turned_back(lines: Sequence[PageLine], quarters: int, size: tuple[int, int]) -> list[PageLine]:
    """Return lines found on `np.rot90(page, quarters)` as lines of the page, [H, W] = `size`."""
    height, width = size
    for number in range(quarters % 4, 0, -1):
        across = width if number % 2 else height  # of the page before this quarter turn
        lines = [
            PageLine(
                np.stack([across - line.polygon[:, 1], line.polygon[:, 0]], axis=1),
                line.degrees + 90,
            )
            for line in lines
        ]
    return list(lines)

"""A piece of writing on a page: an upright or tilted rectangle around a word or a line."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ocr.images import Polygon

Floats = NDArray[np.float64]
_LONG = 2.0  # length of a piece that has a direction, in its heights
_STEEP = 45.0  # degrees: a steeper piece stands upright


@dataclass(frozen=True, slots=True)
class Piece:
    """A rectangle: its middle (x, y), length and height in pixels, and direction.

    `degrees` is clockwise, within ±90; the length is the longer side.
    """

    middle: Floats
    length: float
    height: float
    degrees: float

    @property
    def has_direction(self) -> bool:
        """Whether it is long enough to tell the direction of writing."""
        return self.length > _LONG * self.height

    @property
    def is_steep(self) -> bool:
        """Whether it goes up or down the page rather than across."""
        return abs(self.degrees) > _STEEP

    @property
    def ends(self) -> Floats:
        """The two ends of its middle line, [2, 2], the left one first."""
        angle = np.deg2rad(self.degrees)
        half = self.length / 2 * np.array([np.cos(angle), np.sin(angle)])
        return np.array([self.middle - half, self.middle + half])

    @property
    def corners(self) -> Polygon:
        """Its corners, [4, 2], clockwise from the top left."""
        angle = np.deg2rad(self.degrees)
        down = self.height / 2 * np.array([-np.sin(angle), np.cos(angle)])
        left, right = self.ends
        return np.array([left - down, right - down, right + down, left + down])

    def turned(self, degrees: float) -> "Piece":
        """Return it on a page that is rotated clockwise about its top left corner."""
        direction = (self.degrees + degrees + 90) % 180 - 90
        return replace(self, middle=turned(self.middle, degrees), degrees=direction)

    def levelled(self) -> "Piece":
        """Return the level rectangle around it."""
        corners = self.corners
        width, height = np.ptp(corners, axis=0)
        return replace(self, length=float(width), height=float(height), degrees=0.0)


def turned(points: Floats, degrees: float) -> Floats:
    """Return points, [..., 2], rotated clockwise about the page's top left corner."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.asarray(points @ turn)


def lie_on_their_side(pieces: Sequence[Piece]) -> bool:
    """Return whether most of the writing, by its length, goes up or down the page."""
    upright = sum(piece.length for piece in pieces if piece.has_direction and piece.is_steep)
    return upright > 0.5 * sum(piece.length for piece in pieces)


def direction_of(pieces: Sequence[Piece]) -> float:
    """Return the direction of the writing in degrees, clockwise; 0 where no piece tells it."""
    long = [piece for piece in pieces if piece.has_direction and not piece.is_steep]
    return middle_of([piece.degrees for piece in long], [piece.length for piece in long])


def middle_of(values: Sequence[float], weights: Sequence[float]) -> float:
    """Return the weighted median; 0 of no values."""
    if not values:
        return 0.0
    order = np.argsort(values)
    sums = np.cumsum(np.asarray(weights)[order])
    return float(np.asarray(values)[order][np.searchsorted(sums, sums[-1] / 2)])

"""Clutter around the text of real crops: neighbouring lines, rules, stamps, show-through.

Every kind has random numbers of its own, so the share of one changes neither the others nor an
image without any. Strengths are coverages: 0 paper, 1 as dark as the text. Positions are shares of
the room that a text leaves, so that its own ink stays readable.

Over 300 lines: the kinds of clutter share one frame and one choice.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from ocr.rendering.draws import Draws
from ocr.rendering.font import Font
from ocr.rendering.ink import Layout, Piece, bounds, composed, shaped
from ocr.sources.settings import SyntheticSettings

Coverage = NDArray[np.floating[Any]]  # [H, W], or an array that broadcasts to it
# least margins: left, top, right, bottom, as shares of the height of a line
Room = tuple[float, float, float, float]
Side = Literal["left", "top", "right", "bottom", "under"]

_TOP, _BOTTOM = 1, 3  # indices of a Room
_SIDES: dict[Side, int] = {"left": 0, "top": _TOP, "right": 2, "bottom": _BOTTOM, "under": _BOTTOM}
_CELL_SIDES: tuple[Side, ...] = ("left", "top", "right", "bottom")
_MOST_SHOWN = (
    0.4  # most of a neighbour's ink; with more, a reader would ask which of the two lines is meant
)
_SHOW_THROUGH_BLUR_PX = 1.0


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A line above or below, cut by the crop's edge.

    It fills `reach` of the room between edge and text, but never shows half of itself. `start` is
    its position along the text: 0 aligns the beginnings, 1 the ends.
    """

    text: str
    room: float
    reach: float
    start: float

    @classmethod
    def sampled(cls, draws: Draws, line: str, room: tuple[float, float]) -> "Neighbour":
        """Return a neighbour with more room than a tight crop would leave it."""
        return cls(line, draws.within(room), draws.uniform(0.3, 1.0), draws.uniform())

    def piece(
        self, font: Font, size_px: int, own: Sequence[Piece], layout: Layout, above: bool
    ) -> Piece:
        """Return its ink in the frame of the text."""
        piece = shaped(font, size_px, self.text)
        left, top, right, bottom = bounds(own)
        x = left + self.start * ((right - left) - (piece.right - piece.left)) - piece.left
        clear = (layout.box[1] if above else layout.height - layout.box[3]) / layout.scale
        away = clear - min(self.reach * clear, _MOST_SHOWN * (piece.bottom - piece.top))
        y = top - away - piece.bottom if above else bottom + away - piece.top
        return piece.moved(round(x), round(y))


@dataclass(frozen=True, slots=True)
class Rule:
    """A ruled line along the text or across the writing, right through the crop.

    `place` is a share of the room on its side of the text. `under` starts at the baseline, so that
    it may run through descenders. `dash` is the period of a dotted line, whose dots fill half of it
    at most; thickness and dash are shares of the height of a line.
    """

    side: Side
    room: float
    place: float
    thickness: float
    strength: float
    dash: float = 0.0

    @classmethod
    def all_sampled(cls, draws: Draws) -> tuple["Rule", ...]:
        """Return a solid or dotted line under the text, or sides of a table cell, of one pen."""
        kind, pen = draws.below(3), (draws.uniform(0.02, 0.07), draws.uniform(0.35, 1.0))
        if kind < 2:
            dash = draws.uniform(0.07, 0.16) if kind else 0.0
            return (cls("under", draws.uniform(0.04, 0.2), draws.uniform(0.1, 1.0), *pen, dash),)
        chosen = 1 + draws.below(15)
        sides = [side for bit, side in enumerate(_CELL_SIDES) if chosen >> bit & 1]
        return tuple(
            cls(side, draws.uniform(0.06, 0.2), draws.uniform(0.1, 0.9), *pen) for side in sides
        )

    def coverage(self, layout: Layout) -> Coverage:
        """Return its ink over the image of a layout, along or across the baseline."""
        rows, columns = _grid(layout)
        x, y = columns - layout.width / 2, rows - layout.height / 2
        upright = self.side in ("left", "right")
        across = x + layout.slope * y if upright else y - layout.slope * x
        thickness_px = self.thickness * layout.line_height
        line = _stroke(across - self._offset(layout), thickness_px) * self.strength
        if self.dash:
            period_px = self.dash * layout.line_height
            line = line * (x % period_px < np.clip(thickness_px, 1.0, period_px / 2))
        return line

    def _offset(self, layout: Layout) -> float:
        """Return its distance right of, or below, the image's middle in pixels."""
        left, top, right, bottom = layout.box
        near, far, middle = {
            "left": (0.0, left, layout.width / 2),
            "top": (0.0, top, layout.height / 2),
            "right": (right, layout.width, layout.width / 2),
            "bottom": (bottom, layout.height, layout.height / 2),
            "under": (
                layout.baseline,
                layout.height - abs(layout.slope) * layout.width / 2,
                layout.height / 2,
            ),
        }[self.side]
        return near + self.place * (far - near) - middle


@dataclass(frozen=True, slots=True)
class Stamp:
    """The outline of a round seal or rectangular stamp through one point of the crop, in mid grey.

    It often has a second line inside. `x`, `y` are shares of the image, `angle` is that point's
    direction from the stamp's centre. `radius` (of a rectangle: half its height) and `thickness`
    are shares of the height of a line. `aspect` is a rectangle's width over height, and 0 for a
    seal.
    """

    x: float
    y: float
    angle: float
    radius: float
    aspect: float
    tilt: float
    thickness: float
    strength: float
    inner: float

    @classmethod
    def sampled(cls, draws: Draws) -> "Stamp":
        """Return a stamp of either shape, larger than a line of text."""
        x, y, angle = draws.uniform(), draws.uniform(0.2, 0.8), draws.uniform(0, 2 * math.pi)
        aspect = draws.uniform(1.2, 4.0) if draws.uniform() < 0.4 else 0.0
        radius, tilt = draws.uniform(0.8, 3.0), draws.uniform(-0.3, 0.3)
        thickness, strength = draws.uniform(0.03, 0.1), draws.uniform(0.15, 0.45)
        return cls(
            x,
            y,
            angle,
            radius,
            aspect,
            tilt,
            thickness,
            strength,
            draws.uniform(0.75, 0.92) if draws.uniform() < 0.6 else 1.0,
        )

    def coverage(self, layout: Layout) -> Coverage:
        """Return its ink over the image of a layout."""
        radius_px = self.radius * layout.line_height
        right, down = math.cos(self.angle), math.sin(self.angle)
        away_px = radius_px / (max(abs(right) / self.aspect, abs(down)) if self.aspect else 1.0)
        rows, columns = _grid(layout)
        columns, rows = columns - self.x * layout.width, rows - self.y * layout.height
        x = columns * math.cos(self.tilt) + rows * math.sin(self.tilt) + away_px * right
        y = rows * math.cos(self.tilt) - columns * math.sin(self.tilt) + away_px * down
        outside = (
            np.maximum(np.abs(x) - self.aspect * radius_px, np.abs(y) - radius_px)
            if self.aspect
            else np.hypot(x, y) - radius_px
        )
        thickness_px = self.thickness * layout.line_height
        outline = _stroke(outside, thickness_px)
        if self.inner < 1:
            outline = np.maximum(
                outline, _stroke(outside + (1 - self.inner) * radius_px, thickness_px / 2)
            )
        return outline * self.strength


@dataclass(frozen=True, slots=True)
class ShowThrough:
    """A line on the back of the page: mirrored, soft and faint.

    `x`, `y` are its position, as shares of how far it can move and still be seen.
    """

    text: str
    x: float
    y: float
    strength: float

    @classmethod
    def sampled(cls, draws: Draws, line: str) -> "ShowThrough":
        """Return show-through from hardly visible up to as dark as thin paper allows."""
        return cls(line, draws.uniform(0.2, 0.8), draws.uniform(0.2, 0.8), draws.uniform(0.06, 0.2))

    def coverage(self, font: Font, size_px: int, layout: Layout) -> Coverage:
        """Return its ink over the image of a layout, as large as the text."""
        mask, _ = composed([shaped(font, size_px, self.text)])
        left = self.x * layout.width - (1 - self.x) * mask.width * layout.scale
        top = self.y * layout.height - (1 - self.y) * mask.height * layout.scale
        back = 1 / layout.scale
        seen = mask.transform(
            (layout.width, layout.height),
            Image.Transform.AFFINE,
            (-back, 0, mask.width + left * back, 0, back, -top * back),
            Image.Resampling.BILINEAR,
        )
        return np.asarray(
            seen.filter(ImageFilter.GaussianBlur(_SHOW_THROUGH_BLUR_PX)), dtype=np.float32
        ) * (self.strength / 255)


@dataclass(frozen=True, slots=True)
class Clutter:
    """Everything that one image shows besides its text; None or empty where it has none."""

    above: Neighbour | None = None
    below: Neighbour | None = None
    rules: tuple[Rule, ...] = ()
    stamp: Stamp | None = None
    show_through: ShowThrough | None = None

    @property
    def room(self) -> Room:
        """The margins that neighbours and rules need at least."""
        needed = [(_TOP, self.above.room)] if self.above else []
        needed += [(_BOTTOM, self.below.room)] if self.below else []
        needed += [(_SIDES[rule.side], rule.room) for rule in self.rules]
        left, top, right, bottom = (
            max([room for side, room in needed if side == wanted], default=0.0)
            for wanted in range(4)
        )
        return left, top, right, bottom

    def neighbours(
        self, font: Font, size_px: int, own: Sequence[Piece], layout: Layout
    ) -> list[Piece]:
        """Return the ink of the lines above and below, in the frame of the text's own."""
        above = [self.above.piece(font, size_px, own, layout, above=True)] if self.above else []
        return above + (
            [self.below.piece(font, size_px, own, layout, above=False)] if self.below else []
        )

    def over(self, ink: Image.Image, font: Font, size_px: int, layout: Layout) -> Image.Image:
        """Return the ink of an image with rules, stamp and show-through.

        Where they cross they darken each other, as ink on ink.
        """
        coverages = [rule.coverage(layout) for rule in self.rules]
        coverages += [self.stamp.coverage(layout)] if self.stamp else []
        coverages += (
            [self.show_through.coverage(font, size_px, layout)] if self.show_through else []
        )
        if not coverages:
            return ink
        paper = 255 - np.asarray(ink, dtype=np.float32)
        for coverage in coverages:
            paper *= 1 - coverage
        return Image.fromarray((255.5 - paper).astype(np.uint8))


def choose_clutter(
    settings: SyntheticSettings, texts: Sequence[str], text: str, index: int, font: Font
) -> Clutter:
    """Return the clutter that the shares of the settings give image `index`.

    Pieces of other lines show texts of the same list, as far as the same font has their letters.
    """

    def line(draws: Draws) -> str:
        other = texts[draws.below(len(texts))].partition("\n")[0]
        return (
            "".join(letter for letter in other if ord(letter) in font.characters).strip()
            or text.partition("\n")[0]
        )

    keyed = Draws(settings.seed, text, index)
    neighbours = keyed.chosen("neighbours", settings.neighbour_share)
    rules = keyed.chosen("rules", settings.rule_share)
    stamp = keyed.chosen("stamp", settings.stamp_share)
    behind = keyed.chosen("show-through", settings.show_through_share)
    which = neighbours.below(3) if neighbours else 0  # both, above, below
    return Clutter(
        above=Neighbour.sampled(neighbours, line(neighbours), settings.neighbour_room)
        if neighbours and which != 2
        else None,
        below=Neighbour.sampled(neighbours, line(neighbours), settings.neighbour_room)
        if neighbours and which != 1
        else None,
        rules=Rule.all_sampled(rules) if rules else (),
        stamp=Stamp.sampled(stamp) if stamp else None,
        show_through=ShowThrough.sampled(behind, line(behind)) if behind else None,
    )


def _grid(layout: Layout) -> tuple[Coverage, Coverage]:
    """Return the middles of the rows [H, 1] and columns [1, W]."""
    return np.arange(layout.height, dtype=np.float32)[:, None] + 0.5, np.arange(
        layout.width, dtype=np.float32
    )[None, :] + 0.5


def _stroke(distance_px: Coverage, thickness_px: float) -> Coverage:
    """Return the coverage of a line of a thickness, by the distance from its middle.

    A line thinner than a pixel is fainter.
    """
    return np.clip(thickness_px / 2 + 0.5 - np.abs(distance_px), 0.0, min(1.0, thickness_px))

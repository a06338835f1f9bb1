"""Ink of shaped lines in one frame, and the image that the frame becomes.

The frame has font pixels from the origin of the first baseline, y down.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ocr.rendering.font import Font


@dataclass(frozen=True, slots=True)
class Piece:
    """One shaped line as ink coverage, and the position of its corner in the frame."""

    ink: Image.Image
    left: int
    top: int

    @property
    def right(self) -> int:
        """The right end of the ink."""
        return self.left + self.ink.width

    @property
    def bottom(self) -> int:
        """The lower end of the ink."""
        return self.top + self.ink.height

    def moved(self, x: int, y: int) -> "Piece":
        """Return the same line at another position."""
        return replace(self, left=self.left + x, top=self.top + y)


def shaped(font: Font, size_px: int, text: str) -> Piece:
    """Return one line of text with its origin on the frame's."""
    core, (left, top) = font.at(size_px).getmask2(text, mode="L", anchor="ls")
    ink = Image.new("L", core.size)
    ink.im.paste(core, (0, 0, *core.size))
    return Piece(ink, left, top)


def spread(font: Font, size_px: int, parts: tuple[str, str], gap_px: int, dotted: bool) -> Piece:
    """Return a line of two parts with a gap between them, which dots may lead across."""
    first, second = (shaped(font, size_px, part) for part in parts)
    pieces = [first, second.moved(first.right + gap_px - second.left, 0)]
    dots = max(0, int(gap_px / max(1.0, font.at(size_px).getlength("."))) - 1)
    if dotted and dots and ord(".") in font.characters:
        leader = shaped(font, size_px, "." * dots)
        pieces.append(leader.moved(first.right + (gap_px - leader.right) // 2, 0))
    ink, (left, top) = composed(pieces)
    return Piece(ink, left, top)


def bounds(pieces: Sequence[Piece]) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of the pieces, with one clear pixel around them."""
    left, top = min(piece.left for piece in pieces), min(piece.top for piece in pieces)
    return (
        left - 1,
        top - 1,
        max(piece.right for piece in pieces) + 1,
        max(piece.bottom for piece in pieces) + 1,
    )


def composed(pieces: Sequence[Piece]) -> tuple[Image.Image, tuple[int, int]]:
    """Return the pieces as one image of ink coverage (0 paper, 255 ink), and its position."""
    left, top, right, bottom = bounds(pieces)
    mask = Image.new("L", (right - left, bottom - top))
    for piece in pieces:
        mask.paste(255, (piece.left - left, piece.top - top), piece.ink)
    return mask, (left, top)


@dataclass(frozen=True, slots=True)
class Layout:
    """An image of lines of text [px]: position p of their frame lies at `matrix @ p - offset`.

    `box` is left, top, right and bottom of their ink in the image. The last baseline is at
    `baseline` in the middle of the width and falls by `slope`. `scale` is image pixels per font
    pixel.
    """

    matrix: NDArray[np.float64]
    offset: NDArray[np.float64]
    scale: float
    width: int
    height: int
    line_height: int
    box: tuple[float, float, float, float]
    slope: float
    baseline: float

    def back_from(self, corner: tuple[int, int]) -> tuple[float, ...]:
        """Return Pillow's affine coefficients: image pixel → pixel of a mask with this corner."""
        back = np.linalg.inv(self.matrix)
        shift = back @ self.offset - corner
        return back[0, 0], back[0, 1], shift[0], back[1, 0], back[1, 1], shift[1]

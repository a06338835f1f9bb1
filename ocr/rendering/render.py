"""A text in one font → a grey image: one affine warp, clutter, blur, paper, noise, polarity."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from ocr.images import Pixels
from ocr.keyed import fixed_generator
from ocr.rendering.clutter import Clutter
from ocr.rendering.draws import Draws
from ocr.rendering.font import Font
from ocr.rendering.ink import Layout, Piece, bounds, composed, shaped, spread
from ocr.rendering.pen import written
from ocr.rendering.scan import scanned
from ocr.rendering.scripts import script_named
from ocr.sources.settings import SyntheticSettings

_SIZE_STEP_PX = 4
_LINE_PITCH = 1.1  # from baseline to baseline, in heights of an ordinary line
_BANK_SIDE_PX = 1024


def render(
    text: str, font: Font, settings: SyntheticSettings, draws: Draws, clutter: Clutter
) -> Pixels:
    """Render the text in one font as a grey image [H, W], `height_px` a line.

    One affine warp, clutter, then blur, paper, noise and polarity.
    """
    if draws.chosen("clean", settings.clean_share):
        settings = _clean(settings)
    height_px = settings.height_px[0] + draws.below(
        settings.height_px[1] - settings.height_px[0] + 1
    )
    ink = _warped_ink(text, font, height_px, settings, draws, clutter)
    radius_px = draws.within(settings.blur_px)
    if radius_px > 0.15:
        ink = ink.filter(ImageFilter.GaussianBlur(radius_px))
    paper = draws.within(settings.paper_grey)
    darkness = draws.within(settings.contrast) * paper
    grey = np.asarray(ink, dtype=np.float32)
    grey *= -darkness / 255
    grey += paper
    grey += _crop(_shading(), grey.shape, draws) * draws.within(settings.texture)
    grey += _crop(_noise(), grey.shape, draws) * draws.within(settings.noise)
    if draws.uniform() < settings.inverted_share:
        np.subtract(255, grey, out=grey)
    return scanned(grey, settings, draws)


@lru_cache(maxsize=64)
def _clean(settings: SyntheticSettings) -> SyntheticSettings:
    """Return the settings of a page as a laser printer leaves it: upright, sharp, black."""
    none = dict.fromkeys(("blur_px", "noise", "texture", "rotation_degrees", "shear"), (0.0, 0.0))
    return settings.model_copy(update={**none, "contrast": (0.75, 1.0), "paper_grey": (225, 255)})


def _warped_ink(
    text: str,
    font: Font,
    height_px: int,
    settings: SyntheticSettings,
    draws: Draws,
    clutter: Clutter,
) -> Image.Image:
    """Return ink coverage (0 paper, 255 ink) of the text and its clutter.

    It is rotated, slanted and fitted into the image's height with its margins.
    """
    angle, shear, stretch = (
        np.deg2rad(draws.within(settings.rotation_degrees)),
        draws.within(settings.shear),
        draws.within(settings.stretch),
    )
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.array(
        [[stretch, -shear], [0.0, 1.0]]
    )
    margins = [max(draws.within(settings.margin), room) * height_px for room in clutter.room]
    line_box = draws.within(settings.line_box)
    size_px = _size_for(font, height_px - margins[1] - margins[3], settings.script)
    line_top, line_bottom = _line_box(font, size_px, settings.script)
    pitch_px = round(_LINE_PITCH * (line_bottom - line_top))
    own = [
        _line(font, size_px, line, settings, draws, number).moved(0, number * pitch_px)
        for number, line in enumerate(text.split("\n"))
    ]
    layout = _fitted(own, pitch_px, turn, (line_box, line_top, line_bottom), margins, height_px)
    mask, corner = composed([*own, *clutter.neighbours(font, size_px, own, layout)])
    ink = mask.transform(
        (layout.width, layout.height),
        Image.Transform.AFFINE,
        layout.back_from(corner),
        Image.Resampling.BILINEAR,
    )
    return clutter.over(ink, font, size_px, layout)


def _line(
    font: Font, size_px: int, text: str, settings: SyntheticSettings, draws: Draws, number: int
) -> Piece:
    """Return the ink of line `number`; a share of lines has a gap, of images is as if written."""
    gap = draws.chosen("gap", settings.gap_share) if " " in text else None
    piece = _with_gap(font, size_px, text, gap) if gap else shaped(font, size_px, text)
    pen = draws.chosen("pen", settings.pen_share)
    return written(piece, size_px, pen.of(number)) if pen else piece


def _with_gap(font: Font, size_px: int, text: str, draws: Draws) -> Piece:
    """Return the ink of a line with a space as wide as a tab, or dotted."""
    spaces = [place for place, character in enumerate(text) if character == " "]
    place = spaces[draws.below(len(spaces))]
    width_px = round(draws.uniform(1, 10) * size_px * 0.6)
    parts = text[:place], text[place + 1 :]
    return spread(font, size_px, parts, width_px, draws.uniform() < 0.3)


def _fitted(
    own: Sequence[Piece],
    pitch_px: int,
    turn: NDArray[np.float64],
    line_box: tuple[float, float, float],
    margins: Sequence[float],
    height_px: int,
) -> Layout:
    """Return the image around lines of ink: `height_px` a line, as wide as needed.

    `line_box` is its share, top and bottom of an ordinary line.
    """
    left, top, right, bottom = bounds(own)
    corners = turn @ np.array([[left, right, left, right], [top, top, bottom, bottom]], dtype=float)
    share, line_top, line_bottom = line_box
    upper = corners[1].min() * (1 - share) + min(line_top, corners[1].min()) * share
    lower = corners[1].max() * (1 - share) + max(line_bottom, corners[1].max()) * share
    scale = (len(own) * height_px - margins[1] - margins[3]) / (lower - upper)
    width_px = max(8, round(np.ptp(corners[0]) * scale + margins[0] + margins[2]))
    offset = np.array([corners[0].min() * scale - margins[0], upper * scale - margins[1]])
    ink = np.array([corners.min(axis=1), corners.max(axis=1)]) * scale - offset
    slope = turn[1, 0] / turn[0, 0]
    origin = scale * turn @ (0.0, (len(own) - 1) * pitch_px) - offset
    return Layout(
        scale * turn,
        offset,
        float(scale),
        width_px,
        len(own) * height_px,
        height_px,
        tuple(ink.ravel().tolist()),
        float(slope),
        float(origin[1] + slope * (width_px / 2 - origin[0])),
    )


def _size_for(font: Font, ink_height_px: float, script: str) -> int:
    """Return a font size a little above the one needed, in few steps so that fonts stay cached."""
    top, bottom = _line_box(font, 64, script)
    wanted = 64 * ink_height_px / (bottom - top) * 1.1
    return int(max(12, -(-wanted // _SIZE_STEP_PX) * _SIZE_STEP_PX))


@lru_cache(maxsize=4096)
def _line_box(font: Font, size_px: int, script: str) -> tuple[float, float]:
    """Return top and bottom of an ordinary line of the font, from the baseline down.

    The line has the script's letters with marks above and below.
    """
    known = script_named(script)
    text = (
        "".join(pair.text for pair in known.pairs if font.refusal(pair.text) is None)
        or known.letters
    )
    _, top, _, bottom = font.at(size_px).getbbox(text, anchor="ls")
    return float(top), float(bottom)


def _crop(bank: NDArray[np.float32], shape: tuple[int, ...], draws: Draws) -> NDArray[np.float32]:
    """Return a keyed cut-out of a noise bank, tiled where the image is wider than the bank."""
    row, column = draws.below(_BANK_SIDE_PX), draws.below(_BANK_SIDE_PX)
    if row + shape[0] <= _BANK_SIDE_PX and column + shape[1] <= _BANK_SIDE_PX:
        return bank[row : row + shape[0], column : column + shape[1]]
    rows, columns = (
        (row + np.arange(shape[0])) % _BANK_SIDE_PX,
        (column + np.arange(shape[1])) % _BANK_SIDE_PX,
    )
    return bank[np.ix_(rows, columns)]


@lru_cache(maxsize=1)
def _noise() -> NDArray[np.float32]:
    return fixed_generator(1).standard_normal((_BANK_SIDE_PX, _BANK_SIDE_PX), dtype=np.float32)


@lru_cache(maxsize=1)
def _shading() -> NDArray[np.float32]:
    """Return slow shading of unit deviation: noise at 1/32 resolution, scaled up smoothly."""
    coarse = fixed_generator(2).standard_normal(
        (_BANK_SIDE_PX // 32, _BANK_SIDE_PX // 32), dtype=np.float32
    )
    smooth: NDArray[np.float32] = np.asarray(
        Image.fromarray(coarse).resize((_BANK_SIDE_PX, _BANK_SIDE_PX), Image.Resampling.BICUBIC),
        dtype=np.float32,
    )
    return np.asarray(smooth / smooth.std(), np.float32)

"""A printed line as a hand writes it: thin strokes, no headline, letters that sway and lean.

Nobody's handwriting: it takes from print what handwriting does not have, so that a network learns
to read without it.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from ocr.keyed import fixed_generator
from ocr.rendering.draws import Draws
from ocr.rendering.ink import Piece

Ink = NDArray[np.uint8]  # [H, W], 0 paper to 255 ink

_HEADLINE = 0.35  # of the width: a row as full as this is a headline's (Bangla's fonts: 0.5 to 0.8)
_LOSE_HEADLINE = 0.7  # of the lines
_MESH_ROWS = 3


def written(piece: Piece, size_px: int, draws: Draws) -> Piece:
    """Return a line of one font size [px] as if written."""
    ink_HW = np.asarray(piece.ink)
    if draws.uniform() < _LOSE_HEADLINE:
        ink_HW = _without_headline(ink_HW, size_px, draws)
    room = size_px // 2  # to sway into
    image = Image.fromarray(np.pad(_thinned(ink_HW, size_px, draws), room))
    image = _swaying(image, size_px, draws)
    box = image.getbbox() or (0, 0, *image.size)
    return Piece(image.crop(box), piece.left - room + box[0], piece.top - room + box[1])


def _without_headline(ink_HW: Ink, size_px: int, draws: Draws) -> Ink:
    """Return the ink without most of its headline; unchanged where it has none."""
    filled = (ink_HW > 127).mean(axis=1)
    if filled.max() < _HEADLINE:
        return ink_HW
    band = np.flatnonzero(filled > 0.7 * filled.max())
    top, bottom = max(0, int(band.min()) - 1), int(band.max()) + 2
    if bottom - top > size_px / 4:
        return ink_HW
    stretch_px = max(1, size_px // 3)
    random = fixed_generator(round(draws.uniform() * 2**52))
    stretches = random.random(1 + ink_HW.shape[1] // stretch_px) < draws.uniform(0.6, 1.0)
    kept = ink_HW.copy()
    kept[top:bottom, np.repeat(stretches, stretch_px)[: ink_HW.shape[1]]] = 0
    return kept


def _thinned(ink_HW: Ink, size_px: int, draws: Draws) -> Ink:
    """Return strokes as wide as a pen's, where the font's are wider."""
    changes = np.flatnonzero(np.diff(np.pad(ink_HW > 127, ((0, 0), (1, 1))).ravel()))
    runs = changes[1::2] - changes[::2]  # lengths of ink along the rows
    wanted = max(2.5, draws.uniform(0.04, 0.1) * size_px)
    surplus = float(np.median(runs)) - wanted if len(runs) else 0.0
    width = 2 * (round(surplus) // 2) + 1
    if width < 3:
        return ink_HW
    return np.asarray(Image.fromarray(ink_HW).filter(ImageFilter.MinFilter(width)))


def _swaying(image: Image.Image, size_px: int, draws: Draws) -> Image.Image:
    """Return the line bent by a mesh: letters moved and sized one by one, a wandering baseline."""
    width, height = image.size
    cell_px = round(size_px * draws.uniform(0.4, 0.9))
    columns = -(-width // cell_px)
    random = fixed_generator(round(draws.uniform() * 2**52))
    own_px = draws.uniform(0.01, 0.08) * size_px
    shift = own_px * random.standard_normal((2, _MESH_ROWS + 1, columns + 1))  # x, y of the corners
    wander = np.cumsum(random.standard_normal(columns + 1)).clip(-3, 3) / 3
    shift[1] += draws.uniform(0.0, 0.12) * size_px * wander
    shift[1, 1:-1] += draws.uniform(-0.1, 0.1) * size_px  # the letters' body against their marks
    levels = np.linspace(0, height, _MESH_ROWS + 1).round()
    shift[0] += draws.uniform(-0.1, 0.4) * (levels - height / 2)[:, None]
    at = np.stack(np.meshgrid(cell_px * np.arange(columns + 1), levels)) + shift
    mesh = [
        (
            (column * cell_px, int(levels[row]), (column + 1) * cell_px, int(levels[row + 1])),
            tuple(
                float(value)
                for down, across in ((0, 0), (1, 0), (1, 1), (0, 1))
                for value in at[:, row + down, column + across]
            ),
        )
        for row in range(_MESH_ROWS)
        for column in range(columns)
    ]
    size = (columns * cell_px, height)
    return image.transform(size, Image.Transform.MESH, mesh, Image.Resampling.BILINEAR)

"""Print as if written: keyed, thinner, without a headline, and never cut or empty."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ocr.rendering.draws import Draws
from ocr.rendering.ink import Piece
from ocr.rendering.pen import written

SIZE_PX = 60


def line(stroke_px: int = 12, headline: bool = True) -> Piece:
    """Upright strokes, hanging from a headline when asked for; a font size high, ten wide."""
    image = Image.new("L", (10 * SIZE_PX, SIZE_PX))
    draw = ImageDraw.Draw(image)
    for left in range(0, 10 * SIZE_PX, SIZE_PX // 2):
        draw.rectangle((left, 5, left + stroke_px - 1, SIZE_PX - 1), fill=255)
    if headline:
        draw.rectangle((0, 5, 10 * SIZE_PX, 11), fill=255)
    return Piece(image, 3, -50)


def dark(piece: Piece) -> NDArray[np.bool_]:
    return np.asarray(piece.ink) > 127


def test_a_line_depends_on_its_key_alone() -> None:
    again = [written(line(), SIZE_PX, Draws(1, key)) for key in (7, 7, 8)]
    assert again[0].ink.tobytes() == again[1].ink.tobytes()
    assert again[0].ink.tobytes() != again[2].ink.tobytes()


@pytest.mark.parametrize("key", range(30))
def test_ink_is_left_and_none_is_cut(key: int) -> None:
    piece = written(line(), SIZE_PX, Draws(2, key))
    assert piece.ink.getbbox() == (0, 0, *piece.ink.size)
    assert 0.6 < piece.ink.width / (10 * SIZE_PX) < 1.4
    assert abs(piece.left - 3) < SIZE_PX / 2 and abs(piece.top + 50) < SIZE_PX / 2
    assert 0.1 < dark(piece).sum() / dark(line()).sum() < 0.9, "wide strokes become a pen's"


def test_a_thin_stroke_stays() -> None:
    thin = line(stroke_px=2, headline=False)
    for key in range(20):
        kept = (
            np.asarray(written(thin, SIZE_PX, Draws(3, key)).ink).sum() / np.asarray(thin.ink).sum()
        )
        assert 0.7 < kept < 1.3


def test_most_lines_lose_most_of_their_headline() -> None:
    hung = line(stroke_px=2)  # two thirds of the ink are headline
    kept = [
        dark(written(hung, SIZE_PX, Draws(4, key))).sum() / dark(hung).sum() for key in range(60)
    ]
    assert 30 <= sum(share < 0.75 for share in kept) <= 55
    assert max(kept) > 0.9


def test_a_space_of_blank_columns_is_a_line_too() -> None:
    blank = Piece(Image.new("L", (40, 30)), 0, 0)
    assert np.asarray(written(blank, SIZE_PX, Draws(5)).ink).max() == 0

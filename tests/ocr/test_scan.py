"""What a scanner does to a line: each effect is seen, keyed, and leaves the others alone."""

import numpy as np
import pytest

from ocr.images import Pixels
from ocr.rendering.draws import Draws
from ocr.rendering.scan import scanned
from ocr.sources.settings import SyntheticSettings

SHARES = ("bilevel_share", "fade_share", "jpeg_share", "pattern_share")


def line() -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
    """Dark strokes on light paper, [60, 400]."""
    grey = np.full((60, 400), 230, np.float32)
    grey[20:40, 10:390:12] = grey[20:40, 11:390:12] = grey[20:40, 12:390:12] = 30
    return grey


def settings(**shares: float) -> SyntheticSettings:
    return SyntheticSettings(texts=("x",), script="Oriya", count=1, **shares)  # type: ignore[arg-type]


def after(key: int, **shares: float) -> Pixels:
    return scanned(line(), settings(**shares), Draws("test", key))


def test_without_shares_the_line_is_as_it_was() -> None:
    assert np.array_equal(after(1), line().astype(np.uint8))


@pytest.mark.parametrize("share", SHARES)
def test_an_effect_changes_its_share_of_images_and_is_keyed(share: str) -> None:
    changed = [not np.array_equal(after(key, **{share: 0.5}), after(key)) for key in range(60)]
    assert 15 <= sum(changed) <= 45
    assert np.array_equal(after(3, **{share: 1.0}), after(3, **{share: 1.0}))
    assert not np.array_equal(after(3, **{share: 1.0}), after(4, **{share: 1.0}))


def test_a_threshold_leaves_two_greys_and_most_strokes() -> None:
    for key in range(20):
        pixels = after(key, bilevel_share=1.0)
        assert len(np.unique(pixels)) == 2
        dark = pixels < 128
        assert dark[20:40].mean() > 0.05 and dark[:15].mean() < 0.02


def test_fading_keeps_the_paper_and_some_of_the_ink() -> None:
    for key in range(20):
        pixels = after(key, fade_share=1.0).astype(int)
        assert (pixels[:15] == 230).all()
        ink = 230 - pixels[30, 10:390:12]
        assert ink.min() >= 1 and ink.max() > 100 and ink.min() < ink.max()


def test_a_pattern_stays_lighter_than_the_text() -> None:
    for key in range(20):
        pixels = after(key, pattern_share=1.0)
        assert pixels[:15].min() > pixels[20:40].min() + 40

"""Clutter around a text leaves it readable: lines above and below, rules, stamps, show-through."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from ocr.errors import UserError
from ocr.rendering.clutter import Neighbour, Rule, ShowThrough, Stamp
from ocr.rendering.draws import Draws
from ocr.rendering.font import Font
from ocr.rendering.fonts import find_fonts
from ocr.rendering.ink import Layout, composed, shaped
from ocr.rendering.scripts import SCRIPTS

SIZE_PX = 32
LEVEL = Layout(
    np.eye(2),
    np.array([-20.0, -32.0]),
    1.0,
    200,
    48,
    48,
    (20.0, 12.0, 180.0, 36.0),
    slope=0.0,
    baseline=32.0,
)
TRIES = range(50)


@pytest.fixture
def font() -> Font:
    if shutil.which("fc-list") is None:
        pytest.skip("fontconfig is not installed (apt-get install fontconfig)")
    try:
        return find_fonts(SCRIPTS["Oriya"], ["Lohit Odia"])[0]
    except UserError:
        pytest.skip("the font Lohit Odia is not installed (apt-get install fonts-lohit-orya)")


@pytest.mark.parametrize("above", [True, False])
def test_less_than_half_of_a_neighbour_shows_and_none_of_it_in_the_text(
    font: Font, above: bool
) -> None:
    own = [shaped(font, SIZE_PX, "ଓଡ଼ିଶା")]
    for key in TRIES:
        piece = Neighbour.sampled(Draws(key), "ପ୍ରଧାନମନ୍ତ୍ରୀ", (0.04, 0.5)).piece(
            font, SIZE_PX, own, LEVEL, above
        )
        # the layout leaves 12 px clear on both sides
        top_edge, bottom_edge = (
            own[0].top - 1 - 12,
            own[0].bottom + 1 + 12,
        )
        shown_px = piece.bottom - top_edge if above else bottom_edge - piece.top
        assert 1 <= shown_px <= 0.4 * (piece.bottom - piece.top) + 1
        assert piece.bottom <= own[0].top if above else piece.top >= own[0].bottom


def test_sides_of_a_cell_stay_out_of_the_text_and_reach_the_edges() -> None:
    for rule in (
        rule for key in TRIES for rule in Rule.all_sampled(Draws(key)) if rule.side != "under"
    ):
        ink = np.broadcast_to(rule.coverage(LEVEL), (48, 200))
        assert ink[14:34, 22:178].max() == 0
        assert (ink.max(axis=0) if rule.side in ("top", "bottom") else ink.max(axis=1)).min() >= 0.3


def test_a_rule_under_the_text_runs_below_the_baseline_solid_or_dotted() -> None:
    kinds = set()
    for rule in (
        rule for key in TRIES for rule in Rule.all_sampled(Draws(key)) if rule.side == "under"
    ):
        ink = rule.coverage(LEVEL)
        assert ink[:31].max() == 0 and ink.max() > 0.2
        assert ((ink.max(axis=0) == 0).mean() > 0.3) == (rule.dash > 0)
        kinds.add(rule.dash > 0)
    assert kinds == {True, False}


def test_a_rule_follows_a_tilted_line() -> None:
    tilted = replace(LEVEL, slope=0.05)
    ink = Rule("under", 0.1, 0.5, 0.05, 1.0).coverage(tilted)
    assert ink[:, 180].argmax() - ink[:, 20].argmax() == pytest.approx(0.05 * 160, abs=1)


def test_a_stamp_crosses_the_crop_in_a_mid_grey() -> None:
    darkest = [Stamp.sampled(Draws(key)).coverage(LEVEL).max() for key in TRIES]
    assert min(darkest) > 0.1 and max(darkest) <= 0.45


def test_what_shows_through_is_mirrored_and_faint(font: Font) -> None:
    behind = ShowThrough("ଓଡ଼ିଶା", x=0.5, y=0.5, strength=0.2).coverage(font, SIZE_PX, LEVEL)
    mask, _ = composed([shaped(font, SIZE_PX, "ଓଡ଼ିଶା")])
    front = np.zeros((48, 200))
    top, left = (48 - mask.height) // 2, (200 - mask.width) // 2
    front[top : top + mask.height, left : left + mask.width] = np.asarray(mask)
    assert 0.05 < behind.max() <= 0.2
    assert (behind[:, ::-1] * front).sum() > 1.3 * (behind * front).sum()

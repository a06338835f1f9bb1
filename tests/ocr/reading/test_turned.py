"""A page is read however it lies; a line on a photo along its own direction."""

import cv2
import numpy as np
import pytest

from ocr.dataset.read import Dataset
from ocr.images import Pixels, encode_image, open_image
from ocr.pages import cut_lines, find_lines
from ocr.reading.config import ReadConfig
from ocr.reading.document import read_pages
from ocr.reading.page import TextPage
from ocr.recognizers.factory import load
from ocr.scoring import score_all
from tests.support.composed_pages import composed_page


@pytest.fixture(scope="module")
def page() -> Pixels:
    """Eight lines of some words each."""
    data = Dataset.open("odia_words", "validation")
    words = [open_image(data.image_bytes(index)) for index in range(60)]
    return composed_page(words, data.texts[:60], 1, 0.0, 2)[0][:700]


def read(page: Pixels, **settings: str) -> TextPage:
    config = ReadConfig(**settings)
    (found,) = read_pages(load("odia"), encode_image(page), config, "page.png", with_words=True)
    return found[0]


@pytest.fixture(scope="module")
def upright(page: Pixels) -> TextPage:
    return read(page)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_page_is_read_whichever_side_is_up(
    page: Pixels, upright: TextPage, quarters: int
) -> None:
    lying = np.ascontiguousarray(np.rot90(page, -quarters))  # turned clockwise
    found = read(lying)
    assert score_all([(upright.text, found.text)]).cer < 0.1
    assert all(line.degrees == pytest.approx(90 * quarters, abs=1) for line in found.lines)
    for line in found.lines_with_text:
        across = line.polygon[1] - line.polygon[0]
        towards = line.words[-1].polygon[0] - line.words[0].polygon[0]
        assert len(line.words) == 1 or across @ towards > 0


def test_by_rules_alone_a_page_may_lie_upside_down_too(page: Pixels) -> None:
    upright = read(page, detector="classical")
    found = read(np.ascontiguousarray(np.rot90(page, 2)), detector="classical")
    assert score_all([(upright.text, found.text)]).cer < 0.1


def test_lines_that_run_together_in_a_photo_have_directions_of_their_own(page: Pixels) -> None:
    height, width = page.shape
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    seen = np.array([[0, 0], [width, 90], [width, height - 90], [0, height]], np.float32)
    turn = cv2.getPerspectiveTransform(corners, seen)
    photo = cv2.warpPerspective(page, turn, (width, height), borderValue=245)
    lines = find_lines(np.asarray(photo), detector="detector")
    assert lines[0].degrees > 1 and lines[-1].degrees < -1
    straight = cut_lines(page, find_lines(page, detector="detector"))
    for crop, same in zip(cut_lines(np.asarray(photo), lines), straight, strict=True):
        assert crop.shape[0] == pytest.approx(same.shape[0], rel=0.25)

"""A line's crop keeps the text and its marks, and leaves out slivers of neighbouring lines."""

import numpy as np
import pytest

from ocr.line_crop import crop_to_line
from ocr.recognizers.ctc.inputs import as_line
from ocr.recognizers.ctc.settings import CompactSettings


def page(height: int, *bars: tuple[int, int]) -> "np.ndarray":
    """White, with a band of letters in each (first row, end row)."""
    pixels = np.full((height, 200), 255, np.uint8)
    for first, end in bars:
        pixels[first:end, 10:190:4] = 0
        pixels[first:end, 11:190:4] = 0
    return pixels


def inked(pixels: "np.ndarray") -> int:
    return int((pixels.min(axis=1) < 100).sum())


def test_a_sliver_above_and_one_below_are_left_out() -> None:
    cropped = crop_to_line(page(80, (0, 6), (20, 55), (74, 80)))
    assert inked(cropped) == 35 and cropped.shape[0] <= 35 + 2 * 3


def test_marks_above_and_below_are_kept() -> None:
    cropped = crop_to_line(page(80, (8, 14), (18, 52), (58, 63)))
    assert inked(cropped) == 6 + 34 + 5


def test_a_mark_that_touches_the_text_is_kept_at_the_edge() -> None:
    assert inked(crop_to_line(page(60, (0, 40)))) == 40


@pytest.mark.parametrize("pixels", [page(40), np.zeros((1, 1), np.uint8), page(40, (0, 40))])
def test_nothing_to_cut_is_returned_whole(pixels: "np.ndarray") -> None:
    assert crop_to_line(pixels).shape == pixels.shape


def test_a_stretched_line_has_more_columns_and_the_same_height() -> None:
    line = page(64, (10, 50))
    plain, wide = (
        as_line(line, CompactSettings(crop="line", stretch=stretch)) for stretch in (1.0, 1.25)
    )
    assert plain.shape[0] == wide.shape[0] == 32
    assert wide.shape[1] == pytest.approx(1.25 * plain.shape[1], abs=1)


def test_the_defaults_are_the_lines_of_older_bundles() -> None:
    from ocr.images import scale_to_height, trim_rows

    line = page(64, (0, 4), (10, 50))
    assert np.array_equal(as_line(line, CompactSettings()), scale_to_height(trim_rows(line), 32))

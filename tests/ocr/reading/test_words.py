"""Where words stand in a line."""

import numpy as np
import pytest

from ocr.dataset.read import Dataset
from ocr.images import Pixels, open_image
from ocr.recognizers.ctc.alignment import align
from ocr.recognizers.factory import load
from ocr.recognizers.words import guessed_spans, spans_between

GAP = 22


def odia_words(count: int) -> tuple[list[Pixels], list[str]]:
    data = Dataset.open("odia_words", "validation")
    return [open_image(data.image_bytes(index)) for index in range(count)], data.texts[:count]


def pasted(words: list[Pixels]) -> tuple[Pixels, list[tuple[int, int]]]:
    """A line of words with a gap between, and where each one's ink starts and ends."""
    height = max(word.shape[0] for word in words)
    line = np.full((height, sum(word.shape[1] + GAP for word in words)), 255, np.uint8)
    x, inked = 0, []
    for word in words:
        line[: word.shape[0], x : x + word.shape[1]] = word
        columns = np.flatnonzero((word < 170).any(axis=0))
        inked.append((x + int(columns[0]), x + int(columns[-1]) + 1))
        x += word.shape[1] + GAP
    return line, inked


def bars(*widths: int) -> Pixels:
    """Upright bars with gaps of 20 pixels, a gap first."""
    line = np.full((30, sum(widths) + 20 * (len(widths) + 1)), 255, np.uint8)
    x = 20
    for width in widths:
        line[5:25, x : x + width] = 0
        x += width + 20
    return line


def test_words_that_a_shipped_recogniser_reads_have_the_boxes_of_their_ink() -> None:
    images, texts = odia_words(60)
    lines = [pasted(images[start : start + 3]) for start in range(0, 60, 3)]
    read = load("odia").read_words([line for line, _ in lines])
    right, off = 0, []
    for number, ((line, inked), (reading, spans)) in enumerate(zip(lines, read, strict=True)):
        assert " ".join(span.text for span in spans) == reading.text
        assert all(0 <= span.start < span.end <= 1 for span in spans)
        if reading.text.split() == texts[3 * number : 3 * number + 3]:
            right += 1
            for (start, end), span in zip(inked, spans, strict=True):
                off.append(abs(span.start * line.shape[1] - start))
                off.append(abs(span.end * line.shape[1] - end))
                assert 0 < span.confidence <= 1
    assert right >= 10
    assert np.median(off) <= 2 and np.mean(np.array(off) <= 6) > 0.9, sorted(off)[-6:]


def test_the_same_texts_come_with_and_without_words() -> None:
    images, _ = odia_words(12)
    reader = load("odia")
    assert [reading for reading, _ in reader.read_words(images)] == reader.read(images)
    blank = np.full((40, 200), 255, np.uint8)
    assert reader.read_words([blank]) == [(reader.read([blank])[0], ())]


def test_a_cut_moves_into_the_gap_and_a_box_ends_with_the_ink() -> None:
    line = bars(100, 60)  # 20–120, 140–200 of 220
    for cut in (100, 118, 130, 150):
        first, second = spans_between(["abcde", "fgh"], [cut / 220], [0.5, 0.7], line)
        assert np.allclose([first.start * 220, first.end * 220], [20, 120])
        assert np.allclose([second.start * 220, second.end * 220], [140, 200])


@pytest.mark.parametrize("text", ["", "one", "aaaaa bbb cc", "a b c d e f g h"])
def test_guessed_words_are_all_there_in_their_order(text: str) -> None:
    spans = guessed_spans(text, 0.4, bars(100, 60, 40))
    assert [span.text for span in spans] == text.split()
    assert [span.start for span in spans] == sorted(span.start for span in spans)
    assert all(0 <= span.start < span.end <= 1.0001 for span in spans)


def test_guessed_words_stand_where_the_ink_is() -> None:
    line = bars(100, 60, 40)  # 280 wide
    spans = guessed_spans("aaaaa bbb cc", 1.0, line)
    found = [(round(span.start * 280), round(span.end * 280)) for span in spans]
    assert found == [(20, 120), (140, 200), (220, 260)]


def test_the_path_is_the_likeliest() -> None:
    probabilities = np.full((6, 3), 0.1)
    for column, index in enumerate((1, 0, 2, 2, 0, 1)):
        probabilities[column, index] = 0.8
    columns, strengths = align(np.log(probabilities).astype(np.float32), [1, 2, 1])
    assert columns[0] == 0 and columns[1] in (2, 3) and columns[2] == 5
    assert np.allclose(strengths, np.log(0.8))
    twice = np.full((5, 2), 0.1)
    for column, index in enumerate((1, 1, 0, 0, 1)):
        twice[column, index] = 0.9
    columns, _ = align(np.log(twice).astype(np.float32), [1, 1])
    assert columns[0] in (0, 1) and columns[1] == 4

"""What a page's answer says: text in reading order, and what has none at the end."""

import numpy as np

from ocr.pages import PageLine
from ocr.sample import Reading
from serve.batching import Read
from serve.page_reading import Page, page_result


def test_lines_without_text_are_last_and_not_in_the_text() -> None:
    corners = np.array([[0, 0], [9, 0], [9, 9], [0, 9]], dtype=np.float64)
    texts = ["", "first", "", "second"]
    lines = tuple(PageLine(corners + 10 * each, 0.0) for each in range(len(texts)))
    reads = [Read(Reading(text, 0.8 if text else 0.0), 9, 9) for text in texts]
    found = page_result([(Page(100, 100, lines), reads), (Page(100, 100, lines[:2]), reads[:2])])
    assert found["text"] == "first\nsecond\n\nfirst"
    assert found["confidence"] == 0.8
    assert [line["text"] for line in found["pages"][0]["lines"]] == ["first", "second", "", ""]
    assert [line["box"][0] for line in found["pages"][0]["lines"]] == [10, 30, 0, 20]
    blank = page_result([(Page(100, 100, ()), [])])
    assert (blank["text"], blank["confidence"]) == ("", 0.0)

"""A page is read however it lies, by the code of a replica."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from ocr.dataset.read import Dataset
from ocr.images import Pixels, encode_image, open_image
from ocr.recognizers.factory import load
from ocr.scoring import score_all
from serve.batching import BatchingReader
from serve.config import LimitSettings
from serve.decoding import Decoding
from serve.errors import Refused
from serve.models import Loaded
from serve.page_reading import PageReader, page_result
from tests.support.composed_pages import composed_page


def test_pages_on_their_sides_are_read_and_said() -> None:
    data = Dataset.open("odia_words", "validation")
    words = [open_image(data.image_bytes(index)) for index in range(60)]
    page = composed_page(words, data.texts[:60], 1, 0.0, 2)[0][:400]
    turned = [np.ascontiguousarray(np.rot90(page, -quarters)) for quarters in range(4)]
    upright, *others = read(turned)
    assert abs(upright["pages"][0]["degrees"]) < 1
    for quarters, found in enumerate(others, start=1):
        assert found["pages"][0]["degrees"] == pytest.approx(90 * quarters, abs=1)
        assert score_all([(upright["text"], found["text"])]).cer < 0.1


def read(pages: list[Pixels]) -> list[dict]:
    limits = LimitSettings()
    decoding = Decoding(limits)

    async def answers() -> list[dict]:
        lines = BatchingReader(16, limits, decoding, True)
        lines.swap(Loaded("odia@1", load(Path("odia"))), True)
        found, _ = await PageReader(lines, 16, limits, decoding).read(
            list(map(encode_image, pages))
        )
        return [page_result(one) for one in found if not isinstance(one, Refused)]

    found = asyncio.run(answers())
    decoding.close()
    assert len(found) == len(pages)
    return found

"""Files of strangers are decoded in a process with limits: the same pixels, and a bomb costs its
sender a refusal and nobody else anything.
"""

import asyncio
import contextlib
import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
import pytest
from PIL import Image

from ocr.documents import open_pages
from ocr.images import ImageRefused, Pixels, encode_image, open_image
from ocr.recognizers.factory import load
from ocr.recognizers.recognizer import PixelReader
from ocr.sample import Reading
from serve.batching import BatchingReader, Read
from serve.config import LimitSettings
from serve.decoding import SMALL_BYTES, Decoding, is_small
from serve.errors import Refused
from serve.models import Loaded
from serve.page_reading import PageReader
from tests.support import bombs

LIMITS = LimitSettings(max_decode_s=1, max_decode_bytes=300_000_000)
LARGE = bombs.noise(300, 500)


@pytest.fixture(scope="module")
def decoding() -> Iterator[Decoding]:
    found = Decoding(LIMITS)
    found.start()
    yield found
    found.close()


def encoded(pixels: Pixels, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def pages_of(decoding: Decoding, data: bytes, mode: Literal["L", "RGB"] = "L") -> list[Pixels]:
    with decoding.document(data, mode, LIMITS.images, 20) as pages:
        return list(pages)


def children(decoding: Decoding) -> list[psutil.Process]:
    assert decoding._process is not None
    return psutil.Process(decoding._process.pid).children()


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PDF"])
def test_the_pixels_are_those_of_this_process(
    decoding: Decoding, kind: str, mode: Literal["L", "RGB"]
) -> None:
    data = encoded(np.dstack([LARGE, LARGE.T.reshape(LARGE.shape), 255 - LARGE]), kind)
    (page,) = pages_of(decoding, data, mode)
    assert np.array_equal(page, next(open_pages(data, mode)))
    if kind != "PDF":
        assert np.array_equal(decoding.image(data, mode, LIMITS.images), open_image(data, mode))


def test_a_document_comes_page_by_page_and_may_be_left(decoding: Decoding) -> None:
    pages = [Image.fromarray(bombs.noise(200, 300, seed)) for seed in range(5)]
    buffer = io.BytesIO()
    pages[0].save(buffer, "TIFF", save_all=True, append_images=pages[1:])
    found = pages_of(decoding, buffer.getvalue())
    assert all(np.array_equal(a, np.asarray(b)) for a, b in zip(found, pages, strict=True))
    with decoding.document(buffer.getvalue(), "L", LIMITS.images, 20) as opened:
        assert np.array_equal(next(opened), np.asarray(pages[0]))
    with pytest.raises(ImageRefused, match="5 pages; at most 2 are read at once"):
        next(decoding.document(buffer.getvalue(), "L", LIMITS.images, 2))


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "a JPEG of 3000 scans": (lambda: bombs.many_scans(1400, 3000), "too many scans"),
    "nested forms of a PDF": (lambda: bombs.nested_pdf(9), "not a readable image|too slow"),
    "100000 pages of a TIFF": (lambda: bombs.many_pages_tiff(100_000), "too slow to decode"),
    "memory": (lambda: encoded(np.zeros((4400, 4400, 4), np.uint8), "PNG"), "too large"),
    "a million frames of a GIF": (lambda: bombs.many_frames_gif(1_000_000), "frames|too slow"),
    "a canvas without pixels": (bombs.wide_canvas_webp, "too large|several frames"),
    "an image of 81 megapixels": (lambda: bombs.pixel_bomb(9_000, 9_000), "too large"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_and_its_memory_goes_back(decoding: Decoding, name: str) -> None:
    make, reason = BOMBS[name]
    data, began = make(), time.process_time()
    with pytest.raises(ImageRefused, match=reason):
        pages_of(decoding, data)
    assert time.process_time() - began < 0.5, "decoding took this process's time"
    assert np.array_equal(pages_of(decoding, encode_image(LARGE))[0], LARGE)
    time.sleep(0.2)
    assert children(decoding) == []


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_what_is_decoded_in_this_process_is_cheap(kind: bytes) -> None:
    """The dearest that `is_small` lets in, of what is known."""
    texts = bombs.texts_in_png(90, kind)
    scans = bombs.many_scans(990, 2)
    for data in (texts, scans, bombs.pixel_bomb(1000, 1000, 16)):
        assert is_small(data)
        began = time.process_time()
        with contextlib.suppress(ImageRefused):
            open_image(data)
        assert time.process_time() - began < 0.25
    for data in (
        bombs.many_scans(64, 40),
        bombs.nested_pdf(2),
        bombs.many_pages_tiff(3),
        bombs.many_frames_gif(3),
        encode_image(bombs.noise(400, 400)),
    ):
        assert not is_small(data)


def test_a_lost_process_is_replaced_and_ends_with_its_owner() -> None:
    decoding = Decoding(LIMITS)
    png = encode_image(LARGE)
    assert np.array_equal(decoding.image(png, "L", LIMITS.images), LARGE)
    assert decoding._process is not None
    first = psutil.Process(decoding._process.pid)
    first.kill()
    first.wait(5)
    assert np.array_equal(decoding.image(png, "L", LIMITS.images), LARGE)
    second = psutil.Process(decoding._process.pid)
    assert second.pid != first.pid
    decoding.close()
    assert not second.is_running()


def test_a_file_that_nobody_waits_for_is_not_decoded_further() -> None:
    decoding = Decoding(LimitSettings(max_decode_s=100))
    pages = decoding.document(bombs.many_pages_tiff(100_000), "L", LIMITS.images, 200_000)
    failures = list[BaseException]()

    def wait() -> None:
        try:
            next(pages)
        except RuntimeError as problem:
            failures.append(problem)

    thread = threading.Thread(target=wait)
    thread.start()
    deadline = time.monotonic() + 20
    while (decoding._process is None or not children(decoding)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert children(decoding)
    pages.close()
    thread.join(5)
    time.sleep(0.2)
    assert failures and children(decoding) == []
    decoding.close()


def test_the_process_knows_no_secret_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a secret")
    decoding = Decoding(LIMITS)
    decoding.image(encode_image(LARGE), "L", LIMITS.images)
    assert decoding._process is not None
    assert "a secret" not in psutil.Process(decoding._process.pid).environ().values()
    decoding.close()


def test_a_process_whose_owner_was_killed_ends() -> None:
    script = (
        "import sys, time; from serve.config import LimitSettings; from serve.decoding import "
        "Decoding; found = Decoding(LimitSettings()); found.start(); "
        "print(found._process.pid, flush=True); time.sleep(60)"
    )
    path = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=path
    ) as owner:
        assert owner.stdout is not None
        process = psutil.Process(int(owner.stdout.readline()))
        owner.kill()
    process.wait(10)
    assert not process.is_running()


def test_the_images_of_an_answer_are_bounded_for_all_its_documents(decoding: Decoding) -> None:
    limits = LimitSettings(max_body_bytes=40_000)
    page = encode_image(bombs.noise(300, 300))

    async def read() -> list[Any]:
        lines = reader(decoding, load(Path("odia")), True)
        documents = PageReader(lines, 4, limits, decoding)
        found = (await documents.read([page] * 4, frozenset(("images",))))[0]
        return [*found, *(await documents.read([page] * 4))[0]]

    found = asyncio.run(read())
    refused = [isinstance(each, Refused) for each in found]
    assert refused == [False, False, True, True, False, False, False, False]
    assert found[2].code == "answer_too_large"


def reader(decoding: Decoding, recognizer: Any, in_loop: bool | None = None) -> BatchingReader:
    found = BatchingReader(4, LIMITS, decoding, in_loop)
    found.swap(Loaded("odia@1", recognizer), bool(in_loop))
    return found


@pytest.mark.parametrize("in_loop", [True, False])
def test_large_images_join_the_batches_of_small_ones(decoding: Decoding, in_loop: bool) -> None:
    odia = load(Path("odia"))
    words = [open_image(bombs.pixel_bomb(100 + 10 * each, 40)) for each in range(3)]
    small = [encode_image(word) for word in words]
    few_bytes, noise = bombs.pixel_bomb(1600, 1000), bombs.noise(500, 900)
    large = encode_image(noise)
    assert is_small(few_bytes) and len(large) > SMALL_BYTES
    images = [small[0], large, small[1], few_bytes, b"none", small[2]]

    async def read() -> list[Read | Refused]:
        return (await reader(decoding, odia, in_loop).read(images))[0]

    found = asyncio.run(read())
    assert isinstance(found[4], Refused) and found[4].status == 422
    expected = odia.read([words[0], noise, words[1], open_image(few_bytes), words[2]])
    got = [each.reading.text for each in found if isinstance(each, Read)]
    assert got == [reading.text for reading in expected]
    assert isinstance(found[3], Read) and (found[3].width, found[3].height) == (1600, 1000)


def test_nobody_waits_for_a_bomb() -> None:
    decoding = Decoding(LimitSettings(max_decode_s=2))
    odia, small = load(Path("odia")), bombs.pixel_bomb(100, 40)
    blank = encode_image(np.full((300, 400), 255, np.uint8))
    bomb = bombs.many_pages_tiff(200_000)

    async def read() -> tuple[bool, list[Any]]:
        lines = reader(decoding, odia, True)
        documents = PageReader(lines, 4, LIMITS, decoding)
        dear = [asyncio.create_task(each.read([bomb])) for each in 2 * (lines, documents)]
        await asyncio.sleep(0.1)
        for _ in range(5):
            (line,), _ = await lines.read([small])
            assert isinstance(line, Read)
        (pages,), _ = await documents.read([blank])
        assert not isinstance(pages, Refused)
        return any(task.done() for task in dear), await asyncio.gather(*dear)

    was_last, refused = asyncio.run(read())
    assert not was_last
    assert {each.code for results, _ in refused for each in results} == {"too_slow_to_decode"}
    decoding.close()


class Hanging(PixelReader):
    """A recogniser that reads when it may."""

    name, image_mode, reads_pages = "hanging", "L", False

    def __init__(self) -> None:
        self.may = threading.Event()

    def read_pixels(self, images: Sequence[Pixels]) -> list[Reading]:
        self.may.wait(20)
        return [Reading("read", 1.0)] * len(images)


def test_a_reader_that_does_not_move_is_seen(decoding: Decoding) -> None:
    async def read() -> tuple[float, float, float]:
        recognizer = Hanging()
        lines = reader(decoding, recognizer, False)
        before = lines.batch_s
        task = asyncio.create_task(lines.read([bombs.pixel_bomb(100, 40)]))
        await asyncio.sleep(0.3)
        during = lines.batch_s
        recognizer.may.set()
        await task
        return before, during, lines.batch_s

    before, during, after = asyncio.run(read())
    assert before == after == 0 and during >= 0.2

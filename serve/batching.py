"""One recogniser for many requests: a batch fills while the previous one is read.

A batch never waits for more images. A recogniser that reads a batch in a few milliseconds reads in
the event loop itself, where a thread would cost more than it gives (docs/results.md). A slower one
gets a thread, so that the loop keeps accepting requests. Only small files are decoded here; others
join a batch once they are pixels (`serve/decoding.py`).
"""

import asyncio
import dataclasses
import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ocr.images import ImageRefused, Pixels, open_image
from ocr.limits import ImageLimits
from ocr.recognizers.recognizer import Recognizer
from ocr.recognizers.words import Span
from ocr.sample import Reading
from serve.config import LimitSettings
from serve.decoding import SMALL_BYTES, SMALL_PIXELS, Decoding, is_small
from serve.errors import Refused, as_refused
from serve.models import Loaded

_IN_LOOP_S = 0.03  # longest that a whole batch may block the event loop
_DECODED_AT_ONCE = 2  # images that children decode
_SAMPLE_HW = (48, 320)
_HOPS = 4  # event-loop turns to wait so that concurrent requests join the batch


@dataclass(frozen=True, slots=True)
class Read:
    """The reading of one image, the image's size in pixels, and its words where asked for."""

    reading: Reading
    width: int
    height: int
    spans: tuple[Span, ...] = ()


Result = Read | Refused


@dataclass(frozen=True, slots=True)
class _Waiting:
    image: bytes | Pixels
    by: Loaded
    future: "asyncio.Future[Read]"
    with_words: bool = False


class BatchingReader:
    """Batches over the images of all requests; batching changes no reading.

    A batch, and a request, has one model. `in_loop`: read in the event loop, else in a thread;
    None decides by the seconds of a batch of grey images. `on_batch(images, seconds)` is called
    after each batch.
    """

    def __init__(
        self,
        batch_size: int,
        limits: LimitSettings,
        decoding: Decoding,
        in_loop: bool | None = None,
        on_batch: Callable[[int, float], None] | None = None,
    ) -> None:
        self._most, self._limits, self._decoding = batch_size, limits, decoding
        self._asked_in_loop, self._on_batch = in_loop, on_batch
        self._small = dataclasses.replace(
            limits.images, max_pixels=min(limits.max_pixels, SMALL_PIXELS)
        )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lipi-read")
        self._decoders = ThreadPoolExecutor(_DECODED_AT_ONCE, thread_name_prefix="lipi-decode")
        self._tasks = set[asyncio.Task[None]]()
        self._batch_began: float | None = None
        self._waiting: deque[_Waiting] = deque()
        self._reading: asyncio.Task[None] | None = None
        self.in_loop = False
        self.loaded: Loaded | None = None
        self.candidate: Loaded | None = None
        self._share = 0.0

    def prepare(self, loaded: Loaded) -> bool:
        """Warm a model up; return whether it reads in the event loop. May run in any thread."""
        seconds = _batch_seconds(loaded.recognizer, self._most)
        return seconds < _IN_LOOP_S if self._asked_in_loop is None else self._asked_in_loop

    def swap(
        self, loaded: Loaded, in_loop: bool, candidate: Loaded | None = None, share: float = 0.0
    ) -> None:
        """Read new requests with `loaded`, a share of them with the candidate.

        Requests that were accepted before keep their model.
        """
        self.loaded, self.in_loop, self.candidate, self._share = loaded, in_loop, candidate, share

    def choose(self) -> Loaded:
        """Return the model for a request; Refused 503 while none is loaded."""
        if self.loaded is None:
            raise Refused(503, "loading", "no model is loaded yet", retry_after_s=1)
        if self.candidate is not None and random.random() < self._share:  # noqa: S311  a share of the traffic, no secret
            return self.candidate
        return self.loaded

    async def read(
        self,
        images: Sequence[bytes | Pixels],
        loaded: Loaded | None = None,
        with_words: bool = False,
    ) -> tuple[list[Result], str]:
        """Return each image's reading, or why it has none, and the model that read them.

        Images are files, or pixels in the model's mode; `loaded` fixes the model. On cancellation
        images whose batch has not begun are dropped.
        """
        loaded = loaded or self.choose()
        loop = asyncio.get_running_loop()
        items = [_Waiting(image, loaded, loop.create_future(), with_words) for image in images]
        for item in items:
            if isinstance(item.image, bytes) and not is_small(item.image):
                self._decode_apart(item, item.image)
            else:
                self._waiting.append(item)
        self._begin_to_read()
        try:
            found = await asyncio.gather(*[item.future for item in items], return_exceptions=True)
        except asyncio.CancelledError:
            for item in items:
                item.future.cancel()
            raise
        for result in found:
            if isinstance(result, BaseException) and not isinstance(result, Refused):
                raise result
        return found, loaded.model  # type: ignore[return-value]

    @property
    def batch_s(self) -> float:
        """Seconds since the batch that is being read began; 0 while none is."""
        return 0.0 if self._batch_began is None else time.monotonic() - self._batch_began

    def _begin_to_read(self) -> None:
        if self._waiting and (self._reading is None or self._reading.done()):
            self._reading = asyncio.get_running_loop().create_task(self._read_all())

    def _decode_apart(self, item: _Waiting, image: bytes) -> None:
        """Have a child decode an image; its pixels wait for a batch then."""
        task = asyncio.get_running_loop().create_task(self._decode(item, image))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _decode(self, item: _Waiting, image: bytes) -> None:
        mode, limits = item.by.recognizer.image_mode, self._limits.images
        try:
            pixels = await asyncio.get_running_loop().run_in_executor(
                self._decoders, self._decoded, item, image, mode, limits
            )
        except ImageRefused as problem:
            _set_exception(item, as_refused(problem))
        except Exception as problem:  # noqa: BLE001  the waiting request must be answered
            _set_exception(item, problem)
        else:
            if pixels is not None:
                self._waiting.append(dataclasses.replace(item, image=pixels))
                self._begin_to_read()

    def _decoded(
        self, item: _Waiting, image: bytes, mode: Literal["L", "RGB"], limits: ImageLimits
    ) -> Pixels | None:
        return None if item.future.done() else self._decoding.image(image, mode, limits)

    async def _read_all(self) -> None:
        while self._waiting:
            for _ in range(_HOPS if self.in_loop else 0):
                await asyncio.sleep(0)
            batch = self._next_batch()
            if not batch:
                continue
            began = time.perf_counter()
            self._batch_began = time.monotonic()
            results: Sequence[Result | BaseException | None]
            try:
                results = await self._read_batch(batch)
            except Exception as problem:  # noqa: BLE001  every waiting request must be answered
                results = [problem] * len(batch)
            self._batch_began = None
            for item, result in zip(batch, results, strict=True):
                if result is None:
                    assert isinstance(item.image, bytes)
                    self._decode_apart(item, item.image)
                elif isinstance(result, BaseException):
                    _set_exception(item, result)
                elif not item.future.done():
                    item.future.set_result(result)
            if self._on_batch:
                self._on_batch(len(batch), time.perf_counter() - began)

    async def _read_batch(self, batch: Sequence[_Waiting]) -> list[Result | None]:
        """Read in the event loop where all images are small, else in the thread."""
        if self.in_loop and sum(_weight(item.image) for item in batch) <= SMALL_BYTES:
            return self._read(batch)
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._read, batch)

    def _next_batch(self) -> list[_Waiting]:
        """Return the first waiting images of one model; those of gone clients are left out."""
        batch = list[_Waiting]()
        while (
            self._waiting
            and len(batch) < self._most
            and (not batch or self._waiting[0].by is batch[0].by)
        ):
            item = self._waiting.popleft()
            if not item.future.done():
                batch.append(item)
        return batch

    def _read(self, batch: Sequence[_Waiting]) -> list[Result | None]:
        """Decode each image, then read all that could be decoded, together.

        None stands for an image with too many pixels to be decoded here.
        """
        recognizer = batch[0].by.recognizer
        opened = [self._opened(item.image, recognizer) for item in batch]
        pixels = [one for one in opened if isinstance(one, np.ndarray)]
        read: Iterator[tuple[Reading, tuple[Span, ...]]]
        if any(item.with_words for item in batch):
            read = iter(recognizer.read_words(pixels))  # the readings are the same
        else:
            read = ((reading, ()) for reading in recognizer.read(pixels))
        return [
            _as_read(one, *next(read)) if isinstance(one, np.ndarray) else one for one in opened
        ]

    def _opened(self, image: bytes | Pixels, recognizer: Recognizer) -> Pixels | Refused | None:
        if not isinstance(image, bytes):
            return image
        try:
            return open_image(image, recognizer.image_mode, self._small)
        except ImageRefused as refused:
            return None if refused.reason == "image too large" else as_refused(refused)


def _as_read(pixels: Pixels, reading: Reading, spans: tuple[Span, ...]) -> Read:
    return Read(reading, pixels.shape[1], pixels.shape[0], spans)


def _set_exception(item: _Waiting, problem: BaseException) -> None:
    if not item.future.done():
        item.future.set_exception(problem)


def _weight(image: bytes | Pixels) -> int:
    """Estimate the bytes of an image as a file."""
    return len(image) if isinstance(image, bytes) else image.nbytes // 8


def _batch_seconds(recognizer: Recognizer, batch_size: int) -> float:
    """Return the seconds of the second of two batches; the first warms the model up."""
    grey = np.full(_SAMPLE_HW if recognizer.image_mode == "L" else (*_SAMPLE_HW, 3), 200, np.uint8)
    seconds = 0.0
    for _ in range(2):
        began = time.perf_counter()
        recognizer.read([grey] * batch_size)
        seconds = time.perf_counter() - began
    return seconds

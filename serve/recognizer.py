"""One recogniser for many requests: a batch fills while the one before is read, and never waits for more.

A recogniser that reads a batch in a few milliseconds reads it in the event loop itself: a thread of its own costs more than it gives (tests/benchmarks/serve.py).
One that takes longer gets the thread, so that the loop goes on taking requests in.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ocr.images import ImageLimits, ImageRefused, Pixels, open_image
from ocr.recognizers.base import Recognizer
from ocr.sample import Reading
from serve.limits import Refused

_IN_LOOP_S = 0.03  # that a whole batch may hold the event loop
_IN_LOOP_BYTES = 100_000  # of an encoded image; decoding a large one takes longer than reading it
_SAMPLE_HW = (48, 320)
_HOPS = 4  # turns of the event loop between a request's arrival and its batch: those that are on their way come along


class BatchingReader:
    """`recognizer.read` on batches in which images of all requests meet, which changes no reading.

    `in_loop`: in the event loop itself, else in a thread; None: by the time that the recogniser takes for a batch of grey images.
    """

    def __init__(self, recognizer: Recognizer, batch_size: int, limits: ImageLimits, in_loop: bool | None = None) -> None:
        self.recognizer, self._most, self._limits = recognizer, batch_size, limits
        self.in_loop = _batch_seconds(recognizer, batch_size) < _IN_LOOP_S if in_loop is None else in_loop
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lipi-read")
        self._waiting: deque[tuple[bytes, asyncio.Future[Reading]]] = deque()
        self._reading: asyncio.Task[None] | None = None

    async def read(self, images: Sequence[bytes]) -> list[Reading | Refused]:
        """Each image's reading, or why it has none; cancelled, what no batch has begun is dropped."""
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in images]
        self._waiting.extend(zip(images, futures, strict=True))
        if self._reading is None or self._reading.done():
            self._reading = loop.create_task(self._read_all())
        try:
            found = await asyncio.gather(*futures, return_exceptions=True)
        except asyncio.CancelledError:
            for future in futures:
                future.cancel()
            raise
        for result in found:
            if isinstance(result, BaseException) and not isinstance(result, Refused):
                raise result
        return found  # type: ignore[return-value]

    async def _read_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            for _ in range(_HOPS if self.in_loop else 0):
                await asyncio.sleep(0)
            batch = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
            batch = [(image, future) for image, future in batch if not future.done()]  # its client is gone
            images = [image for image, _ in batch]
            try:
                small = self.in_loop and max(map(len, images), default=0) <= _IN_LOOP_BYTES
                found: list[Reading | Refused | BaseException] = list(
                    self._read(images) if small else await loop.run_in_executor(self._thread, self._read, images)
                )
            except Exception as problem:  # noqa: BLE001  whatever it is, those who wait must hear of it
                found = [problem] * len(batch)
            for (_, future), result in zip(batch, found, strict=True):
                if future.done():
                    continue
                if isinstance(result, BaseException):
                    future.set_exception(result)
                else:
                    future.set_result(result)

    def _read(self, images: Sequence[bytes]) -> list[Reading | Refused]:
        """In the thread: decode each, read those that are images, together."""
        opened = [self._opened(image) for image in images]
        readings = iter(self.recognizer.read([pixels for pixels in opened if not isinstance(pixels, Refused)]))
        return [pixels if isinstance(pixels, Refused) else next(readings) for pixels in opened]

    def _opened(self, image: bytes) -> Pixels | Refused:
        try:
            return open_image(image, self.recognizer.image_mode, self._limits)
        except ImageRefused as refused:
            return Refused(422, refused.reason.replace(" ", "_"), f"{refused.reason}: {refused.detail}")


def _batch_seconds(recognizer: Recognizer, batch_size: int) -> float:
    """Of the second of two reads; the first warms it up."""
    grey = np.full(_SAMPLE_HW if recognizer.image_mode == "L" else (*_SAMPLE_HW, 3), 200, np.uint8)
    seconds = 0.0
    for _ in range(2):
        began = time.perf_counter()
        recognizer.read([grey] * batch_size)
        seconds = time.perf_counter() - began
    return seconds

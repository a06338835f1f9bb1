"""One recogniser for many requests: a batch fills while the one before is read, and never waits for more.

A recogniser that reads a batch in a few milliseconds reads it in the event loop itself: a thread of its own costs more than it gives (docs/log.md).
One that takes longer gets the thread, so that the loop goes on taking requests in.
"""

import asyncio
import dataclasses
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ocr.images import ImageRefused, Pixels, open_image
from ocr.limits import ImageLimits
from ocr.recognizers.recognizer import Recognizer
from ocr.sample import Reading
from serve.limits import Refused
from serve.models import Loaded

_IN_LOOP_S = 0.03  # that a whole batch may hold the event loop
_IN_LOOP_BYTES, _IN_LOOP_PIXELS = (
    100_000,
    2_000_000,
)  # of a batch, encoded, and of an image: decoding large ones takes longer than reading them
_SAMPLE_HW = (48, 320)
_HOPS = 4  # turns of the event loop between a request's arrival and its batch: those that are on their way come along


@dataclass(frozen=True, slots=True)
class Read:
    """One image's reading, and its size in pixels."""

    reading: Reading
    width: int
    height: int


Found = Read | Refused


@dataclass(frozen=True, slots=True)
class _Waiting:
    image: bytes | Pixels
    by: Loaded
    future: "asyncio.Future[Read]"


class BatchingReader:
    """Images of all requests meet in batches, which changes no reading; a batch, and a request, has one model.

    `in_loop`: batches are read in the event loop itself, else in a thread; None: by the time that the recogniser takes for one of grey images.
    `on_batch(images, seconds)` is told of each.
    """

    def __init__(
        self,
        batch_size: int,
        limits: ImageLimits,
        in_loop: bool | None = None,
        on_batch: Callable[[int, float], None] | None = None,
    ) -> None:
        self._most, self._limits, self._asked_in_loop, self._on_batch = (
            batch_size,
            limits,
            in_loop,
            on_batch,
        )
        self._small = dataclasses.replace(
            limits, max_pixels=min(limits.max_pixels, _IN_LOOP_PIXELS)
        )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lipi-read")
        self._waiting: deque[_Waiting] = deque()
        self._reading: asyncio.Task[None] | None = None
        self.in_loop = False
        self.loaded: Loaded | None = None
        self.candidate: Loaded | None = None
        self._share = 0.0

    def prepare(self, loaded: Loaded) -> bool:
        """Warm a model up; whether it is one for the event loop. May run in any thread."""
        seconds = _batch_seconds(loaded.recognizer, self._most)
        return seconds < _IN_LOOP_S if self._asked_in_loop is None else self._asked_in_loop

    def swap(
        self, loaded: Loaded, in_loop: bool, candidate: Loaded | None = None, share: float = 0.0
    ) -> None:
        """From now on requests are read by this one, a share of them by the candidate; those that came before keep theirs."""
        self.loaded, self.in_loop, self.candidate, self._share = loaded, in_loop, candidate, share

    def choose(self) -> Loaded:
        """The model for a request."""
        if self.loaded is None:
            raise Refused(503, "loading", "no model is loaded yet", retry_after_s=1)
        if self.candidate is not None and random.random() < self._share:  # noqa: S311  a share of the traffic, no secret
            return self.candidate
        return self.loaded

    async def read(
        self, images: Sequence[bytes | Pixels], loaded: Loaded | None = None
    ) -> tuple[list[Found], str]:
        """Each image's reading, or why it has none, and the model that read them (`loaded`, else the one that is chosen).

        Images are files, or pixels in the model's mode. Cancelled, what no batch has begun is dropped.
        """
        loaded = loaded or self.choose()
        loop = asyncio.get_running_loop()
        items = [_Waiting(image, loaded, loop.create_future()) for image in images]
        self._waiting.extend(items)
        if self._reading is None or self._reading.done():
            self._reading = loop.create_task(self._read_all())
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

    async def _read_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            for _ in range(_HOPS if self.in_loop else 0):
                await asyncio.sleep(0)
            batch = self._next_batch()
            if not batch:
                continue
            images, recognizer, began = (
                [item.image for item in batch],
                batch[0].by.recognizer,
                time.perf_counter(),
            )
            try:
                read = (
                    self._read(recognizer, images, self._small)
                    if self.in_loop and sum(map(_weight, images)) <= _IN_LOOP_BYTES
                    else None
                )
                if read is None or any(
                    isinstance(one, Refused) and one.code == "image_too_large" for one in read
                ):
                    read = await loop.run_in_executor(
                        self._thread, self._read, recognizer, images, self._limits
                    )
                found: list[Found | BaseException] = list(read)
            except Exception as problem:  # noqa: BLE001  whatever it is, those who wait must hear of it
                found = [problem] * len(batch)
            for item, result in zip(batch, found, strict=True):
                if item.future.done():
                    continue
                if isinstance(result, BaseException):
                    item.future.set_exception(result)
                else:
                    item.future.set_result(result)
            if self._on_batch:
                self._on_batch(len(batch), time.perf_counter() - began)

    def _next_batch(self) -> list[_Waiting]:
        """The first that wait, of one model; those whose client is gone are left out."""
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

    def _read(
        self, recognizer: Recognizer, images: Sequence[bytes | Pixels], limits: ImageLimits
    ) -> list[Found]:
        """Decode each, read those that are images, together."""
        opened = [_opened(image, recognizer, limits) for image in images]
        readings = iter(
            recognizer.read([pixels for pixels in opened if not isinstance(pixels, Refused)])
        )
        return [
            pixels
            if isinstance(pixels, Refused)
            else Read(next(readings), pixels.shape[1], pixels.shape[0])
            for pixels in opened
        ]


def _weight(image: bytes | Pixels) -> int:
    """Bytes, as a file."""
    return len(image) if isinstance(image, bytes) else image.nbytes // 8


def _opened(image: bytes | Pixels, recognizer: Recognizer, limits: ImageLimits) -> Pixels | Refused:
    if not isinstance(image, bytes):
        return image
    try:
        return open_image(image, recognizer.image_mode, limits)
    except ImageRefused as refused:
        return as_refused(refused)


def as_refused(problem: ImageRefused) -> Refused:
    """An image's fault as an answer."""
    return Refused(422, problem.reason.replace(" ", "_"), f"{problem.reason}: {problem.detail}")


def _batch_seconds(recognizer: Recognizer, batch_size: int) -> float:
    """Of the second of two reads; the first warms it up."""
    grey = np.full(_SAMPLE_HW if recognizer.image_mode == "L" else (*_SAMPLE_HW, 3), 200, np.uint8)
    seconds = 0.0
    for _ in range(2):
        began = time.perf_counter()
        recognizer.read([grey] * batch_size)
        seconds = time.perf_counter() - began
    return seconds

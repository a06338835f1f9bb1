"""One recogniser for many requests: a batch fills while the one before is read, and never waits for more."""

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from ocr.images import ImageLimits, ImageRefused, Pixels, open_image
from ocr.recognizers.base import Recognizer
from ocr.sample import Reading
from serve.limits import Refused


class BatchingReader:
    """`recognizer.read` in one thread of its own; images of all requests meet in its batches, which changes no reading."""

    def __init__(self, recognizer: Recognizer, batch_size: int, limits: ImageLimits) -> None:
        self.recognizer, self._most, self._limits = recognizer, batch_size, limits
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
            batch = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
            batch = [(image, future) for image, future in batch if not future.done()]  # its client is gone
            try:
                found: list[Reading | Refused | BaseException] = list(await loop.run_in_executor(self._thread, self._read, [image for image, _ in batch]))
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

"""Pages → lines → readings, one page at a time, so that a document is never in memory as a whole.

A child decodes the document (`serve/decoding.py`), a thread cuts a page into lines, and these join
the batches of all requests.
"""

import asyncio
import base64
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ocr.images import ImageRefused, Pixels, encode_image
from ocr.pages import PageLine, cut_lines, lines_for
from serve.batching import BatchingReader, Read
from serve.config import LimitSettings
from serve.decoding import Decoding, Pages
from serve.errors import Refused, as_refused
from serve.models import Loaded

_AT_ONCE = 3  # documents
_MOST_IMAGES = 4  # of an answer's pages, in the largest body of a request


@dataclass(frozen=True, slots=True)
class Page:
    """A page's size in pixels, its lines, and its image as a data URI where requested."""

    width: int
    height: int
    lines: tuple[PageLine, ...]
    image: str | None = None


ReadPage = tuple[Page, list[Read]]


class PageReader:
    """Reads documents page by page; lines join the batches in turns with other requests."""

    def __init__(
        self, reader: BatchingReader, batch_size: int, limits: LimitSettings, decoding: Decoding
    ) -> None:
        self._reader, self._batch_size, self._limits = reader, batch_size, limits
        self._decoding, self._turn = decoding, asyncio.Semaphore(_AT_ONCE)
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="lipi-pages")

    async def read(
        self, documents: Sequence[bytes], with_images: bool = False
    ) -> tuple[list[list[ReadPage] | Refused], str]:
        """Return the pages of each document, or why it has none, and the model that read them."""
        loaded, left = self._reader.choose(), self._limits.max_pages
        room = _MOST_IMAGES * self._limits.max_body_bytes if with_images else None
        results = list[list[ReadPage] | Refused]()
        for document in documents:
            try:
                pages = await self._document(document, loaded, left, room)
            except ImageRefused as problem:
                results.append(as_refused(problem))
                continue
            left -= len(pages)
            if room is not None:
                room -= sum(len(page.image or "") for page, _ in pages)
            results.append(pages)
        return results, loaded.model

    async def _document(
        self, document: bytes, loaded: Loaded, most: int, room: int | None
    ) -> list[ReadPage]:
        """Read page by page; with `room` for so many bytes of images of pages, also return them."""
        loop, read = asyncio.get_running_loop(), list[ReadPage]()
        mode, limits = loaded.recognizer.image_mode, self._limits.images
        async with self._turn:
            with self._decoding.document(document, mode, limits, most) as pages:
                while page := await loop.run_in_executor(
                    self._threads, self._next, pages, loaded, room is not None
                ):
                    about, crops = page
                    if room is not None and (room := room - len(about.image or "")) < 0:
                        detail = "the images of its pages; ask without detail=images"
                        raise ImageRefused("document", "answer too large", detail)
                    read.append((about, await self._read(crops, loaded)))
        return read

    def _next(
        self, pages: Pages, loaded: Loaded, with_images: bool
    ) -> tuple[Page, list[Pixels]] | None:
        """Return the next page with its lines cut out; None after the last."""
        page = next(pages, None)
        if page is None:
            return None
        lines = lines_for(loaded.recognizer, page, self._limits.max_lines)
        image = _data_uri(page) if with_images else None
        about = Page(page.shape[1], page.shape[0], tuple(lines), image)
        return about, cut_lines(page, lines)

    async def _read(self, crops: Sequence[Pixels], loaded: Loaded) -> list[Read]:
        read = list[Read]()
        for start in range(0, len(crops), self._batch_size):
            results, _ = await self._reader.read(crops[start : start + self._batch_size], loaded)
            # pixels are never refused
            read += [result for result in results if isinstance(result, Read)]
        return read


def _data_uri(page: Pixels) -> str:
    jpeg = base64.b64encode(encode_image(page, "JPEG", 80)).decode()
    return f"data:image/jpeg;base64,{jpeg}"


def page_result(pages: Sequence[ReadPage], with_tokens: bool = False) -> dict[str, Any]:
    """Return `{text, confidence, pages}`, the confidence being the mean over lines with text.

    A page is `{width, height, degrees, lines: [{text, confidence, box, polygon}]}`, its lines in
    reading order; those without text, such as a crease or a stain, are last and not in `text`.
    """
    readings = [read.reading for _, lines in pages for read in lines]
    given, written = (sum(reading.tokens[side] for reading in readings) for side in (0, 1))
    with_text = [reading for reading in readings if reading.text]
    texts = [[read.reading.text for read in lines if read.reading.text] for _, lines in pages]
    return {
        **({"tokens": (given, written)} if with_tokens else {}),
        "text": "\n\n".join("\n".join(lines) for lines in texts),
        "confidence": round(
            sum(reading.confidence for reading in with_text) / max(1, len(with_text)), 6
        ),
        "pages": [_page(page, lines) for page, lines in pages],
    }


def _page(page: Page, lines: Sequence[Read]) -> dict[str, Any]:
    placed = zip(page.lines, lines, strict=True)
    plain = [
        {
            "text": read.reading.text,
            "confidence": round(read.reading.confidence, 6),
            "box": list(line.box),
            "polygon": [[round(float(x), 1), round(float(y), 1)] for x, y in line.polygon],
        }
        for line, read in sorted(placed, key=lambda pair: not pair[1].reading.text)
    ]
    degrees = round(page.lines[0].degrees, 2) if page.lines else 0.0
    return {
        "width": page.width,
        "height": page.height,
        "degrees": degrees,
        "lines": plain,
        **({"image": page.image} if page.image else {}),
    }

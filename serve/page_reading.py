"""Pages → lines → readings, one page at a time, so that a document is never in memory as a whole.

A child decodes the document (`serve/decoding.py`), a thread cuts a page into lines, and these join
the batches of all requests.
"""

import asyncio
import base64
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from ocr.documents import is_pdf
from ocr.images import ImageRefused, Pixels, encode_image
from ocr.pages import PageLine, cut_lines, lines_for, page_direction, require, upright
from ocr.reading.config import DETECTOR
from ocr.reading.document import is_line
from ocr.reading.page import TextPage, rectangle, words_on_page
from ocr.writers.plain import corners_of, words_of
from serve.batching import BatchingReader, Read
from serve.config import LimitSettings
from serve.decoding import Decoding, Pages
from serve.errors import Refused, as_refused
from serve.models import Loaded

_AT_ONCE = 3  # documents
_MOST_IMAGES = 4  # of an answer's pages, in the largest body of a request


@dataclass(frozen=True, slots=True)
class Page:
    """A page's size in pixels, its lines, and its image as a data URI where requested.

    `is_line`: an image that was taken for one line, by its shape.
    """

    width: int
    height: int
    lines: tuple[PageLine, ...]
    image: str | None = None
    is_line: bool = False


ReadPage = tuple[Page, list[Read]]


class PageReader:
    """Reads documents page by page; lines join the batches in turns with other requests."""

    def __init__(
        self,
        reader: BatchingReader,
        batch_size: int,
        limits: LimitSettings,
        decoding: Decoding,
        detector: DETECTOR = "auto",
    ) -> None:
        require(detector)
        self._reader, self._batch_size, self._limits = reader, batch_size, limits
        self._decoding, self._turn = decoding, asyncio.Semaphore(_AT_ONCE)
        self._detector: DETECTOR = detector
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="lipi-pages")

    async def read(
        self,
        documents: Sequence[bytes],
        details: frozenset[str] = frozenset(),
        finds_lines: bool = False,
    ) -> tuple[list[list[ReadPage] | Refused], str]:
        """Return the pages of each document, or why it has none, and the model that read them.

        `finds_lines`: an image whose shape is that of a line is one, and not cut. `details`: images
        (of pages), words.
        """
        loaded, left = self._reader.choose(), self._limits.max_pages
        room = _MOST_IMAGES * self._limits.max_body_bytes  # for images of pages
        results = list[list[ReadPage] | Refused]()
        for document in documents:
            try:
                pages = await self._document(document, loaded, (left, room), details, finds_lines)
            except ImageRefused as problem:
                results.append(as_refused(problem))
                continue
            left -= len(pages)
            room -= sum(len(page.image or "") for page, _ in pages)
            results.append(pages)
        return results, loaded.model

    async def pdf(self, document: bytes, pages: Sequence[TextPage]) -> bytes:
        """Return the searchable PDF of a document that was read; Refused where there is none."""
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._threads, self._decoding.pdf, document, pages
            )
        except ImageRefused as problem:
            raise as_refused(problem) from None

    async def _document(
        self,
        document: bytes,
        loaded: Loaded,
        most: tuple[int, int],
        details: frozenset[str],
        finds_lines: bool,
    ) -> list[ReadPage]:
        """Read page by page; `most` pages, and bytes of their images."""
        loop, read, (most_pages, room) = asyncio.get_running_loop(), list[ReadPage](), most
        mode, limits = loaded.recognizer.image_mode, self._limits.images
        async with self._turn:
            with self._decoding.document(document, mode, limits, most_pages) as pages:
                shaped = _shaped(pages, finds_lines and not is_pdf(document))
                while page := await loop.run_in_executor(
                    self._threads, self._next, shaped, loaded, "images" in details
                ):
                    about, pixels, crops = page
                    if (room := room - len(about.image or "")) < 0:
                        detail = "the images of its pages; ask without detail=images"
                        raise ImageRefused("document", "answer too large", detail)
                    with_words = "words" in details
                    lines = await self._read(crops, loaded, with_words)
                    read.append(await self._upright(about, pixels, lines, loaded, with_words))
        return read

    async def _upright(
        self, about: Page, pixels: Pixels, read: list[Read], loaded: Loaded, with_words: bool
    ) -> ReadPage:
        """Return a page as it was read; read anew where it lies upside down."""
        readings = [line.reading for line in read]
        few = upright.doubtful(about.lines, readings)
        if about.is_line or loaded.recognizer.reads_pages or not few:
            return about, read
        halves = [upright.by_half(about.lines[index]) for index in few]
        turned = await self._read(await self._cut(pixels, halves), loaded, False)
        if not upright.is_upside_down(
            [readings[index] for index in few], [line.reading for line in turned]
        ):
            return about, read
        lines = await asyncio.get_running_loop().run_in_executor(
            self._threads, self._lines, loaded, pixels, True
        )
        read = await self._read(await self._cut(pixels, lines), loaded, with_words)
        return replace(about, lines=tuple(lines)), read

    def _lines(self, loaded: Loaded, page: Pixels, upside_down: bool = False) -> list[PageLine]:
        most = self._limits.max_lines
        return lines_for(loaded.recognizer, page, most, self._detector, upside_down)

    async def _cut(self, page: Pixels, lines: Sequence[PageLine]) -> list[Pixels]:
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, cut_lines, page, lines
        )

    def _next(
        self, pages: Iterator[tuple[Pixels, bool]], loaded: Loaded, with_images: bool
    ) -> tuple[Page, Pixels, list[Pixels]] | None:
        """Return the next page, its pixels, and its lines cut out; None after the last."""
        page, alone = next(pages, (None, False))
        if page is None:
            return None
        height, width = page.shape[:2]
        image = _data_uri(page) if with_images else None
        if alone:
            line = PageLine(rectangle(width, height), 0.0)
            return Page(width, height, (line,), image, is_line=True), page, [page]
        lines = self._lines(loaded, page)
        return Page(width, height, tuple(lines), image), page, cut_lines(page, lines)

    async def _read(self, crops: Sequence[Pixels], loaded: Loaded, with_words: bool) -> list[Read]:
        read = list[Read]()
        for start in range(0, len(crops), self._batch_size):
            some = crops[start : start + self._batch_size]
            results, _ = await self._reader.read(some, loaded, with_words)
            # pixels are never refused
            read += [result for result in results if isinstance(result, Read)]
        return read


def _shaped(pages: Pages, finds_lines: bool) -> Iterator[tuple[Pixels, bool]]:
    """Yield pages, and whether each is one line: the only page of a file, in the shape of one."""
    first = next(pages, None)
    if first is None:
        return
    second = next(pages, None) if finds_lines else None
    yield first, finds_lines and second is None and is_line(first.shape[1], first.shape[0])
    if second is not None:
        yield second, False
    yield from ((page, False) for page in pages)


def _data_uri(page: Pixels) -> str:
    jpeg = base64.b64encode(encode_image(page, "JPEG", 80)).decode()
    return f"data:image/jpeg;base64,{jpeg}"


def page_of(read: Read) -> ReadPage:
    """Return an image of one line as a page with that line."""
    line = PageLine(rectangle(read.width, read.height), 0.0)
    return Page(read.width, read.height, (line,), is_line=True), [read]


def page_result(
    pages: Sequence[ReadPage], with_tokens: bool = False, with_words: bool = False
) -> dict[str, Any]:
    """Return `{text, confidence, pages}`, the confidence being the mean over lines with text.

    A page is `{width, height, degrees, lines: [{text, confidence, box, polygon, degrees}]}`,
    its lines in reading order; those without text, such as a crease or a stain, are last and not in
    `text`.
    A line with words has `words: [{text, confidence, box}]` too.
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
        "pages": [_page(page, lines, with_words) for page, lines in pages],
    }


def _page(page: Page, lines: Sequence[Read], with_words: bool) -> dict[str, Any]:
    placed = zip(page.lines, lines, strict=True)
    plain = [
        {
            "text": read.reading.text,
            "confidence": round(read.reading.confidence, 6),
            "box": list(line.box),
            "polygon": corners_of(line.polygon),
            "degrees": round(line.degrees, 2),
            **({"words": words_of(words_on_page(line.polygon, read.spans))} if with_words else {}),
        }
        for line, read in sorted(placed, key=lambda pair: not pair[1].reading.text)
    ]
    return {
        "width": page.width,
        "height": page.height,
        "degrees": round(page_direction(page.lines), 2),
        "lines": plain,
        **({"image": page.image} if page.image else {}),
    }

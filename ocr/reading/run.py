"""Documents read one after the other: refusals named, results written or yielded, progress told."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ocr.documents import is_pdf, page_count
from ocr.errors import UserError
from ocr.images import Pixels, open_image, orientation_of
from ocr.reading.config import ReadConfig
from ocr.reading.document import LIMITS, level_of, read_lines, read_pages
from ocr.reading.inputs import Input
from ocr.reading.outputs import Results
from ocr.reading.page import Document, TextPage
from ocr.recognizers.recognizer import Recognizer
from ocr.writers.formats import FORMATS

_AT_ONCE, _BYTES_AT_ONCE = 256, 64_000_000  # files of one line that are read together
_SECONDS_BETWEEN = 5.0  # two lines of progress
DOUBTFUL = 0.2  # least confidence that is not warned of: docs/results.md has what is below it


@dataclass(slots=True)
class Counts:
    """What became of the files: pages and lines read, files refused, results that were kept."""

    pages: int = 0
    lines: int = 0
    refused: int = 0
    kept: int = 0
    levels: dict[str, int] = field(default_factory=dict)
    doubtful: int = 0
    least: tuple[float, str] = (1.0, "")

    def add(self, document: Document, level: str) -> None:
        """Count a document that was read."""
        self.levels[level] = self.levels.get(level, 0) + 1
        self.pages += len(document.pages)
        for line in (line for page in document.pages for line in page.lines):
            self.lines += 1
            if line.confidence < DOUBTFUL and (line.text or level == "line"):
                self.doubtful += 1
                self.least = min(self.least, (line.confidence, document.source))


@dataclass(frozen=True, slots=True)
class Read:
    """A file that was read: its bytes, its text, and the images that its pages were read from."""

    item: Input
    document: Document
    level: str
    data: bytes
    images: tuple[tuple[int, Pixels], ...] = ()


def read_each(
    recognizer: Recognizer, items: Sequence[Input], config: ReadConfig, with_images: bool = False
) -> Iterator[Read | UserError]:
    """Yield each file as it was read, or why it was refused, in their order.

    Neighbouring files of one line are read together. `with_images`: with the pages' pixels, where
    they are not the file itself.
    """
    with_words = FORMATS[config.format].has_words
    waiting = list[tuple[Input, bytes, Pixels]]()
    for item in items:
        try:
            data = item.read()
            if level_of(data, config.level, item.name) == "line":
                pixels = open_image(data, recognizer.image_mode, LIMITS, item.name)
                waiting.append((item, data, pixels))
                if len(waiting) < _AT_ONCE and _bytes_of(waiting) < _BYTES_AT_ONCE:
                    continue
                yield from _lines(recognizer, waiting, with_words, with_images)
                waiting = []
                continue
            found: Read | UserError = _pages(
                recognizer, item, data, config, with_words, with_images
            )
        except OSError as problem:
            found = UserError(f"{item.name}: unreadable file: {problem.strerror or problem}")
        except UserError as problem:
            found = problem
        yield from _lines(recognizer, waiting, with_words, with_images)
        waiting = []
        yield found
    yield from _lines(recognizer, waiting, with_words, with_images)


def _bytes_of(waiting: Sequence[tuple[Input, bytes, Pixels]]) -> int:
    return sum(len(data) + pixels.nbytes for _, data, pixels in waiting)


def _lines(
    recognizer: Recognizer,
    waiting: Sequence[tuple[Input, bytes, Pixels]],
    with_words: bool,
    with_images: bool,
) -> Iterator[Read]:
    if not waiting:
        return
    pages = read_lines(recognizer, [pixels for _, _, pixels in waiting], with_words)
    for (item, data, pixels), page in zip(waiting, pages, strict=True):
        images = ((1, pixels),) if with_images and not _is_one_image(data) else ()
        yield Read(item, Document(item.name, (page,)), "line", data, images)


def _pages(
    recognizer: Recognizer,
    item: Input,
    data: bytes,
    config: ReadConfig,
    with_words: bool,
    with_images: bool,
) -> Read:
    pages, images = list[TextPage](), list[tuple[int, Pixels]]()
    is_image = _is_one_image(data)
    for page, pixels in read_pages(recognizer, data, config, item.name, with_words):
        pages.append(page)
        if with_images and not is_image:
            images.append((page.number, pixels))
    return Read(item, Document(item.name, tuple(pages)), "page", data, tuple(images))


def _is_one_image(data: bytes) -> bool:
    """Return whether the file itself shows the page as it was read."""
    return not is_pdf(data) and page_count(data) == 1 and orientation_of(data, LIMITS) == 1


def write_all(
    recognizer: Recognizer,
    items: Sequence[Input],
    config: ReadConfig,
    results: Results,
    say: Callable[[str], None],
) -> Counts:
    """Read every file whose result is not there yet, and write it; `say` gets what a person reads.

    A file that is refused, or whose result cannot be written, is said and counted.
    """
    counts, progress = Counts(), Progress(say)
    for item in items:
        results.require_other(item)
    wanted = [
        item for item in items if config.overwrite or not results.has(item, config.first_page)
    ]
    counts.kept = len(items) - len(wanted)
    progress.total = len(wanted)
    for read in read_each(recognizer, wanted, config, results.format.pages_apart):
        progress.files += 1
        try:
            if isinstance(read, UserError):
                raise read
            _write(results, read)
            counts.add(read.document, read.level)
        except UserError as problem:
            counts.refused += 1
            say(f"error: {problem}")
        progress.tell(counts.pages)
    return counts


def _write(results: Results, read: Read) -> None:
    images = {
        number: results.write_page_image(read.item, number, pixels)
        for number, pixels in read.images
    }
    results.write(read.item, read.document, images, read.data)


class Progress:
    """Tells every few seconds how many files are done, how fast, and how long the rest takes."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._began = say, time.monotonic()
        self._told = self._began
        self.total, self.files = 0, 0

    def tell(self, pages: int) -> None:
        """Say it where it is time."""
        now = time.monotonic()
        if now < self._told + _SECONDS_BETWEEN:
            return
        self._told = now
        seconds = now - self._began
        left = seconds / self.files * (self.total - self.files)
        self._say(
            f"{self.files:,} of {self.total:,} files, {pages / seconds:.1f} pages/s, "
            f"{left / 60:.0f} min left"
        )

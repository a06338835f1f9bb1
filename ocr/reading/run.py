"""Documents read one after the other: refusals named, results written or yielded, progress told."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
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


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a file; `error` says why it was refused.

    `seconds` is the time of reading, for lines an equal share of their batch's. `least_confidence`
    is that of its lines, `doubtful` how many of them are under DOUBTFUL.
    """

    file: str
    level: str | None = None
    pages: int = 0
    lines: int = 0
    least_confidence: float | None = None
    doubtful: int = 0
    seconds: float | None = None
    error: str | None = None

    @classmethod
    def of(cls, read: "Read") -> "Outcome":
        """Return the outcome of a file that was read."""
        lines = [line for page in read.document.pages for line in page.lines]
        sure = [line.confidence for line in lines if line.text or read.level == "line"]
        return cls(
            read.item.name,
            read.level,
            len(read.document.pages),
            len(lines),
            min(sure, default=None),
            sum(confidence < DOUBTFUL for confidence in sure),
            read.seconds,
        )


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

    def add(self, one: Outcome) -> None:
        """Count a file."""
        if one.level is None:
            self.refused += 1
            return
        self.levels[one.level] = self.levels.get(one.level, 0) + 1
        self.pages += one.pages
        self.lines += one.lines
        self.doubtful += one.doubtful
        if one.least_confidence is not None:
            self.least = min(self.least, (one.least_confidence, one.file))


@dataclass(frozen=True, slots=True)
class Read:
    """A file that was read: its bytes, its text, and the images that its pages were read from.

    `seconds`: of reading, for lines an equal share of their batch's.
    """

    item: Input
    document: Document
    level: str
    data: bytes
    images: tuple[tuple[int, Pixels], ...] = ()
    seconds: float = 0.0


class Refused(UserError):
    """Why a file was not read."""

    def __init__(self, item: Input, why: str) -> None:
        super().__init__(why)
        self.item = item


def read_each(
    recognizer: Recognizer, items: Sequence[Input], config: ReadConfig, with_images: bool = False
) -> Iterator[Read | Refused]:
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
            found: Read | Refused = _pages(recognizer, item, data, config, with_words, with_images)
        except OSError as problem:
            reason = problem.strerror or problem
            found = Refused(item, f"{item.name}: unreadable file: {reason}")
        except UserError as problem:
            found = Refused(item, str(problem))
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
    began = time.monotonic()
    pages = read_lines(recognizer, [pixels for _, _, pixels in waiting], with_words)
    seconds = (time.monotonic() - began) / len(waiting)
    for (item, data, pixels), page in zip(waiting, pages, strict=True):
        images = ((1, pixels),) if with_images and not _is_one_image(data) else ()
        yield Read(item, Document(item.name, (page,)), "line", data, images, seconds)


def _pages(
    recognizer: Recognizer,
    item: Input,
    data: bytes,
    config: ReadConfig,
    with_words: bool,
    with_images: bool,
) -> Read:
    pages, images, began = list[TextPage](), list[tuple[int, Pixels]](), time.monotonic()
    is_image = _is_one_image(data)
    for page, pixels in read_pages(recognizer, data, config, item.name, with_words):
        pages.append(page)
        if with_images and not is_image:
            images.append((page.number, pixels))
    document, seconds = Document(item.name, tuple(pages)), time.monotonic() - began
    return Read(item, document, "page", data, tuple(images), seconds)


def _is_one_image(data: bytes) -> bool:
    """Return whether the file itself shows the page as it was read."""
    return not is_pdf(data) and page_count(data) == 1 and orientation_of(data, LIMITS) == 1


def write_each(
    recognizer: Recognizer, items: Sequence[Input], config: ReadConfig, results: Results
) -> Iterator[Outcome]:
    """Read files and write their results; yield what became of each, in their order.

    A result that is there already is not written again, unless the config says so.
    """
    for read in read_each(recognizer, items, config, results.format.pages_apart):
        try:
            if isinstance(read, Refused):
                raise read
            if config.overwrite or not results.has(read.item, config.first_page):
                _write(results, read)
            yield Outcome.of(read)
        except UserError as problem:
            yield Outcome(read.item.name, error=str(problem))


def write_all(
    items: Sequence[Input],
    config: ReadConfig,
    results: Results,
    write: Callable[[Sequence[Input]], Iterable[Outcome]],
    say: Callable[[str], None],
) -> Counts:
    """Give `write` the files whose result is not there yet; `say` gets what a person reads.

    A file that is refused, or whose result cannot be written, is said and counted.
    """
    counts, progress = Counts(), Progress(say)
    for item in items:
        results.require_other(item)
    wanted = items if config.overwrite else results.missing(items, config.first_page)
    counts.kept = len(items) - len(wanted)
    progress.total = len(wanted)
    for one in write(wanted):
        counts.add(one)
        progress.files += 1
        if one.error is not None:
            say(f"error: {one.error}")
        progress.tell(counts.pages)
    return counts


def _write(results: Results, read: Read) -> None:
    images = {
        number: results.write_page_image(read.item, number, pixels)
        for number, pixels in read.images
    }
    results.write(read.item, read.document, images, read.data)


class Progress:
    """Tells every few seconds how many files are done, how fast, and how long the rest takes.

    The first file, before which models are loaded and workers started, is not timed.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._told = say, 0.0
        self._first: tuple[float, int] | None = None
        self.total, self.files = 0, 0

    def tell(self, pages: int) -> None:
        """Say it where it is time."""
        now = time.monotonic()
        if self._first is None:
            self._first, self._told = (now, pages), now
        if now < self._told + _SECONDS_BETWEEN:
            return
        self._told = now
        began, before = self._first
        seconds = now - began
        left = seconds / (self.files - 1) * (self.total - self.files)
        self._say(
            f"{self.files:,} of {self.total:,} files, {(pages - before) / seconds:.1f} pages/s, "
            f"{left / 60:.0f} min left"
        )

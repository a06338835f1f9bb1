"""A file → its pages: PDF (rendered by PDFium), TIFF with several frames, or any image as one page.

The number of pages and their size are checked before a page is rendered. What a page's content
costs is not known before: files of strangers are opened in a process with limits
(`serve/decoding.py`).
"""

import io
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image

from ocr.images import ImageRefused, Mode, Pixels, open_image
from ocr.limits import ImageLimits
from ocr.pixels import page_frames

DPI = 200  # resolution of rendered PDF pages, unless they are too large for it
MAX_PAGES = 20
_LEAST_DPI = 50
_POINTS = 72  # per inch of a PDF page
_pdfium = threading.Lock()  # PDFium is not safe with threads


def open_pages(
    data: bytes,
    mode: Mode = "L",
    limits: ImageLimits | None = None,
    max_pages: int = MAX_PAGES,
    where: str = "document",
    takes: Callable[[int], bool] = lambda _: True,
) -> Iterator[Pixels]:
    """Yield every page whose number `takes` takes, uint8 [H, W] or [H, W, 3], upright.

    Pages count from 1; `max_pages` is of the whole document. ImageRefused names a page that is too
    large, a locked document, or one that cannot be read.
    """
    limits = limits or ImageLimits()
    if is_pdf(data):
        yield from _pdf_pages(data, mode, limits, max_pages, where, takes)
        return
    frames = _tiff_pages(data)
    if len(frames) <= 1:
        if takes(1):
            yield open_image(data, mode, limits, where)
        return
    _require_pages(len(frames), max_pages, where)
    for number, index in enumerate(frames, start=1):
        if takes(number):
            at = f"{where}, page {number}"
            yield open_image(_frame(data, index, limits, at), mode, limits, at)


def page_count(data: bytes, where: str = "document") -> int:
    """Return the number of pages of a file; ImageRefused of a PDF that cannot be opened."""
    if not is_pdf(data):
        return max(1, len(_tiff_pages(data)))
    with _opened_pdf(data, where) as document, _pdfium:
        return len(document)


def is_pdf(data: bytes) -> bool:
    """Return whether a file is a PDF, by its first bytes."""
    return data[:1024].lstrip()[:5] == b"%PDF-"


def dpi_of(source: bytes) -> float | None:
    """Return the resolution that an image file says it has; None where it says none.

    Of two, the lower; 72 and 96 are what programs write that know none.
    """
    try:
        with Image.open(io.BytesIO(source)) as image:
            found = image.info.get("dpi")
            lowest = float(min(found)) if found else 0.0
    except Exception:  # noqa: BLE001  as in open_image: decoders raise anything
        return None
    return lowest if 100 <= lowest <= 2400 else None


def _require_pages(count: int, most: int, where: str) -> None:
    if count > most:
        raise ImageRefused(
            where, "too many pages", f"{count} pages; at most {most} are read at once: send fewer"
        )


def _tiff_pages(data: bytes) -> list[int]:
    """Return the frames of a TIFF that are pages; one for any other file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=("TIFF",)) as image:
                return page_frames(image)
    except Exception:  # noqa: BLE001  damaged files raise anything; open_image says what is wrong with them
        return [0]


def _frame(data: bytes, frame: int, limits: ImageLimits, where: str) -> bytes:
    """Return one frame as a file of its own, after checking its size."""
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=("TIFF",)) as image:
                image.seek(frame)
                pixels = image.width * image.height
                if pixels > limits.max_pixels or max(image.size) > limits.max_side_px:
                    size = f"{image.width}×{image.height} pixels"
                    raise ImageRefused(where, "image too large", size)
                image.save(buffer, "TIFF", compression=None)
    except (ImageRefused, MemoryError):
        raise
    except Exception as problem:  # noqa: BLE001  as in open_image: decoders raise anything
        raise ImageRefused(
            where, "not a readable image", str(problem) or type(problem).__name__
        ) from None
    return buffer.getvalue()


def _pdf_pages(
    data: bytes,
    mode: Mode,
    limits: ImageLimits,
    max_pages: int,
    where: str,
    takes: Callable[[int], bool],
) -> Iterator[Pixels]:
    with _opened_pdf(data, where) as document:
        _require_pages(len(document), max_pages, where)
        if not len(document):
            raise ImageRefused(where, "not a readable document", "a PDF without pages")
        for number in range(len(document)):
            if takes(number + 1):
                yield _drawn(document, number, mode, limits, f"{where}, page {number + 1}")


@contextmanager
def _opened_pdf(data: bytes, where: str) -> Iterator[Any]:
    import pypdfium2 as pdfium  # reading single images needs the core dependencies alone

    try:
        with _pdfium:
            document = pdfium.PdfDocument(data)
    except pdfium.PdfiumError as problem:
        locked = "password" in str(problem).lower()
        raise ImageRefused(
            where,
            "locked document" if locked else "not a readable document",
            "take its password off first" if locked else str(problem),
        ) from None
    try:
        yield document
    finally:
        with _pdfium:
            document.close()


def _drawn(document: Any, number: int, mode: Mode, limits: ImageLimits, where: str) -> Pixels:
    """Render a page at 200 dpi, or as finely as the limits allow, and refuse an illegible one."""
    import pypdfium2 as pdfium

    try:
        with _pdfium:
            page = document[number]
            scale = _scale_of(page.get_size(), limits, where)
            bitmap = page.render(scale=scale * 0.999, grayscale=mode == "L")
            pixels: Pixels = np.array(bitmap.to_pil().convert("L" if mode == "L" else "RGB"))
            bitmap.close()
            page.close()
    except pdfium.PdfiumError as problem:
        raise ImageRefused(where, "not a readable document", str(problem)) from None
    return pixels


def _scale_of(size: tuple[float, float], limits: ImageLimits, where: str) -> float:
    width, height = size
    if min(width, height) <= 0:
        raise ImageRefused(where, "image too small", f"{width:g}×{height:g} points")
    scale = min(
        DPI / _POINTS,
        (limits.max_pixels / (width * height)) ** 0.5,
        limits.max_side_px / max(width, height),
    )
    if scale < _LEAST_DPI / _POINTS:
        raise ImageRefused(
            where,
            "image too large",
            f"{width / _POINTS:.0f}×{height / _POINTS:.0f} inches; cut it into smaller pages",
        )
    return float(scale)

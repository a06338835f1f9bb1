"""Answers as files of other programs: text, TSV, ALTO, PAGE, hOCR, PDF, by `ocr.writers`."""

import io
import re
import zipfile
from collections.abc import Sequence

from ocr.reading.document import text_lines
from ocr.reading.page import Document, TextPage
from ocr.writers.formats import FORMATS
from serve.errors import Refused
from serve.page_reading import ReadPage

JSON, PDF = "json", "pdf"
ZIP = "application/zip"
_BY_TYPE = {format.media_type: name for name, format in FORMATS.items()}


def format_of(given: str | None, accept: str) -> str:
    """Return the format that `format=` names, else the first in `Accept` that there is, else json.

    Refused 400 for another word.
    """
    if given is None:
        kinds = (part.partition(";")[0].strip().lower() for part in accept.split(","))
        return next((_BY_TYPE[kind] for kind in kinds if kind in _BY_TYPE), JSON)
    if given not in FORMATS:
        known = ", ".join(FORMATS)
        raise Refused(400, "bad_format", f"format: expected one of {known}, got {given[:40]!r}")
    return given


def text_pages(pages: Sequence[ReadPage]) -> tuple[TextPage, ...]:
    """Return pages as they were read as writers take them."""
    return tuple(
        TextPage(
            page.width,
            page.height,
            tuple(
                part
                for line, read in zip(page.lines, lines, strict=True)
                for part in text_lines(line, read.reading, read.spans)
            ),
            number,
        )
        for number, (page, lines) in enumerate(pages, start=1)
    )


def written(format: str, name: str, pages: tuple[TextPage, ...]) -> tuple[bytes, str]:
    """Return the file and its media type; ALTO and PAGE of several pages as a zip of files.

    PDF is not written here: it needs the file that was read.
    """
    how, document = FORMATS[format], Document(name, pages)
    if not how.pages_apart or len(pages) == 1:
        content = how.write(document, {}, b"")
        return content, f"{how.media_type}; charset=utf-8" if how.is_text else how.media_type
    stem, buffer = re.sub(r"[^\w.-]+", "_", name.rpartition(".")[0] or name), io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for page in pages:
            content = how.write(Document(name, (page,)), {}, b"")
            archive.writestr(f"{stem}-{page.number:04d}{how.suffix}", content)
    return buffer.getvalue(), ZIP

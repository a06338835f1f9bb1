"""The formats that `read.py` and the endpoint write, by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ocr.reading.page import Document
from ocr.writers.alto import as_alto
from ocr.writers.hocr import as_hocr
from ocr.writers.page_xml import as_page_xml
from ocr.writers.plain import as_json, as_text, as_tsv

Images = Mapping[int, str]  # path of each page's image from the result's folder, by page number


@dataclass(frozen=True, slots=True)
class Format:
    """How a document is written.

    `pages_apart`: one file each page, as the format has it. `write` gets a document of one page
    then.
    """

    suffix: str
    media_type: str
    write: Callable[[Document, Images, bytes], bytes]  # the document, its images, the file read
    has_words: bool = True
    pages_apart: bool = False
    is_text: bool = True


def _pdf(document: Document, _: Images, data: bytes) -> bytes:
    from ocr.writers.pdf import as_pdf

    return as_pdf(data, document.pages, document.source)


FORMATS: dict[str, Format] = {
    "text": Format(".txt", "text/plain", lambda d, _i, _b: as_text(d), has_words=False),
    "tsv": Format(".tsv", "text/tab-separated-values", lambda d, _i, _b: as_tsv(d)),
    "json": Format(".json", "application/json", lambda d, _i, _b: as_json(d)),
    "alto": Format(
        ".xml",
        "application/alto+xml",
        lambda d, i, _b: as_alto(d.pages[0], i.get(d.pages[0].number, d.source)),
        pages_apart=True,
    ),
    "page": Format(
        ".xml",
        "application/vnd.prima.page+xml",
        lambda d, i, _b: as_page_xml(d.pages[0], i.get(d.pages[0].number, d.source)),
        pages_apart=True,
    ),
    "hocr": Format(".hocr", "text/vnd.hocr+html", lambda d, i, _b: as_hocr(d, i)),
    "pdf": Format(".pdf", "application/pdf", _pdf, is_text=False),
}

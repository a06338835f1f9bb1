"""A searchable PDF: the pages as they were, under an invisible layer of their text.

Pages of a PDF stay what they are; images are embedded as they are stored (img2pdf).
"""

import io
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import img2pdf
import numpy as np
import pikepdf
from numpy.typing import NDArray
from pikepdf import Dictionary, Name, Page, Pdf

from ocr.documents import dpi_of, is_pdf, open_pages, page_count
from ocr.errors import UserError, first_line
from ocr.images import Polygon, encode_image
from ocr.limits import ImageLimits
from ocr.reading.page import TextLine, TextPage, Word
from ocr.writers.pdf_font import WIDTH, add_font
from ocr.writers.xml import without_controls

_log = logging.getLogger(__name__)
_FONT = Name.LipiText
_INVISIBLE = 3  # text rendering mode
_DPI = 300.0  # of images that do not say theirs
_NO_LIMITS = ImageLimits(max_pixels=2**40, max_side_px=2**30)  # it has been read already
_SIZE = 0.8  # of the font, in line heights
# least step from letter to letter, in font sizes: of equal letters nearer to each other, poppler
# takes one for the shadow of the other
_LEAST_ADVANCE = 0.15
_GAP = 0.2  # least one between words, in font sizes
_BASELINE = 0.2  # of a line's height: descenders hang below
Matrix = NDArray[np.float64]  # [2, 3]: pixels of the upright page → points of the PDF page


def as_pdf(data: bytes, pages: Sequence[TextPage], where: str = "document") -> bytes:
    """Return the document with the text of `pages` on it, without the pages that were not read.

    `data` is the file that was read: a PDF, or an image of one or several pages. UserError where it
    cannot be opened for writing.
    """
    count = 1 if is_pdf(data) else page_count(data, where)
    try:
        pdf = Pdf.open(io.BytesIO(data if is_pdf(data) else _from_images(data, count, where)))
    except (pikepdf.PdfError, pikepdf.PasswordError) as problem:
        raise UserError(f"{where}: no PDF can be made of it: {first_line(problem)}") from None
    with pdf:
        font = add_font(pdf)
        _keep(pdf, [page.number for page in pages])
        for page, read in zip(pdf.pages, pages, strict=True):
            _add_text(page, read, font)
        buffer = io.BytesIO()
        pdf.save(buffer, deterministic_id=True, compress_streams=True)
        return buffer.getvalue()


def _keep(pdf: Pdf, numbers: Sequence[int]) -> None:
    kept = set(numbers)
    for index in reversed(range(len(pdf.pages))):
        if index + 1 not in kept:
            del pdf.pages[index]


def _from_images(data: bytes, count: int, where: str) -> bytes:
    """Embed one image unchanged, or each page of several as PNG."""
    layout = _layout(data)
    if count == 1:
        try:
            return _embedded([data], layout)
        except Exception as problem:  # noqa: BLE001  transparency, odd colours: it raises anything
            _log.debug("%s: embedded as PNG: %s", where, problem)
    pages = open_pages(data, "as it is", _NO_LIMITS, count, where)
    return _embedded([encode_image(page) for page in pages], layout)


def _embedded(images: Sequence[bytes], layout: Any) -> bytes:
    content = img2pdf.convert(list(images), rotation=img2pdf.Rotation.ifvalid, layout_fun=layout)
    return bytes(content)


def _layout(data: bytes) -> Any:
    """Return img2pdf's word for the size of pages: by the image's own dpi, else 300."""
    dpi = dpi_of(data) or _DPI
    return img2pdf.get_fixed_dpi_layout_fun((dpi, dpi))


def _add_text(page: Page, read: TextPage, font: pikepdf.Object) -> None:
    to_points = _to_points(page, read)
    commands = [f"BT {_INVISIBLE} Tr"]
    for line in read.lines_with_text:
        commands += _line(line, to_points)
    commands.append("ET")
    if "/Resources" not in page:
        page.Resources = Dictionary()
    page.add_resource(font, Name.Font, _FONT)
    page.contents_add(b"q\n", prepend=True)
    page.contents_add(("\nQ\nq\n" + "\n".join(commands) + "\nQ\n").encode())


def _line(line: TextLine, to_points: Matrix) -> Iterator[str]:
    """Yield the commands that draw a line's words, each along its baseline up to the next word.

    All have one size, and each word ends before the next: from both, programs see what is one line
    and where a space is. The size is the line's, or as much smaller as its densest word needs.
    """
    words = line.words or (Word(line.text, line.polygon, line.confidence),)
    starts, ends = zip(*(_baseline(word, to_points) for word in words), strict=True)
    reach = [*starts[1:], ends[-1]]
    lengths = [
        max(0.1, float(np.hypot(*(to - start)))) for start, to in zip(starts, reach, strict=True)
    ]
    codes = [without_controls(word.text).encode("utf-16-be") for word in words]
    steps = [length / (len(code) / 2 + 1) for length, code in zip(lengths, codes, strict=True)]
    height = _height(line.polygon @ to_points[:, :2].T)
    size = max(0.1, min(_SIZE * height, min(steps) / _LEAST_ADVANCE))
    cos, sin = _direction(starts[0], ends[-1])
    yield f"{_FONT} {size:.3f} Tf"
    for code, start, length in zip(codes, starts, lengths, strict=True):
        gap = min(_GAP * size, 0.5 * length)
        stretch = 100 * (length - gap) / (len(code) / 2 * WIDTH * size)
        yield (
            f"{stretch:.3f} Tz {cos:.5f} {sin:.5f} {-sin:.5f} {cos:.5f} "
            f"{start[0]:.3f} {start[1]:.3f} Tm <{code.hex().upper()}0020> Tj"
        )


def _direction(start: Polygon, end: Polygon) -> tuple[float, float]:
    """Return cosine and sine of the line's direction."""
    across, up = end - start
    length = float(np.hypot(across, up))
    return (float(across) / length, float(up) / length) if length > 0 else (1.0, 0.0)


def _baseline(word: Word, to_points: Matrix) -> tuple[Polygon, Polygon]:
    """Return where a word's baseline starts and ends, in points."""
    corners = word.polygon @ to_points[:, :2].T + to_points[:, 2]
    top_left, top_right, bottom_right, bottom_left = corners
    below = bottom_left + _BASELINE * (top_left - bottom_left)
    return below, bottom_right + _BASELINE * (top_right - bottom_right)


def _height(corners: Polygon) -> float:
    top_left, _, _, bottom_left = corners
    return max(1.0, float(np.hypot(*(top_left - bottom_left))))


def _to_points(page: Page, read: TextPage) -> Matrix:
    """Return the matrix from pixels of the page as it is shown to its points.

    A page is shown without what its crop box cuts off, turned clockwise by its Rotate.
    """
    left, bottom, right, top = _shown_box(page)
    width, height = right - left, top - bottom
    turn = int(_inherited(page, "/Rotate", 0)) % 360
    if turn in (90, 270):
        across, down = height / read.width, width / read.height
    else:
        across, down = width / read.width, height / read.height
    matrices = {
        0: [[across, 0, left], [0, -down, top]],
        90: [[0, down, left], [across, 0, bottom]],
        180: [[-across, 0, right], [0, down, bottom]],
        270: [[0, -down, right], [-across, 0, top]],
    }
    return np.array(matrices.get(turn, matrices[0]), dtype=np.float64)


def _shown_box(page: Page) -> tuple[float, float, float, float]:
    media = _box(_inherited(page, "/MediaBox", [0, 0, 612, 792]))
    crop = _box(_inherited(page, "/CropBox", list(media)))
    inside = (*map(max, media[:2], crop[:2]), *map(min, media[2:], crop[2:]))
    return inside if inside[0] < inside[2] and inside[1] < inside[3] else media  # type: ignore[return-value]


def _box(values: Any) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = (float(value) for value in values)
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def _inherited(page: Page, key: str, default: Any) -> Any:
    """Return a page's attribute, its own or of a node above it."""
    node: Any = page.obj
    for _ in range(50):
        if key in node:
            return node[key]
        if "/Parent" not in node:
            break
        node = node["/Parent"]
    return default

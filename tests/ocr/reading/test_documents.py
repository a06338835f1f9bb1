"""Every kind of document in, every format out; what is written reads back equal."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import defusedxml.ElementTree
import numpy as np
import pikepdf
import pypdfium2 as pdfium
import pytest
from PIL import Image

from ocr.dataset.read import Dataset
from ocr.errors import UserError
from ocr.images import Pixels, box_of, open_image
from ocr.limits import ImageLimits
from ocr.reading.config import ReadConfig
from ocr.reading.document import LEAST_PAGE_PX, LINE_ASPECT, level_of
from ocr.reading.inputs import Input
from ocr.reading.outputs import Results
from ocr.reading.page import Document, TextPage
from ocr.reading.run import Read, read_each, write_all, write_each
from ocr.recognizers.factory import load
from ocr.recognizers.recognizer import Recognizer
from ocr.settings import settings_from
from ocr.sources import alto, page_xml
from ocr.sources.page_image import find_image, open_page
from ocr.writers.formats import FORMATS
from tests.support.commands import PROJECT
from tests.support.composed_pages import composed_page

UPRIGHT = (1, 3, 6, 8)  # EXIF orientations without a mirror


@pytest.fixture(scope="module")
def reader() -> Recognizer:
    return load("odia")


@pytest.fixture(scope="module")
def pages() -> list[Pixels]:
    data = Dataset.open("odia_words", "validation")
    words = [open_image(data.image_bytes(index)) for index in range(120)]
    made = [composed_page(words, data.texts[:120], 1, 0.0, seed)[0] for seed in (1, 2, 3)]
    return [page[:360, :760] for page in made]


def encoded(pages: Sequence[Pixels], kind: str, **options: Any) -> bytes:
    images, buffer = [Image.fromarray(page) for page in pages], io.BytesIO()
    more = {"save_all": True, "append_images": images[1:]} if kind in ("PDF", "TIFF") else {}
    images[0].save(buffer, kind, **more, **options)
    return buffer.getvalue()


def turned(pdf: bytes, degrees: int, crop: bool) -> bytes:
    """The PDF shown turned, and with a border outside its crop box."""
    with pikepdf.open(io.BytesIO(pdf)) as opened:
        for page in opened.pages:
            page.Rotate = degrees
            if crop:
                left, bottom, right, top = map(float, page.mediabox)
                page.CropBox = pikepdf.Array([left, bottom, right, top])
                page.MediaBox = pikepdf.Array([left - 50, bottom - 70, right + 30, top + 90])
        buffer = io.BytesIO()
        opened.save(buffer)
        return buffer.getvalue()


def with_exif(page: Pixels, orientation: int) -> bytes:
    """A JPEG that is stored turned, and shown upright by its EXIF."""
    stored = np.rot90(page, {1: 0, 3: 2, 6: 1, 8: 3}[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded([stored], "JPEG", exif=exif, quality=95, dpi=(200, 200))


def kinds(pages: Sequence[Pixels]) -> dict[str, bytes]:
    return {
        "page.png": encoded(pages[:1], "PNG"),
        "page.webp": encoded(pages[:1], "WEBP", lossless=True),
        "frames.tif": encoded(pages, "TIFF"),
        "three.pdf": encoded(pages, "PDF", resolution=200),
        **{f"turned{o}.jpg": with_exif(pages[0], o) for o in UPRIGHT},
    }


def read_to(
    folder: Path, reader: Recognizer, files: dict[str, bytes], **settings: Any
) -> tuple[list[Read], Results]:
    """Read the files into `folder`/out; what was read, and where it is."""
    config = ReadConfig(output=str(folder / "out"), **settings)
    items = []
    for name, content in files.items():
        (folder / name).write_bytes(content)
        items.append(Input(str(folder / name), Path(name).stem))
    results, said = Results(str(config.output), FORMATS[config.format], config.pages), list[str]()
    write_all(
        items, config, results, lambda all: write_each(reader, all, config, results), said.append
    )
    assert not [line for line in said if line.startswith("error")]
    read = [one for one in read_each(reader, items, config) if isinstance(one, Read)]
    assert len(read) == len(items)
    return read, results


def lines_of(page: TextPage) -> list[tuple[str, list[tuple[str, Any]]]]:
    return [
        (line.text, [(word.text, box_of(word.polygon)) for word in line.words])
        for line in page.lines_with_text
    ]


def test_every_kind_is_read_alike(tmp_path: Path, reader: Recognizer, pages: list[Pixels]) -> None:
    read, _ = read_to(tmp_path, reader, kinds(pages), format="text")
    texts = {Path(one.document.source).name: one.document.text for one in read}
    assert {len(one.document.pages) for one in read} == {1, 3}
    assert texts["page.png"] == texts["page.webp"] and len(texts["page.png"]) > 50
    assert texts["frames.tif"].startswith(texts["page.png"])
    for one in read:
        written = (tmp_path / "out" / f"{one.item.target}.txt").read_text()
        assert written.split() == one.document.text.split()


@pytest.mark.parametrize(("format", "parse"), [("alto", alto.parse), ("page", page_xml.parse)])
def test_xml_that_is_written_is_read_back_equal(
    format: str, parse: Any, tmp_path: Path, reader: Recognizer, pages: list[Pixels]
) -> None:
    read, _ = read_to(tmp_path, reader, kinds(pages), format=format)
    for one in read:
        for page in one.document.pages:
            file = tmp_path / "out" / f"{one.item.target}-{page.number:04d}.xml"
            is_apart = len(one.document.pages) > 1 or file.name == "turned3-0001.xml"
            assert file.exists() or not is_apart
            file = file if file.exists() else tmp_path / "out" / f"{one.item.target}.xml"
            (found,) = parse(defusedxml.ElementTree.fromstring(file.read_bytes()))
            pieces = [line for region in found.regions for line in region.pieces]
            back = [
                (line.text, [(word.text, box_of(np.asarray(word.polygon))) for word in line.pieces])
                for line in pieces
            ]
            for (text, words), (our_text, our_words) in zip(back, lines_of(page), strict=True):
                assert text == our_text
                for (word, box), (our_word, our_box) in zip(words, our_words, strict=True):
                    assert word == our_word and np.abs(np.subtract(box, our_box)).max() <= 2
            image = tmp_path / find_image(tmp_path, "out", found.image, file.stem)
            pixels, remark = open_page(
                image.read_bytes(), found.width, found.height, READ_LIMITS, "page"
            )
            assert pixels.shape[:2] == (page.height, page.width) and not remark


READ_LIMITS = ImageLimits()


def test_hocr_and_tsv_have_the_words_and_their_boxes(
    tmp_path: Path, reader: Recognizer, pages: list[Pixels]
) -> None:
    files = {"three.pdf": encoded(pages, "PDF", resolution=200)}
    (one,), _ = read_to(tmp_path, reader, files, format="hocr")
    root = defusedxml.ElementTree.fromstring((tmp_path / "out" / "three.hocr").read_bytes())
    found = [element for element in root.iter() if element.get("class") == "ocrx_word"]
    ours = [word for page in one.document.pages for _, words in lines_of(page) for word in words]
    assert [element.text for element in found] == [text for text, _ in ours]
    for element, (_, (left, top, width, height)) in zip(found, ours, strict=True):
        assert f"bbox {left} {top} {left + width} {top + height};" in element.get("title", "")
    read_to(tmp_path, reader, files, format="tsv")
    header, *rows = (tmp_path / "out" / "three.tsv").read_text().splitlines()
    assert header.split("\t")[:3] == ["level", "page_num", "block_num"]
    words = [row.split("\t") for row in rows if row.startswith("5\t")]
    assert [(row[11], tuple(map(int, row[6:10]))) for row in words] == ours


@pytest.mark.parametrize(
    "source",
    [
        "png",
        "alpha",
        *(f"exif{o}" for o in UPRIGHT),
        "tiff",
        "pdf",
        *(f"pdf{degrees}" for degrees in (90, 180, 270)),
        "cropped",
        "cropped90",
    ],
)
def test_the_text_of_a_searchable_pdf_stands_on_its_words(
    source: str, tmp_path: Path, reader: Recognizer, pages: list[Pixels]
) -> None:
    data = file_of(source, pages)
    (tmp_path / "file").write_bytes(data)
    config = ReadConfig(format="pdf", level="page")
    (one,) = read_each(reader, [Input(str(tmp_path / "file"), "file")], config)
    assert isinstance(one, Read)
    content = FORMATS["pdf"].write(one.document, {}, data)
    shown = pdfium.PdfDocument(content)
    assert len(shown) == len(one.document.pages)
    for page, read in zip(shown, one.document.pages, strict=True):
        assert page_shows(page, read, pages[read.number - 1])


def file_of(source: str, pages: list[Pixels]) -> bytes:
    pdf = encoded(pages[:2], "PDF", resolution=200)
    if source.startswith("exif"):
        return with_exif(pages[0], int(source[4:]))
    if source == "alpha":
        buffer = io.BytesIO()
        Image.fromarray(pages[0]).convert("RGBA").save(buffer, "PNG")
        return buffer.getvalue()
    if source in ("png", "tiff"):
        return encoded(pages[:1] if source == "png" else pages, source.upper())
    # pages are stored so that they are upright when they are turned
    degrees = int(source.removeprefix("pdf").removeprefix("cropped") or 0)
    stored = [np.ascontiguousarray(np.rot90(page, degrees // 90)) for page in pages[:2]]
    return turned(
        encoded(stored, "PDF", resolution=200) if degrees else pdf,
        degrees,
        source.startswith("cropped"),
    )


def page_shows(page: Any, read: TextPage, pixels: Pixels) -> bool:
    """Whether the page looks as what was read, and its text is where the words are."""
    shown_width, _ = page.get_size()
    drawn = np.asarray(
        page.render(scale=read.width / shown_width, grayscale=True).to_pil().convert("L")
    )
    like = np.asarray(Image.fromarray(pixels).resize(drawn.shape[::-1]))
    assert np.corrcoef(drawn.ravel()[::7], like.ravel()[::7])[0, 1] > 0.8
    text = page.get_textpage()
    words = [word for line in read.lines_with_text for word in line.words]
    assert text.get_text_range().split() == [word.text for word in words]
    hits = 0
    for word in words:
        searcher = text.search(word.text, match_case=True, match_whole_word=True)
        boxes = []
        while found := searcher.get_next():
            rects = [text.get_rect(i) for i in range(text.count_rects(*found))]
            boxes += [device_box(page, rect, read) for rect in rects]
        x, y = word.polygon.mean(axis=0)
        hits += any(
            left <= x <= left + width and top <= y <= top + height
            for left, top, width, height in boxes
        )
    assert hits >= 0.95 * len(words), (hits, len(words))
    return True


def device_box(page: Any, rect: Any, read: TextPage) -> tuple[float, float, float, float]:
    """A rectangle of the page's points in pixels of the page as it is shown."""
    import ctypes

    import pypdfium2.raw as raw

    corners = []
    for x, y in ((rect[0], rect[1]), (rect[2], rect[3])):
        across, down = ctypes.c_int(), ctypes.c_int()
        raw.FPDF_PageToDevice(
            page, 0, 0, read.width, read.height, 0, x, y, ctypes.byref(across), ctypes.byref(down)
        )
        corners.append((across.value, down.value))
    (x0, y0), (x1, y1) = corners
    return min(x0, x1), min(y0, y1), abs(x1 - x0), abs(y1 - y0)


def test_pages_are_chosen_and_what_is_not_read_is_left_out(
    tmp_path: Path, reader: Recognizer, pages: list[Pixels]
) -> None:
    files = {"three.pdf": encoded(pages, "PDF", resolution=200)}
    (one,), _ = read_to(tmp_path, reader, files, format="pdf", pages="2-")
    assert [page.number for page in one.document.pages] == [2, 3]
    assert len(pdfium.PdfDocument(tmp_path / "out" / "three_p2-.pdf")) == 2
    with pytest.raises(UserError, match="pages: expected pages such as"):
        settings_from(ReadConfig, {}, ["pages=x"], "read.py")
    chosen = [n for n in range(1, 9) if ReadConfig(pages="1-2,5,7-").takes(n)]
    assert chosen == [1, 2, 5, 7, 8]


@pytest.mark.parametrize("format", ["text", "alto"])
def test_results_of_other_pages_are_not_taken_for_these(
    tmp_path: Path, reader: Recognizer, pages: list[Pixels], format: str
) -> None:
    files = {"three.pdf": encoded(pages, "PDF", resolution=200)}
    for wanted in ("2", "2-3", "3"):
        read_to(tmp_path, reader, files, format=format, pages=wanted)
    names = sorted(file.name for file in (tmp_path / "out").iterdir() if file.suffix != ".png")
    if format == "text":
        assert names == ["three_p2-3.txt", "three_p2.txt", "three_p3.txt"]
        texts = [(tmp_path / "out" / name).read_text() for name in names]
        assert texts[0].split("\f") == [texts[1].rstrip("\f"), *texts[2].split("\f")]
    else:
        of_pages = ["p2-0002", "p2-3-0002", "p2-3-0003", "p3-0003"]
        assert names == [f"three_{each}.xml" for each in of_pages]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((60, 400), "line"),
        ((40, 60), "line"),
        ((150, 200), "line"),
        ((220, 700), "line"),
        ((220, 500), "page"),
        ((1000, 800), "page"),
    ],
)
def test_a_level_is_chosen_by_shape(shape: tuple[int, int], expected: str) -> None:
    data = encoded([np.full(shape, 255, np.uint8)], "PNG")
    assert level_of(data, "auto", "x") == expected
    assert level_of(data, "line", "x") == "line"


def test_what_is_there_is_kept_unless_it_is_to_be_made_again(
    tmp_path: Path, reader: Recognizer, pages: list[Pixels]
) -> None:
    files = {"three.pdf": encoded(pages, "PDF", resolution=200)}
    read_to(tmp_path, reader, files, format="page")
    first = tmp_path / "out" / "three-0001.xml"
    first.write_text("mine")
    read_to(tmp_path, reader, files, format="page")
    assert first.read_text() == "mine"
    first.unlink()  # as after a kill: the first page's file is the last to be written
    read_to(tmp_path, reader, files, format="page")
    assert "PcGts" in first.read_text()
    first.write_text("mine")
    read_to(tmp_path, reader, files, format="page", overwrite=True)
    assert "PcGts" in first.read_text()


def test_a_result_never_replaces_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(b"%PDF-1.4")
    results = Results(str(tmp_path), FORMATS["pdf"])
    with pytest.raises(UserError, match="the result would replace it; name another output"):
        write_all([Input(str(path), "a")], ReadConfig(format="pdf"), results, lambda _: (), print)


def test_json_says_what_the_page_has(reader: Recognizer, pages: list[Pixels]) -> None:
    (page,) = [one for one in _pages(reader, encoded(pages[:1], "PNG"))]
    value = json.loads(FORMATS["json"].write(Document("a.png", (page,)), {}, b""))
    assert value["text"] == page.text and value["source"] == "a.png"
    line = value["pages"][0]["lines"][0]
    assert " ".join(word["text"] for word in line["words"]) == line["text"]
    assert set(line) == {"text", "confidence", "box", "polygon", "degrees", "words"}


def _pages(reader: Recognizer, data: bytes) -> list[TextPage]:
    from ocr.reading.document import read_pages

    return [page for page, _ in read_pages(reader, data, ReadConfig(), "a.png", True)]


def test_the_web_page_takes_the_same_images_for_lines() -> None:
    script = (PROJECT / "serve" / "web" / "reading.js").read_text()
    assert f"LINE_ASPECT = {LINE_ASPECT:g}, LEAST_PAGE_PX = {LEAST_PAGE_PX};" in script

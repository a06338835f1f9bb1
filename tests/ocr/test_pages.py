"""Pages: pasted lines are lines in columns, rotated, on dark paper, on their side, photographed;
documents open by page."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ocr.dataset.read import Dataset
from ocr.documents import open_pages
from ocr.errors import UserError
from ocr.images import ImageRefused, Pixels, open_image
from ocr.limits import ImageLimits
from ocr.pages import cut_lines, detector, find_lines, page_direction
from ocr.pages.background import background_of
from ocr.reading.config import DETECTOR
from ocr.recognizers.factory import load
from ocr.scoring import score_all
from tests.support.composed_pages import composed_page, matches, photographed

DATA = Path(__file__).parent.parent.parent.parent / "shared" / "data"


both = pytest.mark.parametrize("by", ["detector", "classical"])


@pytest.fixture(scope="module")
def words() -> tuple[list[Pixels], list[str]]:
    data = Dataset.open("odia_words", "validation")
    return [open_image(data.image_bytes(index)) for index in range(400)], data.texts[:400]


@both
@pytest.mark.parametrize(
    ("columns", "degrees", "dark"),
    [(1, 0.0, False), (2, 0.0, False), (2, 2.4, False), (1, -3.0, False), (3, 0.0, True)],
)
def test_pasted_lines_are_found(
    words: tuple[list[Pixels], list[str]], columns: int, degrees: float, dark: bool, by: DETECTOR
) -> None:
    page, boxes, _ = composed_page(*words, columns=columns, degrees=degrees, seed=columns)
    lines = find_lines(255 - page if dark else page, detector=by)
    hits = matches(boxes, [line.box for line in lines])
    assert hits >= 0.95 * len(boxes)
    assert hits >= 0.95 * len(lines)
    if lines and degrees:
        assert abs(page_direction(lines) - degrees) < 0.3


@both
@pytest.mark.parametrize("table", [20, 60, 90])
def test_a_photo_has_the_lines_of_its_page_and_none_of_the_table(
    words: tuple[list[Pixels], list[str]], table: float, by: DETECTOR
) -> None:
    for columns in (1, 2):
        page, boxes, _ = composed_page(*words, columns=columns, degrees=0.0, seed=columns)
        photo, placed = photographed(page, boxes, columns, table)
        lines = [line.box for line in find_lines(photo, detector=by)]
        assert len(lines) <= 1.05 * len(boxes)
        assert matches(placed, lines) >= 0.85 * len(boxes)


@both
def test_a_shaded_page_and_a_light_page_without_a_table_lose_nothing(
    words: tuple[list[Pixels], list[str]], by: DETECTOR
) -> None:
    page, boxes, _ = composed_page(*words, columns=2, degrees=0.0, seed=2)
    shade = np.linspace(1, 0.6, page.shape[1])
    dark_corner = page * np.minimum(shade, np.linspace(1, 0.7, page.shape[0])[:, None])
    for seen in (page, (page * shade).astype(np.uint8), dark_corner.astype(np.uint8)):
        assert not background_of(seen).any()
        lines = [line.box for line in find_lines(seen, detector=by)]
        assert matches(boxes, lines) >= 0.95 * len(boxes)


@both
def test_lines_come_column_by_column_from_the_top(
    words: tuple[list[Pixels], list[str]], by: DETECTOR
) -> None:
    page, _, _ = composed_page(*words, columns=2, degrees=0.0, seed=5)
    lines = [line.box for line in find_lines(page, detector=by)]
    left = [box for box in lines if box[0] + box[2] / 2 < page.shape[1] / 2]
    assert lines[: len(left)] == left
    assert [box[1] for box in left] == sorted(box[1] for box in left)


@both
def test_a_page_of_a_turned_scan_is_read_nearly_as_its_lines_are(
    words: tuple[list[Pixels], list[str]], by: DETECTOR
) -> None:
    recognizer = load(Path("odia"))
    straight, _, texts = composed_page(*words, columns=1, degrees=0.0, seed=3)
    turned, _, _ = composed_page(*words, columns=1, degrees=2.0, seed=3)
    rates = [
        score_all(
            [
                (
                    "\n".join(texts),
                    "\n".join(
                        reading.text
                        for reading in recognizer.read(
                            cut_lines(page, find_lines(page, detector=by))
                        )
                    ),
                )
            ]
        ).cer
        for page in (straight, turned)
    ]
    assert rates[0] < 0.25, rates
    assert rates[1] < rates[0] + 0.1, rates


@both
def test_nothing_is_found_where_nothing_is_written(by: DETECTOR) -> None:
    noise = np.random.default_rng(1).normal(235, 4, (900, 700)).clip(0, 255).astype(np.uint8)
    for page in (np.full((900, 700), 255, np.uint8), np.zeros((900, 700), np.uint8), noise):
        assert find_lines(page, detector=by) == []
    assert cut_lines(noise, []) == []


def test_more_lines_than_allowed_are_refused(words: tuple[list[Pixels], list[str]]) -> None:
    page, _, _ = composed_page(*words, columns=1, degrees=0.0, seed=1)
    with pytest.raises(ImageRefused, match=r"at most 3 lines, got \d+; crop the page"):
        find_lines(page, max_lines=3)


@pytest.mark.parametrize("quarters", [1, 3])
def test_a_page_on_its_side_has_its_lines_and_their_direction(
    words: tuple[list[Pixels], list[str]], quarters: int
) -> None:
    page, boxes, _ = composed_page(*words, columns=2, degrees=0.0, seed=2)
    lines = find_lines(np.ascontiguousarray(np.rot90(page, -quarters)), detector="detector")
    assert page_direction(lines) == pytest.approx(90, abs=0.2)
    assert len(lines) == pytest.approx(len(boxes), rel=0.05)
    assert all(line.box[3] > line.box[2] for line in lines)


def test_without_its_model_auto_is_classical_and_detector_is_refused(
    words: tuple[list[Pixels], list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page, _, _ = composed_page(*words, columns=1, degrees=0.0, seed=1)
    classical = [line.box for line in find_lines(page, detector="classical")]
    monkeypatch.setattr(detector, "MODEL", tmp_path / "det.onnx")
    assert [line.box for line in find_lines(page)] == classical
    with pytest.raises(UserError, match=r"not installed; .*set detector=classical"):
        find_lines(page, detector="detector")


def file_of(pages: list[Image.Image], kind: str) -> bytes:
    buffer = io.BytesIO()
    pages[0].save(
        buffer,
        kind,
        save_all=True,
        append_images=pages[1:],
        **({"resolution": 100} if kind == "PDF" else {}),
    )
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PDF", "TIFF"])
def test_documents_open_page_by_page(kind: str) -> None:
    pages = [Image.new("L", (400, 300), grey) for grey in (10, 120, 240)]
    opened = list(open_pages(file_of(pages, kind), "L"))
    assert [round(float(page.mean())) for page in opened] == [10, 120, 240]
    assert next(open_pages(file_of(pages, kind), "RGB")).shape[2] == 3
    with pytest.raises(ImageRefused, match="3 pages; at most 2 are read at once"):
        list(open_pages(file_of(pages, kind), max_pages=2))
    with pytest.raises(ImageRefused):
        list(open_pages(file_of(pages, kind)[:200]))


def test_a_pdf_is_rendered_as_finely_as_the_limits_allow_or_not_at_all() -> None:
    page = file_of([Image.new("L", (1000, 1400), 255)], "PDF")  # 10 × 14 inches
    assert next(open_pages(page)).shape[1] == pytest.approx(2000, abs=4)
    assert next(open_pages(page, limits=ImageLimits(max_pixels=1_000_000))).size <= 1_000_000
    with pytest.raises(ImageRefused, match="10×14 inches; cut it into smaller pages"):
        list(open_pages(page, limits=ImageLimits(max_pixels=200_000)))


def test_what_is_no_document_is_named() -> None:
    with pytest.raises(ImageRefused, match="not a readable document"):
        list(open_pages(b"%PDF-1.7\n" + b"nothing " * 50))
    with pytest.raises(ImageRefused, match="not a readable image"):
        list(open_pages(b"text, no image"))


@pytest.mark.skipif(not DATA.is_dir(), reason="real pages lie beside the project")
@both
def test_lines_of_a_real_printed_page_are_found(by: DETECTOR) -> None:
    from tests.support.composed_pages import pages_of

    _, page, truth = next(iter(pages_of("alto_french_print")))
    assert matches(truth, [line.box for line in find_lines(page, detector=by)]) >= 0.8 * len(truth)

"""The label of a piece is its own, and its crop is where its coordinates say."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ocr.errors import UserError
from ocr.images import open_image
from ocr.sample import Sample, Skip
from ocr.sources.settings import PaddleSettings
from tests.ocr.sources.test_layout import folder as folder
from tests.ocr.sources.test_layout import line, page_xml, read, texts
from tests.support.sources import read_source


def equivalent(text: str | None, **attributes: str) -> str:
    listed = "".join(f' {key}="{value}"' for key, value in attributes.items())
    return f"<TextEquiv{listed}>{'' if text is None else f'<Unicode>{text}</Unicode>'}</TextEquiv>"


@pytest.mark.parametrize(
    ("equivalents", "label"),
    [
        (equivalent("ocr", conf="0.4") + equivalent("GT", index="0"), "GT"),
        (equivalent("GT", index="1") + equivalent("ocr"), "GT"),
        (equivalent("b", index="7") + equivalent("a", index="3"), "a"),
        (equivalent("", index="0") + equivalent("b", index="1"), "b"),
        (equivalent(" ", index="0") + equivalent("b"), "b"),
        (equivalent(None, index="0") + equivalent("b", index="1"), "b"),
        (equivalent("same") + equivalent("same"), "same"),
        ("<TextEquiv><PlainText>plain</PlainText></TextEquiv>", "plain"),
    ],
)
def test_the_main_text_is_the_one_with_the_lowest_index(
    folder: Path, equivalents: str, label: str
) -> None:
    assert texts(read(folder, page_xml(line(None, inner=equivalents)))) == [label]


@pytest.mark.parametrize(
    ("equivalents", "reason", "says"),
    [
        (equivalent("a") + equivalent("b"), "several texts", "without an index: a | b"),
        (equivalent("a", index="0") + equivalent("b", index="0"), "several texts", "a | b"),
        (equivalent("a", index="first"), "odd attribute", "index='first' of a TextEquiv"),
        (equivalent("a", conf="high"), "odd attribute", "conf='high' of a TextEquiv"),
    ],
)
def test_a_text_that_is_not_clear_costs_its_line_alone(
    folder: Path, equivalents: str, reason: str, says: str
) -> None:
    lines = line(None, inner=equivalents) + line("good", attributes='id="m"')
    skip, good = read(folder, page_xml(lines))
    assert isinstance(skip, Skip) and skip.reason == reason and says in skip.detail
    assert isinstance(good, Sample) and good.text == "good"


def detection(folder: Path, boxes: list[Any], **more: Any) -> list[Sample | Skip]:
    (folder / "Label.txt").write_text(f"a.png\t{json.dumps(boxes)}\n", encoding="utf-8")
    values = {"path": str(folder / "Label.txt"), "labels": "detection", **more}
    return list(read_source(PaddleSettings.model_validate(values)))


POINTS = [[10, 10], [60, 10], [60, 30], [10, 30]]


@pytest.mark.parametrize(
    ("label", "result"),
    [
        (None, "malformed label"),
        (["a"], "malformed label"),
        ({"a": 1}, "malformed label"),
        (True, "malformed label"),
        (1880, "1880"),
        (1.5, "1.5"),
        ("None", "None"),
        ("null", "null"),
        ("###", "marked unreadable"),
        ("待识别", "marked unreadable"),
        ("TEMPORARY", "marked unreadable"),
    ],
)
def test_a_label_of_json_is_a_text_or_named(folder: Path, label: Any, result: str) -> None:
    boxes = [{"transcription": label, "points": POINTS}, {"transcription": "b", "points": POINTS}]
    first, second = detection(folder, boxes)
    assert (first.reason if isinstance(first, Skip) else first.text) == result
    assert isinstance(second, Sample) and second.text == "b"


def test_a_box_that_is_marked_difficult_is_left_out_by_name(folder: Path) -> None:
    (skip,) = detection(folder, [{"transcription": "a", "points": POINTS, "difficult": True}])
    assert isinstance(skip, Skip) and skip.reason == "marked unreadable"


def test_a_file_of_boxes_is_not_read_as_texts_of_whole_images(folder: Path) -> None:
    boxes = [{"transcription": "ଶବ୍ଦ", "points": POINTS}]
    content = f"a.png\tword\na.png\t{json.dumps(boxes, ensure_ascii=False)}\n"
    (folder / "Label.txt").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=r"Label.txt:2: .* set labels: detection"):
        list(read_source(PaddleSettings(path=str(folder / "Label.txt"))))


def turned(folder: Path, orientation: int, width: int = 100) -> None:
    """A JPEG whose grey rises from left to right as it is stored, with an EXIF orientation."""
    gradient = np.tile(np.arange(width, dtype=np.uint8), (50, 1))
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(gradient).save(buffer, "JPEG", quality=100, exif=exif)
    (folder / "a.jpg").write_bytes(buffer.getvalue())
    (folder / "a.png").unlink(missing_ok=True)


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
def test_coordinates_of_the_stored_image_cut_the_stored_image(
    folder: Path, orientation: int
) -> None:
    turned(folder, orientation)
    (sample,) = read(folder, page_xml(line(), image="a.jpg"))
    assert isinstance(sample, Sample)
    greys = open_image(sample.image).mean(axis=0)
    assert np.abs(greys - np.arange(10, 60)).max() < 3
    kinds = [kind for kind, _ in sample.findings]
    assert kinds == ([] if orientation == 1 else ["EXIF orientation of a page"])


@pytest.mark.parametrize("orientation", [6, 8])
def test_coordinates_of_the_upright_image_cut_the_upright_image(
    folder: Path, orientation: int
) -> None:
    turned(folder, orientation)
    upright = page_xml(line(points="10,10 40,10 40,60 10,60"), image="a.jpg")
    upright = upright.replace(
        'imageWidth="100" imageHeight="50"', 'imageWidth="50" imageHeight="100"'
    )
    (sample,) = read(folder, upright)
    assert isinstance(sample, Sample)
    greys = open_image(sample.image).mean(axis=1)
    expected = np.arange(10, 60) if orientation == 6 else 99 - np.arange(10, 60)
    assert np.abs(greys - expected).max() < 3


def test_a_whole_page_is_shown_as_its_coordinates_were_measured(folder: Path) -> None:
    turned(folder, 3)
    (sample,) = read(folder, page_xml(line(), image="a.jpg"), levels=["page"])
    assert isinstance(sample, Sample)
    assert open_image(sample.image)[0, 0] < 5 < 90 < open_image(sample.image)[0, -1]


def test_boxes_that_only_the_stored_image_has_room_for_are_cut_from_it(folder: Path) -> None:
    turned(folder, 6)
    (folder / "Label.txt").write_text(
        f"a.jpg\t{json.dumps([{'transcription': 'a', 'points': POINTS}])}\n"
    )
    values = {"path": str(folder / "Label.txt"), "labels": "detection"}
    (sample,) = read_source(PaddleSettings.model_validate(values))
    assert isinstance(sample, Sample)
    assert np.abs(open_image(sample.image).mean(axis=0) - np.arange(10, 60)).max() < 3

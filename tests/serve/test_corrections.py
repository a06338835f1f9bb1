"""Corrections are kept whole or not at all, once however often they are sent, in the form that
training reads; and what is wrong with one is said.
"""

import base64
import io
import json
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import pytest
from PIL import Image

from ocr.dataset.prepared import open_training
from ocr.images import encode_image, open_image
from ocr.sources.settings import CorrectionsSettings
from serve.config import LimitSettings
from serve.correction_list import CorrectionList
from serve.corrections import Corrections, CorrectionsRequest
from serve.errors import Refused
from serve.store import Store


def png(seed: int, shape: tuple[int, ...] = (40, 200)) -> bytes:
    return encode_image(np.random.default_rng(seed).integers(0, 255, shape).astype(np.uint8))


def told(
    *corrections: dict[str, Any], images: dict[str, bytes] | None = None, user: str | None = None
) -> CorrectionsRequest:
    given = {
        name: base64.b64encode(content).decode()
        for name, content in (images or {"a": png(1)}).items()
    }
    return CorrectionsRequest.model_validate(
        {"images": given, "corrections": list(corrections), "user": user}
    )


@pytest.fixture
def corrections(tmp_path: Path) -> Corrections:
    return Corrections(Store(str(tmp_path)), LimitSettings())


def files(tmp_path: Path) -> list[str]:
    return (
        sorted(file.name for file in (tmp_path / "corrections").glob("*"))
        if (tmp_path / "corrections").is_dir()
        else []
    )


def test_a_correction_is_a_png_and_a_json_that_training_reads(
    corrections: Corrections, tmp_path: Path
) -> None:
    asked = told(
        {"image": "a", "text": "ଜୀବନ", "reading": "ଜବନ", "confidence": 0.4, "model": "base-odia@1"},
        user="asha",
    )
    stored = corrections.put(asked)
    assert (stored["stored"], stored["unchanged"]) == (1, 0)
    (name,) = stored["ids"]
    assert files(tmp_path) == [f"{name}.json", f"{name}.png"]
    assert (open_image(tmp_path / "corrections" / f"{name}.png") == open_image(png(1))).all()
    data = open_training(
        (CorrectionsSettings(format="corrections", path=str(tmp_path / "corrections")),), 0.0
    )
    assert (data.texts, data.group(0)["reading"], data.group(0)["user"]) == (
        ["ଜୀବନ"],
        "ଜବନ",
        "asha",
    )


def test_the_same_twice_is_kept_once_and_a_second_thought_replaces_the_first(
    corrections: Corrections, tmp_path: Path
) -> None:
    first = corrections.put(told({"image": "a", "text": "one"}))
    assert corrections.put(told({"image": "a", "text": "one"}))["stored"] == 0
    reencoded = io.BytesIO()
    Image.open(io.BytesIO(png(1))).save(reencoded, "PNG", compress_level=0)
    again = corrections.put(
        told(
            {"image": "b", "text": " one\u200b".replace("\u200b", "")},
            images={"b": reencoded.getvalue()},
        )
    )
    assert (again["ids"], again["stored"]) == (first["ids"], 0), "the same pixels"
    assert corrections.put(told({"image": "a", "text": "two"}))["stored"] == 1
    record = json.loads((tmp_path / "corrections" / f"{first['ids'][0]}.json").read_text())
    assert (record["corrected_text"], [old["corrected_text"] for old in record["history"]]) == (
        "two",
        ["one"],
    )
    assert len(files(tmp_path)) == 2


def test_either_normalisation_is_one_text(corrections: Corrections) -> None:
    for form in ("NFC", "NFD"):
        stored = corrections.put(told({"image": "a", "text": unicodedata.normalize(form, "ড়ó")}))
    assert stored["stored"] == 0


@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        (
            {"image": "b", "text": "x"},
            "unknown_image",
            r"corrections\[1\]\.image: expected one of a, got 'b'",
        ),
        ({"image": "a", "text": " \n\t"}, "empty_text", r"corrections\[1\]\.text: empty"),
        (
            {"image": "a", "text": "x" * 100_000},
            "text_too_long",
            "100,000 characters; at most 2,000",
        ),
        (
            {"image": "a", "text": "a\x00b"},
            "unprintable_character",
            r"U\+0000 cannot be part of a line",
        ),
        ({"image": "a", "text": "x", "page": 2}, "unknown_page", "2; the document has 1"),
        (
            {"image": "a", "text": "x", "polygon": [[500, 500], [600, 500], [600, 600]]},
            "polygon_outside_the_image",
            "polygon",
        ),
    ],
)
def test_one_that_is_no_good_is_named_and_nothing_is_stored(
    corrections: Corrections, tmp_path: Path, given: dict[str, Any], code: str, message: str
) -> None:
    with pytest.raises(Refused, match=message) as refused:
        corrections.put(told({"image": "a", "text": "good"}, given))
    assert (refused.value.status, refused.value.code) == (422, code)
    assert files(tmp_path) == []


def test_what_is_no_image_and_what_is_no_correction(
    corrections: Corrections, tmp_path: Path
) -> None:
    with pytest.raises(Refused, match="not a readable image"):
        corrections.put(told({"image": "a", "text": "x"}, images={"a": b"no image"}))
    with pytest.raises(Refused, match="expected an image as base64 text"):
        corrections.put(
            CorrectionsRequest.model_validate(
                {"images": {"a": "%%%"}, "corrections": [{"image": "a", "text": "x"}]}
            )
        )
    for wrong in (
        {"image": "a"},
        {"image": "a", "text": "x", "colour": 1},
        {"image": "a", "text": "x", "confidence": 7},
    ):
        with pytest.raises(pydantic.ValidationError):
            told(wrong)
    assert files(tmp_path) == []


def test_lines_of_a_page_are_cut_where_they_were_read(
    corrections: Corrections, tmp_path: Path
) -> None:
    page = np.full((400, 300, 3), 255, np.uint8)
    page[100:140, 50:250] = (200, 30, 30)
    corners = [[50, 100], [250, 100], [250, 140], [50, 140]]
    (name,) = corrections.put(
        told({"image": "a", "text": "red", "polygon": corners}, images={"a": encode_image(page)})
    )["ids"]
    line = open_image(tmp_path / "corrections" / f"{name}.png", "RGB")
    assert (line.shape, line[20, 100].tolist()) == ((40, 200, 3), [200, 30, 30])


def test_many_at_once_and_any_script_as_text(corrections: Corrections, tmp_path: Path) -> None:
    images = {str(number): png(number) for number in range(24)}
    script = "<script>alert(1)</script>"
    asked = [
        told(*[{"image": name, "text": f"{script} {name}"} for name in images], images=images)
        for _ in range(4)
    ]
    with ThreadPoolExecutor(4) as several:
        list(several.map(corrections.put, asked))
    records = corrections.records()
    assert len(records) == 24
    assert {record["corrected_text"] for record in records.values()} == {
        f"{script} {name}" for name in images
    }


def test_statistics_tell_errors_by_day_and_model_and_what_waits(
    corrections: Corrections, tmp_path: Path
) -> None:
    assert corrections.stats(None)["read"] == {
        "lines": 0,
        "right": 0,
        "characters": 0,
        "errors": 0,
        "cer": None,
    }
    corrections.put(told({"image": "a", "text": "abcd", "reading": "abce", "model": "m1"}))
    corrections.put(
        told({"image": "a", "text": "efgh", "reading": "efgh", "model": "m2"}, images={"a": png(2)})
    )
    newest = max(record["timestamp"] for record in corrections.records().values())
    stats = corrections.stats(None)
    assert (stats["corrections"], stats["waiting"]) == (2, 2)
    assert stats["read"] == {"lines": 2, "right": 1, "characters": 8, "errors": 1, "cer": 0.125}
    assert [(one["model"], one["cer"]) for one in stats["models"]] == [("m1", 0.25), ("m2", 0.0)]
    assert corrections.stats(newest)["waiting"] == 0
    corrections.snapshot(tmp_path / "snapshot")
    assert len(list((tmp_path / "snapshot").glob("*.png"))) == 2


def test_an_export_is_bounded_and_lines_of_one_document_stay_together(
    corrections: Corrections, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = {name: png(number) for number, name in enumerate("abc")}
    lines = [{"image": name, "text": name, "document": "page 7"} for name in images]
    corrections.put(told(*lines, images=images), by="ward 3")
    records = corrections.records().values()
    assert {(one["page"], one["by"]) for one in records} == {("page 7", "ward 3")}
    listed = CorrectionList(corrections, Store(str(tmp_path)))
    monkeypatch.setattr("serve.correction_list._MOST_BYTES", 2 * len(images["a"]) + 10)
    with pytest.raises(Refused, match="ask for fewer at once") as caught:
        listed.export(1, 3, "zip")
    assert caught.value.status == 413
    fewer = listed.export(2, 2, "zip")
    assert fewer.headers["X-Pages"] == "2"

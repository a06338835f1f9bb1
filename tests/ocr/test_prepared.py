"""Data as a training config names it: sources that are prepared on the way."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from ocr.dataset import prepared
from ocr.dataset.config import DivisionSettings
from ocr.dataset.prepared import open_splits
from ocr.errors import UserError
from ocr.images import encode_image
from ocr.settings import parse_settings
from ocr.sources.settings import CorrectionsSettings, Source, SourceSettings

WORDS = ["ଘର", "ନଦୀ", "ଗଛ", "ଫୁଲ", "ପାଣି"]


def corrections(folder: Path, facts: list[dict[str, Any]]) -> list[CorrectionsSettings]:
    """A source of as many corrections as there are facts, every one with an image of its own."""
    draw = np.random.default_rng(3)
    for number, fact in enumerate(facts):
        (folder / f"{number:02}.png").write_bytes(
            encode_image(draw.integers(0, 255, (32, 90), dtype=np.uint8))
        )
        (folder / f"{number:02}.json").write_text(json.dumps(fact), encoding="utf-8")
    return [parse_settings(CorrectionsSettings, {"path": str(folder)}, "test")]


def test_a_dozen_samples_are_divided_near_the_ratio(tmp_path: Path) -> None:
    sources = corrections(tmp_path, [{"corrected_text": WORDS[n % 5]} for n in range(12)])
    for ratio in (0.2, 0.4):
        train, validation = open_splits(sources, None, ratio, 0.01)
        assert (
            len(train) + len(validation) == 12
            and 0.5 * ratio <= len(validation) / 12 <= 1.5 * ratio
        )
        assert not set(train.texts) & set(validation.texts)


def of_pages(count: int) -> list[dict[str, Any]]:
    """Fourteen corrections of so many pages."""
    return [{"corrected_text": f"ଘର {n}", "page": f"scan{n % count}"} for n in range(14)]


@pytest.mark.parametrize("few", [prepared._FEW, 5])
@pytest.mark.parametrize("pages", [1, 2, 3])
def test_samples_of_few_pages_have_two_splits(
    pages: int,
    few: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prepared, "_FEW", few)  # with 5, fourteen samples are many
    train, validation = open_splits(corrections(tmp_path, of_pages(pages)), None, 0.2, 0.01)
    assert len(train) + len(validation) == 14
    assert len(train) and len(validation)
    shared = {train.group(index)["page"] for index in range(len(train))} & {
        validation.group(index)["page"] for index in range(len(validation))
    }
    assert shared == ({"scan0"} if pages == 1 else set())
    told = "by page one split would be empty, so the samples are divided by their texts"
    assert (told in capsys.readouterr().out) == (pages == 1)


def test_a_config_says_what_decides_the_split(tmp_path: Path) -> None:
    sources = corrections(tmp_path, of_pages(2))
    by_id = DivisionSettings(by=("id",))
    train, validation = open_splits(sources, None, 0.2, 0.01, by_id)
    assert {train.group(index)["page"] for index in range(len(train))} == {"scan0", "scan1"}
    other = open_splits(sources, None, 0.2, 0.01, by_id.model_copy(update={"seed": 5}))[1]
    assert set(other.ids) != set(validation.ids)


def test_what_both_splits_share_is_an_error_or_left_out_as_the_config_says(tmp_path: Path) -> None:
    sources = corrections(tmp_path, [{"corrected_text": WORDS[n % 5]} for n in range(12)])
    no_shared_text = DivisionSettings(by=("id", "text"))
    left_out = no_shared_text.model_copy(update={"on_leak": "drop_from_train"})
    for _ in range(2):  # what one made is not taken for the other
        with pytest.raises(
            UserError, match=r"data\.split\.on_leak=drop_from_train .*data\.split\.by;"
        ):
            open_splits(sources, None, 0.4, 0.01, no_shared_text)
        train, validation = open_splits(sources, None, 0.4, 0.5, left_out)
        assert len(train) and not set(train.texts) & set(validation.texts)


GONE: dict[str, dict[str, Any]] = {
    "page": {"path": "gone"},
    "alto": {"path": "gone"},
    "paddle": {"path": "gone/labels.txt"},
    "paddle, images": {"path": "gone/labels.txt", "images": "gone"},
    "paddle, dictionary": {"path": "gone/labels.txt", "character_dict_path": "gone/dict.txt"},
    "pairs": {"path": "gone"},
    "corrections": {"path": "gone"},
    "synthetic": {"texts": ["gone/words.txt"], "script": "Oriya", "count": 3},
    "synthetic, font": {
        "texts": ["gone/words.txt"],
        "script": "Oriya",
        "count": 3,
        "fonts": ["gone/a.ttf"],
    },
}


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("name", GONE)
def test_a_missing_file_is_one_message_in_every_format(
    name: str, split: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIPI_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "there"
    folder.mkdir()
    there: list[SourceSettings] = [*corrections(folder, of_pages(3))]
    settings = {"format": name.partition(",")[0], **GONE[name]}
    gone = [TypeAdapter(Source).validate_python(settings)]
    train, validation = (gone, there) if split == "train" else (there, gone)
    with pytest.raises(UserError, match="gone"):
        open_splits(train, validation, 0.1, 0.01)


@pytest.mark.parametrize(
    ("ratio", "says"), [(0.1, "all have one text or one page"), (0.0, "data.validation_ratio is 0")]
)
def test_sources_that_leave_nothing_for_validation_are_named(
    tmp_path: Path, ratio: float, says: str
) -> None:
    sources = corrections(tmp_path, [{"corrected_text": WORDS[0]}] * 6)
    with pytest.raises(UserError) as caught:
        open_splits(sources, None, ratio, 0.01)
    message = str(caught.value)
    assert f"corrections:{tmp_path}: nothing is left for validation of 6 samples" in message
    assert says in message and "data.validation" in message and "cache" not in message

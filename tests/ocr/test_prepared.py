"""Data as a training config names it: sources that are prepared on the way."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from ocr.dataset import prepared
from ocr.dataset.build import build
from ocr.dataset.config import DivisionSettings, PrepareConfig
from ocr.dataset.prepared import open_splits, open_training
from ocr.dataset.read import Dataset
from ocr.errors import UserError
from ocr.files import cache_dir
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
    ("count", "more", "ratio", "division", "says"),
    [
        (1, {}, 0.1, {}, "of 1 sample: it cannot be divided; add samples"),
        (6, {}, 0.0, {}, "of 6 samples: data.validation_ratio is 0; set it, such as to 0.1"),
        (6, {"split": "train"}, 0.1, {}, "every source has split=train"),
        (6, {}, 0.1, {"by": ("source",)}, "by source all are in one split; set data.split.by="),
    ],
)
def test_sources_that_leave_nothing_for_validation_are_named(
    tmp_path: Path,
    count: int,
    more: dict[str, Any],
    ratio: float,
    division: dict[str, Any],
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sources = corrections(tmp_path, [{"corrected_text": WORDS[0]}] * count)
    sources = [source.model_copy(update=more) for source in sources]
    with pytest.raises(UserError) as caught:
        open_splits(sources, None, ratio, 0.01, DivisionSettings(**division))
    message, printed = str(caught.value), capsys.readouterr().out
    # one source falls into either split, by a hash of its name
    sides = ("validation", "training") if "by source" in says else ("validation",)
    told = [f"corrections:{tmp_path}: nothing is left for {side}" for side in sides]
    assert any(words in message for words in told)
    assert says in message and "name other data in data.validation" in message
    for text in (message, printed):
        assert str(cache_dir()) not in text and " split." not in text and "NO " not in text


@pytest.mark.parametrize("count", [2, 3, 6, 12])
@pytest.mark.parametrize("page", [{}, {"page": "scan"}])
def test_samples_of_one_text_are_divided_one_by_one(
    count: int, page: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = corrections(tmp_path, [{"corrected_text": WORDS[0], **page}] * count)
    train, validation = open_splits(sources, None, 0.1, 0.01)
    assert len(train) and len(validation) and len(train) + len(validation) == count
    printed = capsys.readouterr().out
    assert "the samples are divided one by one; the CER" in printed
    assert str(cache_dir()) not in printed and "NO " not in printed


@pytest.mark.parametrize("count", [2, 3, 12])
def test_lines_of_one_page_are_divided_however_few(count: int, tmp_path: Path) -> None:
    facts = [{"corrected_text": f"ଘର {n}", "page": "scan"} for n in range(count)]
    train, validation = open_splits(corrections(tmp_path, facts), None, 0.1, 0.01)
    assert len(train) and len(validation) and len(train) + len(validation) == count


def test_sources_of_one_split_alone_raise_no_alarm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    train = corrections(tmp_path / "a", of_pages(2))
    other = corrections(tmp_path / "b", of_pages(1))
    assert [len(data) for data in open_splits(train, other, 0.1, 0.01)] == [14, 14]
    assert len(open_training(corrections(tmp_path / "a", of_pages(3)), 0.01)) == 14
    printed = capsys.readouterr().out
    assert f"corrections:{tmp_path / 'a'}: kept 14 train, 0 validation" in printed
    assert "NO " not in printed and "validation_ratio" not in printed
    assert str(cache_dir()) not in printed

    wrong = [source.model_copy(update={"split": "train"}) for source in other]
    with pytest.raises(UserError, match=r"no sample is for validation.*split=train; leave"):
        open_splits(train, wrong, 0.1, 0.01)
    wrong = [source.model_copy(update={"split": "validation"}) for source in train]
    with pytest.raises(UserError, match=r"no sample is for train.*split=validation; leave"):
        open_training(wrong, 0.01)


def prepared_from(tmp_path: Path, facts: list[dict[str, Any]], **settings: Any) -> str:
    """Prepare corrections as prepare.py does, and return what it prints."""
    (tmp_path / "in").mkdir(exist_ok=True)
    sources = corrections(tmp_path / "in", facts)
    more = {"split": settings.pop("source_split")} if "source_split" in settings else {}
    values = {
        "output": str(tmp_path / "out"),
        "sources": [{**source.model_dump(), **more} for source in sources],
        "split": settings,
    }
    return str(build(PrepareConfig.model_validate(values)))


@pytest.mark.parametrize(
    "facts", [of_pages(1), [{"corrected_text": WORDS[0], "page": "scan"}] * 6, of_pages(1)[:2]]
)
def test_a_set_without_validation_says_so_and_what_it_advises_works(
    facts: list[dict[str, Any]], tmp_path: Path
) -> None:
    printed = prepared_from(tmp_path, facts)
    advice = re.search(r"NO \w+ SAMPLES.*set split\.by=\[(\w+)\] split\.seed=(\d+)", printed)
    assert advice, printed
    again = prepared_from(tmp_path, facts, by=[advice[1]], seed=int(advice[2]))
    assert "SAMPLES" not in again
    assert len(Dataset.open(tmp_path / "out", "train")) < len(facts)
    assert len(Dataset.open(tmp_path / "out", "validation")) < len(facts)


def test_a_set_that_cannot_have_validation_says_why(tmp_path: Path) -> None:
    one = prepared_from(tmp_path, of_pages(1)[:1])
    assert "NO validation SAMPLES, so no file for them: one sample cannot be divided" in one
    assert "needs another one in data.validation" in one
    none = prepared_from(tmp_path, of_pages(2), validation_ratio=0)
    assert "split.validation_ratio is 0; set it" in none
    alone = prepared_from(tmp_path, of_pages(2), source_split="validation")
    assert "NO train SAMPLES" in alone and "every source has split=validation" in alone
    with pytest.raises(UserError, match=r"train.parquet: missing.*has one in data.train"):
        open_splits(str(tmp_path / "out"), None, 0.1, 0.01)

"""Replay: a bundle carries some of what it learned from, within bounds, and reads as before."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ocr.bundle import open_bundle, shipped_names
from ocr.dataset.read import Dataset
from ocr.errors import UserError
from ocr.images import open_image
from ocr.recognizers.factory import load
from ocr.replay import MOST, TRAIN, VALIDATION, few, replay_files, replay_of, rows_file, with_replay


def test_every_recogniser_that_ships_carries_its_replay() -> None:
    for name in shipped_names():
        bundle = open_bundle(Path(name))
        data = replay_of(bundle)
        train, validation = Dataset.open(data, "train"), Dataset.open(data, "validation")
        assert (data, len(train) <= MOST[TRAIN], len(validation) <= MOST[VALIDATION]) == (
            str(bundle.path),
            True,
            True,
        )
        assert len(train) >= 400 and len(validation) >= 100
        assert not set(train.texts) & set(validation.texts)


def test_a_bundle_with_replay_reads_as_before_and_opens_as_a_data_set(tmp_path: Path) -> None:
    bundle = open_bundle(Path("odia"))
    made = with_replay(bundle, tmp_path / "bundle", replay_files("odia_few_words"))
    assert made.sha256 != bundle.sha256
    data = Dataset.open(str(made.path), "train")
    assert 0 < len(data) <= MOST[TRAIN]
    image = open_image(data.image_bytes(0))
    assert load(made.path).read([image]) == load(bundle.path).read([image])
    again = with_replay(open_bundle(made.path), tmp_path / "again", replay_files(str(made.path)))
    assert again.sha256 == made.sha256


def test_the_same_few_are_chosen_each_time(tmp_path: Path) -> None:
    data = Dataset.open("odia_words", "validation")
    first, again = few(data, 50), few(data, 50)
    assert first == again
    (tmp_path / "train.parquet").write_bytes(first)
    replayed = Dataset.open(tmp_path, "train")
    assert len(replayed) == 50
    assert [replayed.image_bytes(0)] == [data.image_bytes(data.ids.index(replayed.ids[0]))]
    (tmp_path / "validation.parquet").write_bytes(rows_file(data, [3, 1]))
    assert Dataset.open(tmp_path, "validation").texts == [data.texts[3], data.texts[1]]


def test_without_replay_the_error_says_what_to_do(tmp_path: Path) -> None:
    bundle = open_bundle(Path("odia"))
    shutil.copytree(bundle.path, tmp_path / "bare", ignore=shutil.ignore_patterns("*.parquet"))
    bare = replace(bundle, path=tmp_path / "bare", card={"data": "data/gone"})
    with pytest.raises(UserError, match=r"data/gone\) is not on this machine; set replay=FOLDER"):
        replay_of(bare)
    assert replay_of(replace(bare, card={"data": "odia_words"})) == "odia_words"
    assert replay_of(bare, "elsewhere") == "elsewhere"

"""Building a data set: samples are kept or counted, and the same input gives the same bytes."""

import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ocr.dataset.build import build
from ocr.dataset.config import PrepareConfig
from ocr.dataset.read import Dataset
from ocr.errors import UserError


def png(shade: int, size: tuple[int, int] = (40, 20)) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((size[1], size[0]), shade, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def labels(folder: Path, lines: list[tuple[str, bytes, str]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, image, _ in lines:
        (folder / name).write_bytes(image)
    (folder / "labels.txt").write_text(
        "".join(f"{name}\t{text}\n" for name, _, text in lines), encoding="utf-8"
    )


def config(folder: Path, **values: Any) -> PrepareConfig:
    source = {"format": "paddle", "path": str(folder / "in" / "labels.txt"), "level": "word"}
    return PrepareConfig.model_validate(
        {
            "output": str(folder / "out"),
            "sources": [source],
            "split": {"validation_ratio": 0.3},
            **values,
        }
    )


def hundred(folder: Path) -> None:
    labels(
        folder / "in", [(f"{number}.png", png(number), f"word {number}") for number in range(100)]
    )


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    hundred(tmp_path)
    summary = build(config(tmp_path))
    splits = [Dataset.open(tmp_path / "out", split) for split in ("train", "validation")]
    assert [len(split) for split in splits] == list(summary.kept.values()) and sum(
        summary.kept.values()
    ) == 100
    assert 15 <= summary.kept["validation"] <= 45
    for split in splits:
        row = split.row(3)
        number = row["text"].split()[1]
        assert row["image"] == png(int(number)) and row["level"] == "word"
        assert split.group(3) == {"file": f"{number}.png"}


def test_the_same_input_gives_the_same_bytes_and_fingerprint(tmp_path: Path) -> None:
    hundred(tmp_path)
    files = ("train.parquet", "validation.parquet", "dataset.json")
    build(config(tmp_path))
    first = [(tmp_path / "out" / name).read_bytes() for name in files]
    build(config(tmp_path))
    assert first == [(tmp_path / "out" / name).read_bytes() for name in files]
    described = json.loads(first[2])
    assert described["fingerprint"]["train"] == Dataset.open(tmp_path / "out", "train").fingerprint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_a_text_is_never_in_both_splits(tmp_path: Path) -> None:
    labels(
        tmp_path / "in",
        [(f"{number}.png", png(number), f"word {number % 20}") for number in range(100)],
    )
    build(config(tmp_path))
    assert (
        json.loads((tmp_path / "out" / "dataset.json").read_text())["held_out"][
            "texts_also_in_train"
        ]
        == 0
    )


def test_labels_are_normalised_and_unseen_characters_named(tmp_path: Path) -> None:
    labels(tmp_path / "in", [("a.png", png(1), " \u09df  \u09a4\u09cd\u200d ")])
    labels(tmp_path / "val", [("b.png", png(2), "z")])
    sources = [
        {"format": "paddle", "path": str(tmp_path / folder / "labels.txt"), "split": split}
        for folder, split in (("in", "train"), ("val", "validation"))
    ]
    build(config(tmp_path, sources=sources))
    assert Dataset.open(tmp_path / "out", "train").texts == ["\u09af\u09bc \u09ce"]
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())[
        "characters_only_in_validation"
    ] == {"z": 1}


def test_every_skip_has_a_reason_and_a_count(tmp_path: Path) -> None:
    good = [(f"{number}.png", png(number), f"word {number}") for number in range(20)]
    bad = [
        ("dup.png", png(3), "word 3"),
        ("torn.png", png(5)[:40], "torn"),
        ("tiny.png", png(5, (2, 2)), "tiny"),
        ("bom.png", png(6), "\ufeff"),
    ]
    labels(tmp_path / "in", good + bad)
    with open(tmp_path / "in" / "labels.txt", "a", encoding="utf-8") as file:
        file.write("0.png\tanother text for a used id\n")
    summary = build(config(tmp_path, max_skipped=0.5))
    assert summary.skipped == {
        "duplicate sample": 1,
        "not a readable image": 1,
        "image too small": 1,
        "empty text": 1,
        "duplicate id": 1,
    }
    assert "kept" in str(summary) and "1 duplicate id" in str(summary)


def test_too_many_skips_stop_before_anything_is_written(tmp_path: Path) -> None:
    labels(tmp_path / "in", [("a.png", png(1), "a"), ("b.png", b"not an image", "b")])
    with pytest.raises(
        UserError, match=r"(?s)1 of 2 samples \(50\.0%\).*max_skipped=0\.01.*not a readable image"
    ):
        build(config(tmp_path))
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(".parts")] == ["in"]
    labels(tmp_path / "in", [("b.png", b"not an image", "b")])
    with pytest.raises(UserError, match="no sample was kept"):
        build(config(tmp_path, max_skipped=1.0))


def test_a_folder_that_is_no_data_set_is_not_replaced(tmp_path: Path) -> None:
    hundred(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("dear")
    with pytest.raises(UserError, match=r"but it holds thesis\.txt"):
        build(config(tmp_path))
    assert (tmp_path / "out" / "thesis.txt").read_text() == "dear"


def test_hugging_face_datasets_shows_the_images(tmp_path: Path) -> None:
    hundred(tmp_path)
    build(config(tmp_path))
    features = json.loads(
        pq.read_schema(tmp_path / "out" / "train.parquet").metadata[b"huggingface"]
    )["info"]["features"]
    assert features["image"] == {"_type": "Image"} and list(features) == [
        "id",
        "image",
        "text",
        "level",
        "group",
        "source",
    ]
    datasets = pytest.importorskip("datasets")
    loaded = datasets.Dataset.from_parquet(
        str(tmp_path / "out" / "train.parquet"), cache_dir=str(tmp_path / "cache")
    )
    assert isinstance(loaded.features["image"], datasets.Image) and loaded[0]["image"].size == (
        40,
        20,
    )


def test_reading_names_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such data set"):
        Dataset.open(tmp_path / "none", "train")
    pq.write_table(pa.table({"id": ["a"], "label": ["x"]}), tmp_path / "train.parquet")
    with pytest.raises(
        UserError,
        match="expected the columns image, text, level, group, source, got id, label",
    ):
        Dataset.open(tmp_path, "train")
    with pytest.raises(UserError, match=r"the folder has train\.parquet"):
        Dataset.open(tmp_path, "validation")
    (tmp_path / "train.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(UserError, match="cannot be read as parquet"):
        Dataset.open(tmp_path, "train")


def test_a_hugging_face_data_set_is_told_from_a_prepared_one(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    source = r"'data\.train=\[\{format: huggingface, path: "
    saved = datasets.DatasetDict({"train": datasets.Dataset.from_dict({"text": ["ଘର"]})})
    saved.save_to_disk(tmp_path / "saved")
    with pytest.raises(UserError, match=rf"{source}{tmp_path}/saved\}}\]'"):
        Dataset.open(tmp_path / "saved", "train")
    with pytest.raises(UserError, match=rf"no such data set.*{source}unsloth/LaTeX_OCR\}}\]'"):
        Dataset.open("unsloth/LaTeX_OCR", "train")
    (tmp_path / "empty.txt").touch()
    with pytest.raises(UserError) as plain:
        Dataset.open(tmp_path, "train")
    assert "Hugging Face" not in str(plain.value)


def test_an_empty_split_is_a_users_mistake(tmp_path: Path) -> None:
    labels(tmp_path / "in", [("a.png", png(1), "a")])
    build(config(tmp_path, split={"validation_ratio": 0.0}))
    with pytest.raises(UserError, match="missing or empty"):
        Dataset.open(tmp_path / "out", "validation")


def test_a_data_set_travels_to_another_process(tmp_path: Path) -> None:
    hundred(tmp_path)
    build(config(tmp_path))
    there = Dataset.open(tmp_path / "out", "train")
    assert pickle.loads(pickle.dumps(there)).image_bytes(0) == there.image_bytes(0)


def test_the_embedded_odia_words_hold_out_a_font_and_every_text() -> None:
    train, validation = (
        Dataset.open("odia_words", "train"),
        Dataset.open("odia_words", "validation"),
    )
    assert (len(train), len(validation)) == (16_000, 2_000)
    assert not set(train.texts) & set(validation.texts)
    assert not {train.group(i)["face"] for i in range(len(train))} & {
        validation.group(i)["face"] for i in range(len(validation))
    }
    assert set("".join(validation.texts)) <= set("".join(train.texts))
    described = json.loads(
        (Path(train.location).parent / "dataset.json").read_text(encoding="utf-8")
    )
    assert described["fingerprint"] == {
        "train": train.fingerprint,
        "validation": validation.fingerprint,
    }

"""Hugging Face data sets: every local form and every shape of row, with the real library.

Over 300 lines: all tests share the same small data sets and the same fixtures.
"""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value

from ocr.errors import UserError
from ocr.images import encode_image
from ocr.sample import Sample, Skip
from ocr.settings import parse_settings
from ocr.sources import plan, read
from ocr.sources.files import UNREAD
from ocr.sources.settings import HuggingFaceSettings
from ocr.sources.unit import Unit

WORDS = ["ଓଡ଼ିଆ", "বাংলা", "ไทย", "line four", "five"]
PLAIN = Features({"image": Image(), "text": Value("string")})
KINDS = Features({**PLAIN, "class": ClassLabel(names=["digit", "letter", "sign"])})
MESSAGES = List({"role": Value("string"), "content": Value("string")})
PARTS = List(
    {
        "role": Value("string"),
        "content": List({"type": Value("string"), "text": Value("string"), "image": Image()}),
    }
)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def picture(number: int) -> bytes:
    return encode_image(np.full((8, 12), number, dtype=np.uint8))


def embedded(number: int) -> dict[str, Any]:
    return {"bytes": picture(number), "path": None}


def words(start: int = 0, stop: int = len(WORDS)) -> Dataset:
    return Dataset.from_list(
        [{"image": embedded(i), "text": WORDS[i]} for i in range(start, stop)], features=PLAIN
    )


def settings(path: Path | str, **more: Any) -> HuggingFaceSettings:
    return parse_settings(HuggingFaceSettings, {"path": str(path), **more}, where="test")


def everything(path: Path | str, **more: Any) -> list[Sample | Skip]:
    chosen = settings(path, **more)
    return [item for unit in plan(chosen) for item in read(chosen, unit)]


def samples(path: Path | str, **more: Any) -> list[Sample]:
    items = everything(path, **more)
    assert not [item for item in items if isinstance(item, Skip)]
    return [item for item in items if isinstance(item, Sample)]


def contents(path: Path | str, **more: Any) -> list[tuple[bytes, str]]:
    return [(sample.image, sample.text) for sample in samples(path, **more)]


def one(path: Path, row: dict[str, Any], features: Features, **more: Any) -> Sample | Skip:
    Dataset.from_list([row], features=features).save_to_disk(str(path))
    (item,) = everything(path, **more)
    return item


def save_to_disk(folder: Path) -> Path:
    words().save_to_disk(str(folder))
    return folder


def save_dict_to_disk(folder: Path) -> Path:
    DatasetDict(train=words()).save_to_disk(str(folder))
    return folder


def parquet_folder(folder: Path) -> Path:
    folder.mkdir()
    words(0, 3).to_parquet(str(folder / "train-00000-of-00002.parquet"))
    words(3).to_parquet(str(folder / "train-00001-of-00002.parquet"))
    return folder


def parquet_file(folder: Path) -> Path:
    folder.mkdir()
    words().to_parquet(str(folder / "words.parquet"))
    return folder / "words.parquet"


def arrow_folder(folder: Path) -> Path:
    words().save_to_disk(str(folder))
    (folder / "state.json").unlink()
    return folder


def arrow_file(folder: Path) -> Path:
    return next(save_to_disk(folder).glob("*.arrow"))


def image_files(folder: Path) -> list[dict[str, str]]:
    folder.mkdir()
    for number in range(len(WORDS)):
        (folder / f"{number}.png").write_bytes(picture(number))
    return [{"file_name": f"{number}.png", "text": word} for number, word in enumerate(WORDS)]


def imagefolder_csv(folder: Path) -> Path:
    rows = [",".join(row.values()) for row in image_files(folder)]
    (folder / "metadata.csv").write_text("\n".join(["file_name,text", *rows]))
    return folder


def imagefolder_jsonl(folder: Path) -> Path:
    (folder / "metadata.jsonl").write_text(
        "\n".join(json.dumps(row) for row in image_files(folder))
    )
    return folder


def imagefolder_parquet(folder: Path) -> Path:
    Dataset.from_list(image_files(folder)).to_parquet(str(folder / "metadata.parquet"))
    return folder


def parquet_beside_images(folder: Path) -> Path:
    rows = [{"image": row["file_name"], "text": row["text"]} for row in image_files(folder)]
    Dataset.from_list(rows).to_parquet(str(folder / "labels.parquet"))
    return folder


FORMS = [
    save_to_disk,
    save_dict_to_disk,
    parquet_folder,
    parquet_file,
    arrow_folder,
    arrow_file,
    imagefolder_csv,
    imagefolder_jsonl,
    imagefolder_parquet,
    parquet_beside_images,
]


@pytest.mark.parametrize("streaming", [False, True], ids=["mapped", "streamed"])
@pytest.mark.parametrize("form", FORMS)
def test_every_local_form_gives_the_same_bytes_and_texts(
    tmp_path: Path, form: Callable[[Path], Path], streaming: bool
) -> None:
    expected = [(picture(number), word) for number, word in enumerate(WORDS)]
    assert contents(form(tmp_path / "set"), streaming=streaming) == expected


def test_a_sample_says_where_it_comes_from_and_what_it_belongs_to(tmp_path: Path) -> None:
    rows = [{"image": embedded(i), "text": "x", "writer_id": i + 7, "doc": None} for i in range(2)]
    Dataset.from_list(
        rows, features=Features({**PLAIN, "writer_id": Value("int64"), "doc": Value("string")})
    ).save_to_disk(str(tmp_path / "set"))
    first, second = samples(
        tmp_path / "set", group_columns={"writer": "writer_id", "document": "doc"}, level="word"
    )
    assert (first.id, second.id) == ("set:train#0", "set:train#1")
    assert (second.group, second.level, second.source) == (
        (("writer", "8"),),
        "word",
        f"huggingface:{tmp_path / 'set'}",
    )


@pytest.mark.parametrize(
    ("ids", "expected"),
    [(["a", "b"], ["set:train#a", "set:train#b"]), (["a", "a"], ["set:train#0", "set:train#1"])],
)
def test_an_id_column_is_used_when_it_tells_rows_apart(
    tmp_path: Path, ids: list[str], expected: list[str]
) -> None:
    words(0, 2).add_column("id", ids).save_to_disk(str(tmp_path / "set"))
    assert [sample.id for sample in samples(tmp_path / "set")] == expected


def test_units_are_thousands_of_rows_and_each_can_be_read_alone(tmp_path: Path) -> None:
    rows = {"image": [embedded(1)] * 2_001, "text": [f"row {i}" for i in range(2_001)]}
    Dataset.from_dict(rows, features=PLAIN).save_to_disk(str(tmp_path / "set"))
    chosen = settings(tmp_path / "set")
    assert plan(chosen) == [
        Unit("train", 0, 1_000),
        Unit("train", 1_000, 2_000),
        Unit("train", 2_000, 2_001),
    ]
    (last,) = read(chosen, Unit("train", 2_000, 2_001))
    assert isinstance(last, Sample) and (last.id, last.text) == ("set:train#2000", "row 2000")


def test_columns_may_have_other_names_and_images_may_be_plain_bytes(tmp_path: Path) -> None:
    Dataset.from_dict({"crop": [picture(5)], "label": ["ก"]}).save_to_disk(str(tmp_path / "set"))
    assert contents(tmp_path / "set", image_column="crop", text_column="label") == [
        (picture(5), "ก")
    ]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"text_column": "txet"},
            "text_column: no column 'txet'; known: image, text; did you mean 'text'",
        ),
        ({"image_column": "scan"}, "image_column: no column 'scan'; known: image, text"),
        ({"group_columns": {"writer": "writer_id"}}, "group_columns.writer: no column 'writer_id'"),
        ({"samples_per_class": 2}, "class_column: no column 'class'"),
        (
            {"dataset_split": "tain"},
            "dataset_split: no split 'tain'; known: train; did you mean 'train'",
        ),
    ],
)
@pytest.mark.parametrize("form", [save_to_disk, parquet_folder])
def test_what_a_set_lacks_is_named_with_what_it_has(
    tmp_path: Path, form: Callable[[Path], Path], more: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as problem:
        plan(settings(form(tmp_path / "set"), **more))
    assert message in str(problem.value)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"image": embedded(1), "text": None}, "empty text"),
        ({"image": embedded(1), "text": "  "}, "empty text"),
        ({"image": None, "text": "x"}, "missing image"),
        ({"image": {"bytes": b"", "path": None}, "text": "x"}, "missing image"),
        ({"image": {"bytes": None, "path": "nowhere.png"}, "text": "x"}, "missing image"),
        ({"image": {"bytes": None, "path": "a\x00b.png"}, "text": "x"}, "missing image"),
        (
            {"image": {"bytes": None, "path": "https://example.org/a.png"}, "text": "x"},
            "missing image",
        ),
    ],
)
def test_a_row_that_is_no_sample_is_skipped_by_its_number(
    tmp_path: Path, row: dict[str, Any], reason: str
) -> None:
    Dataset.from_list(
        [row],
        features=Features(
            {"image": {"bytes": Value("binary"), "path": Value("string")}, "text": Value("string")}
        ),
    ).to_parquet(str(tmp_path / "set.parquet"))
    (skip,) = everything(tmp_path / "set.parquet")
    assert isinstance(skip, Skip) and (skip.reason, skip.where) == (
        reason,
        f"{tmp_path / 'set.parquet'}:train#0",
    )


def test_digits_and_words_that_look_like_nothing_are_texts_in_metadata_csv(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    image_files(folder)
    (folder / "metadata.csv").write_text(
        '\ufefffile_name,text\n0.png,007\n1.png,NA\n2.png,"a, ""b"""\n3.png\n,x\n'
    )
    *words, empty, nowhere, unread = everything(folder)
    assert isinstance(unread, Skip) and unread.where == f"{folder}/4.png"
    assert [word.text for word in words if isinstance(word, Sample)] == ["007", "NA", 'a, "b"']
    assert (
        isinstance(empty, Skip)
        and isinstance(nowhere, Skip)
        and (empty.reason, nowhere.reason) == ("empty text", "missing image")
    )


def test_a_text_that_is_a_number_is_skipped(tmp_path: Path) -> None:
    skip = one(
        tmp_path / "set",
        {"image": embedded(1), "text": 7},
        Features({"image": Image(), "text": Value("int64")}),
    )
    assert isinstance(skip, Skip) and (skip.reason, skip.detail) == (
        "text is no string",
        "expected a text, got int 7",
    )


def test_an_imagefolder_has_the_splits_of_its_folders_and_names_below_them(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / "set" / split).mkdir(parents=True)
        rows = image_files(tmp_path / "set" / split / "pages")[:2]
        for number in (2, 3, 4):
            (tmp_path / "set" / split / "pages" / f"{number}.png").unlink()
        (tmp_path / "set" / split / "metadata.jsonl").write_text(
            "\n".join(json.dumps({**row, "file_name": f"pages/{row['file_name']}"}) for row in rows)
        )
    assert [(unit.name, unit.split) for unit in plan(settings(tmp_path / "set"))] == [
        ("train", "train"),
        ("validation", "validation"),
        (UNREAD, None),
    ]
    assert contents(tmp_path / "set") == [(picture(0), WORDS[0]), (picture(1), WORDS[1])] * 2


def test_metadata_without_file_names_lists_its_columns(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("filename,text\na.png,x\n")
    with pytest.raises(
        UserError,
        match=(
            r"metadata.csv: no column 'file_name'; known: filename, text; did you mean "
            r"'filename'"
        ),
    ):
        plan(settings(tmp_path))


def test_finevision_gives_the_assistants_text(tmp_path: Path) -> None:
    features = Features(
        {
            "images": List(Image()),
            "texts": List({"user": Value("string"), "assistant": Value("string")}),
        }
    )
    texts = [{"user": "read it", "assistant": "one"}, {"user": "and below?", "assistant": "two"}]
    sample = one(tmp_path / "set", {"images": [embedded(3)], "texts": texts}, features)
    assert isinstance(sample, Sample) and (sample.image, sample.text) == (picture(3), "one\ntwo")
    skip = one(tmp_path / "more", {"images": [embedded(3), embedded(4)], "texts": texts}, features)
    assert isinstance(skip, Skip) and skip.reason == "more than one image"
    skip = one(tmp_path / "none", {"images": [], "texts": texts}, features)
    assert isinstance(skip, Skip) and skip.reason == "missing image"


TALK = [
    {"role": "system", "content": "be exact"},
    {"role": "user", "content": "read it"},
    {"role": "assistant", "content": "ଓଡ଼ିଆ"},
]


@pytest.mark.parametrize(
    ("features", "image"),
    [
        (Features({"image": Image()}), {"image": embedded(2)}),
        (Features({"images": List(Image())}), {"images": [embedded(2)]}),
    ],
)
def test_a_conversation_gives_the_assistants_text(
    tmp_path: Path, features: Features, image: dict[str, Any]
) -> None:
    sample = one(
        tmp_path / "set", {**image, "messages": TALK}, Features({**features, "messages": MESSAGES})
    )
    assert isinstance(sample, Sample) and (sample.image, sample.text) == (picture(2), "ଓଡ଼ିଆ")


def test_a_conversation_in_parts_may_hold_the_image_itself(tmp_path: Path) -> None:
    asked = [
        {"type": "text", "text": "read it", "image": None},
        {"type": "image", "text": None, "image": embedded(6)},
    ]
    talk = [
        {"role": "user", "content": asked},
        {"role": "assistant", "content": [{"type": "text", "text": "ไทย", "image": None}]},
    ]
    sample = one(tmp_path / "set", {"messages": talk}, Features({"messages": PARTS}))
    assert isinstance(sample, Sample) and (sample.image, sample.text) == (picture(6), "ไทย")
    beside = one(
        tmp_path / "beside",
        {"image": embedded(1), "messages": talk},
        Features({"image": Image(), "messages": PARTS}),
    )
    assert isinstance(beside, Sample) and (beside.image, beside.text) == (picture(1), "ไทย")
    renamed = one(
        tmp_path / "renamed", {"talk": talk}, Features({"talk": PARTS}), text_column="talk"
    )
    assert isinstance(renamed, Sample) and renamed.text == "ไทย"
    skip = one(tmp_path / "silent", {"messages": talk[:1]}, Features({"messages": PARTS}))
    assert isinstance(skip, Skip) and skip.reason == "empty text"


def test_a_conversation_in_plain_texts_needs_an_image_column(tmp_path: Path) -> None:
    Dataset.from_list([{"messages": TALK}], features=Features({"messages": MESSAGES})).save_to_disk(
        str(tmp_path / "set")
    )
    with pytest.raises(UserError, match="image_column: no column 'image'; known: messages"):
        plan(settings(tmp_path / "set"))


@pytest.mark.parametrize("streaming", [False, True], ids=["mapped", "streamed"])
def test_contents_of_mixed_form_are_read(tmp_path: Path, streaming: bool) -> None:
    talk = [
        {"role": "user", "content": "read it"},
        {"role": "assistant", "content": [{"type": "text", "text": "mixed"}]},
    ]
    Dataset.from_list(
        [{"image": picture(1), "messages": talk}], on_mixed_types="use_json"
    ).to_parquet(str(tmp_path / "set.parquet"))
    assert contents(tmp_path / "set.parquet", streaming=streaming) == [(picture(1), "mixed")]


def splits_folder(folder: Path) -> Path:
    DatasetDict(train=words(0, 2), dev=words(2, 3), extra=words(3, 5)).save_to_disk(str(folder))
    return folder


def test_all_splits_are_read_and_those_of_validation_go_there(tmp_path: Path) -> None:
    chosen = settings(splits_folder(tmp_path / "set"))
    assert plan(chosen) == [
        Unit("train", 0, 2, "train"),
        Unit("dev", 0, 1, "validation"),
        Unit("extra", 0, 2, None),
    ]
    assert [sample.id for sample in samples(tmp_path / "set")] == [
        f"set:{row}" for row in ("train#0", "train#1", "dev#0", "extra#0", "extra#1")
    ]


def test_a_split_that_is_asked_for_goes_where_the_source_says(tmp_path: Path) -> None:
    assert plan(settings(splits_folder(tmp_path / "set"), dataset_split="dev")) == [
        Unit("dev", 0, 1, None)
    ]


def test_a_single_split_is_split_by_the_config(tmp_path: Path) -> None:
    assert [unit.split for unit in plan(settings(save_to_disk(tmp_path / "set")))] == [None]


def test_parquet_files_are_put_into_splits_by_their_names_though_images_lie_beside(
    tmp_path: Path,
) -> None:
    for name, rows in (("train", words(0, 2)), ("validation", words(2, 3)), ("test", words(3, 5))):
        rows.to_parquet(str(tmp_path / f"{name}.parquet"))
    for number in range(9):
        (tmp_path / f"train_figure_{number}.png").write_bytes(picture(0))
    units = plan(settings(tmp_path))
    assert [(unit.name, unit.stop, unit.split) for unit in units] == [
        ("train", 2, "train"),
        ("validation", 1, "validation"),
        ("test", 2, "validation"),
    ]


def test_a_copied_hub_folder_is_read_by_its_configurations(tmp_path: Path) -> None:
    for language in ("od", "bn"):
        (tmp_path / language).mkdir()
        words(0, 1 if language == "od" else 2).to_parquet(str(tmp_path / language / "part.parquet"))
    configs = "".join(
        f"- config_name: {name}\n  data_files:\n  - split: lines\n    path: {name}/*.parquet\n"
        for name in ("od", "bn")
    )
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{configs}---\n# words\n")
    assert [(unit.name, unit.stop) for unit in plan(settings(tmp_path, subset="bn"))] == [
        ("lines", 2)
    ]
    with pytest.raises(UserError, match=r"Available: \['od', 'bn'\]"):
        plan(settings(tmp_path, subset="th"))


def classes_folder(folder: Path, features: Features, classes: list[Any]) -> Path:
    rows = [
        {"image": embedded(i), "text": f"t{i}", "class": kind} for i, kind in enumerate(classes)
    ]
    Dataset.from_list(rows, features=features).to_parquet(str(folder / "set.parquet"))
    return folder / "set.parquet"


@pytest.mark.parametrize(
    ("features", "classes"),
    [
        (KINDS, [0, 1, 1, -1, 0, 1]),
        (
            Features({**PLAIN, "class": Value("string")}),
            ["digit", "letter", "letter", None, "digit", "letter"],
        ),
    ],
    ids=["labels", "strings"],
)
def test_rows_are_kept_by_class_and_the_first_of_each(
    tmp_path: Path, features: Features, classes: list[Any]
) -> None:
    path = classes_folder(tmp_path, features, classes)
    assert [sample.text for sample in samples(path, dataset_classes="letter")] == ["t1", "t2", "t5"]
    assert [
        sample.text
        for sample in samples(path, dataset_classes=["digit", "letter"], samples_per_class=1)
    ] == ["t0", "t1"]
    assert [
        sample.id for sample in samples(path, samples_per_class=2, dataset_classes=["letter"])
    ] == ["set.parquet:train#1", "set.parquet:train#2"]
    with pytest.raises(
        UserError, match=r"no class 'leter'; known: digit, letter.*; did you mean 'letter'"
    ):
        plan(settings(path, dataset_classes=["leter"]))


def test_a_stream_is_chosen_by_class_but_not_counted(tmp_path: Path) -> None:
    path = classes_folder(tmp_path, KINDS, [0, 1, 1, -1, 0, 1])
    assert [sample.text for sample in samples(path, dataset_classes=["digit"], streaming=True)] == [
        "t0",
        "t4",
    ]
    with pytest.raises(UserError, match="no class 'figure'"):
        plan(settings(path, dataset_classes=["figure"], streaming=True))
    with pytest.raises(UserError, match="needs streaming=false"):
        settings(path, samples_per_class=3, streaming=True)


def test_a_stream_comes_shard_by_shard(tmp_path: Path) -> None:
    chosen = settings(parquet_folder(tmp_path / "set"), streaming=True)
    first, second = plan(chosen)
    assert (first, second) == (Unit("train", 0, 1), Unit("train", 1, 2))
    items = [item.id for item in read(chosen, second) if isinstance(item, Sample)]
    assert items == ["set:train#1-0", "set:train#1-1"]


@pytest.fixture
def secret(tmp_path: Path) -> bytes:
    content = picture(200)
    (tmp_path / "secret.png").write_bytes(content)
    return content


@pytest.mark.parametrize(
    "name",
    ["../secret.png", "{root}/secret.png", "pages/../../secret.png", "0.png/../../secret.png"],
)
def test_imagefolder_metadata_cannot_name_a_file_outside(
    tmp_path: Path, secret: bytes, name: str
) -> None:
    folder = tmp_path / "set"
    rows = [*image_files(folder), {"file_name": name.format(root=tmp_path), "text": "x"}]
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    *good, skip = everything(folder)
    assert isinstance(skip, Skip) and skip.reason == "path outside the images folder"
    assert [item.text for item in good if isinstance(item, Sample)] == WORDS


@pytest.mark.parametrize("streaming", [False, True], ids=["mapped", "streamed"])
def test_a_link_in_an_imagefolder_cannot_lead_outside(
    tmp_path: Path, secret: bytes, streaming: bool
) -> None:
    folder = imagefolder_jsonl(tmp_path / "set")
    (folder / "1.png").unlink()
    (folder / "1.png").symlink_to(tmp_path / "secret.png")
    items = everything(folder, streaming=streaming)
    assert [item.reason if isinstance(item, Skip) else item.text for item in items] == [
        WORDS[0],
        "path outside the images folder",
        *WORDS[2:],
    ]


@pytest.mark.parametrize("streaming", [False, True], ids=["mapped", "streamed"])
@pytest.mark.parametrize("name", ["../secret.png", "{root}/secret.png"])
def test_a_path_in_parquet_cannot_lead_outside(
    tmp_path: Path, secret: bytes, name: str, streaming: bool
) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    Dataset.from_list([{"image": name.format(root=tmp_path), "text": "x"}]).to_parquet(
        str(folder / "train.parquet")
    )
    (skip,) = everything(folder, streaming=streaming)
    assert isinstance(skip, Skip) and skip.reason == "path outside the images folder"


def test_a_folder_that_is_no_data_set_says_what_it_holds(tmp_path: Path) -> None:
    image_files(tmp_path / "set")
    with pytest.raises(UserError, match=r"expected a save_to_disk folder.*got 5 \.png"):
        plan(settings(tmp_path / "set"))
    with pytest.raises(UserError, match=r"got a \.png file"):
        plan(settings(tmp_path / "set" / "0.png"))


def test_a_damaged_file_is_a_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(b"PAR1 and no more")
    for streaming in (False, True):
        with pytest.raises(UserError, match="cannot"):
            everything(tmp_path, streaming=streaming)


@pytest.mark.parametrize(
    "path", ["/no/such/folder", "./data/lines", "lines", "~/lines", "a/b/c", "../lines"]
)
def test_a_path_that_is_no_hub_name_is_not_asked_of_the_hub(path: str) -> None:
    with pytest.raises(UserError, match="no such folder or file"):
        plan(settings(path))


@pytest.mark.parametrize("streaming", [False, True], ids=["mapped", "streamed"])
def test_a_hub_that_cannot_be_reached_is_named(
    monkeypatch: pytest.MonkeyPatch, streaming: bool
) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    started = time.monotonic()
    with pytest.raises(UserError, match=r"someone/lines: .*HF_TOKEN"):
        plan(settings("someone/lines", streaming=streaming))
    assert time.monotonic() - started < 20


def keep_as_hub_set(tmp_path: Path, named: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub set in the library's cache, whose rows name these images."""
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "hub").mkdir()
    Dataset.from_dict({"image": named, "text": ["x"] * len(named)}).to_parquet(
        str(tmp_path / "lines.parquet")
    )
    assert plan(settings(tmp_path / "lines.parquet"))
    cache = Path(datasets.config.HF_DATASETS_CACHE)
    (built,) = cache.glob("parquet/*/*/*/parquet-train.arrow")
    kept = cache / "someone___lines" / "default" / "0.0.0" / "0"
    shutil.copytree(built.parent, kept)
    (kept / built.name).rename(kept / "lines-train.arrow")
    (kept / "dataset_info.json").write_text(
        (kept / "dataset_info.json")
        .read_text()
        .replace('"dataset_name": "parquet"', '"dataset_name": "lines"')
    )


def test_a_hub_set_that_lies_in_the_cache_is_read_but_names_no_file_outside_it(
    tmp_path: Path, secret: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = [
        str(tmp_path / "hub" / "a.png"),
        str(tmp_path / "secret.png"),
        "hf://datasets/other/set@main/a.png",
        f"file://{tmp_path}/secret.png",
    ]
    keep_as_hub_set(tmp_path, named, monkeypatch)
    (tmp_path / "hub" / "a.png").write_bytes(picture(1))
    good, *skips = everything("someone/lines")
    assert isinstance(good, Sample) and (good.id, good.image, good.source) == (
        "lines:train#0",
        picture(1),
        "huggingface:someone/lines",
    )
    assert [skip.reason for skip in skips if isinstance(skip, Skip)] == [
        "path outside the images folder"
    ] * 3


def test_rows_that_name_files_of_their_hub_set_read_those(
    tmp_path: Path, secret: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_as_hub_set(tmp_path, ["images/a.png", "../secret.png", "images/gone.png"], monkeypatch)
    (tmp_path / "whole" / "images").mkdir(parents=True)
    (tmp_path / "whole" / "images" / "a.png").write_bytes(picture(1))
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download",
        lambda name, repo_type: asked.append((name, repo_type)) or str(tmp_path / "whole"),
    )
    good, *skips = everything("someone/lines")
    assert isinstance(good, Sample) and good.image == picture(1)
    assert [skip.reason for skip in skips if isinstance(skip, Skip)] == [
        "path outside the images folder",
        "missing image",
    ]
    assert asked == [("someone/lines", "dataset")]


def test_the_library_is_as_talkative_afterwards_as_before(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = datasets.are_progress_bars_disabled(), datasets.logging.get_verbosity()
    assert samples(parquet_folder(tmp_path / "set"))
    assert (datasets.are_progress_bars_disabled(), datasets.logging.get_verbosity()) == before
    assert "Generating" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "metadata.jsonl:2: not valid JSON"),
        ("[1]", "metadata.jsonl:2: expected a JSON object, got list"),
    ],
)
def test_a_malformed_line_of_metadata_is_named_by_its_number(
    tmp_path: Path, line: str, says: str
) -> None:
    (tmp_path / "a.png").write_bytes(picture(1))
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "x"}\n' + line + "\n")
    with pytest.raises(UserError, match=says):
        everything(tmp_path)


def test_a_folder_with_configs_is_read_as_it_is_now(tmp_path: Path) -> None:
    """Show that `datasets` 5.2 gives one folder's rows for another, and old rows for new ones."""
    for parent, stop in (("one", 2), ("two", 3), ("one", 4)):
        folder = tmp_path / parent / "same"
        folder.mkdir(parents=True, exist_ok=True)
        words(0, stop).to_parquet(folder / "train.parquet")
        (folder / "README.md").write_text(
            "---\nconfigs:\n- config_name: default\n  data_files:\n  - {split: train, path: "
            "train.parquet}\n---\n"
        )
        assert len(samples(folder)) == stop

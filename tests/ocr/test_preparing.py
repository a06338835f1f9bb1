"""The second step: duplicates, conflicts, leaks, stable splits, linting, copies, and resuming.

Over 300 lines: all tests prepare variants of the same small sources.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocr.dataset import build as building
from ocr.dataset.arrow_cache import cached
from ocr.dataset.build import build, signature
from ocr.dataset.config import PrepareConfig, SplitSettings
from ocr.dataset.parts import split_of
from ocr.dataset.read import Dataset
from ocr.degrade import degraded
from ocr.errors import UserError
from ocr.images import encode_image, open_image
from ocr.sample import Sample
from ocr.sources.unit import Unit


def picture(number: int, changed: int = 0) -> bytes:
    """Noise that differs by number; `changed` brightens so many pixels by one grey level."""
    pixels = np.random.Generator(np.random.Philox(key=number)).integers(
        0, 200, (16, 40), dtype=np.uint8
    )
    pixels.reshape(-1)[:changed] += 1
    return encode_image(pixels)


def pairs(folder: Path, items: list[tuple[str, bytes, str]]) -> dict[str, Any]:
    for name, image, text in items:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.png").write_bytes(image)
        (folder / f"{name}.gt.txt").write_text(text, encoding="utf-8")
    return {"format": "pairs", "path": str(folder)}


def prepare(folder: Path, *sources: dict[str, Any], **more: Any) -> dict[str, Any]:
    build(
        PrepareConfig.model_validate(
            {"output": str(folder / "out"), "sources": list(sources), "max_skipped": 1.0, **more}
        )
    )
    value: dict[str, Any] = json.loads(
        (folder / "out" / "dataset.json").read_text(encoding="utf-8")
    )
    return value


def skipped(folder: Path) -> dict[str, tuple[str, str]]:
    records = [
        json.loads(line)
        for line in (folder / "out" / "skipped.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    return {record["where"]: (record["reason"], record["detail"]) for record in records}


def ids(folder: Path, split: str) -> set[str]:
    return set(Dataset.open(folder / "out", split).ids)


def test_an_exact_pair_stays_once_and_the_rest_is_listed(tmp_path: Path) -> None:
    near = [
        ("a", picture(1), "one"),
        ("b", picture(1), "one"),
        ("c", picture(1, changed=1), "one"),
        ("d", picture(1), "two"),
        ("e", picture(2), "one"),
    ]
    value = prepare(tmp_path, pairs(tmp_path / "in", near), split={"validation_ratio": 0})
    assert value["kept"] == {"train": 4, "validation": 0}
    assert skipped(tmp_path) == {"b": ("duplicate sample", "same image and text as a")}
    assert value["near_duplicates"] == {
        "pairs": 1,
        "examples": [{"ids": ["a", "c"], "texts": ["one", "one"]}],
    }
    assert value["same_image_other_text"]["examples"] == [
        {"ids": ["a", "d"], "texts": ["one", "two"]}
    ]


def test_sources_may_use_the_same_ids(tmp_path: Path) -> None:
    first, second = (
        pairs(tmp_path / name, [("a", picture(number), name), ("b", picture(number + 2), name)])
        for number, name in enumerate(("one", "two"))
    )
    value = prepare(tmp_path, first, second, split={"validation_ratio": 0})
    assert value["skipped"] == {} and ids(tmp_path, "train") == {"a", "b", "a@2", "b@2"}


def test_duplicates_are_no_fault_of_the_data(tmp_path: Path) -> None:
    value = prepare(
        tmp_path,
        pairs(tmp_path / "in", [(f"{n}", picture(n % 2), "x") for n in range(10)]),
        max_skipped=0.0,
        split={"validation_ratio": 0},
    )
    assert value["skipped"] == {"duplicate sample": 8}


@pytest.mark.parametrize(("by", "shared"), [(["text"], "text"), (["page"], "page"), ([], "image")])
def test_what_both_splits_hold_is_a_leak(tmp_path: Path, by: list[str], shared: str) -> None:
    train = pairs(tmp_path / "train", [("p1_a", picture(1), "same"), ("p2_b", picture(2), "b")])
    held_out = pairs(
        tmp_path / "held_out", [("p1_c", picture(1), "other"), ("p3_d", picture(3), "same")]
    )
    pattern = {"group_pattern": "(?P<page>p[0-9])_"}
    sources = [train | pattern | {"split": "train"}, held_out | pattern | {"split": "validation"}]
    with pytest.raises(
        UserError,
        match=(
            r"1 training samples leak into validation \(1 by image\), such as p1_a; set "
            r"split\.on_leak=drop_from_train to leave them out \(1 would remain\)"
        ),
    ):
        prepare(tmp_path, *sources, split={"by": by})
    assert not (tmp_path / "out").exists()
    value = prepare(tmp_path, *sources, split={"by": by, "on_leak": "drop_from_train"})
    assert (
        value["skipped"] == {"image also in validation": 1}
        and ids(tmp_path, "train") == {"p2_b"}
        and ids(tmp_path, "validation") == {"p1_c", "p3_d"}
    )


def test_a_leak_by_text_or_page_alone_is_found(tmp_path: Path) -> None:
    train = pairs(tmp_path / "train", [("p1_a", picture(1), "same"), ("p2_b", picture(2), "b")])
    held_out = pairs(
        tmp_path / "held_out", [("p2_c", picture(3), "c"), ("p4_d", picture(4), "same")]
    )
    pattern = {"group_pattern": "(?P<page>p[0-9])_"}
    sources = [train | pattern | {"split": "train"}, held_out | pattern | {"split": "validation"}]
    value = prepare(
        tmp_path,
        *sources,
        pairs(tmp_path / "third", [("x", picture(9), "x")]) | {"split": "train"},
        split={"by": ["page", "text"], "on_leak": "drop_from_train"},
    )
    assert value["skipped"] == {"text also in validation": 1, "page also in validation": 1}
    assert sum(value["kept"].values()) == 3


def test_of_equal_samples_the_one_in_validation_stays(tmp_path: Path) -> None:
    train, held_out = (
        pairs(tmp_path / "train", [("a", picture(1), "x"), ("b", picture(2), "y")]),
        pairs(tmp_path / "held_out", [("c", picture(1), "x")]),
    )
    prepare(tmp_path, train | {"split": "train"}, held_out | {"split": "validation"})
    assert ids(tmp_path, "validation") == {"c"} and ids(tmp_path, "train") == {"b"}


@pytest.mark.parametrize(("by", "position"), [("page", 1), ("writer", 0)])
def test_a_group_is_never_torn_apart(tmp_path: Path, by: str, position: int) -> None:
    items = [(f"w{n % 7}_p{n % 20}_{n}", picture(n), f"word {n}") for n in range(100)]
    source = pairs(tmp_path / "in", items) | {
        "group_pattern": "(?P<writer>w[0-9]+)_(?P<page>p[0-9]+)_"
    }
    prepare(tmp_path, source, split={"by": [by], "validation_ratio": 0.4})
    named = [
        {one.split("_")[position] for one in ids(tmp_path, split)}
        for split in ("train", "validation")
    ]
    assert all(named) and not named[0] & named[1]


def test_a_source_may_be_held_together(tmp_path: Path) -> None:
    sources = [
        pairs(
            tmp_path / f"in{k}", [(f"{n}", picture(20 * k + n), f"word {k} {n}") for n in range(20)]
        )
        for k in range(6)
    ]
    value = prepare(tmp_path, *sources, split={"by": ["source"], "validation_ratio": 0.5})
    assert [sorted(source["kept"].values()) for source in value["sources"]] == [[0, 20]] * 6


sample_texts = st.text(min_size=1, max_size=8)


@given(
    st.dictionaries(sample_texts, sample_texts, min_size=1, max_size=20),
    st.dictionaries(sample_texts, sample_texts, max_size=20),
)
@settings(max_examples=50)
def test_more_samples_never_move_one_to_the_other_split(
    before: dict[str, str], added: dict[str, str]
) -> None:
    rule = SplitSettings(validation_ratio=0.5, by=("page", "text"))

    def splits(samples: dict[str, str]) -> dict[str, str]:
        return {
            id: split_of(Sample(id, b"", text, group=(("page", text[0]),)), rule)
            for id, text in samples.items()
        }

    assert splits({**added, **before}) | splits(before) == splits({**added, **before})


def test_letters_are_divided_one_by_one_so_that_training_sees_each(tmp_path: Path) -> None:
    source = pairs(tmp_path / "in", [(f"{n}", picture(n), "ଅଆଇ"[n % 3]) for n in range(60)]) | {
        "level": "character"
    }
    value = prepare(tmp_path, source, split={"validation_ratio": 0.3})
    assert len(value["characters"]) == 3 and value["kept"]["validation"] > 5


def test_a_label_that_cannot_be_stored_is_left_out_and_the_rest_is_counted(tmp_path: Path) -> None:
    texts = ["\u0b3eକ", "ab\u202ec", "a\x00b", "\u09dc", "clean"]
    source = pairs(tmp_path / "in", [(f"{n}", picture(n), text) for n, text in enumerate(texts)])
    value = prepare(tmp_path, source, split={"validation_ratio": 0})
    assert value["skipped"] == {"label: NUL": 1} and value["kept"]["train"] == 4
    assert {kind: fault["count"] for kind, fault in value["lint"].items()} == {
        "orphan mark": 1,
        "bidi control": 1,
        "NUL": 1,
        "not NFC": 1,
    }
    value = prepare(
        tmp_path,
        source,
        split={"validation_ratio": 0},
        lint={"fix": True, "leave_out": ["orphan mark"]},
    )
    assert value["skipped"] == {"left out: orphan mark": 1}
    assert sorted(Dataset.open(tmp_path / "out", "train").texts) == sorted(
        ["abc", "ab", "\u09a1\u09bc", "clean"]
    )


def test_an_unknown_kind_of_fault_is_a_users_mistake() -> None:
    with pytest.raises(ValueError, match="no such kind: orphans; known: "):
        PrepareConfig.model_validate(
            {
                "output": "o",
                "sources": [{"format": "pairs", "path": "p"}],
                "lint": {"leave_out": ["orphans"]},
            }
        )


def test_long_images_are_scaled_and_short_ones_stay_as_they_are(tmp_path: Path) -> None:
    long = encode_image(np.full((30, 300), 200, np.uint8))
    source = pairs(tmp_path / "in", [("long", long, "long"), ("short", picture(1), "short")])
    value = prepare(
        tmp_path,
        source,
        images={"max_image_edge": 100},
        split={"validation_ratio": 0},
        padding_buffer=1.5,
    )
    data = Dataset.open(tmp_path / "out", "train")
    images = dict(zip(data.texts, map(data.image_bytes, range(2)), strict=True))
    assert open_image(images["long"]).shape == (10, 100) and images["short"] == picture(1)
    assert value["dimensions"]["width_px"] == {
        "p0": 40,
        "p50": 70,
        "p90": 94,
        "p99": 99.4,
        "p100": 100,
    } and value["dimensions"]["canvas_px"] == [150, 24]


def test_copies_of_training_samples_differ_and_never_enter_validation(tmp_path: Path) -> None:
    source = pairs(tmp_path / "in", [(f"{n}", picture(n), f"word {n}") for n in range(20)]) | {
        "aug_copies": 2
    }
    value = prepare(tmp_path, source, split={"validation_ratio": 0.4})
    in_validation = value["kept"]["validation"]
    assert (
        0 < in_validation < 20
        and value["kept"]["train"] == 3 * (20 - in_validation)
        and not any("~" in id for id in ids(tmp_path, "validation"))
    )
    assert value["near_duplicates"]["pairs"] == 0 and value["skipped"] == {}


def test_finevision_rows_train_as_simple_ones_do(tmp_path: Path) -> None:
    source = pairs(tmp_path / "in", [(f"{n}", picture(n), f"word {n}") for n in range(5)])
    simple = prepare(tmp_path, source, split={"validation_ratio": 0})
    texts = Dataset.open(tmp_path / "out", "train").texts
    fine = prepare(
        tmp_path,
        source,
        split={"validation_ratio": 0},
        output_format="finevision",
        instruction="Read it.",
    )
    data = Dataset.open(tmp_path / "out", "train")
    assert (
        data.texts == texts
        and data.fingerprint == fine["fingerprint"]["train"] == simple["fingerprint"]["train"]
    )


@pytest.mark.parametrize("output_format", ["simple", "finevision"])
def test_datasets_opens_the_folder_and_sees_when_it_was_made_again(
    tmp_path: Path, output_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    source = pairs(tmp_path / "in", [(f"{n}", picture(n), f"word {n}") for n in range(30)])
    value = prepare(
        tmp_path,
        source,
        split={"validation_ratio": 0.3},
        output_format=output_format,
        instruction="Read.",
    )
    files = {split: str(tmp_path / "out" / f"{split}.parquet") for split in ("train", "validation")}
    for loaded in (
        datasets.load_dataset(str(tmp_path / "out")),
        datasets.load_dataset("parquet", data_files=files),
    ):
        assert {split: len(rows) for split, rows in loaded.items()} == value["kept"]
        row = loaded["train"][0]
        image, text = (
            (row["image"], row["text"])
            if output_format == "simple"
            else (row["images"][0], row["texts"][0]["assistant"])
        )
        assert image.size == (40, 16) and text.startswith("word ")
    (tmp_path / "in" / "0.gt.txt").unlink()
    again = prepare(
        tmp_path,
        source,
        split={"validation_ratio": 0.3},
        output_format=output_format,
        instruction="Read.",
    )
    assert (
        {split: len(rows) for split, rows in datasets.load_dataset(str(tmp_path / "out")).items()}
        == again["kept"]
        != value["kept"]
    )


KILLED = """
import sys
from ocr.dataset import build as building
from ocr.dataset.config import PrepareConfig
from ocr.settings import parse_settings
import json, time
real = building.make_part
def slow(*given):
    time.sleep(0.2)
    return real(*given)
building.make_part = slow
building.build(parse_settings(PrepareConfig, json.loads(sys.argv[1]), "test"))
"""


def test_a_killed_job_resumes_and_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = "".join(f"{n % 50}.png\tword {n}\n" for n in range(5_500))
    (tmp_path / "labels.txt").write_text(labels)
    for n in range(50):
        (tmp_path / f"{n}.png").write_bytes(picture(n))
    values = {
        "sources": [{"format": "paddle", "path": str(tmp_path / "labels.txt")}],
        "max_skipped": 1.0,
        "split": {"on_leak": "drop_from_train"},
    }
    build(PrepareConfig.model_validate(values | {"output": str(tmp_path / "undisturbed")}))
    killed = values | {"output": str(tmp_path / "killed")}
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, json.dumps(killed)], stderr=subprocess.DEVNULL
    )
    while len(parts := list(tmp_path.glob(".killed.*.parts/*.arrow"))) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed").exists()
    before = {part: part.stat().st_mtime_ns for part in parts}
    made: list[int] = []
    real = building.make_part

    def counted(config: Any, folder: Any, work: Any) -> int:
        made.append(work.number) if not work.file(folder).exists() else None
        assert all(part.stat().st_mtime_ns == time for part, time in before.items())
        return real(config, folder, work)

    monkeypatch.setattr(building, "make_part", counted)
    build(PrepareConfig.model_validate(killed))
    assert 0 < len(made) <= 6 - len(parts)
    for name in ("train.parquet", "validation.parquet", "dataset.json", "skipped.jsonl"):
        assert (tmp_path / "killed" / name).read_bytes() == (
            tmp_path / "undisturbed" / name
        ).read_bytes(), name
    assert not list(tmp_path.glob(".killed*"))


def test_two_jobs_never_prepare_the_same_output_at_once(tmp_path: Path) -> None:
    config = PrepareConfig.model_validate(
        {
            "output": str(tmp_path / "out"),
            "sources": [pairs(tmp_path / "in", [("a", picture(1), "a")])],
        }
    )

    def inside(work: Any, works: Any) -> Any:
        with pytest.raises(UserError, match="another job is preparing it now"):
            build(config)
        return map(work, works)

    build(config.model_copy(update={"split": SplitSettings(validation_ratio=0)}), inside)


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    source = pairs(tmp_path / "in", [("a", picture(1), "a")])
    config = PrepareConfig.model_validate({"output": str(tmp_path / "out"), "sources": [source]})
    first = signature(config)
    assert signature(config) == first
    (tmp_path / "in" / "a.gt.txt").write_text("another")
    assert signature(config) != first
    (tmp_path / "labels.txt").write_text("in/a.png\ta\n")
    config = PrepareConfig.model_validate(
        {
            "output": str(tmp_path / "out"),
            "sources": [{"format": "paddle", "path": str(tmp_path / "labels.txt")}],
        }
    )
    first = signature(config)
    (tmp_path / "in" / "a.png").write_bytes(picture(2, changed=3))
    assert signature(config) != first


def test_the_cache_is_made_once_and_a_full_disk_is_refused_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(
        tmp_path, pairs(tmp_path / "in", [("a", picture(1), "a")]), split={"validation_ratio": 0}
    )
    monkeypatch.setenv("LIPI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1_000})())
    location = str(tmp_path / "out" / "train.parquet")
    with pytest.raises(UserError, match="set LIPI_CACHE to a larger disk"):
        cached(location)
    assert not list((tmp_path / "cache").rglob("*.arrow")) and not list(
        (tmp_path / "cache").rglob("*.tmp")
    )
    monkeypatch.undo()
    monkeypatch.setenv("LIPI_CACHE", str(tmp_path / "cache"))
    file, _ = cached(location)
    made = file.stat().st_mtime_ns
    assert cached(location)[0] == file and file.stat().st_mtime_ns == made


def test_training_takes_sources_and_prepares_them_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ocr.dataset.prepared import open_splits
    from ocr.sources.settings import PairsSettings

    pairs(tmp_path / "in", [(f"{n}", picture(n), f"word {n}") for n in range(40)])
    sources = (PairsSettings(path=str(tmp_path / "in")),)
    train, validation = open_splits(sources, None, 0.3, 0.01)
    assert len(train) + len(validation) == 40 and 4 < len(validation) < 20
    monkeypatch.setattr("ocr.dataset.prepared.build", None)  # not called again
    again, _ = open_splits(sources, None, 0.3, 0.01)
    assert again.location == train.location
    monkeypatch.undo()
    train, validation = open_splits(sources, sources, 0.3, 0.01)
    assert len(train) == len(validation) == 40


def test_processes_make_the_bytes_of_one_process_and_a_log_shows_how_far_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(building, "_WORTH_PROCESSES", 2)
    monkeypatch.setattr(building, "_TOLD_SECONDS", 0)
    sources = [
        pairs(
            tmp_path / f"in{number}", [(f"p{i}", picture(9 * number + i), "ଓଡ଼ିଶା") for i in range(9)]
        )
        for number in range(4)
    ]
    made = {}
    for name, by in (("one", building.in_this_process), ("many", building.in_processes)):
        output = tmp_path / name
        build(PrepareConfig.model_validate({"output": str(output), "sources": sources}), by)
        made[name] = {
            file.name: file.read_bytes() for file in output.iterdir() if file.suffix == ".parquet"
        }
    assert made["one"] == made["many"] and made["one"]
    assert "prepare: 36 samples" in capsys.readouterr().out


def refused(work: building.Work) -> int:
    raise UserError(f"unit {work.number} cannot be read")


def test_a_mistake_in_another_process_reaches_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "_WORTH_PROCESSES", 1)
    works = [building.Work(number, 0, Unit("rows")) for number in range(3)]
    with pytest.raises(UserError, match=r"unit \d cannot be read"):
        list(building.in_processes(refused, works))


def test_only_a_data_set_of_ours_and_nothing_else_is_replaced(tmp_path: Path) -> None:
    source = pairs(tmp_path / "in", [(f"{n}", picture(n), f"word {n}") for n in range(20)])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "dataset.json").write_text('{"my": 1}')
    with pytest.raises(UserError, match=r"its dataset\.json is not one of ours"):
        prepare(tmp_path, source)
    (tmp_path / "out" / "dataset.json").unlink()
    prepare(tmp_path, source)
    prepare(tmp_path, source)
    (tmp_path / "out" / "thesis.txt").write_text("dear")
    with pytest.raises(UserError, match=r"it holds thesis\.txt"):
        prepare(tmp_path, source)
    assert (tmp_path / "out" / "thesis.txt").read_text() == "dear"


def test_sources_are_never_replaced_by_what_is_made_of_them(tmp_path: Path) -> None:
    first = pairs(tmp_path / "in", [(f"{n}", picture(n), f"word {n}") for n in range(20)])
    for inside in (first, first | {"path": str(tmp_path / "in" / ".." / "in")}):
        with pytest.raises(UserError, match=r"source 1 reads .*, which lies in it"):
            build(
                PrepareConfig.model_validate({"output": str(tmp_path / "in"), "sources": [inside]})
            )
    prepare(tmp_path, first)
    with pytest.raises(UserError, match=r"source 1 reads .*, which lies in it"):
        prepare(
            tmp_path, {"format": "huggingface", "path": str(tmp_path / "out" / "train.parquet")}
        )
    assert (tmp_path / "out" / "train.parquet").is_file() and len(
        list((tmp_path / "in").iterdir())
    ) == 40


def test_a_source_that_gives_nothing_stops_the_job(tmp_path: Path) -> None:
    good = pairs(tmp_path / "in", [(f"{n}", picture(n), f"word {n}") for n in range(20)])
    (tmp_path / "alto").mkdir()
    (tmp_path / "alto" / "a.xml").write_text("<alto/>")
    with pytest.raises(
        UserError,
        match=(
            r"source 2 \(page\): no sample was kept of 1; not PAGE, such as .*the root "
            r"element is alto; use format: alto"
        ),
    ):
        prepare(tmp_path, good, {"format": "page", "path": str(tmp_path / "alto")})


def test_a_fact_that_no_sample_has_is_no_split(tmp_path: Path) -> None:
    source = pairs(tmp_path / "in", [(f"w{n}", picture(n), f"word {n}") for n in range(20)]) | {
        "group_pattern": "(?P<writer>w[0-9])"
    }
    with pytest.raises(
        UserError,
        match=(
            r"split\.by: no sample has writr; the known facts are file, id, source, text, "
            r"writer; did you mean 'writer'\?"
        ),
    ):
        prepare(tmp_path, source, split={"by": ["writr"]})
    prepare(tmp_path, source, split={"by": ["writer"], "validation_ratio": 0.3})


def test_pages_of_two_folders_may_have_one_name(tmp_path: Path) -> None:
    boxes = json.dumps([{"transcription": "x", "points": [[0, 0], [40, 0], [40, 16], [0, 16]]}])
    sources = []
    for number, split in enumerate(("train", "validation")):
        (tmp_path / split).mkdir()
        (tmp_path / split / "f10.png").write_bytes(picture(number))
        (tmp_path / split / "Label.txt").write_text(f"f10.png\t{boxes.replace('x', split)}\n")
        sources.append(
            {
                "format": "paddle",
                "labels": "detection",
                "path": str(tmp_path / split / "Label.txt"),
                "split": split,
            }
        )
    assert prepare(tmp_path, *sources)["kept"] == {"train": 1, "validation": 1}


def test_an_empty_split_has_no_file_and_is_reported(tmp_path: Path) -> None:
    source = pairs(tmp_path / "in", [("a", picture(1), "a")])
    summary = build(
        PrepareConfig.model_validate(
            {"output": str(tmp_path / "out"), "sources": [source], "split": {"validation_ratio": 0}}
        )
    )
    assert (
        "NO validation SAMPLES" in str(summary)
        and not (tmp_path / "out" / "validation.parquet").exists()
    )


def test_what_is_asked_to_be_left_out_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "dict.txt").write_text("a\nb\n")
    (tmp_path / "labels.txt").write_text(
        "".join(f"{n}.png\t{'ab' if n % 2 else 'xyz'}{n % 2 * 'a' * n}\n" for n in range(20))
    )
    for n in range(20):
        (tmp_path / f"{n}.png").write_bytes(picture(n))
    source = {
        "format": "paddle",
        "path": str(tmp_path / "labels.txt"),
        "character_dict_path": str(tmp_path / "dict.txt"),
        "max_text_length": 15,
    }
    value = prepare(tmp_path, source, max_skipped=0.0, split={"validation_ratio": 0})
    assert value["skipped"] == {"characters outside the dictionary": 10, "text too long": 3}


@pytest.mark.parametrize("width", [40, 400, 2_000])
def test_a_degraded_copy_keeps_its_writing_inside(width: int) -> None:
    page = np.full((60, width), 250, np.uint8)
    page[12:48, 4 : width - 4] = 20
    for number in range(20):
        copy = degraded(page, f"copy {number}")
        assert copy.shape == page.shape and copy[:6].mean() > 150 and copy[-6:].mean() > 150

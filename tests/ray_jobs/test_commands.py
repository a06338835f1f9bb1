"""Bad input gets one message and exit status 2, before anything is written.

Good input its answer.
"""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from ocr.dataset.build import build
from ocr.dataset.config import PrepareConfig
from ocr.settings import parse_settings
from tests.support.commands import PROJECT, assert_refused, call
from tests.support.tiny import tiny_config, train_here
from trainers.runs.launch import launch

TINY_YAML = "configs/tiny.yaml"


def crops(folder: Path, labels: list[str]) -> str:
    """A PaddleOCR label file with a word image per label, made into a data set whose last fifth
    judges.
    """
    folder.mkdir()
    for number, _ in enumerate(labels):
        Image.fromarray(
            np.random.default_rng(number).integers(0, 255, (32, 90), dtype=np.uint8)
        ).save(folder / f"{number}.png")
    for split, rows in (
        ("train", range(len(labels) - 2)),
        ("validation", range(len(labels) - 2, len(labels))),
    ):
        (folder / f"{split}.txt").write_text(
            "".join(f"{number}.png\t{labels[number]}\n" for number in rows)
        )
    sources = [
        {"format": "paddle", "path": str(folder / f"{split}.txt"), "split": split}
        for split in ("train", "validation")
    ]
    build(
        parse_settings(PrepareConfig, {"output": str(folder / "data"), "sources": sources}, "test")
    )
    return str(folder / "data")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["missing.yaml"], ["missing.yaml", "No such file"]),
        (
            [TINY_YAML, "train.max_step=3", "optimiser.name=adam"],
            ["did you mean 'max_steps'?", "did you mean 'optimizer'?"],
        ),
        ([TINY_YAML, "data.train=nowhere"], ["nowhere", "no such data set"]),
        ([TINY_YAML, "model.alphabet=କଖ"], ["characters outside the alphabet", "U+0B"]),
        (
            [TINY_YAML, "data.max_train_samples=2", "workers=3"],
            ["2 training samples for 3 workers"],
        ),
        ([TINY_YAML, "device=cuda", "run_name=gpu"], ["device: cuda"]),
    ],
    ids=["file", "keys", "data", "alphabet", "workers", "device"],
)
def test_a_mistake_is_named_and_no_run_is_begun(
    words: list[str], parts: list[str], tmp_path: Path
) -> None:
    assert_refused(call("train", *words, f"storage_path={tmp_path}"), *parts)
    assert not list(tmp_path.rglob("checkpoint_*"))
    assert "device=cuda" in words or not list(tmp_path.iterdir())


def test_an_empty_or_foreign_data_set_is_named(tmp_path: Path) -> None:
    made = Path(crops(tmp_path / "crops", ["କଖ"] * 2 + ["କଖଗ", "ଗଖ", "ଖ", "କ"]))
    table = pq.read_table(made / "train.parquet")
    pq.write_table(table.slice(0, 0), made / "train.parquet")
    assert_refused(
        call("train", TINY_YAML, f"data.train={made}", f"storage_path={tmp_path / 'runs'}"),
        "train.parquet",
        "empty",
    )
    pq.write_table(table.drop_columns(["text"]), made / "train.parquet")
    assert_refused(
        call("train", TINY_YAML, f"data.train={made}", f"storage_path={tmp_path / 'runs'}"),
        "expected the columns text",
    )
    (made / "train.parquet").write_bytes(b"PAR1 not parquet")
    assert_refused(
        call("train", TINY_YAML, f"data.train={made}", f"storage_path={tmp_path / 'runs'}"),
        "cannot be read as parquet",
    )
    assert not (tmp_path / "runs").exists()


def test_a_label_that_no_output_can_spell_is_left_out_with_its_reason(tmp_path: Path) -> None:
    made = crops(tmp_path / "crops", ["କଖଗ" * 20, "କଖ", "କଖଗ", "ଗଖ", "ଖ", "କଗ"])
    refused = call("train", TINY_YAML, f"data.train={made}", f"storage_path={tmp_path / 'runs'}")
    assert_refused(
        refused,
        "1 of 6 samples cannot be used",
        "max_skipped=0.01",
        "label too long for its image",
        "needs 60 outputs",
    )


def test_a_character_that_only_validation_has_is_counted_and_scored_as_an_error(
    tmp_path: Path,
) -> None:
    torch.set_num_threads(1)
    made = crops(tmp_path / "crops", ["କଖ", "କଖଗ", "ଗଖ", "ଖ", "କଗ", "କ।", "ଖ"])
    config = tiny_config(
        tmp_path, data={"train": made}, train={"max_steps": 2, "log_samples": False}
    )
    report = launch(config, train_here, "test").report
    assert report["data"]["unknown_characters"] == {"।": 1}
    assert report["eval_cer"] > 0


def test_reading_names_a_corrupt_file_and_reads_the_rest(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    config = tiny_config(tmp_path, train={"max_steps": 2, "log_samples": False})
    launch(config, train_here, "test")
    bundle, folder = config.local_run_dir / "bundle", tmp_path / "scans"
    folder.mkdir()
    for name in ("a.png", "c.png"):
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 120), dtype=np.uint8)).save(
            folder / name
        )
    (folder / "b.png").write_bytes(b"\x89PNG broken")
    (folder / "z.jpg").write_bytes(b"")
    Image.new("1", (20_000, 20_000)).save(folder / "bomb.png")
    done = call("read", bundle, folder)
    assert done.returncode == 2
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == [
        str(folder / "a.png"),
        str(folder / "c.png"),
    ]
    for part in ("b.png: not a readable image", "z.jpg: empty file", "bomb.png: image too large"):
        assert part in done.stderr
    assert "Traceback" not in done.stderr
    alone = call("read", bundle, folder / "a.png")
    assert alone.returncode == 0
    assert "\t" not in alone.stdout
    assert_refused(call("read", tmp_path, folder), "expected a bundle")
    assert_refused(call("read", bundle, tmp_path / "runs_of_nothing.png"), "no such file")
    table = call("evaluate", config.local_run_dir)
    assert table.returncode == 0, table.stderr
    assert [line.split()[0] for line in table.stdout.splitlines()[1:]] == [
        "checkpoint_000002",
        "bundle",
        "best:",
    ]
    (kept,) = (config.local_run_dir / "evaluations").glob("*/checkpoint_000002.json")
    judged = kept.stat().st_mtime_ns
    assert (
        call("evaluate", config.local_run_dir).stdout.splitlines()[1]
        == table.stdout.splitlines()[1]
    )
    assert kept.stat().st_mtime_ns == judged
    compared = call("evaluate", "compare", config.local_run_dir, bundle)
    assert compared.returncode == 0, compared.stderr
    assert "0 of 2,000 lines changed" in compared.stdout
    assert "+0.00 points (95 % interval +0.00 to +0.00, paired bootstrap)" in compared.stdout
    assert_refused(call("evaluate", "compare", bundle), "compare OLD NEW")


def test_preparing_from_a_missing_label_file_writes_nothing(tmp_path: Path) -> None:
    config = tmp_path / "prepare.yaml"
    config.write_text(
        f"output: {tmp_path / 'out'}\nsources: "
        f"[{{format: paddle, path: {tmp_path / 'none.txt'}}}]\n"
    )
    assert_refused(call("prepare", config), "none.txt")
    assert not (tmp_path / "out").exists()


def test_inside_a_ray_job_a_relative_storage_path_is_refused(tmp_path: Path) -> None:
    job = {"RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps({})}
    assert_refused(
        call("train_odia", "train.max_steps=1", cwd=PROJECT, **job),
        "relative inside a Ray job",
        "/mnt/lipi",
        "LIPI_STORAGE",
    )


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        (("read", "odia", "--output", "o"), "settings are given as output=VALUE"),
        (("train", "configs/tiny.yaml", "--max-steps=5"), "settings are given as max_steps=VALUE"),
        (("read", "README.md", "odia"), "odia: no such file or folder; the recogniser comes first"),
        (
            ("read", "nowhere", "README.md"),
            "expected a bundle, but there is no such folder",
        ),
        (("train", "configs/tiny.yaml", "data.train=docs"), "make a data set of it with"),
    ],
)
def test_usual_slips_get_the_way_to_write_it(command: tuple[str, ...], hint: str) -> None:
    done = call(*command)
    assert done.returncode == 2 and hint in done.stderr and "Traceback" not in done.stderr


def test_a_run_s_folder_is_told_its_bundle(tmp_path: Path) -> None:
    (tmp_path / "run" / "bundle").mkdir(parents=True)
    assert_refused(call("read", tmp_path / "run", "README.md"), f"name {tmp_path}/run/bundle")

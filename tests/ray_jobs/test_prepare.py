"""prepare.py from the shell.

Over Ray as in one process, to the hub with a clear no, and training from S3 and from sources.
"""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml

from ocr.dataset.arrow_cache import cached
from ocr.dataset.read import Dataset
from ocr.images import encode_image
from tests.support.buckets import bucket_server
from tests.support.commands import assert_refused, call, start

FILES = ("train.parquet", "validation.parquet", "dataset.json", "skipped.jsonl", "README.md")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5,000 labelled images, some of them faulty."""
    folder = tmp_path_factory.mktemp("prepare")
    for n in range(5_000):
        pixels = np.random.Generator(np.random.Philox(key=n)).integers(
            0, 255, (16, 48), dtype=np.uint8
        )
        (folder / f"{n}.png").write_bytes(encode_image(pixels) if n % 20 else b"torn")
    (folder / "labels.txt").write_text(
        "".join(f"{n}.png\tକଖ{n}\n" for n in range(5_000)), encoding="utf-8"
    )
    values = {
        "output": "out",
        "max_skipped": 0.2,
        "split": {"on_leak": "drop_from_train"},
        "sources": [{"format": "paddle", "path": str(folder / "labels.txt")}],
    }
    (folder / "prepare.yaml").write_text(yaml.safe_dump(values))
    return folder / "prepare.yaml"


def outputs(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in FILES]


@pytest.fixture(scope="module")
def alone(config: Path) -> Path:
    done = call("prepare", config, f"output={config.parent / 'alone' / 'set'}")
    assert done.returncode == 0, done.stderr
    assert "left out" in done.stdout and "250" in done.stdout and "grapheme clusters" in done.stdout
    return config.parent / "alone" / "set"


def test_ray_tasks_write_the_same_bytes_and_survive_the_death_of_a_worker(
    config: Path, alone: Path
) -> None:
    output = config.parent / "ray" / "set"
    process = start("prepare", config, f"output={output}", "workers=2")
    killed = False
    while process.poll() is None and not killed:
        for worker in psutil.Process(process.pid).children(recursive=True):
            if worker.name().startswith("ray::read_unit"):
                os.kill(worker.pid, signal.SIGKILL)
                killed = True
                break
        time.sleep(0.02)
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, out + error
    assert killed
    assert outputs(output) == outputs(alone)


def test_a_killed_command_given_again_writes_the_same_bytes(config: Path, alone: Path) -> None:
    output = config.parent / "again" / "set"
    process = start("prepare", config, f"output={output}")
    while not list(output.parent.glob(".set.*.parts/*.arrow")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert not output.exists()
    assert call("prepare", config, f"output={output}").returncode == 0
    assert outputs(output) == outputs(alone)


def test_the_hub_says_no_and_the_folder_stays(config: Path) -> None:
    output = config.parent / "hub" / "set"
    words = [f"output={output}", "format=hub", "hub_repo=someone/set"]
    assert_refused(
        call("prepare", config, *words, HF_ENDPOINT="http://127.0.0.1:9", HF_TOKEN="hf_secret"),
        "is written",
        "someone/set was not pushed",
    )
    assert (output / "dataset.json").is_file()
    assert_refused(call("prepare", config, f"output={output}", "format=hub"), "hub_repo=owner/name")


@pytest.fixture(scope="module")
def bucket(alone: Path) -> Iterator[str]:
    """The data set on a real S3 server, moto's, on this machine."""
    with bucket_server() as client:
        for name in FILES:
            client.put_object(
                Bucket="lipi", Key=f"sets/words/{name}", Body=(alone / name).read_bytes()
            )
        yield "s3://lipi/sets/words"


def test_a_data_set_on_s3_is_the_same_and_is_fetched_once(bucket: str, alone: Path) -> None:
    there, here = Dataset.open(bucket, "train"), Dataset.open(alone, "train")
    assert there.fingerprint == here.fingerprint and there.row(7) == here.row(7)
    assert there.description() == json.loads((alone / "dataset.json").read_text())
    file, _ = cached(f"{bucket}/train.parquet")
    made = file.stat().st_mtime_ns
    assert cached(f"{bucket}/train.parquet")[0].stat().st_mtime_ns == made


@pytest.mark.long
def test_training_takes_s3_and_names_what_is_not_there(bucket: str, tmp_path: Path) -> None:
    words = [
        "configs/tiny.yaml",
        f"storage_path={tmp_path}",
        "train.max_steps=2",
        "train.eval_steps=2",
        "data.max_validation_samples=8",
        "workers=1",
    ]
    assert_refused(call("train", *words, f"data.train={bucket}/nothing"), "no such data set")
    done = call("train", *words, f"data.train={bucket}")
    assert done.returncode == 0, done.stderr
    assert "step 2" in done.stdout.splitlines()[-1]


@pytest.mark.long
def test_training_takes_the_sources_themselves(config: Path, tmp_path: Path) -> None:
    training = yaml.safe_load(Path("configs/tiny.yaml").read_text())
    training["data"] = {
        "train": yaml.safe_load(config.read_text())["sources"],
        "validation_ratio": 0.2,
    }
    training |= {"storage_path": str(tmp_path / "runs"), "workers": 1, "max_skipped": 0.2}
    training["train"] |= {"max_steps": 2, "eval_steps": 2}
    training["data"] |= {"max_validation_samples": 8}
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(training))
    done = call("train", tmp_path / "train.yaml")
    assert done.returncode == 0 and "step 2" in done.stdout.splitlines()[-1], (
        done.stdout + done.stderr
    )
    training["data"]["validation"] = training["data"]["train"]
    training["data"]["train"] = [training["data"]["train"][0] | {"pth": "x"}]
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(training))
    assert_refused(call("train", tmp_path / "train.yaml"), "unknown setting; did you mean 'path'?")

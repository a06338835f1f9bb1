"""A retraining in a bucket: one machine begins, it dies, another ends it."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ocr.bundle import open_bundle, write_bundle
from ocr.dataset.read import Dataset
from ocr.files import read_json
from ocr.mirror import fetched
from ocr.place import Place
from ocr.replay import TRAIN, VALIDATION, few
from ocr.retraining import PROGRESS_FILE, VERDICT_FILE, RetrainConfig
from serve.config import LimitSettings
from serve.corrections import Corrections
from serve.models import Models
from serve.retraining import Retrainings
from tests.support.buckets import bucket_server, machine
from tests.support.corrected import twelve_corrections
from tests.support.finished import never
from tests.support.tiny import train_here
from trainers.retrain.run import retrain
from trainers.retrain.work import Work
from trainers.runs.job import Job

RUNS = "s3://lipi/runs"


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[Any]:
    torch.set_num_threads(1)
    with bucket_server() as client:
        yield client


@pytest.fixture(scope="module")
def replay(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("replay")
    for name in (TRAIN, VALIDATION):
        split = Dataset.open("odia_few_words", name.removesuffix(".parquet"))
        (folder / name).write_bytes(few(split, 20))
    return str(folder)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The recogniser that ships, with the backend that is exported at once."""
    odia = open_bundle("odia")
    files = {name: content for name, content in odia.files().items() if ".onnx" not in name}
    torch_alone = {"backends": {"torch": odia.backends["torch"]}, "defaults": {}}
    path = tmp_path_factory.mktemp("bundle") / "odia"
    write_bundle(replace(odia, path=path, **torch_alone), files)
    return str(path)


def config_of(bundle: str, corrections: str, replay: str | None, storage: str) -> RetrainConfig:
    values = {"folds": 2, "max_steps": 3, "save_steps": 1, "replay": replay}
    where = {"bundle": bundle, "corrections": corrections, "storage_path": storage, "output": "r"}
    return RetrainConfig.model_validate({**values, **where})


class Died(BaseException):
    """The machine is gone."""


def test_another_machine_ends_it(
    bundle: str, replay: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(tmp_path / "one", monkeypatch)
    for file in twelve_corrections(tmp_path / "corrections").iterdir():
        Place("s3://lipi/corrections").write(file.name, file.read_bytes())
    begun = list[str]()

    def until_the_second_fold(job: Job) -> None:
        begun.append(job.config.run_name)
        if job.config.run_name == "fold_2":
            raise Died
        train_here(job)

    config = config_of(bundle, "s3://lipi/corrections", replay, RUNS)
    with pytest.raises(Died):
        retrain(config, Work(until_the_second_fold), "the command")
    assert begun == ["fold_1", "fold_2"]
    machine(tmp_path / "two", monkeypatch)
    begun.clear()

    def noted(job: Job) -> None:
        begun.append(job.config.run_name)
        train_here(job)

    done = retrain(config, Work(noted), "the command")
    assert begun == ["fold_2", "base-odia-r1"], "the first fold is there"
    assert done.output == f"{RUNS}/r"
    assert str(done).endswith(f"deploy.py {RUNS}/r/bundle") or "refused" in str(done)
    place = Place(done.output)
    verdict = place.json(VERDICT_FILE)
    assert verdict == json.loads(json.dumps(done.values))
    assert open_bundle(f"{RUNS}/r/bundle").name == "base-odia-r1"

    machine(tmp_path / "three", monkeypatch)
    assert retrain(config, Work(never), "the command").values == verdict


def test_a_removed_correction_of_a_bucket_is_not_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(tmp_path / "one", monkeypatch)
    place = Place("s3://lipi/few")
    for name in ("a.json", "a.png", "b.json"):
        place.write(name, b"{}")
    assert (fetched(str(place), exactly=("",)) / "a.json").is_file()
    place.delete("a.json")
    assert not (fetched(str(place), exactly=("",)) / "a.json").exists()
    assert (fetched(str(place), exactly=("",)) / "b.json").is_file()


def test_an_endpoint_with_a_bucket_takes_a_retraining_and_tells_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its job does stands above; that Ray runs it, in tests/faults/test_learning_bucket.py."""
    machine(tmp_path / "one", monkeypatch)
    models = Models("s3://lipi/serve")
    models.journal.append(what="live", of="", bundle=models.add("odia"))
    for file in twelve_corrections(tmp_path / "corrections").iterdir():
        models.store.put(f"corrections/{file.name}", file.read_bytes())
    retrainings = Retrainings(models, Corrections(models.store, LimitSettings()))
    id = retrainings.ask({"num_epochs": 2}, "boss")
    assert retrainings.state(id)["status"] == "waiting"
    place = Place(f"s3://lipi/serve/retrain/{id}")
    place.write_json("attempts.json", {"jobs": [f"lipi-retrain-{id}-1"], "since": 1.0})
    progress = {"phase": "fold_1", "part": 1, "parts": 4, "run": "fold_1", "num_epochs": 2}
    place.write_json(f"run/{PROGRESS_FILE}", progress)
    lines = [{"step": 1, "epoch": 0.5}, {"step": 2, "epoch": 1.0}]
    place.write("run/fold_1/metrics.jsonl", "\n".join(map(json.dumps, lines)).encode())
    place.write("log_1.txt", b"part 1 of 4: fold_1\n")
    state = retrainings.state(id)
    assert (state["status"], state["progress"], state["attempts"]) == ("running", 0.125, 1)
    assert (state["phase"], state["log"]) == ("fold_1", "part 1 of 4: fold_1")
    assert models.address(models.ids()[0]) == f"s3://lipi/serve/models/{models.ids()[0]}"


def test_the_bundle_goes_where_every_worker_finds_it(
    bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(tmp_path / "one", monkeypatch)
    seen = list[Any]()

    def noted(job: Job) -> None:
        seen.append(job.config)
        raise Died

    corrections = str(twelve_corrections(tmp_path / "corrections"))
    config = config_of(bundle, corrections, None, "s3://lipi/own")
    with pytest.raises(Died):
        retrain(config, Work(noted), "the command")
    (run,) = seen
    start = "s3://lipi/own/r/start"
    assert (run.train.init_from, run.data.replay) == (start, start)
    assert run.data.train == "s3://lipi/own/r/data/fold_1"
    copy = read_json(fetched(start) / "manifest.json")
    assert copy == read_json(Path(bundle, "manifest.json"))

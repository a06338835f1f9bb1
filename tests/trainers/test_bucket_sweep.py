"""A sweep in a bucket: its driver dies, and another machine ends it; nothing is trained twice."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ocr.bundle import open_bundle
from ocr.errors import GivenUp
from ocr.json_lines import lines_of
from ocr.place import Place, Unreachable
from ocr.settings import load_settings
from tests.support.buckets import bucket_server, machine
from tests.support.commands import PROJECT, call, start
from tests.support.tiny import train_here
from trainers.loop import checkpoint as checkpoints
from trainers.loop.bucket import RunInBucket
from trainers.runs.launch import launch
from trainers.sweep.ledger import Ledger
from trainers.sweep.run import outages_told
from trainers.sweep.settings import SweepConfig
from trainers.sweep.space import base_of, trial_config
from trainers.sweep.stored import LEDGER, StoredSweep

SWEEP: dict[str, Any] = {
    "sweep_name": "tiny",
    "base": str(PROJECT / "configs" / "tiny.yaml"),
    "overrides": ["train.max_steps=8", "train.eval_steps=2", "train.save_steps=2"],
    "space": {"optimizer.learning_rate": {"choice": [1e-3, 3e-3, 2e-3]}},
    "searcher": "grid",
    "max_concurrent": 1,
}
STORAGE = "s3://lipi/sweeps"


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[Any]:
    torch.set_num_threads(1)
    with bucket_server() as client:
        yield client


def written(folder: Path, **changes: Any) -> Path:
    file = folder / "sweep.yaml"
    file.write_text(json.dumps({**SWEEP, "storage_path": STORAGE, **changes}))
    return file


@pytest.mark.long
@pytest.mark.timeout(600)
def test_another_machine_ends_a_sweep_whose_driver_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, place = written(tmp_path), Place(f"{STORAGE}/tiny")
    machine(tmp_path / "one", monkeypatch)
    driver = start("sweep", str(file))
    until = time.monotonic() + 200
    while not place.has(LEDGER) or place.read(LEDGER).count(b"\n") < 7:  # t000 is over, t001 begun
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < until
        time.sleep(0.2)
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    before = lines_of(place.read(LEDGER)).values
    machine(tmp_path / "two", monkeypatch)
    done = call("sweep", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith(f"{STORAGE}/tiny/best.yaml")

    after = lines_of(place.read(LEDGER)).values
    assert after[: len(before)] == before
    found = place.json("sweep.json") or {}
    assert found["counts"] == {"finished": 3}
    assert open_bundle(f"{STORAGE}/tiny/bundle").name == found["best"]
    assert {"best.yaml", "sweep.html"} <= set(place.names())
    assert all(
        RunInBucket(f"{STORAGE}/tiny/trials/{trial['id']}").steps()[-1] == 8
        for trial in found["trials"]
    )
    sweep = load_settings(SweepConfig, file)
    for trial in found["trials"][:2]:  # the one before the kill, and the one in it
        config = trial_config(base_of(sweep), trial["values"], tmp_path / "alone", trial["id"])
        run_dir = launch(config, train_here, "the command").run_dir
        alone = checkpoints.evaluations(run_dir)
        assert {step: values["eval_cer"] for step, values in alone.items()} == {
            int(step): values["eval_cer"] for step, values in trial["evaluations"].items()
        }


def test_a_line_counts_once_it_is_in_the_bucket_and_a_machine_takes_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = load_settings(SweepConfig, written(tmp_path, sweep_name="lines"))
    machine(tmp_path / "one", monkeypatch)
    one = StoredSweep(sweep)
    one.folder.mkdir(parents=True)
    Ledger(one.path(LEDGER), push=one.push_ledger).add("t000", {})
    machine(tmp_path / "two", monkeypatch)
    two = StoredSweep(sweep)
    two.fetch()
    ledger = Ledger(two.path(LEDGER), push=two.push_ledger)
    assert list(ledger.trials) == ["t000"]
    ledger.add("t001", {})
    monkeypatch.setenv("LIPI_CACHE", str(tmp_path / "one"))
    one.fetch()
    assert list(Ledger(one.path(LEDGER)).trials) == ["t000", "t001"]


def as_tune_raises() -> None:
    try:
        raise Unreachable("s3://lipi: no answer")
    except Unreachable as problem:
        raise RuntimeError("Tune's own") from problem


def test_a_bucket_that_stays_away_is_one_message() -> None:
    message = "s3://lipi: no answer; run the same command again"
    with pytest.raises(GivenUp, match=message), outages_told():
        as_tune_raises()

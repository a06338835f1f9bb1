"""A run in a bucket: whole whatever dies or fails, on this machine or the next."""

import itertools
import random
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ocr.bundle import open_bundle
from ocr.errors import UserError
from ocr.files import read_json
from ocr.lock_files import Times
from ocr.mirror import Mirror, copied, copy_of, fetched
from ocr.place import Place, Unreachable
from ocr.processes import Process
from tests.support.buckets import bucket_server, machine
from tests.support.finished import never
from tests.support.resuming import assert_same
from tests.support.tiny import tiny_config, train_here
from trainers.loop.bucket import RunInBucket
from trainers.loop.checkpoint import MANIFEST, directory_of, steps_of, verify_hashes
from trainers.loop.lease import HeldLease, Lease, LostLease, Writer
from trainers.runs.launch import launch
from trainers.watch.files import RunFiles

ADDRESS = "s3://lipi/runs"
SHORT = {"max_steps": 20, "save_steps": 5, "eval_steps": 10, "save_total_limit": 2}


class Trouble:
    """Which requests fail: set by a test while it runs."""

    def __init__(self) -> None:
        self.share, self.random = 0.0, random.Random(7)

    def __call__(self, _: str) -> bool:
        return self.random.random() < self.share


TROUBLE = Trouble()


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[Any]:
    torch.set_num_threads(1)
    with bucket_server(TROUBLE) as client:
        yield client


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny_config(tmp_path_factory.mktemp("golden"), train=SHORT)
    launch(config, train_here, "the command")
    return config.local_run_dir


@pytest.fixture(autouse=True)
def this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    machine(tmp_path / "first", monkeypatch)
    yield
    TROUBLE.share = 0.0


def in_bucket(name: str, **changes: Any) -> Any:
    return tiny_config(ADDRESS, run_name=name, **{"train": SHORT, **changes})


def assert_is(golden: Path, name: str) -> None:
    """The run in the bucket is golden's: weights, optimizer, metrics, ledger, nothing beside it."""
    run_dir = fetched(f"{ADDRESS}/{name}")
    ours, theirs = (verify_hashes(directory_of(where, 20)) for where in (run_dir, golden))
    assert_same(ours.weights(), theirs.weights())
    assert_same(ours.optimizer(), theirs.optimizer())
    for log in ("metrics.jsonl", "samples.jsonl"):
        assert (run_dir / log).read_text() == (golden / log).read_text()
    assert steps_of(run_dir) == steps_of(golden)
    assert RunInBucket(f"{ADDRESS}/{name}").steps() == steps_of(golden)


def test_a_run_in_a_bucket_is_the_run_in_a_folder(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = launch(in_bucket("whole"), train_here, "the command")
    assert str(outcome).endswith(f"{ADDRESS}/whole/bundle")
    assert_is(golden, "whole")
    machine(tmp_path / "second", monkeypatch)
    again = launch(in_bucket("whole"), never, "the command")
    assert again.was_finished
    assert again.report["eval_cer"] == read_json(golden / "report.json")["eval_cer"]
    assert (
        open_bundle(f"{ADDRESS}/whole/bundle").alphabet == open_bundle(golden / "bundle").alphabet
    )


class Died(BaseException):
    """The machine is gone."""


@pytest.mark.parametrize("upload", [1, 6, 12, 30])
def test_a_machine_dies_in_an_upload_and_another_goes_on(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, upload: int
) -> None:
    config, counted = in_bucket(f"dies-{upload}"), itertools.count(1)
    real = Place.upload

    def upload_until(self: Place, name: str, file: Path) -> None:
        if next(counted) >= upload:
            raise Died
        real(self, name, file)

    with monkeypatch.context() as patch:
        patch.setattr(Place, "upload", upload_until)
        with pytest.raises(Died):
            launch(config, train_here, "the command")
    machine(tmp_path / "second", monkeypatch)
    launch(config, train_here, "the command")
    assert_is(golden, f"dies-{upload}")


def test_this_machine_forgets_what_the_bucket_does_not_have(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoints that were never uploaded are not taken for the run's."""
    config, real = in_bucket("there-and-back"), Place.upload

    def upload_nothing_late(self: Place, name: str, file: Path) -> None:
        if name.startswith("checkpoint_000015"):
            raise Died
        real(self, name, file)

    with monkeypatch.context() as patch:
        patch.setattr(Place, "upload", upload_nothing_late)
        with pytest.raises(Died):
            launch(config, train_here, "the command")
    assert steps_of(config.local_run_dir)[-1] == 15
    RunInBucket(config.address).fetch(exactly=True)
    assert steps_of(config.local_run_dir) == [5, 10]
    machine(tmp_path / "second", monkeypatch)
    launch(config, train_here, "the command")
    monkeypatch.setenv("LIPI_CACHE", str(tmp_path / "first"))
    assert launch(config, never, "the command").was_finished
    assert_is(golden, "there-and-back")


def test_errors_of_the_bucket_change_nothing(golden: Path) -> None:
    TROUBLE.share = 0.05
    launch(in_bucket("troubled"), train_here, "the command")
    TROUBLE.share = 0.0
    assert_is(golden, "troubled")


def test_a_bucket_that_is_away_for_long_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocr.place._WAITS", (0.01, 0.01))
    TROUBLE.share = 1.0
    with pytest.raises(Unreachable, match="s3://lipi/runs/away: no answer"):
        Place(f"{ADDRESS}/away").read("x")


def test_a_bucket_that_is_not_there_is_a_mistake() -> None:
    with pytest.raises(UserError, match=r"s3://nowhere/runs/x: .*expected a bucket that the"):
        launch(tiny_config("s3://nowhere/runs", run_name="x"), never, "the command")


def test_a_file_that_does_not_read_back_is_not_committed(
    golden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, run_dir = RunInBucket(f"{ADDRESS}/torn"), copy_of(f"{ADDRESS}/torn")
    run_dir.mkdir(parents=True)
    checkpoint = directory_of(run_dir, 20)
    shutil.copytree(directory_of(golden, 20), checkpoint)
    monkeypatch.setattr(Place, "sha256", lambda *_: "0" * 64)
    with pytest.raises(Unreachable, match="reads back otherwise"):
        run.publish(verify_hashes(checkpoint), Writer.claim(run.place, 1))
    assert not run.place.has(f"{checkpoint.name}/{MANIFEST}")
    assert run.steps() == []


def test_one_lock_of_a_bucket_at_a_time() -> None:
    place, inside, worst = Place(f"{ADDRESS}/locks"), [0], [0]

    def work() -> None:
        mine = Place(str(place))
        for _ in range(4):
            with mine.locked("lock"):
                inside[0] += 1
                worst[0] = max(worst[0], inside[0])
                time.sleep(0.01)
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert worst == [1]
    assert place.names("lock") == []


def test_the_lock_of_a_process_that_died_is_stale_in_time() -> None:
    place = Place(f"{ADDRESS}/stale")
    place.write("lock/left", b"{}")
    began = time.monotonic()
    with place.locked("lock", Times(stale=0.5, poll=0.1)):
        assert time.monotonic() - began >= 0.5
    assert place.names("lock") == []


OTHER = Process("elsewhere", "another boot", "1", 1, "1")
QUICK = Times(renew=0.05, stale=1.0, poll=0.05)


def test_a_lease_in_a_bucket_holds_against_other_machines() -> None:
    place = Place(f"{ADDRESS}/leased")
    with (
        Lease(place, me=OTHER, times=Times(renew=0.05, poll=0.05)),
        pytest.raises(HeldLease, match="process 1 on elsewhere"),
    ):
        Lease(place, times=Times(poll=0.05)).__enter__()


def test_a_lease_of_a_machine_that_is_gone_is_taken_over() -> None:
    place = Place(f"{ADDRESS}/gone")
    gone = Lease(place, me=OTHER, times=Times(renew=86_400))
    gone.__enter__()
    old = Writer.claim(place, gone.attempt)
    with Lease(place, times=QUICK) as lease:
        assert lease.attempt == gone.attempt + 1
        Writer.claim(place, lease.attempt)
        with pytest.raises(LostLease, match=f"{ADDRESS}/gone: attempt 2 has taken this run over"):
            old.require()


def test_a_bucket_that_refuses_for_a_while_ends_no_thread(
    server: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Credentials that are renewed, a policy that is mended: what goes on beside the steps goes on.

    The lease is renewed again, logs are uploaded again, and a run is followed again.
    """
    monkeypatch.setattr("trainers.loop.bucket._SECONDS", 0.1)
    server.create_bucket(Bucket="other")
    place = Place("s3://other/leased")
    run = RunInBucket(str(place))
    run.run_dir.mkdir(parents=True, exist_ok=True)
    with Lease(place, times=QUICK) as lease, run.logs_pushed():
        for item in server.list_objects_v2(Bucket="other")["Contents"]:
            server.delete_object(Bucket="other", Key=item["Key"])
        server.delete_bucket(Bucket="other")
        said, deadline = "", time.monotonic() + 20
        while "not renewed" not in said:
            said += capsys.readouterr().out
            assert time.monotonic() < deadline, said
            time.sleep(0.05)
        run.fetch_logs()
        (run.run_dir / "timings.jsonl").write_text("{}\n")
        time.sleep(0.5)
        server.create_bucket(Bucket="other")
        while not {"lease.json", "timings.jsonl"} <= set(place.names()):
            assert time.monotonic() < deadline, place.names()
            time.sleep(0.05)
        assert (place.json("lease.json") or {})["attempt"] == lease.attempt
        assert (run.fetch_logs() / "timings.jsonl").is_file()


def test_what_a_command_changes_in_a_copy_goes_into_the_bucket() -> None:
    place = Place(f"{ADDRESS}/changed")
    for name in ("a", "b", "bundle/manifest.json", "bundle/x"):
        place.write(name, name.encode())
    with copied(str(place)) as folder:
        (folder / "a").write_text("new")
        (folder / "b").unlink()
        (folder / "bundle" / "y").write_text("y")
        (folder / ".private").write_text("stays")
    assert place.names() == ["a", "bundle/manifest.json", "bundle/x", "bundle/y"]
    assert place.read("a") == b"new"


def test_a_copy_fetches_only_what_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = Mirror.for_reading(f"{ADDRESS}/twice")
    mirror.place.write("a", b"1")
    mirror.place.write("b", b"1")
    mirror.fetch()
    fetches = list[str]()
    real = Place.download

    def noted(self: Place, name: str, file: Path) -> None:
        fetches.append(name)
        real(self, name, file)

    monkeypatch.setattr(Place, "download", noted)
    mirror.fetch()
    assert fetches == []
    mirror.place.write("b", b"22")
    mirror.fetch()
    assert fetches == ["b"]
    assert (mirror.folder / "b").read_bytes() == b"22"


def test_what_this_machine_has_uploaded_is_not_fetched_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fetched_names, real = list[str](), Place.download

    def noted(self: Place, name: str, file: Path) -> None:
        fetched_names.append(name)
        real(self, name, file)

    monkeypatch.setattr(Place, "download", noted)
    launch(in_bucket("own"), train_here, "the command")
    assert not [name for name in fetched_names if "/" in name]
    run_dir = copy_of(f"{ADDRESS}/own")
    torn = directory_of(run_dir, 20) / "model.safetensors"
    whole = torn.read_bytes()
    for damage in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):  # the second of equal size
        torn.write_bytes(damage)
        RunInBucket(f"{ADDRESS}/own").fetch()
        assert verify_hashes(directory_of(run_dir, 20)).step == 20


def test_reading_a_run_leaves_the_copy_that_is_trained_in_alone() -> None:
    address = f"{ADDRESS}/live"
    run_dir, place = copy_of(address), Place(address)
    (run_dir / "checkpoint_000010").mkdir(parents=True)
    (run_dir / "checkpoint_000010" / "model.safetensors").write_bytes(b"on its way")
    (run_dir / "metrics.jsonl").write_text("newer")
    place.write("metrics.jsonl", b"older")
    with copied(address) as folder:
        assert folder != run_dir and (folder / "metrics.jsonl").read_bytes() == b"older"
    assert fetched(address) != run_dir
    assert (run_dir / "checkpoint_000010" / "model.safetensors").is_file()
    assert (run_dir / "metrics.jsonl").read_text() == "newer"


def test_watching_needs_no_copy() -> None:
    place = Place(f"{ADDRESS}/watched")
    place.write("config.yaml", b"run_name: watched\n")
    place.write("checkpoint_000010/manifest.json", b"{}")
    files = RunFiles(str(place))
    assert files.yaml("config.yaml") == {"run_name": "watched"}
    assert files.named("checkpoint_[0-9]*/manifest.json") == ["checkpoint_000010/manifest.json"]
    with pytest.raises(UserError, match=f"{ADDRESS}/none: not a run"):
        RunFiles(f"{ADDRESS}/none")


def test_folders_of_equal_names_in_two_buckets_have_two_copies() -> None:
    assert copy_of("s3://one/runs/a") != copy_of("s3://two/runs/a")
    assert copy_of("s3://one/runs/a/") == copy_of("s3://one/runs/a")

"""What outlives the endpoint keeps its order, whatever the clocks, and is read on from damage."""

import json
import logging
import multiprocessing
import shutil
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from ocr.errors import UserError
from ocr.files import write_json
from serve.config import LimitSettings
from serve.corrections import Corrections
from serve.errors import as_unstored
from serve.journal import Journal
from serve.models import Models
from serve.store import StorageError, StorageFull, Store
from tests.serve.test_corrections import png, told
from tests.support.buckets import bucket_server
from tests.support.disks import fill, small_disk
from tests.support.running import endpoint


def journal_at(folder: Path) -> Journal:
    return Journal(Store(str(folder)))


def test_an_entry_follows_all_before_it_though_the_clock_went_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, now = journal_at(tmp_path), time.time_ns()
    for seconds, bundle in ((0, "old@1"), (-5, "new@2"), (-3600, "newest@3")):
        monkeypatch.setattr(time, "time_ns", lambda seconds=seconds: now + seconds * 10**9)
        journal.append(what="live", of="x", bundle=bundle)
        assert journal.live() == bundle
    entries = journal_at(tmp_path).entries()
    assert [entry["bundle"] for entry in entries] == ["old@1", "new@2", "newest@3"]
    assert [entry["id"][:20] for entry in entries] == [f"{number:020d}" for number in (1, 2, 3)]


def test_a_journal_of_an_earlier_version_is_read_and_goes_on(tmp_path: Path) -> None:
    journal = journal_at(tmp_path)
    (tmp_path / "journal").mkdir()
    ahead = time.time_ns() + 3600 * 10**9
    old = tmp_path / "journal" / f"{ahead:020d}-00c0ffee.json"
    write_json(old, {"at": "…", "what": "live", "of": "x", "bundle": "old@1"})
    assert journal.live() == "old@1"
    journal.append(what="live", of="x", bundle="new@2")
    assert journal.live() == "new@2"
    assert next(entry["id"] for entry in journal.entries()) == old.stem


def _append_many(folder: Path) -> None:
    for number in range(20):
        journal_at(folder).append(what="promote", bundle=str(number))


def test_no_two_entries_of_several_processes_have_one_number(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        pool.map(_append_many, [tmp_path] * 3)
    numbers = [int(entry["id"][:20]) for entry in journal_at(tmp_path).entries()]
    assert numbers == list(range(1, 61))


def test_an_entry_cut_at_any_byte_is_left_out_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = journal_at(tmp_path)
    journal.append(what="live", of="x", bundle="one@1")
    name = journal.append(what="live", of="x", bundle="two@2")
    file = tmp_path / "journal" / f"{name}.json"
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with caplog.at_level(logging.WARNING, "ray.serve"):
            assert [journal.live() for _ in range(2)] == ["one@1"] * 2
    told_once = [record for record in caplog.records if "damaged" in record.getMessage()]
    assert len(told_once) == 1 and f"{name}.json" in told_once[0].getMessage()
    journal.append(what="live", of="x", bundle="three@3")
    assert journal.live() == "three@3"


def test_a_damaged_report_of_a_replica_is_not_taken_for_success(tmp_path: Path) -> None:
    journal = journal_at(tmp_path)
    for replica, why in (("a", None), ("b", "no memory"), ("c", None)):
        journal.report("p", replica, why)
    for content in (b"", b'{"ok": tr', b"[]", b"{}"):
        (tmp_path / "loaded" / "p" / "c.json").write_bytes(content)
        assert journal.reports("p") == {"a": None, "b": "no memory"}


def test_a_damaged_correction_costs_itself_alone_and_can_be_sent_again(tmp_path: Path) -> None:
    corrections = Corrections(Store(str(tmp_path)), LimitSettings())
    images = {"a": png(1), "b": png(2), "c": png(3)}
    lines = [{"image": name, "text": name, "reading": "x"} for name in images]
    first, second, third = corrections.put(told(*lines, images=images))["ids"]
    (tmp_path / "corrections" / f"{first}.json").write_bytes(b'{"corrected_te')
    (tmp_path / "corrections" / f"{second}.png").unlink()
    assert corrections.stats(None)["corrections"] == 2
    corrections.snapshot(tmp_path / "snapshot")
    assert {file.stem for file in (tmp_path / "snapshot").iterdir()} == {third}
    assert corrections.put(told(*lines, images=images))["stored"] == 1
    assert set(corrections.records()) == {first, second, third}


def test_a_full_storage_is_told_from_other_failures(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        store = Store(str(disk))
        filler = fill(disk)
        with pytest.raises(StorageFull, match="No space left") as full:
            store.put("corrections/a.png", b"x" * 5000)
        with pytest.raises(StorageFull):
            store.append("journal", {"what": "promote"})
        filler.unlink()
        store.put("corrections/a.png", b"x" * 5000)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError) as other:
        Store(str(tmp_path / "file")).put("a", b"x")
    answers = [as_unstored(problem.value) for problem in (full, other)]
    assert [(each.status, each.code) for each in answers] == [
        (507, "storage_full"),
        (503, "storage"),
    ]
    assert all("Retry-After" in each.response().headers for each in answers)


def test_a_correction_that_found_the_disk_full_is_stored_when_it_is_sent_again(
    tmp_path: Path,
) -> None:
    asked = told({"image": "a", "text": "ଜୀବନ"}).model_dump(exclude_none=True)
    large = small_disk(tmp_path / "disk", 64 * 1024)
    with large as disk, endpoint(disk / "serve", "autoscaling.max_replicas=1") as running:
        send = f"{running.address}/v1/corrections"
        filler = fill(disk)
        full = requests.post(send, json=asked, timeout=30)
        assert (full.status_code, full.json()["error"]["code"]) == (507, "storage_full")
        assert int(full.headers["Retry-After"]) > 0
        filler.unlink()
        again = requests.post(send, json=asked, timeout=30)
        assert (again.status_code, again.json()["stored"]) == (201, 1)


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("LIPI_CACHE", str(tmp_path))
    with bucket_server() as client:
        yield client


def test_a_bundle_of_a_bucket_is_fetched_once_a_node_and_again_where_damaged(
    bucket: Any, tmp_path: Path
) -> None:
    odia = Models("s3://lipi/serve").add("odia")
    found: list[Path | BaseException] = []

    def replica() -> None:
        try:
            found.append(Models("s3://lipi/serve").path(odia))
        except BaseException as problem:  # noqa: BLE001  shown below
            found.append(problem)

    folder = tmp_path / "served" / odia
    assert stat.S_IMODE(Models("s3://lipi/serve").path(odia).parent.stat().st_mode) == 0o700
    shutil.rmtree(folder)
    for _ in range(6):
        replicas = [threading.Thread(target=replica) for _ in range(4)]
        for each in replicas:
            each.start()
        for each in replicas:
            each.join()
        assert found == [folder] * 4
        found.clear()
        assert {entry.name for entry in folder.parent.iterdir()} == {odia, f".{odia}.lock"}
        shutil.rmtree(folder)
    Models("s3://lipi/serve").path(odia)
    fetched = folder.stat().st_ino
    assert Models("s3://lipi/serve").path(odia).stat().st_ino == fetched, "it is not fetched twice"
    model = folder / "onnx-int8.onnx"
    whole = model.read_bytes()
    for damage in (whole[:-1] + b"!", whole[:100], b""):
        model.write_bytes(damage)
        Models("s3://lipi/serve").path(odia)
        assert model.read_bytes() == whole
    name = f"serve/models/{odia}/onnx-int8.onnx"
    bucket.put_object(Bucket="lipi", Key=name, Body=b"not it")
    Models("s3://lipi/serve").path(odia)  # the copy is good
    shutil.rmtree(folder)
    with pytest.raises(UserError, match=r"s3://lipi/serve/models/.*onnx-int8\.onnx: missing or"):
        Models("s3://lipi/serve").path(odia)
    assert not folder.exists()


def test_entries_in_a_bucket_are_numbered_too(bucket: Any) -> None:
    assert bucket
    journal = Journal(Store("s3://lipi/serve"))
    ids = [journal.append(what="promote", bundle=str(number)) for number in range(3)]
    assert [int(id[:20]) for id in ids] == [1, 2, 3]
    assert [json.loads(json.dumps(entry))["id"] for entry in journal.entries()] == ids

"""One driver at a time writes into a run, on one host or on several whose clocks disagree.

Another host is a `Process` of another boot; its lease is real, with times of a test's length.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from ocr.errors import UserError
from ocr.files import read_object, write_json
from ocr.lock_files import Times
from ocr.processes import Process
from tests.support.commands import assert_refused, start
from tests.support.disks import fill, small_disk
from tests.support.resuming import TINY_YAML, wait_for
from trainers.loop.checkpoint import directory_of
from trainers.loop.lease import HeldLease, Lease, LostLease, OldGroup, SweepLease, Writer

QUICK = Times(renew=0.05, stale=0.6, poll=0.02)
NODE_B = replace(Process.current(), host="nodeb", boot="the boot of node B")


def left_behind(run_dir: Path, attempt: int = 7, renewed_at: float = 0.0) -> None:
    """Leave the lease of a process of node B that died with its node."""
    values = {"attempt": attempt, **NODE_B.as_json(), "renewed_at": renewed_at}
    write_json(run_dir / "lease.json", values)


def quick(run_dir: Path, me: Process | None = None) -> Lease:
    return Lease(run_dir, me=me, times=QUICK)


@contextmanager
def released_after(seconds: float, lease: Lease) -> Iterator[None]:
    """Release a lease that is held, after so many seconds."""
    timer = threading.Timer(seconds, lease.__exit__)
    timer.start()
    yield
    timer.join()


@pytest.mark.parametrize("ahead", [-3600.0, 0.0, 3600.0])
def test_the_lease_of_a_dead_node_is_taken_after_a_silence_whatever_its_clock_was(
    ahead: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left_behind(tmp_path, renewed_at=time.time() + ahead)
    began = time.monotonic()
    with quick(tmp_path) as lease:
        assert lease.attempt == 8
    assert QUICK.stale <= time.monotonic() - began < QUICK.stale + 2
    said = capsys.readouterr().out
    assert f"held by process {NODE_B.pid} on nodeb; waiting for its end, at most 0.6 s" in said
    assert "is silent; this process takes the run over" in said


def test_a_living_run_of_another_host_is_seen_to_renew_and_refused(tmp_path: Path) -> None:
    with quick(tmp_path, NODE_B) as theirs:
        refused = pytest.raises(HeldLease, match=f"process {os.getpid()} on nodeb, which has just")
        with refused, quick(tmp_path):
            pass
        theirs.require()


def test_a_run_in_another_container_is_refused_while_it_lives_and_taken_over_after_its_death(
    tmp_path: Path,
) -> None:
    """A container has its own host name and process numbers, but the boot of its machine."""
    code = (
        "import socket, time\nfrom pathlib import Path\nfrom ocr.lock_files import Times\n"
        "from trainers.loop.lease import Lease\nsocket.sethostname('nodec')\n"
        f"with Lease(Path({str(tmp_path)!r}), times=Times(renew=0.05)):\n"
        "    print('held', flush=True)\n    time.sleep(60)"
    )
    alone = ["unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command = [*alone, sys.executable, "-c", code]
    other = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert other.stdout
    if other.stdout.readline() != "held\n":
        pytest.skip(f"no containers here: {other.communicate()[1].strip()}")
    try:
        with pytest.raises(HeldLease, match="process 1 on nodec, which has just"), quick(tmp_path):
            pass
    finally:
        other.kill()
        other.communicate()
    with quick(tmp_path) as lease:  # process 1 lives here, but it is another one
        assert lease.attempt == 2


def test_a_lease_that_is_released_meanwhile_is_not_waited_out(tmp_path: Path) -> None:
    patient = Times(renew=30.0, stale=60.0, poll=0.02)
    theirs = Lease(tmp_path, me=NODE_B, times=patient).__enter__()
    began = time.monotonic()
    with released_after(0.2, theirs), Lease(tmp_path, times=patient) as lease:
        assert lease.attempt == 2
    assert time.monotonic() - began < 10


def test_a_process_of_this_host_is_refused_at_once_and_a_dead_one_replaced_at_once(
    tmp_path: Path,
) -> None:
    with (
        Lease(tmp_path),
        pytest.raises(HeldLease, match=f"process {os.getpid()} on"),
        Lease(tmp_path),
    ):
        pass
    dead = replace(Process.current(), started="1")  # its number belongs to another process now
    write_json(tmp_path / "lease.json", {"attempt": 4, **dead.as_json(), "renewed_at": time.time()})
    began = time.monotonic()
    with Lease(tmp_path) as lease:
        assert lease.attempt == 5
    assert time.monotonic() - began < 5


def test_a_lease_of_an_earlier_version_is_waited_out(tmp_path: Path) -> None:
    old = {"attempt": 3, "host": Process.current().host, "pid": 1, "pid_started": 1.0}
    write_json(tmp_path / "lease.json", {**old, "renewed_at": time.time()})
    with quick(tmp_path) as lease:
        assert lease.attempt == 4


def test_a_full_disk_does_not_end_the_renewing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with small_disk(tmp_path / "disk") as disk, quick(disk) as lease:
        filler = fill(disk)
        time.sleep(0.3)
        assert "not renewed ([Errno 28] No space left on device" in capsys.readouterr().out
        before = (disk / "lease.json").read_bytes()
        assert json.loads(before)["attempt"] == lease.attempt, "the old file stays whole"
        filler.unlink()
        deadline = time.monotonic() + 10
        while (disk / "lease.json").read_bytes() == before:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_disk_without_room_for_a_lease_says_what_to_do(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        (disk / ".lease.lock").touch()
        fill(disk)
        with pytest.raises(UserError, match=r"lease\.json: cannot be written: No space left.*room"):
            quick(disk).__enter__()


def test_a_lease_cut_at_any_byte_is_waited_out_and_no_attempt_comes_twice(tmp_path: Path) -> None:
    times = Times(renew=5.0, stale=0.01, poll=0.005)
    left_behind(tmp_path, attempt=12)
    whole = (tmp_path / "lease.json").read_bytes()
    for length in range(len(whole)):
        write_json(tmp_path / "writer.json", {"attempt": 12, "token": "t"})
        (tmp_path / "lease.json").write_bytes(whole[:length])
        with Lease(tmp_path, times=times) as lease:
            assert lease.attempt == 13


def test_a_living_run_writes_its_torn_lease_anew(tmp_path: Path) -> None:
    with quick(tmp_path, NODE_B) as theirs:
        for torn in (b"", b'{"attempt'):
            (tmp_path / "lease.json").write_bytes(torn)
            with pytest.raises(HeldLease), quick(tmp_path):
                pass
        theirs.require()


def test_an_older_attempt_never_claims_over_a_newer_one(tmp_path: Path) -> None:
    first = Writer.claim(tmp_path, 1)
    left_behind(tmp_path, attempt=1)
    with quick(tmp_path):
        for stopped in (lambda: Writer.claim(tmp_path, 1), first.require):
            with pytest.raises(LostLease, match="attempt 2 has taken this run over; attempt 1"):
                stopped()
        newer = Writer.claim(tmp_path, 2)
    with pytest.raises(LostLease):  # released, but the run is attempt 2's work now
        Writer.claim(tmp_path, 1)
    (tmp_path / "lease.json").unlink()
    with pytest.raises(LostLease):
        Writer.claim(tmp_path, 1)
    newer.require()


def test_the_groups_of_one_attempt_follow_one_another(tmp_path: Path) -> None:
    with Lease(tmp_path) as lease:
        old = Writer.claim(tmp_path, lease.attempt)
        new = Writer.claim(tmp_path, lease.attempt)
        new.require()
        with pytest.raises(OldGroup):
            old.require()


def test_a_torn_writer_file_starts_the_workers_again_and_blames_no_other_attempt(
    tmp_path: Path,
) -> None:
    with Lease(tmp_path) as lease:
        writer = Writer.claim(tmp_path, lease.attempt)
        whole = (tmp_path / "writer.json").read_bytes()
        for length in range(len(whole) - 1):  # without its newline it is still whole
            (tmp_path / "writer.json").write_bytes(whole[:length])
            if read_object(tmp_path / "writer.json") is None:
                with pytest.raises(RuntimeError, match=r"writer\.json: missing or damaged"):
                    writer.require()
        Writer.claim(tmp_path, lease.attempt).require()


def test_a_sweep_takes_its_trials_over_at_once_and_an_older_sweep_never(tmp_path: Path) -> None:
    (trial := tmp_path / "t001").mkdir()
    with Lease(tmp_path) as sweep:
        latest = SweepLease(tmp_path, sweep.attempt)
        # node B is cut off, and still alive
        with quick(trial, NODE_B) as on_node_b, Lease(trial, latest) as next_try:
            assert next_try.attempt == on_node_b.attempt + 1
            with pytest.raises(LostLease):
                on_node_b.require()
        with pytest.raises(LostLease):
            Lease(trial, SweepLease(tmp_path, sweep.attempt - 1)).__enter__()


@pytest.mark.long
def test_an_attempt_that_another_host_ousts_ends_without_a_restart(tmp_path: Path) -> None:
    words = (f"storage_path={tmp_path}", "train.max_steps=4000", "train.save_steps=10")
    driver, run_dir = start("train", TINY_YAML, *words), tmp_path / "tiny"
    wait_for(directory_of(run_dir, 10))
    left_behind(run_dir, attempt=2, renewed_at=time.time())
    out, error = driver.communicate(timeout=200)
    done = subprocess.CompletedProcess(driver.args, driver.returncode, out, error)
    assert_refused(done, "attempt 2 has taken this run over; attempt 1 writes nothing more")
    assert "restart" not in (run_dir / "timings.jsonl").read_text()
    assert json.loads((run_dir / "lease.json").read_text())["attempt"] == 2
    assert json.loads((run_dir / "writer.json").read_text())["attempt"] == 1

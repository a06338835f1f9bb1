"""Who holds a lock is known without a clock of another host, and without the system's locks."""

import errno
import fcntl
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ocr.files import locked
from ocr.lock_files import Times, lock_file
from ocr.processes import Process

QUICK = Times(renew=0.05, stale=0.5, poll=0.02)
FOREIGN = Process("elsewhere", "another boot", "pid:[1]", 1, "5")


def held_by(process: Process, path: Path) -> Path:
    path.write_text(json.dumps({**process.as_json(), "token": "t"}))
    return path


def test_a_process_is_told_from_a_later_one_with_its_number() -> None:
    me = Process.current()
    assert me.is_running()
    assert not replace(me, started=str(int(me.started) - 1)).is_running()
    assert Process.from_json(me.as_json()) == me
    assert Process.from_json({"host": "h", "pid": 3, "pid_started": 1.0}) is None  # of old leases


def test_a_process_that_ended_or_waits_to_be_reaped_does_not_run() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
    process = replace(Process.current(), pid=child.pid, started=fields[19])
    assert process.is_running()
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie from now on
    assert not process.is_running()
    child.communicate()
    assert not process.is_running()


def test_a_process_of_another_boot_or_container_cannot_be_looked_up() -> None:
    me = Process.current()
    assert me.is_visible_to(me)
    assert replace(me, host="renamed").is_visible_to(me)
    assert not replace(me, boot="another").is_visible_to(me)  # even of a host with the same name
    assert not replace(me, namespace="pid:[1]").is_visible_to(me)


def test_a_lock_file_keeps_out_a_living_process_and_ends_with_the_block(tmp_path: Path) -> None:
    path = tmp_path / "lock.held"
    again = lock_file(path, wait=False, times=QUICK)
    with lock_file(path, times=QUICK), pytest.raises(BlockingIOError), again:
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_file_of_a_dead_process_is_taken_at_once(tmp_path: Path) -> None:
    dead = replace(Process.current(), started="1")
    with lock_file(held_by(dead, tmp_path / "lock.held"), wait=False):
        pass


def test_a_lock_file_of_another_host_is_taken_once_nothing_changes(tmp_path: Path) -> None:
    path, began = held_by(FOREIGN, tmp_path / "lock.held"), time.monotonic()
    os.utime(path, (time.time() + 3600, time.time() + 3600))  # by a clock that is an hour ahead
    with lock_file(path, wait=False, times=QUICK):
        assert time.monotonic() - began >= QUICK.stale
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_a_lock_file_that_another_host_touches_is_not_taken(tmp_path: Path) -> None:
    path = held_by(FOREIGN, tmp_path / "lock.held")
    code = f"import os, time\nwhile True:\n    os.utime({str(path)!r})\n    time.sleep(0.05)"
    toucher = subprocess.Popen([sys.executable, "-c", code])
    try:
        time.sleep(0.3)
        with pytest.raises(BlockingIOError), lock_file(path, wait=False, times=QUICK):
            pass
    finally:
        toucher.kill()
        toucher.wait()


@pytest.mark.parametrize("name", ["file.lock", "folder"])
@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF])
def test_without_locks_of_the_file_system_a_file_keeps_others_out(
    name: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    (tmp_path / "folder").mkdir()
    path = tmp_path / name
    with locked(path), pytest.raises(BlockingIOError), locked(path, wait=False):
        pass
    with locked(tmp_path / name, wait=False):
        pass


def test_eight_processes_with_lock_files_count_without_losing_one(tmp_path: Path) -> None:
    counter = tmp_path / "count"
    counter.write_text("0")
    code = (
        "import sys\nfrom pathlib import Path\nfrom ocr.lock_files import lock_file\n"
        f"for _ in range(20):\n    with lock_file(Path({str(tmp_path / 'lock.held')!r})):\n"
        f"        file = Path({str(counter)!r})\n"
        "        file.write_text(str(int(file.read_text()) + 1))"
    )
    many = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(8)]
    assert [process.wait(120) for process in many] == [0] * 8
    assert counter.read_text() == "160"

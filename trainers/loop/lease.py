"""The right to write into a run directory: one driver at a time, and its latest group of workers.

lease.json    {attempt, host, pid, pid_started, renewed_at}: the driver's, renewed every 10 s
writer.json   {attempt, token}: the worker that publishes checkpoints; a newer group overwrites it
"""

import os
import socket
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from ocr.errors import UserError
from ocr.files import locked, read_json, write_json

RENEW_SECONDS, STALE_SECONDS = 10.0, 60.0


class LostLease(UserError):
    """A run that another process has taken over; this process must not write into it any more."""


class Lease:
    """The driver's claim on a run directory, as a context manager.

    Raises UserError while another driver holds it.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir, self.attempt = run_dir, 0
        self._file, self._stopped = run_dir / "lease.json", threading.Event()
        self._thread = threading.Thread(target=self._renew_for_ever, name="lipi-lease", daemon=True)

    def __enter__(self) -> "Lease":
        with locked(self.run_dir / ".lease.lock"):
            held = _read(self._file)
            if held and _is_live(held):
                raise UserError(
                    f"{self.run_dir}: another run is at work here (process {held['pid']} on "
                    f"{held['host']}); wait for it, stop it, or choose another run_name"
                )
            self.attempt = int(held.get("attempt", 0)) + 1
            self._write()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        if _read(self._file).get("attempt") == self.attempt:
            write_json(self._file, {"attempt": self.attempt, "released": True})

    def _write(self) -> None:
        process = psutil.Process()
        who = {
            "host": socket.gethostname(),
            "pid": process.pid,
            "pid_started": process.create_time(),
        }
        write_json(self._file, {"attempt": self.attempt, **who, "renewed_at": time.time()})

    def _renew_for_ever(self) -> None:
        while not self._stopped.wait(RENEW_SECONDS):
            if _read(self._file).get("attempt") != self.attempt:
                return  # taken over; the writer's own check stops this run
            self._write()


@dataclass(frozen=True, slots=True)
class Writer:
    """The right to publish, of the first worker of the newest group of an attempt."""

    run_dir: Path
    attempt: int
    token: str

    @classmethod
    def claim(cls, run_dir: Path, attempt: int) -> "Writer":
        """Become the writer; the writer before is refused from now on."""
        writer = cls(run_dir, attempt, uuid.uuid4().hex)
        write_json(run_dir / "writer.json", {"attempt": attempt, "token": writer.token})
        return writer

    def require(self) -> None:
        """Raise LostLease unless this is still the writer and its driver's attempt the latest."""
        latest = _read(self.run_dir / "lease.json").get("attempt", self.attempt)
        if latest != self.attempt or _read(self.run_dir / "writer.json").get("token") != self.token:
            raise LostLease(
                f"{self.run_dir}: attempt {latest} has taken this run over; "
                f"attempt {self.attempt} writes nothing more"
            )


def _read(file: Path) -> dict[str, Any]:
    try:
        return dict(read_json(file))
    except FileNotFoundError:
        return {}


def _is_live(held: dict[str, Any]) -> bool:
    if held.get("released"):
        return False
    if held["host"] == socket.gethostname():
        return _is_running(int(held["pid"]), float(held["pid_started"]))
    return time.time() - float(held["renewed_at"]) < STALE_SECONDS


def _is_running(pid: int, started: float) -> bool:
    if pid == os.getpid():
        return True
    try:
        process = psutil.Process(pid)
        return bool(
            abs(process.create_time() - started) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
        )
    except psutil.NoSuchProcess:
        return False

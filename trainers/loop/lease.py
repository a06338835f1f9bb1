"""The right to write into a run: one driver at a time, and its latest group of workers.

lease.json    {attempt, the driver's process, renewed_at}: renewed every 10 s
writer.json   {attempt, token}: the worker that publishes checkpoints; a newer group overwrites it

A lease whose process this host can see ends with that process. Any other lease is stale once the
file has not changed for a minute of this process's own clock: no two clocks are compared.
Both files lie where the run does, in a folder or in a bucket.
"""

import errno
import threading
import time
import uuid
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

from ocr.errors import UserError
from ocr.lock_files import TIMES, Times, Unchanged
from ocr.place import Place
from ocr.processes import Process

LEASE, WRITER = "lease.json", "writer.json"
STALE_SECONDS = TIMES.stale
_RETRY_SECONDS = 1.0
_TO_MEND = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


class LeaseTrouble(UserError):
    """Another process is at work in the directory: says nothing about the run itself."""


class HeldLease(LeaseTrouble):
    """A run that another process is at work on."""


class LostLease(LeaseTrouble):
    """A run that another process has taken over; this process must not write into it any more."""


class OldGroup(LostLease):
    """A group of workers that the same attempt has replaced; the attempt goes on without it."""


@dataclass(frozen=True, slots=True)
class SweepLease:
    """The lease of a sweep, which takes over the directories of its trials from anyone at once.

    `folder`: where the sweep lives, also an address in a bucket.
    """

    folder: Path | str
    attempt: int

    def require(self) -> None:
        """Raise LostLease where another process has taken the sweep over."""
        require_latest(self.folder, self.attempt)


class Lease:
    """The driver's claim on a run directory, as a context manager.

    It waits for a lease of another host until that is released or stale. Raises HeldLease where the
    other process runs on this host, or renews its lease meanwhile; LostLease where `sweep` is not
    the sweep's latest.
    """

    def __init__(
        self,
        run: Path | Place,
        sweep: SweepLease | None = None,
        me: Process | None = None,
        times: Times = TIMES,
    ) -> None:
        self.place, self.attempt = _place(run), 0
        self._sweep, self._me, self._times = sweep, me or Process.current(), times
        self._file, self._stopped = self.place / LEASE, threading.Event()
        self._thread = threading.Thread(target=self._renew_for_ever, name="lipi-lease", daemon=True)

    def __enter__(self) -> "Lease":
        unchanged = Unchanged()
        while not self._take(unchanged):
            time.sleep(self._times.poll)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        # not released, it is stale in a minute
        with suppress(OSError, UserError), _lock(self.place):
            if self._is_mine():
                self.place.write_json(LEASE, {"attempt": self.attempt, "released": True})

    def require(self) -> None:
        """Raise LostLease where another process has taken the run over."""
        require_latest(self.place, self.attempt)

    def _take(self, unchanged: Unchanged) -> bool:
        """Take the lease, and return True, unless its holder may still live on another host."""
        try:
            with _lock(self.place):
                if not self._is_free(unchanged):
                    return False
                self.attempt = _newest_attempt(self.place) + 1
                self._write()
                return True
        except OSError as problem:
            if problem.errno not in _TO_MEND:
                raise
            raise UserError(
                f"{self._file}: cannot be written: {problem.strerror}; make room on the disk and "
                "the folder writable, then run the same command again"
            ) from problem

    def _is_free(self, unchanged: Unchanged) -> bool:
        if self._sweep:
            self._sweep.require()
            return True
        content, held = _content(self.place), self.place.json(LEASE) or {}
        if content is None or held.get("released"):
            return True
        process = Process.from_json(held)
        if process and process.is_visible_to(self._me):
            if process.is_running():
                raise HeldLease(_held(self.place, str(process)))
            return True
        who = f"process {held.get('pid', 'unknown')} on {held.get('host', 'an unknown host')}"
        is_first, seconds = unchanged.changes < 0, unchanged.seconds(content)
        if unchanged.changes > 0:
            raise HeldLease(_held(self.place, f"{who}, which has just renewed its lease"))
        is_stale = seconds >= self._times.stale
        if is_stale:
            _say(f"{self.place}: {who} is silent; this process takes the run over")
        elif is_first:
            most = f"at most {self._times.stale:g} s without a sign of life"
            _say(f"{self.place}: held by {who}; waiting for its end, {most}")
        return is_stale

    def _is_mine(self) -> bool:
        """Return whether no other attempt is in the file; a damaged one is written anew."""
        held = self.place.json(LEASE)
        return held is None or held.get("attempt") == self.attempt

    def _write(self) -> None:
        self.place.write_json(
            LEASE, {"attempt": self.attempt, **self._me.as_json(), "renewed_at": time.time()}
        )

    def _renew_for_ever(self) -> None:
        pause, is_told = self._times.renew, False
        while not self._stopped.wait(pause):
            try:
                with _lock(self.place):
                    if not self._is_mine():
                        return  # taken over; the writer's own check stops this run
                    self._write()
                pause, is_told = self._times.renew, False
            except (OSError, UserError) as problem:  # a bucket's refusal may be over soon, too
                pause = min(_RETRY_SECONDS, self._times.renew)
                if not is_told:
                    _say(f"{self._file}: not renewed ({problem}); trying again every second")
                is_told = True


@dataclass(frozen=True, slots=True)
class Writer:
    """The right to publish, of the first worker of the newest group of an attempt."""

    place: Place
    attempt: int
    token: str

    @classmethod
    def claim(cls, run: Path | Place, attempt: int) -> "Writer":
        """Become the writer; the writer before is refused from now on.

        Raises LostLease where a newer attempt has taken the run over.
        """
        writer = cls(_place(run), attempt, uuid.uuid4().hex)
        with _lock(writer.place):
            require_latest(writer.place, attempt)
            writer.place.write_json(WRITER, {"attempt": attempt, "token": writer.token})
        return writer

    def require(self) -> None:
        """Raise LostLease unless this is still the writer and its driver's attempt the latest."""
        require_latest(self.place, self.attempt)
        written = self.place.json(WRITER)
        if written is None:  # the next group of workers writes it anew
            raise RuntimeError(f"{self.place / WRITER}: missing or damaged")
        if written.get("token") != self.token:
            raise OldGroup(
                f"{self.place}: newer workers of attempt {self.attempt} have taken over; "
                "these write nothing more"
            )


def require_latest(run: Path | Place | str, attempt: int) -> None:
    """Raise LostLease where another attempt holds, or held, the run's lease after this one."""
    place = _place(run)
    held = place.json(LEASE) or {}
    latest = held.get("attempt", attempt)  # its driver writes a damaged file anew
    if latest != attempt or _newest_attempt(place) > attempt:
        raise LostLease(
            f"{place}: attempt {max(latest, _newest_attempt(place))} has taken this run over; "
            f"attempt {attempt} writes nothing more"
        )


def _newest_attempt(place: Place) -> int:
    """Return the highest attempt in both files, since one of them may be damaged."""
    found = (place.json(name) or {} for name in (LEASE, WRITER))
    return max(int(values.get("attempt", 0)) for values in found)


def _place(run: Path | Place | str) -> Place:
    return run if isinstance(run, Place) else Place(run)


def _content(place: Place) -> bytes | None:
    try:
        return place.read(LEASE)
    except FileNotFoundError:
        return None


def _held(place: Place, who: str) -> str:
    return (
        f"{place}: another run is at work here ({who}); wait for it, stop it, or choose another "
        "run_name"
    )


def _say(text: str) -> None:
    print(text, flush=True)


def _lock(place: Place) -> AbstractContextManager[None]:
    return place.locked(".lease.lock")

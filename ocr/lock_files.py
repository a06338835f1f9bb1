"""A lock as a file, where a file system has no locks of its own (some NFS, Lustre).

The file exists while the lock is held. Its holder touches it every few seconds. It is stale where
its process is gone, or, of another host, where nothing changed for a minute of the waiting
process's own clock.
"""

import contextlib
import json
import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ocr.processes import Process


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds between renewals, until a lock or lease counts as stale, between looks at it."""

    renew: float = 10.0
    stale: float = 60.0
    poll: float = 1.0


TIMES = Times()


class Unchanged:
    """Measures by this process's own clock for how long something has looked the same."""

    def __init__(self) -> None:
        self._last: object = None
        self._since = time.monotonic()
        self.changes = -1  # the first look is none

    def seconds(self, look: object) -> float:
        """Return the seconds since the look was first what it is now."""
        if self.changes < 0 or look != self._last:
            self._last, self._since, self.changes = look, time.monotonic(), self.changes + 1
        return time.monotonic() - self._since


@contextmanager
def lock_file(path: Path, wait: bool = True, times: Times = TIMES) -> Iterator[None]:
    """Hold the lock file at `path`; with `wait=False` BlockingIOError where another holds it."""
    me, unchanged = Process.current(), Unchanged()
    text = json.dumps({**me.as_json(), "token": uuid.uuid4().hex})
    while not _made(path, text):
        is_held, is_stale = _state(path, me, unchanged, times.stale)
        if is_stale:
            _remove_stale(path, unchanged)
        elif is_held and not wait:
            raise BlockingIOError(f"{path}: held by another process")
        else:
            time.sleep(min(times.poll, 0.1))
    stopped = threading.Event()
    toucher = threading.Thread(target=_touch, args=(path, stopped, times.renew), daemon=True)
    toucher.start()
    try:
        yield
    finally:
        stopped.set()
        toucher.join()
        if _look(path)[0] == text:
            path.unlink(missing_ok=True)


def _made(path: Path, text: str) -> bool:
    """Make the lock file with its content at once: a link to a finished file, also on NFS."""
    mine = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        mine.write_text(text, encoding="utf-8")
        os.link(mine, path)
        return True
    except FileExistsError:
        return False
    finally:
        mine.unlink(missing_ok=True)


def _look(path: Path) -> tuple[str, int]:
    """Return the content and the time of the last touch; empty where there is no file."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:  # NFS: opening asks the server
            return file.read(), os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return "", 0


def _state(path: Path, me: Process, unchanged: Unchanged, stale: float) -> tuple[bool, bool]:
    """Return whether the lock is held for sure, and whether it is stale; neither: not known yet."""
    look = _look(path)
    seconds = unchanged.seconds(look)
    try:
        holder = Process.from_json(dict(json.loads(look[0])))
    except (ValueError, TypeError):
        holder = None
    if holder and holder.is_visible_to(me):
        return holder.is_running(), not holder.is_running()
    return unchanged.changes > 0, seconds >= stale


def _remove_stale(path: Path, unchanged: Unchanged) -> None:
    """Remove the file that was looked at; one that another process has made since comes back."""
    gone = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    before = unchanged.changes
    with contextlib.suppress(FileNotFoundError):
        path.rename(gone)
        unchanged.seconds(_look(gone))
        if unchanged.changes != before:
            with contextlib.suppress(FileExistsError):
                os.link(gone, path)
        gone.unlink()


def _touch(path: Path, stopped: threading.Event, renew: float) -> None:
    while not stopped.wait(renew):
        with contextlib.suppress(OSError):
            os.utime(path)

"""The process that holds a lease or a lock, told apart from every other one of any host."""

import os
import socket
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Process:
    """A process of a boot of a host.

    `boot` and `namespace` say where its number counts; `started` (in clock ticks since the boot)
    tells it from a later process with its number. No wall clock is in it: clocks are set anew.
    """

    host: str
    boot: str
    namespace: str
    pid: int
    started: str

    @classmethod
    def current(cls) -> "Process":
        """Return this process."""
        pid = os.getpid()
        return cls(socket.gethostname(), _boot(), _namespace(), pid, _started(pid) or "")

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Process | None":
        """Return the process that `as_json` described; None where a part is missing."""
        try:
            words = {name: str(values[name]) for name in ("host", "boot", "namespace", "started")}
            return cls(pid=int(values["pid"]), **words)
        except (KeyError, ValueError, TypeError):
            return None

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def is_visible_to(self, other: "Process") -> bool:
        """Return whether the other one can look this one up by its number."""
        return bool(self.boot) and (self.boot, self.namespace) == (other.boot, other.namespace)

    def is_running(self) -> bool:
        """Return whether a visible process still runs; a zombie does not."""
        return _started(self.pid) == self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@cache
def _boot() -> str:
    """Return the id of this boot; every container of a machine has the same."""
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:  # not Linux: then no process is visible to another
        return ""


def _namespace() -> str:
    """Return the id of this process's numbering; a container has its own."""
    try:
        return os.readlink(_PROC / "self/ns/pid")
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """Return when a process was started; None where there is none, or a zombie."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold spaces
    return None if fields[0] in ("Z", "X") else fields[19]

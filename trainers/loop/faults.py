"""Named points at which a test lets a process die as if its machine had: LIPI_KILL_AT=point:step:rank:marker."""

import os
import signal
from pathlib import Path


def point(name: str, step: int, rank: int = 0) -> None:
    """SIGKILL this process if LIPI_KILL_AT names this point, step and rank: once, if it names a marker file to make, else every time."""
    wanted = os.environ.get("LIPI_KILL_AT")
    if not wanted or not wanted.startswith(f"{name}:{step}:{rank}:"):
        return
    marker = wanted.split(":", 3)[3]
    if marker and Path(marker).exists():
        return
    if marker:
        Path(marker).touch()
    os.kill(os.getpid(), signal.SIGKILL)

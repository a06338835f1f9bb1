"""Named points at which a test lets a process die as if its machine had: LIPI_KILL_AT=point:step:rank:marker, once."""

import os
import signal
from pathlib import Path


def point(name: str, step: int, rank: int = 0) -> None:
    """SIGKILL this process if LIPI_KILL_AT names this point, step and rank and its marker file is not there yet."""
    wanted = os.environ.get("LIPI_KILL_AT")
    if not wanted or not wanted.startswith(f"{name}:{step}:{rank}:"):
        return
    marker = Path(wanted.split(":", 3)[3])
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)

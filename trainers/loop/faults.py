"""Named points where a test kills a process as if its machine had died.

LIPI_KILL_AT=point:step:rank:marker names the point.
"""

import os
import signal
from pathlib import Path


def point(name: str, step: int, rank: int = 0) -> None:
    """Send SIGKILL to this process if LIPI_KILL_AT names this point, step and rank.

    With a marker, a file that is then made, this happens once; without one, every time.
    """
    wanted = os.environ.get("LIPI_KILL_AT")
    if not wanted or not wanted.startswith(f"{name}:{step}:{rank}:"):
        return
    marker = wanted.split(":", 3)[3]
    if marker and Path(marker).exists():
        return
    if marker:
        Path(marker).touch()
    os.kill(os.getpid(), signal.SIGKILL)

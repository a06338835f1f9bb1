"""Named points where a test kills a process as if its machine had died, or lets it hang.

LIPI_KILL_AT=point:step:rank:marker names the point; LIPI_HANG_AT one to sleep at for ever;
LIPI_ALLOCATE_AT one to ask torch for more memory than there is.
"""

import os
import signal
import time
from pathlib import Path

import torch


def point(name: str, step: int, rank: int = 0) -> None:
    """Die, sleep, or run out of memory, if a variable names point, step and rank.

    With a marker, a file that is then made, this happens once; without one, every time.
    """
    if _is_named("LIPI_KILL_AT", f"{name}:{step}:{rank}:"):
        os.kill(os.getpid(), signal.SIGKILL)
    if _is_named("LIPI_HANG_AT", f"{name}:{step}:{rank}:"):
        sleep_for_ever()
    if _is_named("LIPI_ALLOCATE_AT", f"{name}:{step}:{rank}:"):
        torch.empty(2**46)


def sleep_for_ever() -> None:
    """Do nothing, as a file system does that has lost its server."""
    while True:
        time.sleep(1)


def _is_named(variable: str, where: str) -> bool:
    wanted = os.environ.get(variable)
    if not wanted or not wanted.startswith(where):
        return False
    marker = wanted.split(":", 3)[3]
    if marker and Path(marker).exists():
        return False
    if marker:
        Path(marker).touch()
    return True

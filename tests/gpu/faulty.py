"""Phases that go wrong, for the test of the command itself."""

import os
import time
from collections.abc import Iterator

from tests.gpu.phase import Found, Setup


def good(setup: Setup) -> Iterator[Found]:
    """One good row."""
    yield Found("work", f"done in {setup.work.name[:9]}")


def hanging(setup: Setup) -> Iterator[Found]:
    """A row, then no end."""
    yield Found("before", "the hang")
    time.sleep(3600)


def crashing(setup: Setup) -> Iterator[Found]:
    """A row, then the process is gone."""
    yield Found("before", "the crash")
    os.abort()


def raising(setup: Setup) -> Iterator[Found]:
    """An error with a traceback."""
    raise ValueError("the kernel was not found")
    yield

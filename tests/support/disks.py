"""Disks that are really full: a file system of a few kilobytes, where this user may mount one."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_disk(folder: Path, kib: int = 64) -> Iterator[Path]:
    """Mount a file system of so many KiB at `folder`; skip the test where that is not allowed."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no mount here")
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path, leave: int = 0) -> Path:
    """Fill a disk to the last byte but `leave` and return the file that fills it."""
    file = disk / "filler"
    with open(file, "wb", buffering=0) as filler, contextlib.suppress(OSError):
        while filler.write(b"x" * 1024):
            pass
    if leave:
        with open(file, "r+b") as filler:
            filler.truncate(max(0, file.stat().st_size - leave))
    return file

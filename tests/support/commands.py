"""The scripts as a user runs them, each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parent.parent.parent


def environment(**more: str) -> dict[str, str]:
    """This process's, without what would lead to another Ray or another storage."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if key not in ("RAY_ADDRESS", "LIPI_STORAGE", "LIPI_KILL_AT", "LIPI_HANG_AT")
    }
    return {**kept, **more}


def start(
    script: str, *words: str | Path, cwd: Path = PROJECT, own_group: bool = False, **env: str
) -> "subprocess.Popen[str]":
    """`python ray_jobs/SCRIPT.py WORDS`, running; in a process group of its own if asked."""
    command = [sys.executable, str(PROJECT / "ray_jobs" / f"{script}.py"), *map(str, words)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=environment(**env),
        process_group=0 if own_group else None,
    )


def call(
    script: str, *words: str | Path, cwd: Path = PROJECT, timeout: float = 400, **env: str
) -> "subprocess.CompletedProcess[str]":
    """The same to its end."""
    process = start(script, *words, cwd=cwd, **env)
    out, error = process.communicate(timeout=timeout)
    return subprocess.CompletedProcess(process.args, process.returncode, out, error)


def assert_refused(done: "subprocess.CompletedProcess[str]", *parts: str) -> None:
    """Exit status 2, one message with every part, no traceback."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in done.stderr

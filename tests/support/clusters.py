"""Ray clusters of this machine, each with its own home, ports and temporary folder."""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.support.commands import PROJECT, environment

BIN = Path(sys.executable).parent
README_PORTS = (6379, 8265)
SETUP = "make setup && . .venv/bin/activate\n"


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(("127.0.0.1", port)) != 0


def kill_all_of(mark: str) -> None:
    """SIGKILL every process with this folder in its environment or a file of it open, no other's.

    Ray's processes change their titles, which overwrites the environment that others see.
    """
    for process in psutil.process_iter():
        try:
            used = [*process.environ().values(), *(file.path for file in process.open_files())]
            if process.pid != os.getpid() and any(path.startswith(mark) for path in used):
                process.kill()
        except psutil.Error:
            continue


@contextmanager
def fresh_home() -> Iterator[dict[str, str]]:
    """The environment of a user who never ran Ray; ends every process that is started in it.

    The path is short: Ray's sockets lie under it.
    """
    home = Path(tempfile.mkdtemp(prefix="lipi-home-", dir="/tmp"))
    path = f"{BIN}:{os.environ['PATH']}"
    env = environment(HOME=str(home), RAY_TMPDIR=str(home / "ray"), PATH=path, LIPI_CACHE="")
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        env.pop(name, None)
    try:
        yield env
    finally:
        kill_all_of(str(home))
        shutil.rmtree(home, ignore_errors=True)


def readme_block() -> str:
    """The commands of README.md's section on clusters, as they are written there."""
    section = (PROJECT / "README.md").read_text(encoding="utf-8").partition("## On a cluster\n")[2]
    found = re.search(r"```\n(.*?)```", section, re.DOTALL)
    assert found
    return found[1]


def run_readme_block(env: dict[str, str], more: str) -> "subprocess.CompletedProcess[str]":
    """Run the block in bash, and return its output and exit status.

    Two things differ: the environment is that of the tests, so its first line is left out, and
    `more` settings stand at the end of the last. As README says, that one is repeated where Ray
    is still starting.
    """
    block = readme_block()
    assert block.startswith(SETUP)
    exports, *others = f"{block.removeprefix(SETUP).rstrip()} {more}".splitlines()
    done = _in_bash([exports, *others], env)
    for _ in range(5):
        if done.returncode == 0 or "No available agent" not in done.stderr:
            break
        time.sleep(5)
        done = _in_bash([exports, others[-1]], env)
    return done


def _in_bash(lines: list[str], env: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    command = ["bash", "-e", "-c", "\n".join(lines)]
    return subprocess.run(
        command, env=env, cwd=PROJECT, capture_output=True, text=True, timeout=400
    )


@contextmanager
def cluster(port: int, *options: str, **more: str) -> Iterator[dict[str, str]]:
    """A cluster of one node on ports of its own; yields the environment of its users."""
    with fresh_home() as env:
        start = [str(BIN / "ray"), "start", "--head", f"--port={port}", "--include-dashboard=false"]
        ports = [f"--ray-client-server-port={port + 1}"]
        env |= {"RAY_AUTH_MODE": "disabled", "RAY_raylet_start_wait_time_s": "240", **more}
        done = subprocess.run(
            [*start, *ports, *options],
            env=env,
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        yield {"RAY_ADDRESS": f"127.0.0.1:{port}", "RAY_AUTH_MODE": "disabled"}

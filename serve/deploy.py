"""The endpoint from the command line: start Ray and Serve and run until stopped.

Where the endpoint runs already, promote another model instead.
"""

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_worker_niceness", "0")  # with Ray's 15 other processes would go first

import psutil
import ray
import requests
from ray import serve
from ray.exceptions import RayActorError
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

from ocr.errors import UserError
from ocr.local_ray import protect_token, start_local_ray
from ocr.ray_address import names_cluster, require_cluster
from serve.app import first_bundle
from serve.config import ServeConfig
from serve.deployment import deployment
from serve.models import Models
from serve.promotion import end_promoter, promoter
from serve.running import run, state
from serve.store import keep_private

_FINISH_S = 3.0
_END_S = 30.0  # as `serve.shutdown` waits
_SAID_AGAIN_S = 30.0


def deploy(config: ServeConfig) -> None:
    """Serve until SIGINT or SIGTERM, then answer all accepted requests and end.

    Raises UserError before anything starts where the bundle or the port is not usable.
    """
    keep_private(config.storage_path)
    models = Models(config.storage_path)
    given = models.add(config.bundle)
    if _is_running(config, models):
        _promote(models, given, 3 * config.promote_timeout_s)
        return
    _require_port(config)
    bundle, entry = first_bundle(config)
    _start_ray(config)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    try:
        _start_serve(config, bundle, entry)
        address = f"http://{config.host}:{config.port}"
        routes = "web page there; POST /v1/ocr, /v1/chat/completions; GET /docs"
        print(f"{bundle} on {address}  ({routes})", flush=True)
        stopped.wait()
    finally:
        _finish_haproxy()
        end_promoter()
        _end_serve()
        ray.shutdown()


def _start_ray(config: ServeConfig) -> None:
    """Join the cluster of RAY_ADDRESS, else start a local one with its dashboard."""
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if names_cluster():
        require_cluster()
        ray.init(**quiet)
        protect_token()
        return
    needed = int(config.autoscaling.max_replicas * config.num_cpus) + 1
    start_local_ray(
        num_cpus=max(os.cpu_count() or 1, needed),
        include_dashboard=True,  # its agent runs jobs: a retraining is one
        dashboard_host="127.0.0.1",
        dashboard_port=0,
        **quiet,
    )


def _start_serve(config: ServeConfig, bundle: str, entry: str) -> None:
    end_promoter()  # of an application that this one replaces
    timeout = config.limits.request_timeout_s + 5
    serve.start(
        http_options={"host": config.host, "port": config.port, "request_timeout_s": timeout},
        logging_config={"log_level": "WARNING"},
    )
    run(
        deployment(config, bundle, entry, entry, promoter),
        {"enable_access_log": False, "log_level": "WARNING"},
    )
    _wait_for_replicas()


def _wait_for_replicas() -> None:
    """Wait for all replicas; where some find no place, for one, and say so.

    Raises UserError where they fail.
    """
    said_at = time.monotonic()
    while True:
        now = state()
        if now.failed:
            raise UserError(f"the endpoint does not start: {now.message}")
        if now.is_settled and now.answering:
            break
        if time.monotonic() - said_at > _SAID_AGAIN_S:
            said_at = time.monotonic()
            print(f"waiting for replicas: {now.answering} answer; {now.message}", flush=True)
        time.sleep(0.2)
    if now.message:
        print(f"{now.answering} replicas answer; {now.message}", flush=True)


def _finish_haproxy() -> None:
    """Let HAProxy, where it runs here, answer all accepted requests before its replicas end."""
    proxies = [
        process
        for process in psutil.Process().children(recursive=True)
        if process.name() == "haproxy"
    ]
    for proxy in proxies:
        with contextlib.suppress(psutil.NoSuchProcess):
            proxy.send_signal(signal.SIGUSR1)
    psutil.wait_procs(proxies, _FINISH_S)


def _end_serve() -> None:
    """End all replicas and Serve itself.

    `serve.shutdown` waits in a call that ends with the death of its actor, which Ray prints as an
    error.
    """
    with contextlib.suppress(ValueError, RayActorError):
        controller = ray.get_actor(SERVE_CONTROLLER_NAME, SERVE_NAMESPACE)
        ray.get(controller.graceful_shutdown.remote(wait=False), timeout=_END_S)
        until = time.monotonic() + _END_S
        while time.monotonic() < until:
            ray.get_actor(SERVE_CONTROLLER_NAME, SERVE_NAMESPACE)  # ValueError once it has ended
            time.sleep(0.1)


def _is_running(config: ServeConfig, models: Models) -> bool:
    """Return whether an endpoint with this storage listens on the address already."""
    try:
        with requests.Session() as session:
            session.trust_env = False  # past http_proxy: the address is this machine's
            address = f"http://{config.host}:{config.port}/readyz"
            answered = session.get(address, timeout=3).json()
    except (requests.RequestException, ValueError):
        return False
    return isinstance(answered, dict) and answered.get("storage") == models.store.digest


def _promote(models: Models, bundle: str, seconds: float) -> None:
    """Promote, and wait for the outcome: a promotion, and a roll back, behind one that goes on."""
    promotion, until = models.promote(bundle, "deploy.py"), time.monotonic() + seconds
    print(f"the endpoint runs already; promoting {bundle}", flush=True)
    while (outcome := models.journal.outcome(promotion)) is None:
        if time.monotonic() > until:
            raise UserError(
                f"{bundle}: no outcome after {seconds:g} s; the promotion stands in the journal "
                "(GET /v1/models/journal). Look whether the endpoint's cluster is there"
            )
        time.sleep(0.2)
    if outcome["what"] != "live":
        raise UserError(
            f"{bundle}: {outcome['what']}: {outcome['why']}; {outcome['bundle']} keeps reading"
        )
    print(f"{bundle} is live: {outcome['why']}", flush=True)


def _require_port(config: ServeConfig) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.host, config.port))
        except OSError as problem:
            raise UserError(
                f"{config.host}:{config.port}: {problem.strerror}; "
                "stop the process that listens there, or set port"
            ) from None

"""The endpoint from the command line: Ray where there is none, Serve on the address that was asked for, until it is told to stop; or, where it is there, another model for it."""

import contextlib
import logging
import os
import signal
import socket
import threading
import time

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault(
    "RAY_worker_niceness", "0"
)  # of a cluster started here; Ray's 15 lets everything else on the machine go first

import psutil
import ray
import requests
from ray import serve

from ocr.errors import UserError
from serve.app import build_with, first_bundle, storage_digest
from serve.config import ServeConfig
from serve.models import Models
from serve.promotion import APPLICATION, end_promoter

_OBJECT_STORE_BYTES = 200_000_000
_FINISH_S = 3.0


def deploy(config: ServeConfig) -> None:
    """Serve until SIGINT or SIGTERM, then answer what was taken and leave; UserError before anything starts where the bundle or the port is no good."""
    models = Models(config.storage_path)
    given = models.add(config.bundle)
    if _is_there(config, models):
        _promote(models, given)
        return
    _require_port(config)
    bundle, entry = first_bundle(config)
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    else:
        cores = os.cpu_count() or 1
        needed = int(config.autoscaling.max_replicas * config.num_cpus) + 1
        ray.init(
            "local",
            num_cpus=max(cores, needed),
            include_dashboard=True,  # whose agent runs jobs: a retraining is one
            dashboard_host="127.0.0.1",
            dashboard_port=0,
            object_store_memory=_OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    try:
        end_promoter()  # of an application that this one replaces
        timeout = config.limits.request_timeout_s + 5
        serve.start(
            http_options={"host": config.host, "port": config.port, "request_timeout_s": timeout},
            logging_config={"log_level": "WARNING"},
        )
        application = build_with(config, bundle, entry, entry)
        serve.run(
            application,
            name=APPLICATION,
            route_prefix="/",
            logging_config={"enable_access_log": False, "log_level": "WARNING"},
        )
        print(
            f"{bundle} on http://{config.host}:{config.port}  (web page there; POST /v1/ocr, /v1/chat/completions; GET /docs)",
            flush=True,
        )
        stopped.wait()
    finally:
        _let_the_front_finish()
        end_promoter()
        serve.shutdown()
        ray.shutdown()


def _let_the_front_finish() -> None:
    """HAProxy, where it runs here, takes no more connections and answers what it took, before anything behind it ends."""
    fronts = [
        process
        for process in psutil.Process().children(recursive=True)
        if process.name() == "haproxy"
    ]
    for front in fronts:
        with contextlib.suppress(psutil.NoSuchProcess):
            front.send_signal(signal.SIGUSR1)
    psutil.wait_procs(fronts, _FINISH_S)


def _is_there(config: ServeConfig, models: Models) -> bool:
    """Whether an endpoint with this storage listens on the address already."""
    try:
        found = requests.get(f"http://{config.host}:{config.port}/readyz", timeout=3).json()
    except (requests.RequestException, ValueError):
        return False
    return isinstance(found, dict) and found.get("storage") == storage_digest(models)


def _promote(models: Models, bundle: str) -> None:
    promotion = models.promote(bundle, "deploy.py")
    print(f"an endpoint is there; {bundle} is promoted", flush=True)
    while (outcome := models.outcome(promotion)) is None:
        time.sleep(0.2)
    if outcome["what"] != "live":
        raise UserError(
            f"{bundle}: {outcome['what']}: {outcome['why']}; {outcome['bundle']} goes on reading"
        )
    print(f"{bundle} is live: {outcome['why']}", flush=True)


def _require_port(config: ServeConfig) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.host, config.port))
        except OSError as problem:
            raise UserError(
                f"{config.host}:{config.port}: {problem.strerror}; stop what listens there, or set port"
            ) from None

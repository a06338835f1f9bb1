"""The endpoint from the command line: Ray where there is none, Serve on the address that was asked for, until it is told to stop."""

import logging
import os
import signal
import socket
import threading
from pathlib import Path

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_worker_niceness", "0")  # of a cluster started here; Ray's 15 lets everything else on the machine go first
if not os.environ.get("RAY_ADDRESS"):
    from serve.front import use_haproxy

    use_haproxy()  # before Ray Serve is imported, which reads these settings then

import ray
from ray import serve

from ocr.bundle import open_bundle
from ocr.errors import UserError
from serve.app import build, model_name
from serve.config import ServeConfig

_OBJECT_STORE_BYTES = 200_000_000


def deploy(config: ServeConfig) -> None:
    """Serve until SIGINT or SIGTERM, then answer what was taken and leave; UserError before anything starts where the bundle or the port is no good."""
    absolute = ",".join(str(bundle.path.resolve()) for bundle in (open_bundle(Path(path)) for path in config.bundle.split(",")))
    config = config.model_copy(update={"bundle": absolute})
    _require_port(config)
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    else:
        cores = os.cpu_count() or 1
        needed = int(config.autoscaling.max_replicas * config.num_cpus) + 1
        ray.init(
            "local",
            num_cpus=max(cores, needed),
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    try:
        timeout = config.limits.request_timeout_s + 5
        serve.start(http_options={"host": config.host, "port": config.port, "request_timeout_s": timeout}, logging_config={"log_level": "WARNING"})
        serve.run(build(config), name="lipi", route_prefix="/", logging_config={"enable_access_log": False, "log_level": "WARNING"})
        print(f"{model_name(absolute)} on http://{config.host}:{config.port}  (POST /v1/ocr, /v1/chat/completions; GET /healthz)", flush=True)
        stopped.wait()
    finally:
        serve.shutdown()
        ray.shutdown()


def _require_port(config: ServeConfig) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.host, config.port))
        except OSError as problem:
            raise UserError(f"{config.host}:{config.port}: {problem.strerror}; stop what listens there, or set port") from None

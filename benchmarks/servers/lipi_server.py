"""Our endpoint with any recogniser of the benchmark in it: everything of deploy.py but the bundle.

python -m benchmarks.servers.lipi_server --port 8001 --workers 2 --model timed:0.3:0.39
"""

import argparse
import os
import signal
import tempfile
import threading
from typing import Any

from serve.config import AutoscalingSettings, ServeConfig
from serve.haproxy import use_haproxy

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--model", default="odia")
    arguments = parser.parse_args()
    scaling = AutoscalingSettings(min_replicas=arguments.workers, max_replicas=arguments.workers)
    config = ServeConfig(
        bundle="odia", storage_path=tempfile.mkdtemp(), autoscaling=scaling, port=arguments.port
    )
    use_haproxy(config.limits)
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_worker_niceness="0")

    import ray
    from ray import serve

    from benchmarks.servers.lipi_replica import replica_with
    from serve.app import first_bundle
    from serve.deployment import deployment
    from serve.promotion import promoter

    ray.init(
        "local",
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=200_000_000,
        log_to_driver=False,
    )
    serve.start(http_options={"host": "127.0.0.1", "port": arguments.port, "request_timeout_s": 35})
    bundle, entry = first_bundle(config)
    replica: Any = replica_with(arguments.model)
    application = deployment(config, bundle, entry, entry, promoter, replica)
    serve.run(application, name="lipi", route_prefix="/")
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    stopped.wait()
    serve.shutdown()
    ray.shutdown()

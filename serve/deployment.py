"""The Ray Serve application of an endpoint: one deployment of `Endpoint`."""

import hashlib
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import BackpressureConfig
from ray.serve.schema import LoggingConfig

from serve.config import ServeConfig
from serve.endpoint import Endpoint, StartPromoter

APPLICATION, DEPLOYMENT = "lipi", "ocr"
# glibc gives larger blocks (bodies, pages) back when they are freed; by itself it keeps some
_MMAP_THRESHOLD = "4000000"
_BACKSTOP = 4  # Ray Serve's limit over ours: its refusals are plain text


def deployment(
    config: ServeConfig,
    bundle: str,
    promotion: str,
    revision: str,
    start_promoter: StartPromoter,
    replica: type[Endpoint] = Endpoint,
    candidate: tuple[str, float] = ("", 0.0),
) -> Application:
    """Return the application with this bundle, and a candidate with its share of the requests.

    Replicas of an equal `revision` load another bundle in place; another revision replaces them.
    """
    user_config = {
        "bundle": bundle,
        "promotion": promotion,
        "candidate": candidate[0],
        "share": candidate[1],
    }
    made: Any = serve.deployment(
        replica, name=DEPLOYMENT, user_config=user_config, **_options(config)
    )
    content = f"{revision} {config.model_dump_json()}"
    version = hashlib.sha256(content.encode()).hexdigest()[:16]
    versioned = made.options(version=version, _internal=True)
    application: Application = versioned.bind(config, revision, start_promoter)
    return application


def _options(config: ServeConfig) -> dict[str, Any]:
    limits, threads = config.limits, str(max(1, int(config.num_cpus)))
    most = _BACKSTOP * (limits.max_ongoing_requests + limits.max_queued_requests)
    return {
        "ray_actor_options": {
            "num_cpus": config.num_cpus,
            "num_gpus": config.num_gpus,
            "runtime_env": {
                "env_vars": {
                    "OMP_NUM_THREADS": threads,
                    "MALLOC_MMAP_THRESHOLD_": _MMAP_THRESHOLD,
                }
            },
        },
        "max_ongoing_requests": most,
        "max_queued_requests": most,
        "backpressure_config": BackpressureConfig(status_code=503, retry_after_s=1),
        "autoscaling_config": config.autoscaling.model_dump(),
        "graceful_shutdown_timeout_s": limits.request_timeout_s,
        "logging_config": LoggingConfig(enable_access_log=False),
    }

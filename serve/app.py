"""The Ray Serve application: one deployment that is ingress and model, so that no request hops between processes.

python ray_jobs/deploy.py odia                    # Ray, Serve and the endpoint on 127.0.0.1:8000
serve run serve.app:build bundle=odia             # on a Serve that runs already
"""

import asyncio
import logging
import time
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import BackpressureConfig
from ray.serve.schema import LoggingConfig
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from ocr.bundle import open_bundle
from ocr.recognizers.base import load_all
from ocr.sample import Reading
from serve.api import Asked, answer, chat_answer, image_of_chat, images_of
from serve.config import ServeConfig
from serve.limits import Refused, read_body, require_key
from serve.recognizer import BatchingReader

_POSTED = ("/v1/ocr", "/v1/chat/completions")
_log = logging.getLogger("ray.serve")


class Endpoint:
    """A replica: the bundle, opened and verified, behind the routes."""

    def __init__(self, config: ServeConfig) -> None:
        self._config = config
        device = "cuda" if config.num_gpus else "cpu"
        recognizer = load_all(config.bundle, config.backend, device)
        self._model = model_name(config.bundle)
        self._reader = BatchingReader(recognizer, config.batch_size, config.limits.images)

    async def __call__(self, request: Request) -> Response:
        """Every request; whatever goes wrong is answered as JSON with a code, and no text or key is logged."""
        try:
            return await self._answered(request)
        except Refused as refused:
            return refused.response()
        except TimeoutError:
            return Refused(504, "deadline", f"no answer within {self._config.limits.request_timeout_s:g} s").response()
        except ClientDisconnect:
            return PlainTextResponse("", 499)
        except Exception as problem:  # noqa: BLE001  logged with its traceback, answered without
            _log.exception("a request failed")
            return Refused(500, "internal", f"{type(problem).__name__}; the log of the endpoint says more").response()

    async def _answered(self, request: Request) -> Response:
        path, limits = request.url.path, self._config.limits
        if path in ("/healthz", "/readyz"):
            return JSONResponse({"status": "ok", "model": self._model})
        if path not in _POSTED:
            raise Refused(404, "not_found", f"{path}: no such route; there are {', '.join((*_POSTED, '/healthz', '/readyz'))}")
        if request.method != "POST":
            raise Refused(405, "method_not_allowed", f"{path} takes POST")
        require_key(request.headers.getlist("authorization"), self._config.api_keys_sha256)
        began = time.monotonic()
        said = request.headers.get("content-length", "")
        if said.isdecimal() and int(said) > limits.max_body_bytes:
            raise Refused(413, "body_too_large", f"{int(said):,} bytes; at most {limits.max_body_bytes:,} are taken")
        async with asyncio.timeout(limits.request_timeout_s):
            body = await read_body(request.stream(), limits.max_body_bytes, began + limits.request_timeout_s)
            asked = image_of_chat(body, limits) if path == "/v1/chat/completions" else await images_of(request.headers.get("content-type", ""), body, limits)
            found = await self._reader.read(asked.images)
        return self._response(path, asked, found, time.monotonic() - began)

    def _response(self, path: str, asked: Asked, found: list[Reading | Refused], seconds: float) -> Response:
        refused = next((result for result in found if isinstance(result, Refused)), None)
        if refused and (asked.single or path == "/v1/chat/completions"):
            raise refused
        return JSONResponse(chat_answer(found, self._model) if path == "/v1/chat/completions" else answer(asked, found, self._model, seconds))


def model_name(bundles: str) -> str:
    """`NAME@HASH`, of several joined by commas: which weights an answer comes from."""
    opened = [open_bundle(Path(path)) for path in bundles.split(",")]
    return ",".join(f"{bundle.name}@{bundle.sha256[:12]}" for bundle in opened)


def build(config: ServeConfig) -> Application:
    """The application of these settings; also what `serve run serve.app:build key=value` calls."""
    scaling: dict[str, Any] = {
        "min_replicas": config.autoscaling.min_replicas,
        "max_replicas": config.autoscaling.max_replicas,
        "target_ongoing_requests": config.autoscaling.target_ongoing_requests,
    }
    deployment: Any = serve.deployment(
        Endpoint,
        name="ocr",
        ray_actor_options={
            "num_cpus": config.num_cpus,
            "num_gpus": config.num_gpus,
            "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(max(1, int(config.num_cpus)))}},
        },
        max_ongoing_requests=config.limits.max_ongoing_requests,
        max_queued_requests=config.limits.max_queued_requests,
        backpressure_config=BackpressureConfig(status_code=503, retry_after_s=1),
        autoscaling_config=scaling,
        graceful_shutdown_timeout_s=config.limits.request_timeout_s,
        logging_config=LoggingConfig(enable_access_log=False),
    )
    application: Application = deployment.bind(config)
    return application

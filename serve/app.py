"""The Ray Serve application: one deployment that is ingress and model, so that no request hops between processes.

python ray_jobs/deploy.py odia                    # Ray, Serve and the endpoint on 127.0.0.1:8000
serve run serve.app:build bundle=odia             # on a Serve that runs already
"""

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs

from ray import serve
from ray.serve import Application
from ray.serve.config import BackpressureConfig
from ray.serve.schema import LoggingConfig
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from ocr.errors import UserError
from ocr.settings import settings_from
from serve.batching import BatchingReader, Read
from serve.config import ServeConfig
from serve.corrections import Corrections
from serve.limits import Refused, read_body, require_key
from serve.metrics import Metrics
from serve.models import JOURNAL, Loaded, Models
from serve.page_reading import PageReader, page_result
from serve.payloads import Asked, answer, chat_answer, image_of_chat, images_of, line_result
from serve.promotion import DEPLOYMENT, promoter
from serve.retraining import Learning
from serve.routes import forwarded, routes

OCR, CHAT = "/v1/ocr", "/v1/chat/completions"
_OPEN = (
    "/",
    "/web/app.js",
    "/web/style.css",
    "/favicon.ico",
    "/healthz",
    "/readyz",
    "/docs",
    "/openapi.json",
)
_BACKSTOP = (
    4  # times our own limit on requests in a replica is Ray Serve's, which answers in plain text
)
_UNREAD = (401, 408, 413)
_log = logging.getLogger("ray.serve")


class Endpoint:
    """A replica: a model, opened and verified, behind the routes; `reconfigure` swaps it for another between two batches."""

    def __init__(self, config: ServeConfig, revision: str) -> None:
        self.config, self.models, self.metrics = config, Models(config.storage_path), Metrics()
        self.promoter = promoter(config, revision)
        self.reader = BatchingReader(
            config.batch_size, config.limits.images, on_batch=self.metrics.batch
        )
        self.pages = PageReader(self.reader, config.batch_size, config.limits)
        self.corrections = Corrections(self.models.store, config.limits)
        self.learning = Learning(self.models, self.corrections)
        self._most, self._ongoing = (
            config.limits.max_ongoing_requests + config.limits.max_queued_requests,
            0,
        )
        self._reading = 0
        self.storage_digest = storage_digest(self.models)
        self._routes = routes(self)

    @property
    def model(self) -> str:
        """The one that reads requests that come now."""
        return self.reader.loaded.model if self.reader.loaded else ""

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Load `user_config["bundle"]`, and a candidate with its share of the requests, beside the one that reads, verify it, then swap.

        Where it fails the old one stays, and the journal's actor hears of it.
        """
        bundle, promotion, why = user_config["bundle"], user_config["promotion"], None
        try:
            await self._load(bundle, user_config["candidate"], user_config["share"])
        except Exception as problem:  # whatever a damaged bundle raises
            why = f"{type(problem).__name__}: {problem}"
            _log.exception("a model was not loaded")
            live = self.models.live()
            if self.reader.loaded is None and live is None:
                raise
            if self.reader.loaded is None and live is not None:
                await self._load(live)  # a replica that starts while a bad bundle is being promoted
        await asyncio.to_thread(
            self.models.say, promotion, serve.get_replica_context().replica_id.unique_id, why
        )

    async def _load(self, bundle: str, candidate: str = "", share: float = 0.0) -> None:
        there = {
            loaded.model: loaded
            for loaded in (self.reader.loaded, self.reader.candidate)
            if loaded is not None
        }
        live, tried = (
            await self._loaded(bundle, there),
            await self._loaded(candidate, there) if candidate else None,
        )
        fast = [
            await asyncio.to_thread(self.reader.prepare, loaded)
            for loaded in (live, tried)
            if loaded is not None
        ]
        self.reader.swap(live, all(fast), tried, share)

    async def _loaded(self, bundle: str, there: dict[str, Loaded]) -> Loaded:
        if bundle in there:
            return there[bundle]
        return await asyncio.to_thread(
            self.models.load, bundle, self.config.backend, "cuda" if self.config.num_gpus else "cpu"
        )

    async def __call__(self, request: Request) -> Response:
        """Every request; whatever goes wrong is answered as JSON with a code, and no text or key is logged."""
        began, path = time.monotonic(), request.scope["path"]
        self._ongoing += 1
        try:
            response = await self._answered(request, path, began)
        finally:
            self._ongoing -= 1
        if response.status_code in _UNREAD:
            response.headers["Connection"] = "close"  # the rest of the body is not waited for
        self.metrics.request(
            path if path in (OCR, CHAT) else "other",
            response.status_code,
            self.model,
            time.monotonic() - began,
            self._ongoing,
        )
        return response

    async def _answered(self, request: Request, path: str, began: float) -> Response:
        try:
            if path not in _OPEN:
                require_key(request.headers.getlist("authorization"), self.config.api_keys_sha256)
            if path in (OCR, CHAT) and request.method == "POST":
                return await self.read(request, path, began)
            return await forwarded(
                self._routes,
                request,
                await self.body(request, began) if request.method == "POST" else b"",
            )
        except Refused as refused:
            return refused.response()
        except UserError as problem:
            return Refused(400, "bad_request", str(problem)).response()
        except TimeoutError:
            return Refused(
                504, "deadline", f"no answer within {self.config.limits.request_timeout_s:g} s"
            ).response()
        except ClientDisconnect:
            return PlainTextResponse("", 499)
        except Exception as problem:  # noqa: BLE001  logged with its traceback, answered without
            _log.exception("a request failed")
            return Refused(
                500, "internal", f"{type(problem).__name__}; the log of the endpoint says more"
            ).response()

    async def read(self, request: Request, path: str, began: float) -> Response:
        """The hot routes, past FastAPI; those whose bodies still come in are not counted, so slow clients take no one's place."""
        body = await self.body(request, began)
        if self._reading >= self._most:
            raise Refused(
                503, "full", f"{self._most} requests are being read or wait", retry_after_s=1
            )
        self._reading += 1
        try:
            return await self._read_whole(request, path, body, began)
        finally:
            self._reading -= 1

    async def _read_whole(self, request: Request, path: str, body: bytes, began: float) -> Response:
        limits = self.config.limits
        query = (
            parse_qs(request.scope["query_string"].decode("latin-1"))
            if request.scope["query_string"]
            else {}
        )
        async with asyncio.timeout(began + limits.request_timeout_s - time.monotonic()):
            if path == CHAT:
                asked = image_of_chat(body, limits)
                texts, model = await self._texts(asked)
                return JSONResponse(chat_answer(texts, model))
            asked = await images_of(request.headers.get("content-type", ""), body, limits, query)
            if asked.level == "page":
                pages, model = await self.pages.read(
                    asked.images, with_images=asked.detail == "images"
                )
                results = [
                    page if isinstance(page, Refused) else page_result(page) for page in pages
                ]
            else:
                found, model = await self.reader.read(asked.images)
                results = [
                    one if isinstance(one, Refused) else line_result(one, asked.detail == "lines")
                    for one in found
                ]
        if asked.single:
            _raise_first(results)
        return Response(
            json.dumps(answer(asked, results, model, time.monotonic() - began), ensure_ascii=False),
            media_type="application/json",
        )

    async def _texts(self, asked: Asked) -> tuple[list[str], str]:
        """Of each image, for a chat; Refused where one has none."""
        if asked.level == "page":
            pages, model = await self.pages.read(asked.images)
            _raise_first(pages)
            return [
                page_result(page)["text"] for page in pages if not isinstance(page, Refused)
            ], model
        found, model = await self.reader.read(asked.images)
        _raise_first(found)
        return [one.reading.text for one in found if isinstance(one, Read)], model

    async def body(self, request: Request, began: float) -> bytes:
        """A request's body within the limits."""
        limits, said = self.config.limits, request.headers.get("content-length", "")
        if said.isdecimal() and int(said) > limits.max_body_bytes:
            raise Refused(
                413,
                "body_too_large",
                f"{int(said):,} bytes; at most {limits.max_body_bytes:,} are taken",
            )
        async with asyncio.timeout(limits.request_timeout_s):
            return await read_body(
                request.stream(), limits.max_body_bytes, began + limits.request_timeout_s
            )


def _raise_first(found: Sequence[Any]) -> None:
    for result in found:
        if isinstance(result, Refused):
            raise result


def storage_digest(models: Models) -> str:
    """Which storage an endpoint has, without telling where that is."""
    return hashlib.sha256(models.store.location.encode()).hexdigest()[:16]


def first_bundle(config: ServeConfig) -> tuple[str, str]:
    """The bundle that an endpoint starts with, and its journal entry: the one that was live where `config.bundle` was deployed before, else `config.bundle`."""
    models = Models(config.storage_path)
    given, entries = models.add(config.bundle), models.entries()
    deployed = [entry["bundle"] for entry in entries if entry["what"] == "deploy"]
    live = models.live(entries)
    bundle = live if live is not None and deployed and deployed[-1] == given else given
    entry = models.store.append(
        JOURNAL, {"what": "deploy", "bundle": given, "why": f"starts with {bundle}"}
    )
    models.store.append(JOURNAL, {"what": "live", "of": entry, "bundle": bundle, "why": "deployed"})
    return bundle, entry


def build(arguments: dict[str, Any]) -> Application:
    """What `serve run serve.app:build bundle=odia autoscaling.max_replicas=4` and `serve deploy` call: settings as key=value, or as a config file nests them."""
    words = [f"{key}={value}" for key, value in arguments.items() if isinstance(value, str)]
    config = settings_from(
        ServeConfig,
        {key: value for key, value in arguments.items() if not isinstance(value, str)},
        words,
        "serve.app:build",
    )
    bundle, entry = first_bundle(config)
    return build_with(config, bundle, entry, entry)


def build_with(
    config: ServeConfig,
    bundle: str,
    promotion: str,
    revision: str,
    replica: type[Endpoint] = Endpoint,
    candidate: tuple[str, float] = ("", 0.0),
) -> Application:
    """With this bundle, and a candidate with its share of the requests; another one with the same `revision` is loaded by the replicas that are there, with another new replicas take their place."""
    threads = str(max(1, int(config.num_cpus)))
    most = _BACKSTOP * (config.limits.max_ongoing_requests + config.limits.max_queued_requests)
    deployment: Any = serve.deployment(
        replica,
        name=DEPLOYMENT,
        ray_actor_options={
            "num_cpus": config.num_cpus,
            "num_gpus": config.num_gpus,
            "runtime_env": {"env_vars": {"OMP_NUM_THREADS": threads}},
        },
        max_ongoing_requests=most,
        max_queued_requests=most,
        backpressure_config=BackpressureConfig(status_code=503, retry_after_s=1),
        autoscaling_config=config.autoscaling.model_dump(),
        graceful_shutdown_timeout_s=config.limits.request_timeout_s,
        logging_config=LoggingConfig(enable_access_log=False),
        user_config={
            "bundle": bundle,
            "promotion": promotion,
            "candidate": candidate[0],
            "share": candidate[1],
        },
    )
    version = hashlib.sha256(f"{revision} {config.model_dump_json()}".encode()).hexdigest()[:16]
    application: Application = deployment.options(version=version, _internal=True).bind(
        config, revision
    )
    return application

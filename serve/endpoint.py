"""A replica: ingress and model in one process, so that no request hops between processes."""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qs

from ray import serve
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from ocr.errors import UserError
from ocr.writers.formats import FORMATS
from serve.auth import key_of, require_right
from serve.batching import BatchingReader, Read
from serve.chat import chat_answer, chat_events, chat_request, usage_of
from serve.config import ServeConfig
from serve.corrections import Corrections
from serve.decoding import DecoderLost, Decoding
from serve.errors import Refused, as_unstored
from serve.formats import JSON, PDF, text_pages, written
from serve.forwarding import forwarded
from serve.metrics import Metrics
from serve.models import BadVote, Loaded, Models
from serve.origin import SAFE_METHODS, require_json, require_own_origin
from serve.page_reading import PageReader, ReadPage, page_of, page_result
from serve.payloads import (
    ImagesRequest,
    answer,
    images_of,
    line_result,
    read_body,
)
from serve.retraining import Retrainings
from serve.routes import CHAT, OCR, is_open, routes
from serve.store import StorageError, keep_private

_UNREAD = (401, 408, 413)  # answers that do not wait for the rest of the body
_log = logging.getLogger("ray.serve")

StartPromoter = Callable[[ServeConfig, str], Any]


class Endpoint:
    """One replica behind the routes; `reconfigure` swaps its model between two batches."""

    def __init__(self, config: ServeConfig, revision: str, start_promoter: StartPromoter) -> None:
        keep_private(config.storage_path)
        limits = config.limits
        self.config, self.models, self.metrics = config, Models(config.storage_path), Metrics()
        self.promoter = start_promoter(config, revision)
        decoding = Decoding(limits)
        decoding.start()
        self.reader = BatchingReader(
            config.batch_size, limits, decoding, on_batch=self.metrics.batch
        )
        self.pages = PageReader(self.reader, config.batch_size, limits, decoding, config.detector)
        self.corrections = Corrections(self.models.store, limits, decoding)
        self.retrainings = Retrainings(self.models, self.corrections, config.gate)
        self._max_reading = limits.max_ongoing_requests + limits.max_queued_requests
        self._ongoing = self._reading = 0
        self._app = routes(self)

    @property
    def model(self) -> str:
        """The id of the model that reads new requests; empty while none is loaded."""
        return self.reader.loaded.model if self.reader.loaded else ""

    @property
    def stuck_s(self) -> float:
        """Seconds that a batch has been read for, if more than the limit; else 0."""
        seconds = self.reader.batch_s
        return seconds if seconds > self.config.limits.max_batch_s else 0.0

    def check_health(self) -> None:
        """Raise where the reader is stuck: Ray Serve replaces the replica then."""
        if self.stuck_s:
            raise RuntimeError(f"a batch has been read for {self.stuck_s:.0f} s")

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Load and verify `user_config["bundle"]`, and a candidate with its share, then swap.

        The old model stays where that fails; the report tells the journal's actor.
        """
        bundle, promotion, why = user_config["bundle"], user_config["promotion"], None
        try:
            await self._load(bundle, user_config["candidate"], user_config["share"])
        except Exception as problem:  # a damaged bundle may raise anything
            why = f"{type(problem).__name__}: {problem}"
            _log.exception("a model was not loaded")
            live = self.models.journal.live()
            if self.reader.loaded is None and live is None:
                raise
            if self.reader.loaded is None and live is not None:
                await self._load(live)  # a replica that starts while a bad bundle is promoted
        replica = serve.get_replica_context().replica_id.unique_id
        await asyncio.to_thread(self.models.journal.report, promotion, replica, why)

    async def _load(self, bundle: str, candidate: str = "", share: float = 0.0) -> None:
        current = (self.reader.loaded, self.reader.candidate)
        known = {loaded.model: loaded for loaded in current if loaded is not None}
        live = await self._loaded(bundle, known)
        tried = await self._loaded(candidate, known) if candidate else None
        models = [loaded for loaded in (live, tried) if loaded is not None]
        in_loop = [await asyncio.to_thread(self.reader.prepare, loaded) for loaded in models]
        self.reader.swap(live, all(in_loop), tried, share)

    async def _loaded(self, bundle: str, known: dict[str, Loaded]) -> Loaded:
        if bundle in known:
            return known[bundle]
        device = "cuda" if self.config.num_gpus else "cpu"
        return await asyncio.to_thread(self.models.load, bundle, self.config.backend, device)

    async def __call__(self, request: Request) -> Response:
        """Answer any request; errors are JSON with a code, and no text or key is logged."""
        began, path = time.monotonic(), request.scope["path"]
        self._ongoing += 1
        try:
            response = await self._answer(request, path, began)
        finally:
            self._ongoing -= 1
        if response.status_code in _UNREAD:
            response.headers["Connection"] = "close"
        route, seconds = path if path in (OCR, CHAT) else "other", time.monotonic() - began
        self.metrics.request(route, response.status_code, self.model, seconds, self._ongoing)
        return response

    async def _answer(self, request: Request, path: str, began: float) -> Response:
        try:
            self._admit(request, path)
            if path in (OCR, CHAT) and request.method == "POST":
                return await self._read(request, path, began)
            request.state.deadline = began + self.config.limits.request_timeout_s
            async with asyncio.timeout(self._left_s(began)):
                body = await self._body(request, began) if request.method == "POST" else b""
                return await forwarded(self._app, request, body)
        except Refused as refused:
            return refused.response()
        except StorageError as problem:
            return as_unstored(problem).response()
        except BadVote as problem:
            return Refused(422, "bad_vote", str(problem)).response()
        except UserError as problem:
            return Refused(400, "bad_request", str(problem)).response()
        except DecoderLost as problem:
            return Refused(503, "unavailable", str(problem), retry_after_s=1).response()
        except TimeoutError:
            seconds = self.config.limits.request_timeout_s
            return Refused(504, "deadline", f"no answer within {seconds:g} s").response()
        except ClientDisconnect:
            return PlainTextResponse("", 499)
        except Exception as problem:  # noqa: BLE001  logged with its traceback, answered without
            _log.exception("a request failed")
            message = f"{type(problem).__name__}; the log of the endpoint has more"
            return Refused(500, "internal", message).response()

    def _admit(self, request: Request, path: str) -> None:
        """Raise Refused unless this request may be answered; its key goes into its state."""
        method, headers = request.method, request.headers
        require_own_origin(method, headers, self.config)
        if not (is_open(path) and method in SAFE_METHODS):
            key = key_of(headers.getlist("authorization"), self.config.keys)
            require_right(key, method, path)
            request.state.key = key
        if method == "POST" and path != OCR:  # whose types `images_of` knows
            require_json(headers)

    async def _read(self, request: Request, path: str, began: float) -> Response:
        """Read images without FastAPI, whose machinery would cost more than the reading.

        Requests whose bodies are still being received do not count as reading.
        """
        body = await self._body(request, began)
        if self._reading >= self._max_reading:
            message = f"{self._max_reading} requests are being read or wait"
            raise Refused(503, "full", message, retry_after_s=1)
        self._reading += 1
        try:
            async with asyncio.timeout(self._left_s(began)):
                if path == CHAT:
                    return await self._chat(body)
                return await self._ocr(request, body, began)
        finally:
            self._reading -= 1

    def _left_s(self, began: float) -> float:
        return began + self.config.limits.request_timeout_s - time.monotonic()

    async def _chat(self, body: bytes) -> Response:
        asked = chat_request(body, self.config.limits)
        results, model = await self._results(asked.images, with_tokens=True)
        _raise_first(results)
        read = [result for result in results if not isinstance(result, Refused)]
        texts, usage = [result["text"] for result in read], usage_of(read)
        if not asked.stream:
            return JSONResponse(chat_answer(texts, model, usage))
        events = chat_events(texts, model, usage, asked.include_usage)
        headers = {"Cache-Control": "no-cache"}
        return Response("".join(events), headers=headers, media_type="text/event-stream")

    async def _ocr(self, request: Request, body: bytes, began: float) -> Response:
        words = request.scope["query_string"]
        query = parse_qs(words.decode("latin-1")) if words else {}
        kind = request.headers.get("content-type", "")
        accept = request.headers.get("accept", "")
        asked = await images_of(kind, body, self.config.limits, query, accept)
        if asked.format != JSON:
            return await self._document(asked)
        results, model = await self._results(asked)
        if asked.single:
            _raise_first(results)
        content = answer(asked, results, model, time.monotonic() - began)
        return Response(json.dumps(content, ensure_ascii=False), media_type="application/json")

    async def _results(
        self, asked: ImagesRequest, with_tokens: bool = False
    ) -> tuple[list[dict[str, Any] | Refused], str]:
        """Read every image, as a line or as a page; also return the model that read them."""
        details, with_words = asked.details, "words" in asked.details
        if asked.level != "line":
            documents, model = await self.pages.read(asked.images, details, asked.level == "auto")
            return [
                pages
                if isinstance(pages, Refused)
                else _of_pages(pages, asked, with_tokens, with_words)
                for pages in documents
            ], model
        reads, model = await self.reader.read(asked.images, with_words=with_words)
        return [
            line_result(read, details, with_tokens) if isinstance(read, Read) else read
            for read in reads
        ], model

    async def _document(self, asked: ImagesRequest) -> Response:
        """Answer with a file of another program; the model's id is a header."""
        words = frozenset(("words",) if FORMATS[asked.format].has_words else ())
        results, model = await self._pages(asked, words)
        (name,), (data,), (pages,) = asked.names, asked.images, results
        if isinstance(pages, Refused):
            raise pages
        if asked.format == PDF:
            content = await self.pages.pdf(data, text_pages(pages))
            kind = FORMATS[PDF].media_type
        else:
            content, kind = await asyncio.to_thread(written, asked.format, name, text_pages(pages))
        return Response(content, headers={"X-Model": model}, media_type=kind)

    async def _pages(
        self, asked: ImagesRequest, details: frozenset[str]
    ) -> tuple[list[list[ReadPage] | Refused], str]:
        """Read the images as pages; at the level line an image is a page of one line."""
        if asked.level != "line":
            return await self.pages.read(asked.images, details, asked.level == "auto")
        reads, model = await self.reader.read(asked.images, with_words="words" in details)
        return [[page_of(read)] if isinstance(read, Read) else read for read in reads], model

    async def _body(self, request: Request, began: float) -> bytes:
        """Return a request's body; Refused where it passes the limits."""
        limits, length = self.config.limits, request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > limits.max_body_bytes:
            message = f"{int(length):,} bytes; at most {limits.max_body_bytes:,} are accepted"
            raise Refused(413, "body_too_large", message)
        async with asyncio.timeout(limits.request_timeout_s):
            deadline = began + limits.request_timeout_s
            return await read_body(request.stream(), limits.max_body_bytes, deadline)


def _of_pages(
    pages: Sequence[ReadPage], asked: ImagesRequest, with_tokens: bool, with_words: bool
) -> dict[str, Any]:
    """Return the result of a document; at the level auto with the level that it was read at."""
    if pages and pages[0][0].is_line:
        return {"level": "line", **line_result(pages[0][1][0], asked.details, with_tokens)}
    level = {"level": "page"} if asked.level == "auto" else {}
    return {**level, **page_result(pages, with_tokens, with_words)}


def _raise_first(results: Sequence[Any]) -> None:
    for result in results:
        if isinstance(result, Refused):
            raise result

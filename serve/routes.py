"""Every route as FastAPI knows it, with its OpenAPI page; requests to read take a shorter way (serve/app.py) and are only described here."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pydantic
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.corrections import Corrected
from serve.docs_page import page
from serve.limits import Refused
from serve.metrics import scraped
from serve.retraining import RETRAINED

if TYPE_CHECKING:
    from serve.app import Endpoint

_CODES = {404: "not_found", 405: "method_not_allowed"}
_IMAGE = {"type": "string", "format": "binary"}
_BASE64 = {"type": "string", "format": "byte", "examples": ["iVBORw0KGgo="]}


class Error(pydantic.BaseModel):
    """Why a request, or one of its images, has no reading."""

    code: str = pydantic.Field(examples=["not_a_readable_image"])
    message: str


class Refusal(pydantic.BaseModel):
    """What every refused request gets."""

    error: Error


class Line(pydantic.BaseModel):
    """One line of an image; `box` is left, top, width, height in pixels, `polygon` its corners on a page."""

    text: str
    confidence: float
    box: list[int]
    polygon: list[list[float]] | None = None


class Page(pydantic.BaseModel):
    """A page: its size in pixels, how far it is turned clockwise, its lines in reading order."""

    width: int
    height: int
    degrees: float
    lines: list[Line]


class Answer(pydantic.BaseModel):
    """Of one image; with several, `results` holds one each, in their order."""

    text: str | None = pydantic.Field(None, examples=["ଜୀବନର ମୂଳ ମନ୍ତ୍ର"])
    confidence: float | None = pydantic.Field(None, examples=[0.97])
    results: list[dict[str, Any]] | None = None
    lines: list[Line] | None = None
    pages: list[Page] | None = None
    model: str = pydantic.Field(examples=["base-odia@bf68005589a7"])
    seconds: float


class Promotion(pydantic.BaseModel):
    """Which model is to be served, by its id."""

    model_config = pydantic.ConfigDict(extra="forbid")

    bundle: str = pydantic.Field(min_length=1, max_length=300, examples=["base-odia@bf68005589a7"])
    why: str = pydantic.Field("", max_length=1000)


class Trial(pydantic.BaseModel):
    """A candidate and the share of the requests that it reads; 0 ends the trial."""

    model_config = pydantic.ConfigDict(extra="forbid")

    candidate: str = pydantic.Field(
        min_length=1, max_length=300, examples=["base-odia-r1@0123456789ab"]
    )
    share: float = pydantic.Field(ge=0, le=0.5, examples=[0.1])


class Retraining(pydantic.BaseModel):
    """How to train; what is left out is as `trainers/retrain/settings.py` has it."""

    model_config = pydantic.ConfigDict(extra="forbid")

    num_epochs: float | None = pydantic.Field(None, gt=0, le=1000)
    global_batch_size: int | None = pydantic.Field(None, ge=1, le=512)
    learning_rate: float | None = pydantic.Field(None, gt=0, le=0.1, examples=[0.001])


_OCR_BODY = {
    "required": True,
    "content": {
        "image/png": {"schema": _IMAGE},
        "application/pdf": {"schema": _IMAGE},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"image": {"type": "array", "items": _IMAGE}},
                "required": ["image"],
            }
        },
        "application/json": {
            "schema": {
                "anyOf": [
                    {"type": "object", "properties": {"image": _BASE64}, "required": ["image"]},
                    {
                        "type": "object",
                        "properties": {"images": {"type": "array", "items": _BASE64}},
                        "required": ["images"],
                    },
                ]
            }
        },
    },
}
_URL = {"type": "string", "examples": ["data:image/png;base64,iVBORw0KGgo="]}
_PART = {
    "anyOf": [
        {
            "type": "object",
            "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
            "required": ["type", "text"],
        },
        {
            "type": "object",
            "properties": {
                "type": {"const": "image_url"},
                "image_url": {"type": "object", "properties": {"url": _URL}, "required": ["url"]},
            },
            "required": ["type", "image_url"],
        },
    ]
}
_MESSAGE = {
    "type": "object",
    "properties": {
        "role": {"enum": ["system", "user", "assistant"]},
        "content": {"anyOf": [{"type": "string"}, {"type": "array", "items": _PART}]},
    },
    "required": ["role", "content"],
}
_CHAT_SCHEMA = {
    "type": "object",
    "properties": {
        "model": {"type": "string"},
        "messages": {"type": "array", "items": _MESSAGE},
        "level": {"enum": ["line", "page"]},
    },
    "required": ["messages"],
}
_CHAT_BODY = {"required": True, "content": {"application/json": {"schema": _CHAT_SCHEMA}}}
_READ_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refusal} for status in (400, 401, 408, 413, 415, 422, 503, 504)
}
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refusal} for status in (400, 401, 404, 409, 413, 422)
}
_WEB = Path(__file__).parent / "web"
_TYPES = {
    "index.html": "text/html; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def routes(endpoint: "Endpoint") -> FastAPI:
    """The application behind a replica."""
    app = FastAPI(
        title="Lipi OCR",
        version="1",
        docs_url=None,
        redoc_url=None,
        description="Text recognition for the scripts that large OCR leaves behind.",
    )

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, problem: HTTPException) -> JSONResponse:
        refused = Refused(
            problem.status_code,
            _CODES.get(problem.status_code, "refused"),
            f"{problem.detail}; GET /docs tells what there is",
        )
        return JSONResponse(
            {"error": {"code": refused.code, "message": refused.message}},
            refused.status,
            problem.headers,
        )

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, problem: RequestValidationError) -> Response:
        said = "; ".join(
            f"{'.'.join(map(str, error['loc'][1:])) or 'body'}: {error['msg']}"
            for error in problem.errors()[:10]
        )
        return Refused(422, "invalid", said).response()

    @app.exception_handler(Refused)
    async def refused(_: Request, problem: Refused) -> Response:
        return problem.response()

    for some in (_operation, _reading, _models, _learning):
        some(app, endpoint)
    return app


def _operation(app: FastAPI, endpoint: "Endpoint") -> None:
    """The web page, and what tells how the endpoint is."""
    files = {name: (_WEB / name).read_bytes() for name in _TYPES}

    @app.get("/", include_in_schema=False)
    async def web() -> Response:
        return Response(files["index.html"], headers=_HEADERS, media_type=_TYPES["index.html"])

    @app.get("/web/{name}", include_in_schema=False)
    async def web_file(name: Literal["app.js", "style.css"]) -> Response:
        return Response(files[name], headers=_HEADERS, media_type=_TYPES[name])

    @app.get("/favicon.ico", include_in_schema=False)
    async def icon() -> Response:
        return Response(status_code=204)

    @app.get("/healthz", tags=["operation"])
    async def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok", "model": endpoint.model}

    @app.get("/readyz", tags=["operation"], responses={503: {"model": Refusal}})
    async def readyz() -> dict[str, str]:
        """A model is loaded."""
        if not endpoint.model:
            raise Refused(503, "loading", "no model is loaded yet", retry_after_s=1)
        return {"status": "ready", "model": endpoint.model, "storage": endpoint.storage_digest}

    @app.get(
        "/metrics",
        tags=["operation"],
        response_class=PlainTextResponse,
        responses={401: {"model": Refusal}},
    )
    async def metrics() -> PlainTextResponse:
        """Counts, seconds and batches of every replica, for Prometheus; Ray collects them every few seconds."""
        return PlainTextResponse(await scraped(), media_type="text/plain; version=0.0.4")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(page(app.openapi()))


def _reading(app: FastAPI, _: "Endpoint") -> None:
    """Described for OpenAPI; `serve/app.py` answers them."""

    @app.post(
        "/v1/ocr",
        tags=["reading"],
        response_model=Answer,
        responses=_READ_ERRORS,
        openapi_extra={"requestBody": _OCR_BODY},
    )
    async def ocr(level: Literal["line", "page"] = "line", detail: str | None = None) -> None:
        """Read one image (a raw body), or several (a form of files, or JSON with base64). `level=page`: pages, PDF and TIFF files with several too, are cut into lines first.

        `detail=lines` adds an image's line with its box, `detail=images` each page as it was read.
        """

    @app.post(
        "/v1/chat/completions",
        tags=["reading"],
        responses=_READ_ERRORS,
        openapi_extra={"requestBody": _CHAT_BODY},
    )
    async def chat() -> dict[str, Any]:
        """As OpenAI's: the images of the last user message, as data URIs, are read; their texts are the answer."""
        return {}


def _models(app: FastAPI, endpoint: "Endpoint") -> None:
    """Which models there are, and which is to be live."""

    @app.get("/v1/models", tags=["models"], responses={401: {"model": Refusal}})
    def models() -> dict[str, Any]:
        """The models that are kept here, in OpenAI's shape; `live` is the one that reads."""
        entries = endpoint.models.entries()
        live, (candidate, share) = endpoint.models.live(entries), endpoint.models.candidate(entries)
        verdicts = {
            entry["bundle"]: entry["verdict"] for entry in entries if entry["what"] == RETRAINED
        }
        since = {entry["bundle"]: entry["at"] for entry in entries if entry["what"] == "live"}
        found = [
            {
                "id": one,
                "object": "model",
                "live": one in (live or "").split(","),
                "share": share if one == candidate else 0.0,
                "verdict": verdicts.get(one),
                "last_live": since.get(one),
                **endpoint.models.card(one),
            }
            for one in endpoint.models.ids()
        ]
        return {"object": "list", "data": found}

    @app.post("/v1/models/promote", tags=["models"], status_code=202, responses=_ERRORS)
    def promote(asked: Promotion) -> dict[str, str]:
        """Serve another model: written to the journal, acted upon at once. Going back is the same call with the model before."""
        promotion = endpoint.models.promote(asked.bundle, asked.why)
        endpoint.promoter.wake.remote()
        return {"promotion": promotion, "see": f"/v1/models/promotions/{promotion}"}

    @app.post("/v1/models/traffic", tags=["models"], status_code=202, responses=_ERRORS)
    def traffic(asked: Trial) -> dict[str, str]:
        """Try a candidate on a share of the requests, beside the live model; what people correct tells which reads better (`/v1/corrections/stats`). Promoting ends the trial."""
        promotion = endpoint.models.promote(asked.candidate, what="traffic", share=asked.share)
        endpoint.promoter.wake.remote()
        return {"promotion": promotion, "see": f"/v1/models/promotions/{promotion}"}

    @app.get("/v1/models/promotions/{promotion}", tags=["models"], responses=_ERRORS)
    def outcome(promotion: str) -> dict[str, Any]:
        """What came of it: live, refused, rolled_back, superseded; or pending."""
        entries = endpoint.models.entries()
        if promotion not in [entry["id"] for entry in entries]:
            raise Refused(404, "not_found", f"{promotion[:80]}: no such promotion")
        return endpoint.models.outcome(promotion) or {"what": "pending", "of": promotion}

    @app.get("/v1/models/journal", tags=["models"], responses={401: {"model": Refusal}})
    def journal() -> list[dict[str, Any]]:
        """Everything that was asked and what came of it, from the oldest on."""
        return endpoint.models.entries()


def _learning(app: FastAPI, endpoint: "Endpoint") -> None:
    """Corrections, and training on them."""

    @app.post("/v1/corrections", tags=["learning"], status_code=201, responses=_ERRORS)
    def correct(asked: Corrected) -> dict[str, Any]:
        """Keep what people corrected, all of it or, where a part is no good, nothing. Sent twice, it is kept once."""
        return endpoint.corrections.put(asked)

    @app.get("/v1/corrections/stats", tags=["learning"], responses={401: {"model": Refusal}})
    def stats() -> dict[str, Any]:
        """How many corrections there are, how many wait for a retraining, and how wrong the readings were: by day and by model."""
        return endpoint.corrections.stats(endpoint.learning.trained_until())

    @app.post("/v1/retrain", tags=["learning"], status_code=202, responses=_ERRORS)
    def retrain(asked: Retraining) -> dict[str, str]:
        """Train the live model further on all corrections, and judge what comes of it; one at a time, as a Ray job of `ray_jobs/retrain.py`."""
        one = endpoint.learning.ask(asked.model_dump(exclude_none=True))
        return {"retraining": one, "see": f"/v1/retrain/{one}"}

    @app.get("/v1/retrain", tags=["learning"], responses={401: {"model": Refusal}})
    def retrainings() -> list[dict[str, Any]]:
        """Every retraining that was asked for, the newest first."""
        return endpoint.learning.asked()

    @app.get("/v1/retrain/{one}", tags=["learning"], responses=_ERRORS)
    def retraining(one: str) -> dict[str, Any]:
        """Its status (waiting, running, done, failed), progress in [0, 1], verdict, candidate, and the end of its log."""
        return endpoint.learning.state(one)

    @app.get(
        "/v1/retrain/{one}/log",
        tags=["learning"],
        response_class=PlainTextResponse,
        responses=_ERRORS,
    )
    def log(one: str) -> PlainTextResponse:
        """All that its job printed."""
        endpoint.learning.state(one)
        return PlainTextResponse(endpoint.learning.log(one))


class _Whole(Response):
    """An answer that is there already."""

    def __init__(self, messages: list[Any]) -> None:
        self.status_code, self._messages = messages[0]["status"], messages

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Send it."""
        for message in self._messages:
            await send(message)


async def forwarded(app: ASGIApp, request: Request, body: bytes) -> Response:
    """FastAPI's whole answer to a request whose body was read within the limits (none of its routes streams)."""
    messages, given = list[Any](), False

    async def receive() -> Any:
        nonlocal given
        if given:
            await (
                asyncio.Event().wait()
            )  # whoever listens for a disconnect, which is not his to handle
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def keep(message: Any) -> None:
        messages.append(message)

    await app(request.scope, receive, keep)
    return _Whole(messages)

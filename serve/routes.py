"""Every route as FastAPI knows it, with its OpenAPI page; requests to read take a shorter way (serve/app.py) and are only described here."""

from typing import TYPE_CHECKING, Any

import pydantic
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.limits import Refused
from serve.metrics import scraped
from serve.page import page

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
    """One line of an image; `box` is left, top, width, height in pixels."""

    text: str
    confidence: float
    box: list[int]


class Answer(pydantic.BaseModel):
    """Of one image; with several, `results` holds one each, in their order."""

    text: str | None = pydantic.Field(None, examples=["ଜୀବନର ମୂଳ ମନ୍ତ୍ର"])
    confidence: float | None = pydantic.Field(None, examples=[0.97])
    results: list[dict[str, Any]] | None = None
    lines: list[Line] | None = None
    model: str = pydantic.Field(examples=["base-odia@6a9412acfe9f"])
    seconds: float


class Promotion(pydantic.BaseModel):
    """Which model is to be served, by its id."""

    model_config = pydantic.ConfigDict(extra="forbid")

    bundle: str = pydantic.Field(min_length=1, max_length=300, examples=["base-odia@6a9412acfe9f"])
    why: str = pydantic.Field("", max_length=1000)


_OCR_BODY = {
    "required": True,
    "content": {
        "image/png": {"schema": _IMAGE},
        "multipart/form-data": {"schema": {"type": "object", "properties": {"image": {"type": "array", "items": _IMAGE}}, "required": ["image"]}},
        "application/json": {
            "schema": {
                "anyOf": [
                    {"type": "object", "properties": {"image": _BASE64}, "required": ["image"]},
                    {"type": "object", "properties": {"images": {"type": "array", "items": _BASE64}}, "required": ["images"]},
                ]
            }
        },
    },
}
_URL = {"type": "string", "examples": ["data:image/png;base64,iVBORw0KGgo="]}
_PART = {
    "anyOf": [
        {"type": "object", "properties": {"type": {"const": "text"}, "text": {"type": "string"}}, "required": ["type", "text"]},
        {
            "type": "object",
            "properties": {"type": {"const": "image_url"}, "image_url": {"type": "object", "properties": {"url": _URL}, "required": ["url"]}},
            "required": ["type", "image_url"],
        },
    ]
}
_MESSAGE = {
    "type": "object",
    "properties": {"role": {"enum": ["system", "user", "assistant"]}, "content": {"anyOf": [{"type": "string"}, {"type": "array", "items": _PART}]}},
    "required": ["role", "content"],
}
_CHAT_SCHEMA = {"type": "object", "properties": {"model": {"type": "string"}, "messages": {"type": "array", "items": _MESSAGE}}, "required": ["messages"]}
_CHAT_BODY = {"required": True, "content": {"application/json": {"schema": _CHAT_SCHEMA}}}
_READ_ERRORS: dict[int | str, dict[str, Any]] = {status: {"model": Refusal} for status in (400, 401, 408, 413, 415, 422, 503, 504)}
_ERRORS: dict[int | str, dict[str, Any]] = {status: {"model": Refusal} for status in (400, 401, 404, 413, 422)}


def routes(endpoint: "Endpoint") -> FastAPI:
    """The application behind a replica."""
    app = FastAPI(title="Lipi OCR", version="1", docs_url=None, redoc_url=None, description="Text recognition for the scripts that large OCR leaves behind.")

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, problem: HTTPException) -> JSONResponse:
        refused = Refused(problem.status_code, _CODES.get(problem.status_code, "refused"), f"{problem.detail}; GET /docs tells what there is")
        return JSONResponse({"error": {"code": refused.code, "message": refused.message}}, refused.status, problem.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, problem: RequestValidationError) -> Response:
        said = "; ".join(f"{'.'.join(map(str, error['loc'][1:])) or 'body'}: {error['msg']}" for error in problem.errors()[:10])
        return Refused(422, "invalid", said).response()

    @app.exception_handler(Refused)
    async def refused(_: Request, problem: Refused) -> Response:
        return problem.response()

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

    @app.get("/metrics", tags=["operation"], response_class=PlainTextResponse, responses={401: {"model": Refusal}})
    async def metrics() -> PlainTextResponse:
        """Counts, seconds and batches of every replica, for Prometheus; Ray collects them every few seconds."""
        return PlainTextResponse(await scraped(), media_type="text/plain; version=0.0.4")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(page(app.openapi()))

    @app.post("/v1/ocr", tags=["reading"], response_model=Answer, responses=_READ_ERRORS, openapi_extra={"requestBody": _OCR_BODY})
    async def ocr(detail: str | None = None) -> None:
        """Read one image (a raw body), or several (a form of files, or JSON with base64). `detail=lines` adds each line with its box."""

    @app.post("/v1/chat/completions", tags=["reading"], responses=_READ_ERRORS, openapi_extra={"requestBody": _CHAT_BODY})
    async def chat() -> dict[str, Any]:
        """As OpenAI's: the images of the last user message, as data URIs, are read; their texts are the answer."""
        return {}

    @app.get("/v1/models", tags=["models"], responses={401: {"model": Refusal}})
    def models() -> dict[str, Any]:
        """The models that are kept here, in OpenAI's shape; `live` is the one that reads."""
        live, found = endpoint.models.live(), endpoint.models.ids()
        return {"object": "list", "data": [{"id": one, "object": "model", "live": one == live, **endpoint.models.card(one)} for one in found]}

    @app.post("/v1/models/promote", tags=["models"], status_code=202, responses=_ERRORS)
    def promote(asked: Promotion) -> dict[str, str]:
        """Serve another model: written to the journal, acted upon at once. Going back is the same call with the model before."""
        promotion = endpoint.models.promote(asked.bundle, asked.why)
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

    return app


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
    messages = list[Any]()

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def keep(message: Any) -> None:
        messages.append(message)

    await app(request.scope, receive, keep)
    return _Whole(messages)

"""Every route of the endpoint, with its OpenAPI description.

`POST /v1/ocr` and `/v1/chat/completions` are described here and answered by `Endpoint` itself,
without FastAPI's machinery.
"""

from pathlib import Path
from typing import Any, Literal, Protocol

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response

from serve.corrections import Corrections, CorrectionsRequest
from serve.docs_page import page
from serve.errors import Refused
from serve.metrics import scraped
from serve.model_list import listed
from serve.models import Models
from serve.retraining import Retrainings
from serve.schemas import CHAT_BODY, OCR_BODY, Answer, Promotion, Refusal, Retraining, Trial

OCR, CHAT = "/v1/ocr", "/v1/chat/completions"
_OPEN = {"/", "/favicon.ico", "/healthz", "/readyz", "/docs", "/openapi.json"}
_OPEN_FILES = {"/web/app.js", "/web/style.css"}
_CODES = {404: "not_found", 405: "method_not_allowed"}
_READ_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refusal} for status in (400, 401, 408, 413, 415, 422, 503, 504)
}
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refusal} for status in (400, 401, 404, 409, 413, 422, 503, 507)
}
_KEY_ERROR: dict[int | str, dict[str, Any]] = {401: {"model": Refusal}}
_WEB = Path(__file__).parent / "web"
_TYPES = {
    "index.html": "text/html; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class Replica(Protocol):
    """The parts of an endpoint's replica that routes use."""

    models: Models
    corrections: Corrections
    retrainings: Retrainings
    promoter: Any

    @property
    def model(self) -> str:
        """The id of the model that reads new requests; empty while none is loaded."""
        ...

    @property
    def stuck_s(self) -> float:
        """Seconds that a batch has been read for, if more than the limit; else 0."""
        ...


def is_open(path: str) -> bool:
    """Return whether a path is answered without a key."""
    return path in _OPEN or path in _OPEN_FILES


def routes(replica: Replica) -> FastAPI:
    """Return the application behind a replica."""
    app = FastAPI(
        title="Lipi OCR",
        version="1",
        docs_url=None,
        redoc_url=None,
        description="Text recognition for the scripts that large OCR leaves behind.",
    )
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Refused, _refused)
    for add in (_web_page, _operation, _reading, _models, _promotions, _corrections, _retraining):
        add(app, replica)
    return app


async def _http_error(_: Request, problem: Exception) -> Response:
    assert isinstance(problem, HTTPException)
    code = _CODES.get(problem.status_code, "refused")
    refused = Refused(problem.status_code, code, f"{problem.detail}; GET /docs lists all routes")
    return JSONResponse(refused.to_json(), refused.status, problem.headers)


async def _invalid(_: Request, problem: Exception) -> Response:
    assert isinstance(problem, RequestValidationError)
    mistakes = "; ".join(
        f"{'.'.join(map(str, error['loc'][1:])) or 'body'}: {error['msg']}"
        for error in problem.errors()[:10]
    )
    return Refused(422, "invalid", mistakes).response()


async def _refused(_: Request, problem: Exception) -> Response:
    assert isinstance(problem, Refused)
    return problem.response()


def _web_page(app: FastAPI, _: Replica) -> None:
    """Add the web page and its files."""
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


def _operation(app: FastAPI, replica: Replica) -> None:
    """Add health, metrics and the description of the API."""

    @app.get("/healthz", tags=["operation"])
    async def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok", "model": replica.model}

    @app.get("/readyz", tags=["operation"], responses={503: {"model": Refusal}})
    async def readyz() -> dict[str, str]:
        """A model is loaded, and its reader moves."""
        if not replica.model:
            raise Refused(503, "loading", "no model is loaded yet", retry_after_s=1)
        if replica.stuck_s:
            message = f"a batch has been read for {replica.stuck_s:.0f} s; another replica follows"
            raise Refused(503, "stuck", message, retry_after_s=1)
        return {
            "status": "ready",
            "model": replica.model,
            "storage": replica.models.store.digest,
        }

    @app.get(
        "/metrics",
        tags=["operation"],
        response_class=PlainTextResponse,
        responses=_KEY_ERROR,
    )
    async def metrics() -> PlainTextResponse:
        """Counts, seconds and batches of all replicas for Prometheus.

        Ray collects them every few seconds.
        """
        return PlainTextResponse(await scraped(), media_type="text/plain; version=0.0.4")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(page(app.openapi()))


def _reading(app: FastAPI, _: Replica) -> None:
    """Describe the two routes that `Endpoint` answers itself."""

    @app.post(
        OCR,
        tags=["reading"],
        response_model=Answer,
        responses=_READ_ERRORS,
        openapi_extra={"requestBody": OCR_BODY},
    )
    async def ocr(level: Literal["line", "page"] = "line", detail: str | None = None) -> None:
        """Read one image (a raw body) or several (a form of files, or JSON with base64).

        `level=page`: pages, also of PDF and TIFF files, are cut into lines first. `detail=lines`
        adds the line of an image with its box, `detail=images` each page as it was read.
        """

    @app.post(
        CHAT,
        tags=["reading"],
        responses=_READ_ERRORS,
        openapi_extra={"requestBody": CHAT_BODY},
    )
    async def chat() -> dict[str, Any]:
        """Read the images (data URIs) of the last user message, as OpenAI's API answers."""
        return {}


def _models(app: FastAPI, replica: Replica) -> None:
    """Add the list of models and the journal."""

    @app.get("/v1/models", tags=["models"], responses=_KEY_ERROR)
    def models() -> dict[str, Any]:
        """All stored models in OpenAI's shape; the `live` one reads."""
        return {"object": "list", "data": listed(replica.models)}

    @app.get("/v1/models/journal", tags=["models"], responses=_KEY_ERROR)
    def journal() -> list[dict[str, Any]]:
        """All requests for models and their outcomes, the oldest first."""
        return replica.models.journal.entries()

    @app.get("/v1/models/{id}", tags=["models"], responses=_ERRORS)
    def model(id: str) -> dict[str, Any]:
        """One stored model in OpenAI's shape."""
        known = {value["id"]: value for value in listed(replica.models)}
        if id not in known:
            there = ", ".join(known) or "none"
            raise Refused(404, "not_found", f"{id[:80]}: no such model; there are: {there}")
        return known[id]


def _promotions(app: FastAPI, replica: Replica) -> None:
    """Add what changes the served model."""

    @app.post("/v1/models/promote", tags=["models"], status_code=202, responses=_ERRORS)
    def promote(asked: Promotion) -> dict[str, str]:
        """Serve another model without dropping a request; roll back by promoting the old one."""
        promotion = replica.models.promote(asked.bundle, asked.why)
        replica.promoter.wake.remote()
        return {"promotion": promotion, "see": f"/v1/models/promotions/{promotion}"}

    @app.post("/v1/models/traffic", tags=["models"], status_code=202, responses=_ERRORS)
    def traffic(asked: Trial) -> dict[str, str]:
        """Try a candidate on a share of the requests, beside the live model.

        Corrections show which reads better (`/v1/corrections/stats`). A promotion ends the trial.
        """
        promotion = replica.models.promote(asked.candidate, what="traffic", share=asked.share)
        replica.promoter.wake.remote()
        return {"promotion": promotion, "see": f"/v1/models/promotions/{promotion}"}

    @app.get("/v1/models/promotions/{promotion}", tags=["models"], responses=_ERRORS)
    def outcome(promotion: str) -> dict[str, Any]:
        """The outcome: live, refused, rolled_back or superseded; pending before there is one."""
        journal = replica.models.journal
        if promotion not in [entry["id"] for entry in journal.entries()]:
            raise Refused(404, "not_found", f"{promotion[:80]}: no such promotion")
        return journal.outcome(promotion) or {"what": "pending", "of": promotion}


def _corrections(app: FastAPI, replica: Replica) -> None:
    """Add corrections and their statistics."""

    @app.post("/v1/corrections", tags=["learning"], status_code=201, responses=_ERRORS)
    def correct(asked: CorrectionsRequest, request: Request) -> dict[str, Any]:
        """Store corrections: all of them, or none where one is faulty; repeats are stored once."""
        return replica.corrections.put(asked, request.state.deadline)

    @app.get("/v1/corrections/stats", tags=["learning"], responses=_KEY_ERROR)
    def stats() -> dict[str, Any]:
        """Counts of corrections, those not trained on yet, and error rates by day and model."""
        return replica.corrections.stats(replica.retrainings.trained_until())


def _retraining(app: FastAPI, replica: Replica) -> None:
    """Add retraining on corrections."""

    @app.post("/v1/retrain", tags=["learning"], status_code=202, responses=_ERRORS)
    def retrain(asked: Retraining) -> dict[str, str]:
        """Train the live model further on all corrections and evaluate the candidate.

        One retraining runs at a time, as a Ray job of `ray_jobs/retrain.py`.
        """
        id = replica.retrainings.ask(asked.model_dump(exclude_none=True))
        return {"retraining": id, "see": f"/v1/retrain/{id}"}

    @app.get("/v1/retrain", tags=["learning"], responses=_KEY_ERROR)
    def retrainings() -> list[dict[str, Any]]:
        """All retrainings that were asked for, the newest first."""
        return replica.retrainings.asked()

    @app.get("/v1/retrain/{id}", tags=["learning"], responses=_ERRORS)
    def retraining(id: str) -> dict[str, Any]:
        """Status (waiting, running, done, failed), progress in [0, 1], verdict, candidate, log."""
        return replica.retrainings.state(id)

    @app.get(
        "/v1/retrain/{id}/log",
        tags=["learning"],
        response_class=PlainTextResponse,
        responses=_ERRORS,
    )
    def log(id: str) -> PlainTextResponse:
        """The whole output of the job."""
        replica.retrainings.state(id)
        return PlainTextResponse(replica.retrainings.log(id))

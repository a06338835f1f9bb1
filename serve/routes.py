"""Every route of the endpoint, with its OpenAPI description.

`POST /v1/ocr` and `/v1/chat/completions` are described here and answered by `Endpoint` itself,
without FastAPI's machinery.
"""

from pathlib import Path
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response

from ocr.reading.config import FORMAT
from serve.docs_page import page
from serve.errors import Refused
from serve.label_studio_routes import add_label_studio
from serve.learning_routes import add_corrections, add_retraining
from serve.metrics import scraped
from serve.model_list import advice_against, listed
from serve.replica import ERRORS, KEY_ERROR, READ_ERRORS, Replica, asker
from serve.sample import sample_page
from serve.schemas import CHAT_BODY, OCR_BODY, Answer, Promotion, Refusal, Trial

OCR, CHAT = "/v1/ocr", "/v1/chat/completions"
_OPEN = {"/", "/favicon.ico", "/healthz", "/readyz", "/health", "/docs", "/openapi.json"}
_UNKNOWN = {"extra_forbidden": "unknown; GET /docs lists what this route takes"}
_CODES = {404: "not_found", 405: "method_not_allowed"}
_WEB = Path(__file__).parent / "web"
_KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
_FILES = {file.name: file.read_bytes() for file in _WEB.iterdir() if file.suffix in _KINDS}
_OPEN_FILES = {f"/web/{name}" for name in _FILES}
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
# one page with its style in it, and no script
_DOCS_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
_DOCS_HEADERS = {**_HEADERS, "Content-Security-Policy": f"{_DOCS_POLICY}; base-uri 'none'"}


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
    for add in (_web_page, _operation, _about, _reading, _models, _promotions):
        add(app, replica)
    add_corrections(app, replica)
    add_retraining(app, replica)
    add_label_studio(app, replica)
    return app


async def _http_error(_: Request, problem: Exception) -> Response:
    assert isinstance(problem, HTTPException)
    code = _CODES.get(problem.status_code, "refused")
    refused = Refused(problem.status_code, code, f"{problem.detail}; GET /docs lists all routes")
    return JSONResponse(refused.to_json(), refused.status, problem.headers)


async def _invalid(_: Request, problem: Exception) -> Response:
    assert isinstance(problem, RequestValidationError)
    mistakes = "; ".join(
        f"{'.'.join(map(str, error['loc'][1:])) or 'body'}: "
        f"{_UNKNOWN.get(error['type'], error['msg'])}"
        for error in problem.errors()[:10]
    )
    return Refused(422, "invalid", mistakes).response()


async def _refused(_: Request, problem: Exception) -> Response:
    assert isinstance(problem, Refused)
    return problem.response()


def _web_page(app: FastAPI, _: Replica) -> None:
    """Add the web page and its files."""

    @app.get("/", include_in_schema=False)
    async def web() -> Response:
        return _file("index.html")

    @app.get("/web/{name}", include_in_schema=False)
    async def web_file(name: str) -> Response:
        if name not in _FILES:
            raise Refused(404, "not_found", f"{name[:80]}: no such file")
        return _file(name)

    @app.get("/favicon.ico", include_in_schema=False)
    async def icon() -> Response:
        return Response(status_code=204)


def _file(name: str) -> Response:
    kind = f"{_KINDS[Path(name).suffix]}; charset=utf-8"
    return Response(_FILES[name], headers=_HEADERS, media_type=kind)


def _operation(app: FastAPI, replica: Replica) -> None:
    """Add health and metrics."""

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
        responses=KEY_ERROR,
    )
    async def metrics() -> PlainTextResponse:
        """Counts, seconds and batches of all replicas for Prometheus.

        Ray collects them every few seconds.
        """
        return PlainTextResponse(await scraped(), media_type="text/plain; version=0.0.4")


def _about(app: FastAPI, _: Replica) -> None:
    """Add the description of the API and what a key may do."""

    @app.get("/v1/key", tags=["operation"], responses=KEY_ERROR)
    async def key(request: Request) -> dict[str, str | None]:
        """The owner and the role of the key; a role of train where no keys are asked for."""
        given = request.state.key
        return {"name": asker(request), "role": given.role if given else "train"}

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        address = str(request.base_url).rstrip("/")
        return HTMLResponse(page(app.openapi(), address), headers=_DOCS_HEADERS)


def _reading(app: FastAPI, replica: Replica) -> None:
    """Describe the two routes that `Endpoint` answers itself, and add a sample to read."""

    @app.post(
        OCR,
        tags=["reading"],
        response_model=Answer,
        responses=READ_ERRORS,
        openapi_extra={"requestBody": OCR_BODY},
    )
    async def ocr(
        level: Literal["line", "page", "auto"] = "line",
        detail: str | None = None,
        format: FORMAT = "json",
    ) -> None:
        """Read one image (a raw body) or several (a form of files, or JSON with base64).

        `level=page`: pages, also of PDF and TIFF files, are cut into lines first; `auto`: the kind
        and the shape of a file decide. `detail` (one or several, with commas): `lines` adds the
        line of an image with its box, `words` the words of lines, `images` each page as it was
        read. `format` (or `Accept`) of one document: a file for other programs.
        """

    @app.post(
        CHAT,
        tags=["reading"],
        responses=READ_ERRORS,
        openapi_extra={"requestBody": CHAT_BODY},
    )
    async def chat() -> dict[str, Any]:
        """Read the images (data URIs) of the last user message, as OpenAI's API answers."""
        return {}

    @app.get("/v1/sample", tags=["reading"], responses=ERRORS)
    def sample() -> Response:
        """A page of a few lines that the live model was evaluated on, to try it with."""
        return Response(sample_page(replica.models, replica.model), media_type="image/png")


def _models(app: FastAPI, replica: Replica) -> None:
    """Add the list of models and the journal."""

    @app.get("/v1/models", tags=["models"], responses=KEY_ERROR)
    def models() -> dict[str, Any]:
        """All stored models in OpenAI's shape; the `live` one reads."""
        return {"object": "list", "data": listed(replica.models)}

    @app.get("/v1/models/journal", tags=["models"], responses=KEY_ERROR)
    def journal() -> list[dict[str, Any]]:
        """All requests for models and their outcomes, the oldest first."""
        return replica.models.journal.entries()

    @app.get("/v1/models/{id}", tags=["models"], responses=ERRORS)
    def model(id: str) -> dict[str, Any]:
        """One stored model in OpenAI's shape."""
        known = {value["id"]: value for value in listed(replica.models)}
        if id not in known:
            there = ", ".join(known) or "none"
            raise Refused(404, "not_found", f"{id[:80]}: no such model; there are: {there}")
        return known[id]


def _promotions(app: FastAPI, replica: Replica) -> None:
    """Add what changes the served model."""

    @app.post("/v1/models/promote", tags=["models"], status_code=202, responses=ERRORS)
    def promote(asked: Promotion, request: Request) -> dict[str, str]:
        """Serve another model without dropping a request; roll back by promoting the old one.

        What the gate refused may be promoted; `against` says so, here and in the journal.
        """
        against = advice_against(replica.models.journal.entries(), asked.bundle)
        more = {"by": asker(request), "against": against}
        noted: dict[str, Any] = {name: value for name, value in more.items() if value}
        promotion = replica.models.promote(asked.bundle, asked.why, **noted)
        replica.promoter.wake.remote()
        see = {"promotion": promotion, "see": f"/v1/models/promotions/{promotion}"}
        return {**see, "against": against} if against else see

    @app.post("/v1/models/traffic", tags=["models"], status_code=202, responses=ERRORS)
    def traffic(asked: Trial, request: Request) -> dict[str, str]:
        """Try a candidate on a share of the requests, beside the live model.

        Corrections show which reads better (`/v1/corrections/stats`). A promotion ends the trial.
        """
        more: dict[str, Any] = {"by": name} if (name := asker(request)) else {}
        bundle, share = asked.candidate, asked.share
        promotion = replica.models.promote(bundle, what="traffic", share=share, **more)
        replica.promoter.wake.remote()
        return {"promotion": promotion, "see": f"/v1/models/promotions/{promotion}"}

    @app.get("/v1/models/promotions/{promotion}", tags=["models"], responses=ERRORS)
    def outcome(promotion: str) -> dict[str, Any]:
        """The outcome: live, refused, rolled_back or superseded; pending before there is one."""
        journal = replica.models.journal
        if promotion not in [entry["id"] for entry in journal.entries()]:
            raise Refused(404, "not_found", f"{promotion[:80]}: no such promotion")
        return journal.outcome(promotion) or {"what": "pending", "of": promotion}

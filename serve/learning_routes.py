"""The routes of corrections and retrainings."""

from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request
from fastapi.responses import PlainTextResponse, Response

from serve.correction_lines import CorrectionsRequest
from serve.correction_list import CorrectionList
from serve.replica import ERRORS, KEY_ERROR, Replica, asker
from serve.schemas import Retraining

Page = Annotated[int, Query(ge=1)]
Size = Annotated[int, Query(ge=1, le=1000)]


def add_corrections(app: FastAPI, replica: Replica) -> None:
    """Add corrections: stored, counted, listed, removed and exported."""
    _stored(app, replica)
    _listed(app, CorrectionList(replica.corrections, replica.models.store))


def _stored(app: FastAPI, replica: Replica) -> None:
    """Add what stores and counts corrections."""

    @app.post("/v1/corrections", tags=["learning"], status_code=201, responses=ERRORS)
    def correct(asked: CorrectionsRequest, request: Request) -> dict[str, Any]:
        """Store corrections: all of them, or none where one is faulty; repeats are stored once."""
        return replica.corrections.put(asked, request.state.deadline, asker(request))

    @app.get("/v1/corrections/stats", tags=["learning"], responses=KEY_ERROR)
    def stats() -> dict[str, Any]:
        """Counts of corrections, those not trained on yet, and error rates by day and model."""
        return replica.corrections.stats(replica.retrainings.trained_until())


def _listed(app: FastAPI, stored: CorrectionList) -> None:
    """Add what shows, exports and removes corrections."""

    @app.get("/v1/corrections", tags=["learning"], responses=ERRORS)
    def corrections(page: Page = 1, size: Size = 50) -> dict[str, Any]:
        """A page of the stored corrections, the newest first."""
        return stored.page(page, size)

    @app.get("/v1/corrections/export", tags=["learning"], responses=ERRORS)
    def export(
        page: Page = 1, size: Size = 1000, format: Literal["zip", "label_studio"] = "zip"
    ) -> Response:
        """A page of the corrections as files: PNG + JSON in a zip, or Label Studio's tasks.

        `retrain.py` takes the unpacked zip. The header X-Pages has the number of pages.
        """
        return stored.export(page, size, format)

    @app.get("/v1/corrections/{id}/image", tags=["learning"], responses=ERRORS)
    def image(id: str) -> Response:
        """The line of a correction, as PNG."""
        return Response(stored.image(id), media_type="image/png")

    @app.delete("/v1/corrections/{id}", tags=["learning"], responses=ERRORS)
    def remove(id: str, request: Request) -> dict[str, str]:
        """Remove a correction for good: no later retraining sees it.

        A key with the role `correct` removes its own. Copies that an earlier retraining trained on
        stay in that retraining's folder.
        """
        stored.remove(id, request.state.key)
        return {"removed": id}


def add_retraining(app: FastAPI, replica: Replica) -> None:
    """Add retraining on corrections."""
    _asked(app, replica)
    _followed(app, replica)


def _asked(app: FastAPI, replica: Replica) -> None:
    """Add what starts and ends a retraining."""

    @app.post("/v1/retrain", tags=["learning"], status_code=202, responses=ERRORS)
    def retrain(asked: Retraining, request: Request) -> dict[str, str]:
        """Train the live model further on all corrections and evaluate the candidate.

        One retraining runs at a time, as a Ray job of `ray_jobs/retrain.py`.
        """
        id = replica.retrainings.ask(asked.model_dump(exclude_none=True), asker(request))
        return {"retraining": id, "see": f"/v1/retrain/{id}"}

    @app.delete("/v1/retrain/{id}", tags=["learning"], status_code=202, responses=ERRORS)
    def stop(id: str, request: Request) -> dict[str, str]:
        """End a retraining that is under way; it is not taken up again."""
        replica.retrainings.stop(id, asker(request))
        return {"retraining": id, "see": f"/v1/retrain/{id}"}


def _followed(app: FastAPI, replica: Replica) -> None:
    """Add what shows retrainings."""

    @app.get("/v1/retrain", tags=["learning"], responses=KEY_ERROR)
    def retrainings() -> list[dict[str, Any]]:
        """All retrainings that were asked for, the newest first."""
        return replica.retrainings.asked()

    @app.get("/v1/retrain/{id}", tags=["learning"], responses=ERRORS)
    def retraining(id: str) -> dict[str, Any]:
        """Status, progress in [0, 1], seconds left, verdict, candidate, log.

        The status is waiting, running, stopping, done, failed or stopped.
        """
        return replica.retrainings.state(id)

    @app.get(
        "/v1/retrain/{id}/log",
        tags=["learning"],
        response_class=PlainTextResponse,
        responses=ERRORS,
    )
    def log(id: str) -> PlainTextResponse:
        """The whole output of the job."""
        replica.retrainings.state(id)
        return PlainTextResponse(replica.retrainings.log(id))

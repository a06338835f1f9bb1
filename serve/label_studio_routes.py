"""The routes that Label Studio asks an ML backend for."""

import asyncio
from typing import Any

from fastapi import FastAPI, Request

from serve.auth import require_role
from serve.errors import Refused
from serve.label_studio import (
    TRAINING,
    Json,
    Labelling,
    corrections_of,
    image_bytes,
    is_stored,
    line_prediction,
    page_prediction,
    tasks_of,
)
from serve.replica import ERRORS, Replica, asker


def add_label_studio(app: FastAPI, replica: Replica) -> None:
    """Add health, setup, predictions and the webhook of annotations."""

    @app.get("/health", tags=["label studio"])
    async def health() -> dict[str, str]:
        """The endpoint answers, as Label Studio asks."""
        return {"status": "UP", "model_class": "Lipi"}

    @app.post("/setup", tags=["label studio"], responses=ERRORS)
    async def setup(asked: Json) -> dict[str, str]:
        """Check a project's labelling config (`schema`); return the model that reads."""
        if asked.get("schema"):
            Labelling.of(str(asked["schema"]))
        return {"model_version": replica.model}

    @app.post("/predict", tags=["label studio"], responses=ERRORS)
    async def predict(asked: Json) -> dict[str, Any]:
        """Read the images of tasks: regions with texts, or the text of the whole image."""
        labelling = Labelling.of(str(asked.get("label_config") or ""))
        results = [await _predicted(replica, task, labelling) for task in tasks_of(asked)]
        return {"results": results, "model_version": replica.model}

    @app.post("/webhook", tags=["label studio"], status_code=201, responses=ERRORS)
    def webhook(event: Json, request: Request) -> dict[str, Any]:
        """Store the texts of an annotation as corrections; START_TRAINING asks for a retraining."""
        if event.get("action") == TRAINING:
            require_role(request.state.key, "train")
            return {"retraining": replica.retrainings.ask({}, asker(request))}
        asked = corrections_of(event, replica.config) if is_stored(event) else None
        if asked is None:
            return {"stored": 0}
        return replica.corrections.put(asked, request.state.deadline, asker(request))


async def _predicted(replica: Replica, task: Json, labelling: Labelling) -> Json:
    image = await asyncio.to_thread(image_bytes, task, labelling, replica.config)
    if labelling.rectangle is None:
        reads, model = await replica.reader.read([image])
        if isinstance(reads[0], Refused):
            raise reads[0]
        reading = reads[0].reading
        return line_prediction(labelling, reading.text, reading.confidence, model)
    documents, model = await replica.pages.read([image])
    if isinstance(documents[0], Refused):
        raise documents[0]
    page, lines = documents[0][0]
    return page_prediction(labelling, page, lines, model)

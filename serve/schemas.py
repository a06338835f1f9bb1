"""Requests and answers of the HTTP API, as OpenAPI describes them."""

from typing import Any

import pydantic

from ocr.retraining import MAX_BATCH_SIZE, MAX_EPOCHS, MAX_LEARNING_RATE

_IMAGE = {"type": "string", "format": "binary"}
_BASE64 = {"type": "string", "format": "byte", "examples": ["iVBORw0KGgo="]}


class Error(pydantic.BaseModel):
    """The reason why a request, or one of its images, has no reading."""

    code: str = pydantic.Field(examples=["not_a_readable_image"])
    message: str


class Refusal(pydantic.BaseModel):
    """The answer to every refused request."""

    error: Error


class Word(pydantic.BaseModel):
    """A word of a line; `box`: left, top, width, height in pixels."""

    text: str
    confidence: float
    box: list[int]


class Line(pydantic.BaseModel):
    """One line of an image.

    `box`: left, top, width, height in pixels; `polygon`: its corners on a page; `degrees`: the
    direction of its writing there, clockwise.
    """

    text: str
    confidence: float
    box: list[int]
    polygon: list[list[float]] | None = None
    degrees: float | None = None
    words: list[Word] | None = None


class Page(pydantic.BaseModel):
    """A page: size in pixels, clockwise rotation in degrees, lines in reading order."""

    width: int
    height: int
    degrees: float
    lines: list[Line]


class Answer(pydantic.BaseModel):
    """The answer for one image; for several, `results` holds one each, in their order."""

    text: str | None = pydantic.Field(None, examples=["ଜୀବନର ମୂଳ ମନ୍ତ୍ର"])
    confidence: float | None = pydantic.Field(None, examples=[0.97])
    level: str | None = pydantic.Field(None, examples=["page"])
    results: list[dict[str, Any]] | None = None
    lines: list[Line] | None = None
    pages: list[Page] | None = None
    model: str = pydantic.Field(examples=["base-odia@bf68005589a7"])
    seconds: float


class Promotion(pydantic.BaseModel):
    """The id of the model to serve."""

    model_config = pydantic.ConfigDict(extra="forbid")

    bundle: str = pydantic.Field(min_length=1, max_length=300, examples=["base-odia@bf68005589a7"])
    why: str = pydantic.Field("", max_length=1000)


class Trial(pydantic.BaseModel):
    """A candidate and its share of the requests; 0 ends the trial."""

    model_config = pydantic.ConfigDict(extra="forbid")

    candidate: str = pydantic.Field(
        min_length=1, max_length=300, examples=["base-odia-r1@0123456789ab"]
    )
    share: float = pydantic.Field(ge=0, le=0.5, examples=[0.1])


class Retraining(pydantic.BaseModel):
    """Settings of a retraining; the defaults are those of `ray_jobs/retrain.py`."""

    model_config = pydantic.ConfigDict(extra="forbid")

    num_epochs: float | None = pydantic.Field(None, gt=0, le=MAX_EPOCHS)
    global_batch_size: int | None = pydantic.Field(None, ge=1, le=MAX_BATCH_SIZE)
    learning_rate: float | None = pydantic.Field(None, gt=0, le=MAX_LEARNING_RATE, examples=[0.001])


OCR_BODY = {
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
        "level": {"enum": ["line", "page", "auto"]},
        "stream": {"type": "boolean"},
        "stream_options": {"type": "object"},
    },
    "required": ["messages"],
}
CHAT_BODY = {"required": True, "content": {"application/json": {"schema": _CHAT_SCHEMA}}}

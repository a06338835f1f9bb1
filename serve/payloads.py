"""Requests → encoded images, readings → answers: raw bodies, forms, JSON, and the shape of OpenAI's chat completions. Nothing is read or decoded here."""

import base64
import binascii
import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from serve.batching import Read
from serve.config import LimitSettings
from serve.limits import Refused, told


@dataclass(frozen=True, slots=True)
class Asked:
    """The encoded images of a request, each with a name to tell it by; `single`: the answer is one object, not a list; `level` is what an image shows."""

    names: tuple[str, ...]
    images: tuple[bytes, ...]
    single: bool = False
    level: Literal["line", "page"] = "line"
    detail: str = ""  # lines, or of pages their images


async def images_of(
    content_type: str, body: bytes, limits: LimitSettings, query: Mapping[str, Sequence[str]]
) -> Asked:
    """Of `POST /v1/ocr?level=…&detail=…`; Refused 400 or 415 where there is none to be found."""
    asked = await _images_of(content_type, body, limits)
    if not query:
        return asked
    return replace(
        asked, level=_level(query.get("level", ["line"])[-1]), detail=query.get("detail", [""])[-1]
    )


def _level(given: Any) -> Literal["line", "page"]:
    if given not in ("line", "page"):
        raise Refused(
            400,
            "bad_level",
            f"level: {str(given)[:40]!r}; line (an image shows one) or page is expected",
        )
    return "page" if given == "page" else "line"


async def _images_of(content_type: str, body: bytes, limits: LimitSettings) -> Asked:
    kind = content_type.partition(";")[0].strip().lower()
    if kind.startswith("image/") or kind in ("application/octet-stream", "application/pdf"):
        return Asked(("image",), (body,), single=True)
    if kind == "multipart/form-data":
        return _bounded(await _of_form(content_type, body, limits), limits)
    if kind == "application/json":
        return _bounded(_of_json(_parsed(body)), limits)
    raise Refused(
        415,
        "unsupported_media_type",
        f"{kind or 'no Content-Type'}: image/…, multipart/form-data with files, or application/json is expected",
    )


def image_of_chat(body: bytes, limits: LimitSettings) -> Asked:
    """The images of the last user message of `POST /v1/chat/completions`, each a data URI in an `image_url`; `level` beside `messages` as for /v1/ocr."""
    values = _parsed(body)
    messages = values.get("messages")
    contents = (
        [
            message.get("content")
            for message in messages
            if isinstance(message, dict) and message.get("role") == "user"
        ]
        if isinstance(messages, list)
        else []
    )
    parts = contents[-1] if contents and isinstance(contents[-1], list) else []
    urls = [
        part["image_url"].get("url")
        for part in parts
        if isinstance(part, dict) and isinstance(part.get("image_url"), dict)
    ]
    if not urls:
        raise Refused(
            400,
            "no_image",
            "messages: the last one of the user has no image_url; send it as a data URI",
        )
    names = tuple(f"image {place}" for place in range(1, len(urls) + 1))
    return _bounded(
        Asked(
            names,
            tuple(_of_data_uri(url) for url in urls),
            level=_level(values.get("level", "line")),
        ),
        limits,
    )


def answer(
    asked: Asked, results: Sequence[dict[str, Any] | Refused], model: str, seconds: float
) -> dict[str, Any]:
    """`{…, model, seconds}` of one image's result, or a list of results in the order of the images, each with its error where it has one."""
    common = {"model": model, "seconds": round(seconds, 4)}
    found = [told(result) if isinstance(result, Refused) else result for result in results]
    if asked.single:
        return {**found[0], **common}
    return {
        "results": [
            {"name": name, **result} for name, result in zip(asked.names, found, strict=True)
        ],
        **common,
    }


def line_result(found: Read, with_line: bool) -> dict[str, Any]:
    """`{text, confidence}`; `with_line` adds the line with its box, for those who ask for pages as well."""
    read = {"text": found.reading.text, "confidence": round(found.reading.confidence, 6)}
    return (
        {**read, "lines": [{**read, "box": [0, 0, found.width, found.height]}]}
        if with_line
        else read
    )


def chat_answer(texts: Sequence[str], model: str) -> dict[str, Any]:
    """As OpenAI's chat completions answer; the readings of several images stand below each other."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "\n".join(texts)},
        "finish_reason": "stop",
    }
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [choice],
        "usage": usage,
    }


def _bounded(asked: Asked, limits: LimitSettings) -> Asked:
    if not asked.images:
        raise Refused(400, "no_image", "the request has no image")
    if len(asked.images) > limits.max_images:
        raise Refused(
            413,
            "too_many_images",
            f"{len(asked.images)} images, at most {limits.max_images} are taken at once",
        )
    return asked


async def _of_form(content_type: str, body: bytes, limits: LimitSettings) -> Asked:
    async def once() -> AsyncIterator[bytes]:
        yield body

    parser = MultiPartParser(
        Headers({"content-type": content_type}),
        once(),  # type: ignore[arg-type]
        max_files=limits.max_images + 1,
        max_fields=64,
    )
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as problem:
        raise Refused(
            400, "bad_form", f"multipart/form-data: {getattr(problem, 'message', problem)}"
        ) from None
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    return Asked(
        tuple(file.filename or f"image {place}" for place, file in enumerate(files, start=1)),
        tuple([await file.read() for file in files]),
    )


def _of_json(values: dict[str, Any]) -> Asked:
    """`{"image": BASE64}` or `{"images": [BASE64, …]}`; data URIs are taken too."""
    if "image" in values:
        return Asked(("image",), (decoded(values["image"]),), single=True)
    images = values.get("images")
    if not isinstance(images, list):
        raise Refused(
            400, "no_image", 'JSON: {"image": "base64…"} or {"images": ["base64…", …]} is expected'
        )
    return Asked(
        tuple(f"image {place}" for place in range(1, len(images) + 1)),
        tuple(decoded(image) for image in images),
    )


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        values = json.loads(body)
    except (ValueError, RecursionError) as problem:
        raise Refused(400, "bad_json", f"not valid JSON: {type(problem).__name__}") from None
    if not isinstance(values, dict):
        raise Refused(400, "bad_json", f"a JSON object is expected, found {type(values).__name__}")
    return values


def _of_data_uri(url: Any) -> bytes:
    if not isinstance(url, str) or not url.startswith("data:"):
        raise Refused(
            400,
            "not_a_data_uri",
            "image_url: only data URIs are read (data:image/png;base64,…); nothing is fetched from here",
        )
    return decoded(url)


def decoded(text: Any) -> bytes:
    """An image's bytes from base64 text or a data URI; Refused 400."""
    try:
        return base64.b64decode(
            text.partition(",")[2] if text.startswith("data:") else text, validate=True
        )
    except (AttributeError, TypeError, ValueError, binascii.Error):
        raise Refused(400, "bad_base64", "an image: base64 text is expected") from None

"""Requests → encoded images, readings → answers.

Raw bodies, forms, JSON, and the shape of OpenAI's chat completions; images are not decoded here.
"""

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
from serve.errors import Refused


@dataclass(frozen=True, slots=True)
class ImagesRequest:
    """The encoded images of a request, each with a name.

    `single`: the answer is one object, not a list; `level`: an image shows a line or a page.
    """

    names: tuple[str, ...]
    images: tuple[bytes, ...]
    single: bool = False
    level: Literal["line", "page"] = "line"
    detail: str = ""  # "lines", or "images" of pages


async def images_of(
    content_type: str, body: bytes, limits: LimitSettings, query: Mapping[str, Sequence[str]]
) -> ImagesRequest:
    """Return the images of `POST /v1/ocr?level=…&detail=…`; Refused 400 or 415 without any."""
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
            f"level: expected line (an image shows one) or page, got {str(given)[:40]!r}",
        )
    return "page" if given == "page" else "line"


async def _images_of(content_type: str, body: bytes, limits: LimitSettings) -> ImagesRequest:
    kind = content_type.partition(";")[0].strip().lower()
    if kind.startswith("image/") or kind in ("application/octet-stream", "application/pdf"):
        return ImagesRequest(("image",), (body,), single=True)
    if kind == "multipart/form-data":
        return _bounded(await _of_form(content_type, body, limits), limits)
    if kind == "application/json":
        return _bounded(_of_json(_parsed(body)), limits)
    raise Refused(
        415,
        "unsupported_media_type",
        "Content-Type: expected image/…, application/pdf, multipart/form-data with files or "
        f"application/json, got {kind or 'none'}",
    )


def images_of_chat(body: bytes, limits: LimitSettings) -> ImagesRequest:
    """Return the images of the last user message of `POST /v1/chat/completions`.

    Each is a data URI in an `image_url`; `level` beside `messages` is that of /v1/ocr.
    """
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
            "messages: the last user message has no image_url; send the image as a data URI",
        )
    names = tuple(f"image {number}" for number in range(1, len(urls) + 1))
    return _bounded(
        ImagesRequest(
            names,
            tuple(_of_data_uri(url) for url in urls),
            level=_level(values.get("level", "line")),
        ),
        limits,
    )


def answer(
    asked: ImagesRequest, results: Sequence[dict[str, Any] | Refused], model: str, seconds: float
) -> dict[str, Any]:
    """Return `{…, model, seconds}` with one image's result, or with a list of results.

    Results are in the order of the images; an image that could not be read has its error.
    """
    common = {"model": model, "seconds": round(seconds, 4)}
    plain = [result.to_json() if isinstance(result, Refused) else result for result in results]
    if asked.single:
        return {**plain[0], **common}
    named = zip(asked.names, plain, strict=True)
    return {"results": [{"name": name, **result} for name, result in named], **common}


def line_result(read: Read, with_line: bool) -> dict[str, Any]:
    """Return `{text, confidence}`; `with_line` adds the line with its box, as pages have them."""
    plain = {"text": read.reading.text, "confidence": round(read.reading.confidence, 6)}
    if not with_line:
        return plain
    return {**plain, "lines": [{**plain, "box": [0, 0, read.width, read.height]}]}


def chat_answer(texts: Sequence[str], model: str) -> dict[str, Any]:
    """Return an answer in the shape of OpenAI's chat completions, one line of text per image."""
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


def _bounded(asked: ImagesRequest, limits: LimitSettings) -> ImagesRequest:
    if not asked.images:
        raise Refused(400, "no_image", "the request has no image")
    if len(asked.images) > limits.max_images:
        raise Refused(
            413,
            "too_many_images",
            f"{len(asked.images)} images; at most {limits.max_images} are accepted in a request",
        )
    return asked


async def _of_form(content_type: str, body: bytes, limits: LimitSettings) -> ImagesRequest:
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
    return ImagesRequest(
        tuple(file.filename or f"image {number}" for number, file in enumerate(files, start=1)),
        tuple([await file.read() for file in files]),
    )


def _of_json(values: dict[str, Any]) -> ImagesRequest:
    """Parse `{"image": BASE64}` or `{"images": [BASE64, …]}`; data URIs are accepted too."""
    if "image" in values:
        return ImagesRequest(("image",), (decoded(values["image"]),), single=True)
    images = values.get("images")
    if not isinstance(images, list):
        raise Refused(
            400, "no_image", 'expected JSON {"image": "base64…"} or {"images": ["base64…", …]}'
        )
    return ImagesRequest(
        tuple(f"image {number}" for number in range(1, len(images) + 1)),
        tuple(decoded(image) for image in images),
    )


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        values = json.loads(body)
    except (ValueError, RecursionError) as problem:
        raise Refused(400, "bad_json", f"not valid JSON: {type(problem).__name__}") from None
    if not isinstance(values, dict):
        raise Refused(400, "bad_json", f"expected a JSON object, got {type(values).__name__}")
    return values


def _of_data_uri(url: Any) -> bytes:
    if not isinstance(url, str) or not url.startswith("data:"):
        raise Refused(
            400,
            "not_a_data_uri",
            "image_url: expected a data URI (data:image/png;base64,…); nothing is fetched",
        )
    return decoded(url)


def decoded(text: Any) -> bytes:
    """Return an image's bytes from base64 text or a data URI; Refused 400 for anything else."""
    try:
        encoded = text.partition(",")[2] if text.startswith("data:") else text
        return base64.b64decode(encoded, validate=True)
    except (AttributeError, TypeError, ValueError, binascii.Error):
        raise Refused(400, "bad_base64", "expected an image as base64 text") from None


async def read_body(chunks: AsyncIterator[bytes], most: int, deadline: float) -> bytes:
    """Return the whole body; Refused 413 once it is too long, 408 after the deadline.

    `most` in bytes, whatever its Content-Length; `deadline` of `time.monotonic`.
    """
    parts, size = list[bytes](), 0
    async for chunk in chunks:
        size += len(chunk)
        if size > most:
            message = f"more than {most:,} bytes; send fewer or smaller images"
            raise Refused(413, "body_too_large", message)
        if time.monotonic() > deadline:
            raise Refused(408, "body_too_slow", "the request's body did not arrive in time")
        parts.append(chunk)
    return b"".join(parts)

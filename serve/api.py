"""Requests → encoded images, readings → answers: raw bodies, forms, JSON, and the shape of OpenAI's chat completions. Nothing is read or decoded here."""

import base64
import binascii
import json
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from serve.config import LimitSettings
from serve.limits import Refused, told
from serve.recognizer import Found, Read


@dataclass(frozen=True, slots=True)
class Asked:
    """The encoded images of a request, each with a name to tell it by; `single`: the answer is one object, not a list."""

    names: tuple[str, ...]
    images: tuple[bytes, ...]
    single: bool = False


async def images_of(content_type: str, body: bytes, limits: LimitSettings) -> Asked:
    """Of `POST /v1/ocr`; Refused 400 or 415 where there is none to be found."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind.startswith("image/") or kind == "application/octet-stream":
        return Asked(("image",), (body,), single=True)
    if kind == "multipart/form-data":
        return _bounded(await _of_form(content_type, body, limits), limits)
    if kind == "application/json":
        return _bounded(_of_json(_parsed(body)), limits)
    raise Refused(415, "unsupported_media_type", f"{kind or 'no Content-Type'}: image/…, multipart/form-data with files, or application/json is expected")


def image_of_chat(body: bytes, limits: LimitSettings) -> Asked:
    """The images of the last user message of `POST /v1/chat/completions`, each a data URI in an `image_url`."""
    messages = _parsed(body).get("messages")
    contents = (
        [message.get("content") for message in messages if isinstance(message, dict) and message.get("role") == "user"] if isinstance(messages, list) else []
    )
    parts = contents[-1] if contents and isinstance(contents[-1], list) else []
    urls = [part["image_url"].get("url") for part in parts if isinstance(part, dict) and isinstance(part.get("image_url"), dict)]
    if not urls:
        raise Refused(400, "no_image", "messages: the last one of the user has no image_url; send it as a data URI")
    return _bounded(Asked(tuple(f"image {place}" for place in range(1, len(urls) + 1)), tuple(_of_data_uri(url) for url in urls)), limits)


def answer(asked: Asked, found: Sequence[Found], model: str, seconds: float, detail: bool = False) -> dict[str, Any]:
    """`{text, confidence, model, seconds}`, or a list of results in the order of the images, each with its reading or its error; `detail` adds its lines."""
    common = {"model": model, "seconds": round(seconds, 4)}
    if asked.single:
        return {**_result(found[0], detail), **common}
    return {"results": [{"name": name, **_result(result, detail)} for name, result in zip(asked.names, found, strict=True)], **common}


def chat_answer(found: Sequence[Found], model: str) -> dict[str, Any]:
    """As OpenAI's chat completions answer; the readings of several images stand below each other."""
    text = "\n".join(read.reading.text for read in found if isinstance(read, Read))
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": "chat.completion", "created": int(time.time()), "model": model, "choices": [choice], "usage": usage}


def _result(found: Found, detail: bool) -> dict[str, Any]:
    if isinstance(found, Refused):
        return told(found)
    read = {"text": found.reading.text, "confidence": round(found.reading.confidence, 6)}
    return {**read, "lines": [{**read, "box": [0, 0, found.width, found.height]}]} if detail else read


def _bounded(asked: Asked, limits: LimitSettings) -> Asked:
    if not asked.images:
        raise Refused(400, "no_image", "the request has no image")
    if len(asked.images) > limits.max_images:
        raise Refused(413, "too_many_images", f"{len(asked.images)} images, at most {limits.max_images} are taken at once")
    return asked


async def _of_form(content_type: str, body: bytes, limits: LimitSettings) -> Asked:
    async def once() -> AsyncIterator[bytes]:
        yield body

    parser = MultiPartParser(Headers({"content-type": content_type}), once(), max_files=limits.max_images + 1, max_fields=64)  # type: ignore[arg-type]
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as problem:
        raise Refused(400, "bad_form", f"multipart/form-data: {getattr(problem, 'message', problem)}") from None
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    return Asked(tuple(file.filename or f"image {place}" for place, file in enumerate(files, start=1)), tuple([await file.read() for file in files]))


def _of_json(values: dict[str, Any]) -> Asked:
    """`{"image": BASE64}` or `{"images": [BASE64, …]}`; data URIs are taken too."""
    if "image" in values:
        return Asked(("image",), (_decoded(values["image"]),), single=True)
    images = values.get("images")
    if not isinstance(images, list):
        raise Refused(400, "no_image", 'JSON: {"image": "base64…"} or {"images": ["base64…", …]} is expected')
    return Asked(tuple(f"image {place}" for place in range(1, len(images) + 1)), tuple(_decoded(image) for image in images))


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
        raise Refused(400, "not_a_data_uri", "image_url: only data URIs are read (data:image/png;base64,…); nothing is fetched from here")
    return _decoded(url)


def _decoded(text: Any) -> bytes:
    try:
        return base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text, validate=True)
    except (AttributeError, TypeError, ValueError, binascii.Error):
        raise Refused(400, "bad_base64", "an image is expected as base64 text") from None

"""Requests → encoded images, readings → answers.

Raw bodies, forms and JSON; images are not decoded here.
"""

import base64
import json
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast
from urllib.parse import unquote

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from ocr.reading.page import rectangle, words_on_page
from ocr.writers.plain import words_of
from serve.batching import Read
from serve.config import LimitSettings
from serve.errors import Refused
from serve.formats import JSON, format_of

Level = Literal["line", "page", "auto"]
_TO_STANDARD = bytes.maketrans(b"-_", b"+/")
_WHITE_SPACE = b" \t\r\n\f\v"


@dataclass(frozen=True, slots=True)
class ImagesRequest:
    """The encoded images of a request, each with a name.

    `single`: the answer is one object, not a list; `level`: an image shows a line or a page, or
    its shape decides; `details`: lines (the line of an image), words, images (of pages).
    """

    names: tuple[str, ...]
    images: tuple[bytes, ...]
    single: bool = False
    level: Level = "line"
    details: frozenset[str] = frozenset()
    format: str = JSON


async def images_of(
    content_type: str,
    body: bytes,
    limits: LimitSettings,
    query: Mapping[str, Sequence[str]],
    accept: str = "",
) -> ImagesRequest:
    """Return the images of `POST /v1/ocr?level=…&detail=…&format=…`; Refused 400 or 415."""
    asked = await _images_of(content_type, body, limits)
    if not query and accept in ("", "*/*"):
        return asked
    asked = replace(
        asked,
        level=level_of(query.get("level", ["line"])[-1]),
        details=frozenset(query.get("detail", [""])[-1].split(",")),
        format=format_of(query.get("format", [None])[-1], accept),
    )
    if asked.format != JSON and len(asked.images) > 1:
        raise Refused(
            400,
            "one_document",
            f"format={asked.format} has one document a request, found {len(asked.images)}; send "
            "one each, or format=json",
        )
    return asked


def level_of(given: Any) -> Level:
    """Return the level; Refused 400 for another word."""
    if given in ("line", "page", "auto"):
        return cast(Level, given)
    expected = "line (an image shows one), page, or auto (by kind and shape)"
    raise Refused(400, "bad_level", f"level: expected {expected}, got {str(given)[:40]!r}")


async def _images_of(content_type: str, body: bytes, limits: LimitSettings) -> ImagesRequest:
    kind = content_type.partition(";")[0].strip().lower()
    if kind.startswith("image/") or kind in ("application/octet-stream", "application/pdf"):
        return ImagesRequest(("image",), (body,), single=True)
    if kind == "multipart/form-data":
        return bounded(await _of_form(content_type, body, limits), limits)
    if kind == "application/json":
        return bounded(_of_json(parsed(body)), limits)
    raise Refused(
        415,
        "unsupported_media_type",
        "Content-Type: expected image/…, application/pdf, multipart/form-data with files or "
        f"application/json, got {kind or 'none'}",
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


def line_result(
    read: Read, details: frozenset[str] = frozenset(), with_tokens: bool = False
) -> dict[str, Any]:
    """Return `{text, confidence}`; details lines and words add the line, as pages have them."""
    plain = {"text": read.reading.text, "confidence": round(read.reading.confidence, 6)}
    if with_tokens:
        return {**plain, "tokens": read.reading.tokens}
    if details.isdisjoint(("lines", "words")):
        return plain
    line = {**plain, "box": [0, 0, read.width, read.height]}
    if "words" in details:
        line["words"] = words_of(words_on_page(rectangle(read.width, read.height), read.spans))
    return {**plain, "lines": [line]}


def bounded(asked: ImagesRequest, limits: LimitSettings) -> ImagesRequest:
    """Return the request; Refused where it has no image or too many."""
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
        tuple(decoded(image, f"image {number}") for number, image in enumerate(images, start=1)),
    )


def parsed(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a body; Refused 400 for anything else."""
    try:
        values = json.loads(body)
    except (ValueError, RecursionError) as problem:
        raise Refused(400, "bad_json", f"not valid JSON: {type(problem).__name__}") from None
    if not isinstance(values, dict):
        raise Refused(400, "bad_json", f"expected a JSON object, got {type(values).__name__}")
    return values


def decoded(text: Any, name: str = "the image") -> bytes:
    """Return an image's bytes from base64 text or a data URI; Refused 400 for anything else.

    White space is passed over, `-_` mean `+/`, and `=` at the end may be missing.
    """
    if not isinstance(text, str):
        raise _no_base64(name, f"got {type(text).__name__}")
    encoded = text.strip()
    if encoded[:5].lower() == "data:":
        head, comma, encoded = encoded.partition(",")
        if not comma or "base64" not in head.lower().split(";")[1:]:
            raise _no_base64(name, f"the data URI begins with {head[:60]!r}, not …;base64,")
        encoded = unquote(encoded)
    try:
        plain = encoded.encode("ascii").translate(_TO_STANDARD, _WHITE_SPACE).rstrip(b"=")
        return base64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)
    except ValueError:
        raise _no_base64(name, _fault_of(encoded)) from None


def _no_base64(name: str, why: str) -> Refused:
    return Refused(400, "bad_base64", f"{name}: expected an image as base64 text; {why}")


def _fault_of(encoded: str) -> str:
    wrong = re.search(r"[^A-Za-z0-9+/_\-=\s]|=(?=\s*[^=\s])", encoded)
    if wrong:
        return f"character {wrong.start() + 1} is {wrong[0]!r}"
    return "its end is missing"


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

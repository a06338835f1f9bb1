"""`POST /v1/chat/completions`: requests and answers of OpenAI's API, whole or as events."""

import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serve.config import LimitSettings
from serve.errors import Refused
from serve.payloads import ImagesRequest, bounded, decoded, level_of, parsed

# fields that change what an answer is, and the values that ask for what is given anyway
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "stop": ([],),
    "store": (False,),
    "web_search_options": (),
}


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """The images of the last user message, and whether the answer comes as events."""

    images: ImagesRequest
    stream: bool = False
    include_usage: bool = False


def chat_request(body: bytes, limits: LimitSettings) -> ChatRequest:
    """Return what a body asks for.

    Each image is a data URI in an `image_url`; `level` beside `messages` is that of /v1/ocr.
    Raises Refused 400 for a field that asks for another kind of answer.
    """
    values = parsed(body)
    _refuse_other_answers(values)
    urls = _urls(values.get("messages"))
    if not urls:
        raise Refused(
            400,
            "no_image",
            "messages: the last user message has no image_url; send the image as a data URI",
        )
    names = tuple(f"image {number}" for number in range(1, len(urls) + 1))
    asked = ImagesRequest(
        names,
        tuple(_of_data_uri(url, name) for url, name in zip(urls, names, strict=True)),
        level=level_of(values.get("level", "line")),
    )
    options = values.get("stream_options") or {}
    if not isinstance(options, dict):
        message = f"stream_options: expected an object, got {json.dumps(options)[:40]}"
        raise Refused(400, "unsupported", message)
    usage = options.get("include_usage") is True
    return ChatRequest(bounded(asked, limits), values.get("stream") is True, usage)


def _refuse_other_answers(values: Mapping[str, Any]) -> None:
    for name, neutral in _NEUTRAL.items():
        given = values.get(name)
        if given is not None and not any(
            given == value and isinstance(given, bool) == isinstance(value, bool)
            for value in neutral
        ):
            raise Refused(
                400,
                "unsupported",
                f"{name}: {json.dumps(given, ensure_ascii=False)[:60]} is not supported; "
                "an answer is the text of the images; leave it out",
            )
    if not isinstance(stream := values.get("stream"), bool | None):
        message = f"stream: expected true or false, got {json.dumps(stream)[:40]}"
        raise Refused(400, "unsupported", message)


def _urls(messages: Any) -> list[Any]:
    listed = messages if isinstance(messages, list) else []
    contents = [
        message.get("content")
        for message in listed
        if isinstance(message, dict) and message.get("role") == "user"
    ]
    parts = contents[-1] if contents and isinstance(contents[-1], list) else []
    given = [part["image_url"] for part in parts if isinstance(part, dict) and "image_url" in part]
    return [url.get("url") if isinstance(url, dict) else url for url in given]


def _of_data_uri(url: Any, name: str) -> bytes:
    if not isinstance(url, str) or url[:5].lower() != "data:":
        raise Refused(
            400,
            "not_a_data_uri",
            "image_url: expected a data URI (data:image/png;base64,…); nothing is fetched",
        )
    return decoded(url, name)


def usage_of(results: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return the tokens of all images: what the model was given, and what it wrote."""
    given = sum(result["tokens"][0] for result in results)
    written = sum(result["tokens"][1] for result in results)
    return {
        "prompt_tokens": given,
        "completion_tokens": written,
        "total_tokens": given + written,
    }


def chat_answer(texts: Sequence[str], model: str, usage: Mapping[str, int]) -> dict[str, Any]:
    """Return an answer in the shape of OpenAI's chat completions, one line of text per image."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "\n".join(texts)},
        "logprobs": None,
        "finish_reason": "stop",
    }
    return {**_head(model, "chat.completion"), "choices": [choice], "usage": dict(usage)}


def chat_events(
    texts: Sequence[str], model: str, usage: Mapping[str, int], include_usage: bool
) -> Iterator[str]:
    """Yield the same answer as server-sent events, a chunk for each image's text."""
    head = _head(model, "chat.completion.chunk") | ({"usage": None} if include_usage else {})

    def event(delta: dict[str, str], finish_reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return _event({**head, "choices": [choice]})

    yield event({"role": "assistant", "content": ""})
    for number, text in enumerate(texts):
        yield event({"content": f"\n{text}" if number else text})
    yield event({}, "stop")
    if include_usage:
        yield _event({**head, "choices": [], "usage": dict(usage)})
    yield "data: [DONE]\n\n"


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


def _head(model: str, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
    }

"""One real endpoint on this machine.

It reads what read.py reads, alone and among many, and refuses what is no image, too much or not
allowed.
"""

import base64
import hashlib
import io
import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image

from ocr.dataset.read import Dataset
from ocr.errors import UserError
from ocr.images import encode_image, open_image
from ocr.recognizers.factory import load
from ocr.settings import parse_settings
from serve.client import Client
from serve.config import ServeConfig
from tests.support.browser import browser
from tests.support.commands import assert_refused, call, start
from tests.support.running import free_port

KEY = "correct horse battery staple"
LIMITS = [
    "limits.max_body_bytes=400000",
    "limits.max_images=8",
    "limits.max_pixels=1000000",
    "limits.request_timeout_s=5",
]


@pytest.fixture(scope="module")
def endpoint(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    port, digest = free_port(), hashlib.sha256(KEY.encode()).hexdigest()
    storage = tmp_path_factory.mktemp("serve")
    process = start(
        "deploy",
        "odia",
        f"port={port}",
        f"storage_path={storage}",
        f"api_keys_sha256=[{digest}]",
        "autoscaling.max_replicas=1",
        *LIMITS,
    )
    address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 120
    while True:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the endpoint did not come up"
        try:
            if requests.get(f"{address}/readyz", timeout=2).ok:
                break
        except requests.RequestException:
            time.sleep(0.3)
    yield address, process
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    data = Dataset.open("odia_words", "validation")
    return [data.image_bytes(index) for index in range(12)]


@pytest.fixture(scope="module")
def expected(images: list[bytes]) -> list[str]:
    return [
        reading.text for reading in load(Path("odia")).read([open_image(image) for image in images])
    ]


def post(
    endpoint: Any,
    body: Any = None,
    kind: str | None = "image/webp",
    path: str = "/v1/ocr",
    key: str | None = KEY,
    **more: Any,
) -> requests.Response:
    headers = {
        **({"Content-Type": kind} if kind else {}),
        **({"Authorization": f"Bearer {key}"} if key else {}),
    }
    return requests.post(endpoint[0] + path, data=body, headers=headers, timeout=30, **more)


def assert_error(answered: requests.Response, status: int, code: str) -> None:
    assert answered.status_code == status, answered.text
    assert answered.json()["error"]["code"] == code
    assert "Traceback" not in answered.text


def test_a_posted_image_is_read_as_the_bundle_reads_it(
    endpoint: Any, images: list[bytes], expected: list[str]
) -> None:
    for image, text in zip(images[:4], expected, strict=False):
        answered = post(endpoint, image)
        assert answered.status_code == 200
        found = answered.json()
        assert found["text"] == text
        assert 0 <= found["confidence"] <= 1
        assert found["model"].startswith("base-odia@")
        assert found["seconds"] < 5


def test_many_images_at_once_in_every_shape_are_read_as_they_are_alone(
    endpoint: Any, images: list[bytes], expected: list[str]
) -> None:
    form = post(
        endpoint,
        kind=None,
        files=[("image", (f"{place}.webp", image)) for place, image in enumerate(images[:8])],
    ).json()
    assert [result["text"] for result in form["results"]] == expected[:8]
    assert [result["name"] for result in form["results"]] == [f"{place}.webp" for place in range(8)]
    texts = [base64.b64encode(image).decode() for image in images[:3]]
    listed = post(endpoint, json.dumps({"images": texts}), "application/json").json()
    assert [result["text"] for result in listed["results"]] == expected[:3]
    assert (
        post(
            endpoint,
            json.dumps({"image": f"data:image/webp;base64,{texts[0]}"}),
            "application/json",
        ).json()["text"]
        == expected[0]
    )
    assert [reading.text for reading in Client(endpoint[0], KEY).read(images[:5])] == expected[:5]
    assert Client(endpoint[0], KEY).read(images[0]).text == expected[0]


def test_clients_of_openais_vision_models_get_their_own_shape(
    endpoint: Any, images: list[bytes], expected: list[str]
) -> None:
    url = f"data:image/webp;base64,{base64.b64encode(images[0]).decode()}"
    content = [
        {"type": "text", "text": "Read this."},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    answered = post(
        endpoint,
        json.dumps({"model": "lipi", "messages": [{"role": "user", "content": content}]}),
        "application/json",
        "/v1/chat/completions",
    )
    assert answered.json()["choices"][0]["message"] == {"role": "assistant", "content": expected[0]}
    content[1]["image_url"] = {"url": "http://example.org/image.png"}
    asked = json.dumps({"messages": [{"role": "user", "content": content}]})
    assert_error(
        post(endpoint, asked, "application/json", "/v1/chat/completions"), 400, "not_a_data_uri"
    )
    assert_error(post(endpoint, "{}", "application/json", "/v1/chat/completions"), 400, "no_image")


CHAT = "/v1/chat/completions"


def chat_body(images: list[bytes], **more: Any) -> str:
    parts = [
        {
            "type": "image_url",
            "image_url": {"url": f"data:image/webp;base64,{base64.b64encode(image).decode()}"},
        }
        for image in images
    ]
    return json.dumps({"model": "lipi", "messages": [{"role": "user", "content": parts}], **more})


def test_a_streaming_client_gets_the_text_as_events(
    endpoint: Any, images: list[bytes], expected: list[str]
) -> None:
    asked = chat_body(images[:2], stream=True, stream_options={"include_usage": True})
    answered = post(endpoint, asked, "application/json", CHAT, stream=True)
    assert answered.headers["content-type"].startswith("text/event-stream")
    lines = [line.decode() for line in answered.iter_lines() if line]
    assert all(line.startswith("data: ") for line in lines) and lines[-1] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta.get("content", "") for delta in deltas) == "\n".join(expected[:2])
    assert [c["finish_reason"] for chunk in chunks for c in chunk["choices"]][-1] == "stop"
    whole = post(endpoint, chat_body(images[:2]), "application/json", CHAT).json()
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"] == whole["usage"]
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    plain = post(endpoint, chat_body(images[:1], stream=True), "application/json", CHAT).text
    assert "usage" not in plain
    refused = post(endpoint, chat_body([b"no image"], stream=True), "application/json", CHAT)
    assert_error(refused, 422, "not_a_readable_image")


def test_openais_own_client_reads_whole_and_streamed(
    endpoint: Any, images: list[bytes], expected: list[str]
) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{endpoint[0]}/v1", api_key=KEY)
    asked = {"model": "lipi", "messages": json.loads(chat_body(images[:1]))["messages"]}
    whole = client.chat.completions.create(**asked)
    assert whole.choices[0].message.content == expected[0]
    chunks = list(client.chat.completions.create(**asked, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == expected[0]
    (model,) = client.models.list()
    assert client.models.retrieve(model.id).id == model.id


def test_usage_counts_output_columns_and_characters(
    endpoint: Any, images: list[bytes], expected: list[str]
) -> None:
    one, two = (
        post(endpoint, chat_body(images[:count]), "application/json", CHAT).json()["usage"]
        for count in (1, 2)
    )
    assert one["completion_tokens"] == len(expected[0]) < one["prompt_tokens"] < 400
    assert two["completion_tokens"] == len(expected[0]) + len(expected[1])
    assert two["total_tokens"] == two["prompt_tokens"] + two["completion_tokens"]
    page, word = np.full((500, 700), 255, np.uint8), open_image(images[0])
    for top in (50, 150, 250):
        page[top : top + word.shape[0], 60 : 60 + word.shape[1]] = word
    asked = chat_body([encode_image(page)], level="page")
    found = post(endpoint, asked, "application/json", CHAT).json()
    text = found["choices"][0]["message"]["content"].replace("\n", "")
    assert found["usage"]["completion_tokens"] == len(text) > 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 2),
        ("n", True),
        ("response_format", {"type": "json_object"}),
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("tool_choice", "required"),
        ("functions", [{"name": "f"}]),
        ("logprobs", True),
        ("top_logprobs", 3),
        ("stop", ["\n"]),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "alloy"}),
        ("stream", "yes"),
        ("stream_options", [1]),
    ],
)
def test_a_field_that_asks_for_another_answer_is_refused_by_name(
    endpoint: Any, images: list[bytes], name: str, value: Any
) -> None:
    answered = post(endpoint, chat_body(images[:1], **{name: value}), "application/json", CHAT)
    assert_error(answered, 400, "unsupported")
    assert answered.json()["error"]["message"].startswith(f"{name}: ")


def test_fields_that_change_nothing_are_taken(
    endpoint: Any, images: list[bytes], expected: list[str]
) -> None:
    common = {
        "n": 1,
        "stream": None,
        "response_format": {"type": "text"},
        "tools": [],
        "stop": None,
    }
    more = {"temperature": 0.0, "max_tokens": 100, "top_p": 1, "seed": 1, "user": "u"}
    asked = chat_body(images[:1], **common, **more)
    answered = post(endpoint, asked, "application/json", CHAT).json()
    assert answered["choices"][0]["message"]["content"] == expected[0]


def test_base64_is_read_as_programs_write_it(
    endpoint: Any, images: list[bytes], expected: list[str]
) -> None:
    plain = base64.b64encode(images[0]).decode()
    forms = [
        "\n".join(plain[at : at + 76] for at in range(0, len(plain), 76)) + "\r\n",
        f"  {plain[:10]}\t {plain[10:]}",
        base64.urlsafe_b64encode(images[0]).decode(),
        plain.rstrip("="),
        base64.urlsafe_b64encode(images[0]).decode().rstrip("="),
        f"data:image/webp;base64,{plain}",
        f"DATA:image/webp;charset=utf-8;BASE64,{plain}",
        "data:image/webp;base64," + plain.replace("+", "%2B").replace("=", "%3D"),
    ]
    for form in forms:
        answered = post(endpoint, json.dumps({"image": form}), "application/json")
        assert answered.json().get("text") == expected[0], (form[:40], answered.text)
    wrong = {
        "AAAA*AAA": "the image: expected an image as base64 text; character 5 is '*'",
        "AA=AAA": "character 3 is '='",
        "AAAAA": "its end is missing",
        "ଘର": "character 1 is 'ଘ'",
        "data:image/png,abc": "the data URI begins with 'data:image/png', not …;base64,",
    }
    for text, says in wrong.items():
        answered = post(endpoint, json.dumps({"image": text}), "application/json")
        assert_error(answered, 400, "bad_base64")
        assert says in answered.json()["error"]["message"]
    listed = post(endpoint, json.dumps({"images": [plain, 7]}), "application/json")
    assert "image 2: expected" in listed.json()["error"]["message"]


def test_a_model_is_listed_and_found_by_its_id(endpoint: Any) -> None:
    def get(path: str) -> requests.Response:
        headers = {"Authorization": f"bearer {KEY}"}
        return requests.get(endpoint[0] + path, headers=headers, timeout=5)

    (model,) = get("/v1/models").json()["data"]
    assert model["object"] == "model" and model["owned_by"] == "lipi"
    assert abs(model["created"] - time.time()) < 3600
    assert get(f"/v1/models/{model['id']}").json() == model
    missing = get("/v1/models/gpt-4o")
    assert_error(missing, 404, "not_found")
    assert model["id"] in missing.json()["error"]["message"]
    assert isinstance(get("/v1/models/journal").json(), list)


def test_head_asks_without_a_body(endpoint: Any) -> None:
    for path in ("/", "/healthz", "/readyz", "/docs"):
        answered = requests.head(endpoint[0] + path, timeout=5)
        assert (answered.status_code, answered.content) == (200, b""), path
        kind = requests.get(endpoint[0] + path, timeout=5).headers["content-type"]
        assert answered.headers["content-type"] == kind
    assert requests.head(f"{endpoint[0]}/nowhere", timeout=5).status_code == 401


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer "])
def test_the_word_before_a_key_is_taken_in_any_case(
    endpoint: Any, images: list[bytes], scheme: str
) -> None:
    def status(value: str) -> int:
        headers = {"Authorization": value, "Content-Type": "image/webp"}
        return requests.post(
            f"{endpoint[0]}/v1/ocr", images[0], headers=headers, timeout=30
        ).status_code

    assert status(f"{scheme} {KEY}") == 200
    for wrong in (f"{scheme} other", KEY, f"Basic {KEY}", scheme, f"{scheme}{KEY}x"):
        assert status(wrong) == 401, wrong


def test_a_crowd_of_requests_gets_one_text_for_one_image(
    endpoint: Any, images: list[bytes], expected: list[str]
) -> None:
    wrong: list[Any] = []

    def ask(place: int) -> None:
        for turn in range(10):
            which = (place + turn) % len(images)
            answered = post(endpoint, images[which])
            if answered.status_code != 200 or answered.json()["text"] != expected[which]:
                wrong.append((answered.status_code, answered.text))

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_one_poisoned_image_spoils_no_other(
    endpoint: Any, images: list[bytes], expected: list[str]
) -> None:
    files = [
        ("image", ("good.webp", images[0])),
        ("image", ("torn.webp", images[1][:40])),
        ("image", ("also good.webp", images[2])),
    ]
    results = post(endpoint, kind=None, files=files).json()["results"]
    assert [result.get("text") for result in results] == [expected[0], None, expected[2]]
    assert results[1]["error"]["code"] == "not_a_readable_image"
    with pytest.raises(UserError, match="image 1: not a readable image"):
        Client(endpoint[0], KEY).read([b"no image"])


def big_png(side: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((side, side), 255, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_what_is_no_image_or_too_large_is_refused_with_a_code(
    endpoint: Any, images: list[bytes]
) -> None:
    assert_error(post(endpoint, b""), 422, "empty_file")
    assert_error(post(endpoint, b"text"), 422, "not_a_readable_image")
    assert_error(
        post(endpoint, big_png(1500)), 422, "image_too_large"
    )  # a small file of many pixels
    assert_error(post(endpoint, images[0], "text/plain"), 415, "unsupported_media_type")
    assert_error(post(endpoint, images[0], None), 415, "unsupported_media_type")
    assert_error(post(endpoint, "{", "application/json"), 400, "bad_json")
    assert_error(post(endpoint, "[" * 100_000, "application/json"), 400, "bad_json")
    assert_error(post(endpoint, '{"image": "%%%"}', "application/json"), 400, "bad_base64")
    assert_error(post(endpoint, '{"image": 7}', "application/json"), 400, "bad_base64")
    assert_error(post(endpoint, "{}", "application/json"), 400, "no_image")
    assert_error(post(endpoint, b"--x", "multipart/form-data"), 400, "bad_form")
    assert_error(
        post(endpoint, kind=None, files=[("image", ("a", images[0]))] * 9), 413, "too_many_images"
    )


def test_bodies_are_counted_while_they_come_in(endpoint: Any) -> None:
    assert_error(post(endpoint, b"x" * 500_000), 413, "body_too_large")
    assert_error(
        post(endpoint, iter([b"x" * 50_000] * 20)), 413, "body_too_large"
    )  # chunked: it says nothing of its length


def test_a_slow_client_is_let_go_and_others_are_not_held_up(
    endpoint: Any, images: list[bytes]
) -> None:
    host, port = endpoint[0].removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as slow:
        head = (
            f"POST /v1/ocr HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer "
            f"{KEY}\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\nx"
        )
        slow.sendall(head.encode())
        began = time.monotonic()
        assert post(endpoint, images[0]).status_code == 200
        assert time.monotonic() - began < 4
        slow.settimeout(20)
        answer = slow.recv(4096).decode()
        assert any(status in answer for status in (" 408 ", " 504 ")), answer
        assert time.monotonic() - began < 15


def test_only_known_keys_are_let_in(endpoint: Any, images: list[bytes]) -> None:
    for key in (None, "", "wrong", KEY + "x", KEY[:-1]):
        assert_error(post(endpoint, images[0], key=key), 401, "unauthorized")
    assert requests.get(f"{endpoint[0]}/healthz", timeout=5).json()["status"] == "ok"


def test_the_page_asks_for_a_key_and_keeps_it(endpoint: Any) -> None:
    address, _ = endpoint
    with browser() as chromium:
        page = chromium.new_page()
        page.goto(address)
        page.wait_for_selector("#key-form", state="visible")
        page.fill("#key", KEY)
        page.click("#key-form button")
        page.wait_for_selector("#key-form", state="hidden")
        assert "base-odia@" in page.inner_text("#live")


def test_unknown_routes_and_methods_are_told_what_there_is(endpoint: Any) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    assert_error(
        requests.get(f"{endpoint[0]}/nowhere", timeout=5, headers=headers), 404, "not_found"
    )
    assert_error(
        requests.get(f"{endpoint[0]}/v1/ocr", timeout=5, headers=headers), 405, "method_not_allowed"
    )
    assert_error(requests.get(f"{endpoint[0]}/nowhere", timeout=5), 401, "unauthorized")
    body, address = {"max_steps": 10}, f"{endpoint[0]}/v1/retrain"
    refused = requests.post(address, json=body, timeout=5, headers=headers)
    assert_error(refused, 422, "invalid")
    assert "max_steps: unknown; GET /docs lists what this route takes" in refused.text


def test_other_origins_get_no_leave_to_read(endpoint: Any) -> None:
    headers = {
        "Origin": "http://elsewhere.example",
        "Access-Control-Request-Method": "POST",
        "Authorization": f"Bearer {KEY}",
    }
    answered = requests.options(f"{endpoint[0]}/v1/ocr", headers=headers, timeout=5)
    assert answered.status_code == 405
    assert not [name for name in answered.headers if name.lower().startswith("access-control")]


def test_lines_come_with_their_boxes_where_they_are_asked_for(
    endpoint: Any, images: list[bytes], expected: list[str]
) -> None:
    found = post(endpoint, images[0], path="/v1/ocr?detail=lines").json()
    height, width = open_image(images[0]).shape
    assert found["lines"] == [
        {"text": expected[0], "confidence": found["confidence"], "box": [0, 0, width, height]}
    ]


def test_the_openapi_document_has_every_route_and_a_page_with_commands_for_them(
    endpoint: Any,
) -> None:
    document = requests.get(f"{endpoint[0]}/openapi.json", timeout=5).json()
    assert {
        "/v1/ocr",
        "/v1/chat/completions",
        "/v1/models",
        "/v1/models/promote",
        "/metrics",
        "/healthz",
        "/readyz",
    } <= set(document["paths"])
    page = requests.get(f"{endpoint[0]}/docs", timeout=5).text
    assert all(path in page for path in document["paths"])
    assert "curl -F image=@one.png" in page
    assert "http" not in page.replace(endpoint[0], ""), "the page fetches nothing from elsewhere"


def test_prometheus_finds_the_requests_of_this_endpoint(endpoint: Any, images: list[bytes]) -> None:
    post(endpoint, images[0])
    deadline = time.monotonic() + 30
    while "ray_lipi_requests_total{" not in (
        text := requests.get(
            f"{endpoint[0]}/metrics", headers={"Authorization": f"Bearer {KEY}"}, timeout=5
        ).text
    ):
        assert time.monotonic() < deadline, text[-2000:]
        time.sleep(1)
    assert 'status="200"' in text
    assert KEY not in text


def test_sigterm_ends_it_and_frees_the_port(endpoint: Any) -> None:
    """The last of this file: the endpoint is gone afterwards."""
    address, process = endpoint
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert KEY not in out
    with pytest.raises(requests.RequestException):
        requests.get(f"{address}/healthz", timeout=2)


def test_an_endpoint_that_others_reach_needs_keys_and_digests_are_no_keys() -> None:
    with pytest.raises(
        UserError, match=r"host 0\.0\.0\.0 is reached from other machines; set api_keys"
    ):
        parse_settings(ServeConfig, {"bundle": "odia", "host": "0.0.0.0"}, "serve")
    with pytest.raises(UserError, match="expected SHA-256 in hex"):
        parse_settings(ServeConfig, {"bundle": "odia", "api_keys_sha256": ["secret"]}, "serve")


def test_a_bundle_that_is_not_there_and_a_port_that_is_taken_are_told_at_once() -> None:
    assert_refused(call("deploy", "nothing"), "nothing: expected a bundle", "odia")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert_refused(
            call("deploy", "odia", f"port={taken.getsockname()[1]}"),
            "Address already in use",
            "set port",
        )

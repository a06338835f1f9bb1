"""Label Studio's requests to an ML backend, in the shape in which it sends them."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import numpy as np
import pytest
import requests

from ocr.dataset.read import Dataset
from ocr.images import encode_image, open_image
from ocr.settings import parse_settings
from serve.config import ServeConfig
from serve.errors import Refused
from serve.label_studio import Labelling, corrections_of, image_bytes, tasks_of
from tests.support.composed_pages import composed_page
from tests.support.running import Running, endpoint

LINES = """<View>
  <Image name="image" value="$ocr"/>
  <TextArea name="transcription" toName="image" editable="true" maxSubmissions="1"/>
</View>"""
PAGES = """<View>
  <Image name="image" value="$ocr" zoom="true" rotateControl="true"/>
  <Labels name="label" toName="image">
    <Label value="Text" background="green"/><Label value="Handwriting" background="blue"/>
  </Labels>
  <Rectangle name="bbox" toName="image" strokeWidth="3"/>
  <Polygon name="poly" toName="image" strokeWidth="3"/>
  <TextArea name="transcription" toName="image" editable="true" perRegion="true" required="true"
            maxSubmissions="1" rows="5" placeholder="Recognized Text" displayMode="region-list"/>
</View>"""
PROJECT = {"id": 7, "title": "Letters", "label_config": PAGES}


def word(number: int) -> bytes:
    data = Dataset.open("odia_words", "validation")
    return encode_image(open_image(data.image_bytes(number)))


def uri(image: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"


def task(number: int, image: str) -> dict[str, Any]:
    return {"id": number, "data": {"ocr": image}, "annotations": [], "predictions": []}


def predicting(config: str, *images: str) -> dict[str, Any]:
    """As Label Studio's MLApi sends it."""
    return {
        "tasks": [task(number, image) for number, image in enumerate(images, start=1)],
        "project": "7.1764320000",
        "label_config": config,
        "params": {"login": None, "password": None, "context": None},
    }


def event(action: str, image: str, result: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    annotation = {
        "id": 31,
        "completed_by": {"id": 4, "email": "nila@example.org"},
        "result": result,
        "was_cancelled": False,
        "ground_truth": False,
        "updated_at": "2026-03-01T10:00:00Z",
        **more,
    }
    return {"action": action, "annotation": annotation, "task": task(1, image), "project": PROJECT}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with endpoint(tmp_path_factory.mktemp("serve"), "autoscaling.max_replicas=1") as found:
        yield found


def post(running: Running, path: str, body: Any) -> requests.Response:
    return requests.post(f"{running.address}/{path}", json=body, timeout=60)


def records(running: Running) -> list[dict[str, Any]]:
    files = (running.storage / "corrections").glob("*.json")
    return [json.loads(file.read_text()) for file in files]


def test_a_project_is_connected(running: Running) -> None:
    assert running.get("/health")["status"] == "UP"
    asked = {"project": "7.17", "schema": PAGES, "hostname": "http://x", "access_token": "t"}
    assert post(running, "setup", asked).json()["model_version"].startswith("base-odia@")
    wrong = post(running, "setup", {**asked, "schema": "<View><Text name='t' value='$t'/></View>"})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (422, "no_text_area")


def test_lines_are_read_corrected_and_stored_with_their_readings(running: Running) -> None:
    images = [word(0), word(1)]
    found = post(running, "predict", predicting(LINES, *map(uri, images))).json()
    alone = [
        requests.post(
            f"{running.address}/v1/ocr", image, headers={"Content-Type": "image/png"}, timeout=30
        ).json()
        for image in images
    ]
    for prediction, read in zip(found["results"], alone, strict=True):
        (result,) = prediction["result"]
        names = (result["from_name"], result["to_name"], result["type"])
        assert names == ("transcription", "image", "textarea")
        assert result["value"]["text"] == [read["text"]]
        assert prediction["model_version"] == read["model"] == found["model_version"]
        assert prediction["score"] == pytest.approx(read["confidence"], abs=1e-6)
    given = found["results"][0]
    given["result"][0]["id"] = "abc"
    corrected = [{**given["result"][0], "value": {"text": ["ଅଆ"]}, "origin": "prediction"}]
    sent = event("ANNOTATION_CREATED", uri(images[0]), corrected, prediction=given)
    assert post(running, "webhook", sent).json()["stored"] == 1
    again = event("ANNOTATION_UPDATED", uri(images[0]), corrected)
    answer = post(running, "webhook", again).json()
    assert (answer["stored"], answer["unchanged"]) == (0, 1)
    (record,) = records(running)
    assert (record["corrected_text"], record["original_text"]) == ("ଅଆ", alone[0]["text"])
    assert record["user"] == "Label Studio nila@example.org"


def test_a_pages_lines_come_as_regions_and_go_back_as_the_same_lines(running: Running) -> None:
    data = Dataset.open("odia_words", "validation")
    words = [open_image(data.image_bytes(index)) for index in range(200)]
    page, _, _ = composed_page(words, data.texts[:200], columns=2, degrees=1.5, seed=4)
    image = uri(encode_image(page))
    (found,) = post(running, "predict", predicting(PAGES, image)).json()["results"]
    kinds = [result["type"] for result in found["result"]]
    assert kinds[:3] == ["rectangle", "labels", "textarea"] and len(kinds) > 30
    assert found["result"][1]["value"]["labels"] == ["Text"]
    assert found["result"][0]["original_width"] == page.shape[1]
    config = parse_settings(ServeConfig, {"bundle": "odia"}, "serve")
    asked = corrections_of(event("ANNOTATION_CREATED", image, found["result"]), config)
    assert asked is not None
    lines = requests.post(
        f"{running.address}/v1/ocr?level=page", json={"image": image}, timeout=60
    ).json()["pages"][0]["lines"]
    lines = [line for line in lines if line["text"]]
    assert [one.text for one in asked.corrections] == [line["text"] for line in lines]
    for one, line in zip(asked.corrections, lines, strict=True):
        assert np.allclose(np.array(one.polygon), np.array(line["polygon"]), atol=0.2)
        assert one.degrees == pytest.approx(1.5, abs=0.5)
    before = len(records(running))
    sent = event("ANNOTATION_CREATED", image, found["result"][:6])
    assert post(running, "webhook", sent).json()["stored"] == 2
    assert len(records(running)) == before + 2


def test_other_events_store_nothing_and_training_is_asked_for(running: Running) -> None:
    for action in ("ANNOTATIONS_DELETED", "PROJECT_UPDATED", "TASKS_CREATED"):
        assert post(running, "webhook", {"action": action, "project": PROJECT}).json() == {
            "stored": 0
        }
    skipped = event("ANNOTATION_CREATED", uri(word(3)), [], was_cancelled=True)
    assert post(running, "webhook", skipped).json() == {"stored": 0}
    few = post(running, "webhook", {"action": "START_TRAINING", "project": PROJECT})
    assert few.json()["error"]["code"] == "too_few_corrections"
    bare = post(running, "webhook", {"action": "ANNOTATION_CREATED", "annotation": {"id": 1}})
    assert (bare.status_code, bare.json()["error"]["code"]) == (422, "invalid")


class _Studio(BaseHTTPRequestHandler):
    """Label Studio's part: it gives an image for its key, and one redirect to elsewhere."""

    def do_GET(self) -> None:
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1:1/secret")
            self.end_headers()
            return
        known = self.headers["Authorization"] == "Token its-key"
        self.send_response(200 if known else 401)
        self.end_headers()
        self.wfile.write(b"x" * 3000 if self.path == "/large" else b"image")

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def studio(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "its-key")
    server = HTTPServer(("127.0.0.1", 0), _Studio)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_images_are_fetched_from_label_studio_alone(studio: str) -> None:
    labelling = Labelling.of(LINES)

    def fetched(image: Any, url: str | None = studio) -> bytes:
        values = {"bundle": "odia", "label_studio_url": url, "limits": {"max_body_bytes": 1000}}
        config = parse_settings(ServeConfig, values, "serve")
        return image_bytes({"id": 1, "data": {"ocr": image}}, labelling, config)

    assert fetched("/data/upload/7/a.png") == fetched(f"{studio}/data/upload/7/a.png") == b"image"
    assert fetched(uri(b"inside"), None) == b"inside"
    refused: list[tuple[Any, str | None, str]] = [
        ("http://169.254.169.254/latest", studio, "not_fetched"),
        (f"{studio}.evil.example/a.png", studio, "not_fetched"),
        ("//evil.example/a.png", studio, "not_fetched"),
        ("file:///etc/passwd", studio, "not_fetched"),
        ("/data/upload/7/a.png", None, "not_fetched"),
        ("/away", studio, "not_fetched"),
        ("/large", studio, "body_too_large"),
        (7, studio, "no_image"),
    ]
    for image, url, code in refused:
        with pytest.raises(Refused) as caught:
            fetched(image, url)
        assert caught.value.code == code, image


@pytest.mark.parametrize(
    "config",
    ["", "<View>", "<!DOCTYPE x [<!ENTITY a 'b'>]><View>&a;</View>", "<View><TextArea/></View>"],
)
def test_a_config_without_text_of_an_image_is_refused(config: str) -> None:
    with pytest.raises(Refused):
        Labelling.of(config)


@pytest.mark.parametrize("tasks", [None, {}, ["x"], [{}] * 65])
def test_tasks_that_are_none_or_too_many_are_refused(tasks: Any) -> None:
    with pytest.raises(Refused):
        tasks_of({"tasks": tasks})

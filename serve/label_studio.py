"""Label Studio's interface of an ML backend: tasks are read, annotations are stored as corrections.

The requests and answers are those of label-studio-ml (its api.py): /health, /setup, /predict and
/webhook. A labelling config with rectangles gets a region for each line of a page, one without
the text of the whole image. Images come as data URIs, or from `label_studio_url` alone.
"""

import base64
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
import numpy as np
import requests
from defusedxml.common import DefusedXmlException

from ocr.sources.label_studio import image_of, regions_of
from serve.batching import Read
from serve.config import ServeConfig
from serve.correction_lines import Correction, CorrectionsRequest
from serve.errors import Refused
from serve.page_reading import Page
from serve.payloads import decoded

MOST_TASKS = 64
_TIMEOUT_S = 10.0
_STORED = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED")
TRAINING = "START_TRAINING"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Labelling:
    """Names of a labelling config: the image, its text, and its rectangles and their label."""

    image: str
    value: str  # key of a task's data
    text: str
    rectangle: str | None = None
    kind: str = "rectangle"  # or rectanglelabels
    labels: str | None = None
    label: str | None = None

    @classmethod
    def of(cls, config: str) -> "Labelling":
        """Return the names in an XML config; Refused 422 without a TextArea for an Image."""
        tags = _tags(config)
        images = {tag.get("name"): tag for tag in tags if tag.tag == "Image"}
        found = [tag for tag in tags if tag.tag == "TextArea" and tag.get("toName") in images]
        if not found:
            message = "label_config: expected an <Image> and a <TextArea toName=…> for it"
            raise Refused(422, "no_text_area", message)
        image = str(found[0].get("toName"))
        own = [tag for tag in tags if tag.get("toName") == image]
        shape = _first(own, "RectangleLabels") or _first(own, "Rectangle")
        labels = _first(own, "RectangleLabels") or _first(own, "Labels")
        label = labels.find("Label") if labels is not None else None
        return cls(
            image,
            str(images[image].get("value", "")).removeprefix("$"),
            str(found[0].get("name")),
            shape.get("name") if shape is not None else None,
            shape.tag.lower() if shape is not None else "rectangle",
            labels.get("name") if labels is not None and labels.tag == "Labels" else None,
            label.get("value") if label is not None else None,
        )


def _tags(config: str) -> list[Element]:
    try:
        return list(defusedxml.ElementTree.fromstring(config).iter())
    except (ParseError, DefusedXmlException, ValueError) as problem:
        message = f"label_config: not valid XML: {type(problem).__name__}"
        raise Refused(422, "bad_config", message) from None


def _first(tags: Sequence[Element], kind: str) -> Element | None:
    return next((tag for tag in tags if tag.tag == kind), None)


def tasks_of(asked: Mapping[str, Any]) -> list[Json]:
    """Return the tasks of a request; Refused 422 or 413 for none or too many."""
    tasks = asked.get("tasks")
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise Refused(422, "invalid", "tasks: expected a list of tasks")
    if len(tasks) > MOST_TASKS:
        message = f"{len(tasks)} tasks; at most {MOST_TASKS} are read in a request"
        raise Refused(413, "too_many_images", message)
    return tasks


def image_bytes(task: Json, labelling: Labelling | None, config: ServeConfig) -> bytes:
    """Return a task's image, decoded from a data URI or fetched from `label_studio_url`.

    Raises Refused 422 for an image anywhere else, 502 where Label Studio does not give it.
    """
    data = task.get("data")
    named = data.get(labelling.value) if isinstance(data, dict) and labelling else image_of(task)
    if not isinstance(named, str):
        raise Refused(422, "no_image", f"task {task.get('id')}: its data names no image")
    if named[:5].lower() == "data:":
        return decoded(named, f"task {task.get('id')}")
    origin = config.label_studio_url
    url = urljoin(origin, named) if origin else named
    if not origin or urlsplit(url)[:2] != urlsplit(origin)[:2]:
        message = (
            f"task {task.get('id')}: {named[:100]}: images are data URIs or lie at "
            f"label_studio_url ({origin or 'not set'}); nothing else is fetched"
        )
        raise Refused(422, "not_fetched", message)
    return _fetched(url, config.limits.max_body_bytes)


def _fetched(url: str, most: int) -> bytes:
    key = os.environ.get("LABEL_STUDIO_API_KEY")
    headers = {"Authorization": f"Token {key}"} if key else {}
    try:
        with requests.get(
            url, headers=headers, timeout=_TIMEOUT_S, stream=True, allow_redirects=False
        ) as answered:
            if answered.status_code != 200:
                message = f"{url[:200]}: Label Studio answers {answered.status_code}"
                raise Refused(502, "not_fetched", message)
            content = answered.raw.read(most + 1, decode_content=True)
    except requests.RequestException as problem:
        message = f"{url[:200]}: {type(problem).__name__}"
        raise Refused(502, "not_fetched", message) from None
    if len(content) > most:
        raise Refused(413, "body_too_large", f"{url[:200]}: more than {most:,} bytes")
    return bytes(content)


def line_prediction(labelling: Labelling, text: str, confidence: float, model: str) -> Json:
    """Return a prediction with the text of a whole image."""
    one = {**_ids(labelling.text, labelling), "type": "textarea", "value": {"text": [text]}}
    return {"result": [one] if text else [], "score": confidence, "model_version": model}


def page_prediction(labelling: Labelling, page: Page, reads: Sequence[Read], model: str) -> Json:
    """Return a prediction with a rectangle, its label and its text for each line of a page."""
    result = list[Json]()
    for number, (line, read) in enumerate(zip(page.lines, reads, strict=True)):
        if read.reading.text:
            common = {
                "id": f"line{number}",
                "original_width": page.width,
                "original_height": page.height,
                "image_rotation": 0,
            }
            corners = [(float(x), float(y)) for x, y in line.polygon]
            box = _box(corners, line.degrees, page)
            result += _region(labelling, common, box, read)
    scores = [read.reading.confidence for read in reads]
    score = sum(scores) / max(1, len(scores))
    return {"result": result, "score": score, "model_version": model}


def _region(labelling: Labelling, common: Json, box: Json, read: Read) -> list[Json]:
    label = {"rectanglelabels": [labelling.label]} if labelling.label else {}
    shape = {
        **common,
        **_ids(str(labelling.rectangle), labelling),
        "type": labelling.kind,
        "value": {**box, **(label if labelling.kind == "rectanglelabels" else {})},
    }
    text = {
        **common,
        **_ids(labelling.text, labelling),
        "type": "textarea",
        "value": {**box, "text": [read.reading.text]},
        "score": round(read.reading.confidence, 6),
    }
    if not labelling.labels or not labelling.label:
        return [shape, text]
    labelled = {"type": "labels", "value": {**box, "labels": [labelling.label]}}
    return [shape, {**common, **_ids(labelling.labels, labelling), **labelled}, text]


def _ids(name: str, labelling: Labelling) -> Json:
    return {"from_name": name, "to_name": labelling.image}


def _box(corners: Sequence[tuple[float, float]], degrees: float, page: Page) -> Json:
    """Return a rectangle in percent of the page, rotated about its first corner."""
    (x, y), along, aside = corners[0], corners[1], corners[3]
    return {
        "x": 100 * x / page.width,
        "y": 100 * y / page.height,
        "width": 100 * math.dist((x, y), along) / page.width,
        "height": 100 * math.dist((x, y), aside) / page.height,
        "rotation": degrees % 360,
    }


def is_stored(event: Mapping[str, Any]) -> bool:
    """Return whether a webhook's event brings an annotation to store."""
    return event.get("action") in _STORED


def corrections_of(event: Mapping[str, Any], config: ServeConfig) -> CorrectionsRequest | None:
    """Return the corrections of an annotation; None where it has no text.

    Raises Refused 422 where the event has no task or no image that may be fetched.
    """
    task, annotation = event.get("task"), event.get("annotation")
    if not isinstance(task, dict) or not isinstance(annotation, dict):
        message = "expected task and annotation; let the webhook send its payload"
        raise Refused(422, "invalid", message)
    size = next((one for one in annotation.get("result", []) if isinstance(one, dict)), {})
    read = _readings(annotation)
    corrections = list[Correction]()
    for region in regions_of({**task, "annotations": [annotation]}):
        if isinstance(region.text, str) and region.text.strip():
            where = _polygon(region.corners, size)
            values = {"image": "task", "text": region.text, "reading": read.get(region.id)}
            corrections.append(Correction.model_validate({**values, **where}))
    if not corrections:
        return None
    image = base64.b64encode(image_bytes(task, None, config)).decode()
    user = annotation.get("completed_by")
    by = user.get("email", user.get("id")) if isinstance(user, dict) else user
    return CorrectionsRequest(
        images={"task": image}, corrections=corrections, user=f"Label Studio {by}"[:200]
    )


def _readings(annotation: Json) -> Mapping[str, str]:
    """Return what a prediction had read, by the id of its region."""
    prediction = annotation.get("prediction")
    given = prediction if isinstance(prediction, dict) else {}
    return {
        region.id: region.text
        for region in regions_of({"data": {}, "annotations": [given]})
        if isinstance(region.text, str)
    }


def _polygon(corners: Any, size: Json) -> Json:
    """Return polygon and degrees in pixels; nothing for the whole image."""
    width, height = size.get("original_width"), size.get("original_height")
    if corners is None or not width or not height:
        return {}
    polygon = np.asarray(corners) / 100 * np.array([float(width), float(height)])
    (x, y), (right, low) = polygon[0], polygon[1]
    degrees = math.degrees(math.atan2(low - y, right - x)) if len(polygon) == 4 else 0.0
    return {"polygon": polygon.round(2).tolist(), "degrees": round(degrees, 3)}

"""Label Studio's exports, JSON and JSON-MIN: regions with texts, or a text an image → samples."""

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ocr.errors import UserError
from ocr.images import ImageRefused, Pixels, Polygon, image_size, open_image, orientation_of
from ocr.limits import SUFFIXES, ImageLimits
from ocr.sample import Sample, Skip
from ocr.sources.boxes import Cutting, cut_box, text_of
from ocr.sources.files import FileRefused, folder, read_inside
from ocr.sources.named_files import find_named, require_named
from ocr.sources.settings import LabelStudioSettings
from ocr.sources.unit import Unit, in_rows
from ocr.text import decoded

NOT_ANNOTATED = "task without annotation"
_SIZE = ("original_width", "original_height")
_TASKS_PER_UNIT = 20
_IMAGE_KEYS = ("image", "ocr", "img", "captioning", "file_upload")
_TEXT_KEYS = ("transcription", "text", "label", "caption")


class Region(NamedTuple):
    """A region of a task: its id, its corners in percent (None: the whole image), its text."""

    id: str
    corners: Polygon | None
    text: Any
    size: tuple[float, float] | None = None  # of the image that was annotated


def plan(settings: LabelStudioSettings) -> list[Unit]:
    """Plan the tasks of the export; UserError where it cannot be read."""
    _tasks.cache_clear()
    _root(settings)
    return in_rows("", len(_tasks(settings.path)), rows=_TASKS_PER_UNIT)


def read(settings: LabelStudioSettings, unit: Unit) -> Iterator[Sample | Skip]:
    """Yield a Sample or a Skip for every region of every task."""
    for number in range(unit.start, unit.stop):
        task = _tasks(settings.path)[number]
        yield from _read_task(settings, task, f"{settings.path}[{number}]")


def files(settings: LabelStudioSettings) -> Iterator[Path]:
    """Yield the images that the tasks name."""
    for task in _tasks(settings.path):
        try:
            yield _root(settings) / (find_named(_root(settings), image_of(task) or "") or "")
        except FileRefused:
            continue


def _root(settings: LabelStudioSettings) -> Path:
    if settings.images is None:
        return Path(settings.path).parent
    return folder(settings.images, "images", f"the folder of the images of {settings.path}")


@lru_cache(maxsize=2)
def _tasks(path: str) -> list[Any]:
    try:
        tasks = json.loads(decoded(Path(path).read_bytes()))
    except OSError as problem:
        raise UserError(
            f"{path}: {problem.strerror}; `path` names Label Studio's export in JSON or JSON-MIN"
        ) from None
    except (ValueError, RecursionError) as problem:
        raise UserError(f"{path}: not valid JSON: {problem}; export it again") from None
    if isinstance(tasks, dict):  # one task
        tasks = [tasks]
    if not isinstance(tasks, list):
        raise UserError(f"{path}: expected a list of tasks, got {type(tasks).__name__}")
    return tasks


def _read_task(settings: LabelStudioSettings, task: Any, where: str) -> Iterator[Sample | Skip]:
    named = image_of(task)
    if named is None:
        yield Skip(where, "missing image", "no key of the task names an image")
        return
    regions = list(regions_of(task))
    if not regions:
        yield Skip(where, NOT_ANNOTATED, named)
        return
    try:
        name = require_named(_root(settings), named)
        data = read_inside(_root(settings), name)
        reader = _Reader(settings, data, name)
        items = [reader.read(region, f"{where}#{region.id}") for region in regions]
    except (FileRefused, ImageRefused) as refused:
        items = [Skip(f"{where}#{region.id}", refused.reason, refused.detail) for region in regions]
    yield from items


class _Reader:
    """Cuts the regions out of one image, which is opened for the first region with corners."""

    def __init__(self, settings: LabelStudioSettings, data: bytes, name: str) -> None:
        self._data, self._name = data, name
        self._cutting = Cutting(
            settings.level,
            settings.deskew_degrees,
            settings.max_page_pixels,
            f"label_studio:{settings.path}",
        )
        self._prefix = f"{Path(settings.path).name}#{name}"
        self._limits = ImageLimits(settings.max_page_pixels, max_side_px=65_535)
        self._page: Pixels | None = None

    def read(self, region: Region, where: str) -> Sample | Skip:
        """Return the sample of a region."""
        if region.text is None:
            return Skip(where, "region without text")
        text = text_of(region.text)
        if isinstance(text, Skip):
            return Skip(where, text.reason, text.detail)
        if region.corners is None:
            group = (("page", Path(self._name).stem),)
            level, source = self._cutting.level, self._cutting.source
            return Sample(self._prefix, self._data, text, level, group, source)
        if self._page is None:
            self._page = self._opened(region.size)
        height, width = self._page.shape[:2]
        polygon = region.corners / 100 * np.array([width, height], dtype=np.float64)
        id = f"{self._prefix}#{region.id}"
        return cut_box(self._page, polygon, text, id, self._cutting, self._name)

    def _opened(self, size: tuple[float, float] | None) -> Pixels:
        """Return the image upright, as browsers show it, unless that has another shape."""
        width, height = image_size(self._data, self._limits, self._name)
        is_turned = orientation_of(self._data, self._limits) >= 5
        shape = size[0] / size[1] if size else width / height
        fits_upright = abs(shape * height / width - 1) <= abs(shape * width / height - 1)
        upright = fits_upright or not is_turned
        return open_image(self._data, "as it is", self._limits, self._name, upright)


def image_of(task: Any) -> str | None:
    """Return the image that a task names, under a usual key or the one whose value looks so."""
    data = task.get("data", task) if isinstance(task, dict) else None
    if not isinstance(data, dict):
        return None
    texts = {key: value for key, value in data.items() if isinstance(value, str) and value}
    usual = [texts[key] for key in _IMAGE_KEYS if key in texts]
    looking = [value for value in texts.values() if value.lower().endswith(SUFFIXES)]
    return next(iter([*usual, *looking]), None)


def regions_of(task: Any) -> Iterator[Region]:
    """Yield the regions of a task's newest annotation, each with its text."""
    if "data" not in task:
        yield from _of_minimal(task)
        return
    given = task.get("annotations", task.get("completions")) or []
    done = [one for one in given if isinstance(one, dict) and not one.get("was_cancelled")]
    if not done:
        return
    newest = max(
        done, key=lambda one: (bool(one.get("ground_truth")), str(one.get("updated_at", "")))
    )
    yield from _of_results([one for one in newest.get("result", []) if isinstance(one, dict)])


def _of_results(results: list[dict[str, Any]]) -> Iterator[Region]:
    """Join the parts of each region, which have its id: the shape, its labels, its text."""
    joined: dict[str, dict[str, Any]] = {}
    for number, result in enumerate(results):
        value = result.get("value")
        if isinstance(value, dict) and result.get("type") not in ("choices", "relation"):
            sizes = {key: result[key] for key in _SIZE if result.get(key)}
            joined.setdefault(str(result.get("id", number)), {}).update({**sizes, **value})
    for id, value in joined.items():
        yield Region(id, _corners(value), _one_text(value.get("text")), _size(value))


def _of_minimal(task: dict[str, Any]) -> Iterator[Region]:
    """Yield the regions of JSON-MIN, where shapes and texts are lists in the same order."""
    shapes: list[dict[str, Any]] = next(
        (value for value in task.values() if _are_shapes(value)), []
    )
    text = next((task[key] for key in _TEXT_KEYS if key in task), None)
    texts = text if isinstance(text, list) else [] if text is None else [text]
    if not shapes:
        yield from (Region("image", None, _one_text(texts)) for _ in texts[:1])
        return
    if len(texts) != len(shapes):
        problem = {"shapes": len(shapes), "texts": len(texts)}
        texts = [problem] * len(shapes)  # named as malformed
    for number, (shape, one) in enumerate(zip(shapes, texts, strict=True)):
        yield Region(str(number), _corners(shape), one, _size(shape))


def _are_shapes(value: Any) -> bool:
    return isinstance(value, list) and any(
        isinstance(one, dict) and ("points" in one or "width" in one) for one in value
    )


def _one_text(text: Any) -> Any:
    """Return the text of a region, which is a list of one; several stay a list, to be named."""
    if not isinstance(text, list):
        return text
    different = list(dict.fromkeys(map(str, text)))
    return text[0] if len(different) == 1 else text or None


def _size(value: dict[str, Any]) -> tuple[float, float] | None:
    try:
        width, height = (float(value[key]) for key in _SIZE)
    except (KeyError, TypeError, ValueError):
        return None
    return (width, height) if width > 0 < height else None


def _corners(value: dict[str, Any]) -> Polygon | None:
    """Return the corners of a rectangle, rotated about its first one, or of a polygon, in %."""
    try:
        if value.get("points"):
            return np.array(value["points"], dtype=np.float64).reshape(-1, 2)
        left, top, width, height = (float(value[key]) for key in ("x", "y", "width", "height"))
    except (KeyError, TypeError, ValueError):
        return None
    # a rotation turns pixels, not shares of two different sides
    across, down = _size(value) or (100.0, 100.0)
    angle = np.deg2rad(float(value.get("rotation") or 0))
    along = np.array([np.cos(angle) * width * across, np.sin(angle) * width * across])
    aside = np.array([-np.sin(angle) * height * down, np.cos(angle) * height * down])
    start = np.array([left * across, top * down])
    corners = np.array([start, start + along, start + along + aside, start + aside])
    percent: Polygon = corners / np.array([across, down])
    return percent

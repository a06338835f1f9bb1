"""Corrections by people: one PNG and one JSON file a sample, as docs/formats.md describes them."""

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from ocr.sample import Sample, Skip
from ocr.sources.files import (
    UNREAD,
    FileRefused,
    names_below,
    plan_files,
    read_files,
    read_inside,
    unread,
)
from ocr.sources.named_files import find_beside, find_named, images_beside, require_named
from ocr.sources.settings import CorrectionsSettings
from ocr.sources.unit import Unit
from ocr.text import decoded

_MAX_JSON_BYTES = 1_000_000
_IMAGE = ("image", "image_path", "image_file")
_CORRECTED = ("corrected_text", "corrected", "text", "ground_truth")
_FACTS = {
    "reading": ("original_text", "ocr_text", "original", "predicted_text"),
    "user": ("user", "corrected_by", "user_id"),
    "time": ("timestamp", "corrected_at", "created_at"),
    "page": ("page", "document", "document_id"),
    "writer": ("writer", "writer_id"),
    "model": ("model", "model_version"),
}


def plan(settings: CorrectionsSettings) -> list[Unit]:
    """Plan the JSON files in the order of their paths; UserError when there is none."""
    return plan_files(
        settings.path,
        ".json",
        "a folder of corrections: x.png with x.json, with corrected_text (docs/formats.md)",
    )


def read(settings: CorrectionsSettings, unit: Unit) -> Iterator[Sample | Skip]:
    """Yield a Sample or a Skip for every JSON file.

    The original reading, user and time become groups of the sample.
    """
    root = Path(settings.path)
    if unit.name == UNREAD:
        used = (image for name in names_below(root, [".json"]) for image in _images(root, name))
        yield from unread(root, used, (".json",))
        return
    yield from read_files(
        settings.path, ".json", unit, lambda name: _correction(root, name, settings)
    )


def _images(root: Path, name: str) -> list[str]:
    """Return the images that a JSON file may mean; also of one that is no correction."""
    try:
        record = json.loads(decoded(read_inside(root, name, _MAX_JSON_BYTES)))
        named = _first(record, _IMAGE) if isinstance(record, dict) else None
        found = find_named(root, str(named), str(PurePosixPath(name).parent)) if named else None
    except (ValueError, RecursionError, FileRefused):
        found = None
    return [found] if found else images_beside(root, name[: -len(".json")])


def _correction(root: Path, name: str, settings: CorrectionsSettings) -> Sample | Skip:
    where = f"{root / name}"
    try:
        record = json.loads(decoded(read_inside(root, name, _MAX_JSON_BYTES)))
    except (ValueError, RecursionError) as problem:  # ValueError: also UnicodeDecodeError
        return Skip(where, "not valid JSON", str(problem))
    if not isinstance(record, dict):
        return Skip(
            where, "not a correction", f"expected a JSON object, got {type(record).__name__}"
        )
    text = _first(record, _CORRECTED)
    if not isinstance(text, str):
        return Skip(
            where,
            "no corrected text",
            f"expected a text under one of {', '.join(_CORRECTED)}; the keys are "
            f"{', '.join(map(str, record))[:200]}",
        )
    image = _image_of(root, name, record)
    if image is None:
        return Skip(
            where, "missing image", "no key `image`, and no image of the same name beside it"
        )
    facts = [(fact, _first(record, keys)) for fact, keys in _FACTS.items()]
    plain = [(fact, value) for fact, value in facts if isinstance(value, (str, int, float))]
    group = tuple((fact, str(value)) for fact, value in plain if value != "")
    return Sample(
        name.removesuffix(".json"),
        read_inside(root, image),
        text,
        settings.level,
        group,
        f"corrections:{settings.path}",
    )


def _image_of(root: Path, name: str, record: dict[str, Any]) -> str | None:
    named = _first(record, _IMAGE)
    if isinstance(named, str) and named:
        return require_named(root, named, str(PurePosixPath(name).parent))
    return find_beside(root, name[: -len(".json")])


def _first(record: dict[str, Any], keys: tuple[str, ...]) -> Any:
    return next((record[key] for key in keys if record.get(key) is not None), None)

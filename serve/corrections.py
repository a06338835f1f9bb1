"""What people corrected: one PNG and one JSON a line in the endpoint's storage, in the form that `ocr/sources/corrections.py` reads.

corrections/HASH.png     the line as it was read, named by its pixels, so that the same line corrected twice is one
corrections/HASH.json    written last: with it the correction is there; a later text replaces an earlier one, which stays in `history`
"""

import hashlib
import json
import os
import shutil
import threading
import time
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydantic

from ocr.documents import open_pages
from ocr.images import ImageRefused, Pixels, cut, encode_image
from ocr.scoring import score_all
from ocr.text import normalise
from serve.batching import as_refused
from serve.config import LimitSettings
from serve.limits import Refused
from serve.payloads import decoded
from serve.store import Store, stamp

FOLDER = "corrections"
MAX_CHARACTERS = 2_000


class Correction(pydantic.BaseModel):
    """One line: what it says, and what was read. `image` is a name in `images`; `polygon` (pixels) and `degrees` are as the endpoint gave them for a line of a page."""

    model_config = pydantic.ConfigDict(extra="forbid")

    image: str = pydantic.Field(max_length=200, examples=["page"])
    text: str = pydantic.Field(examples=["ଜୀବନର ମୂଳ ମନ୍ତ୍ର"])
    reading: str | None = pydantic.Field(None, max_length=20_000, examples=["ଜୀବନର ମୂଳ ମନ୍ତ"])
    confidence: float | None = pydantic.Field(None, ge=0, le=1)
    model: str | None = pydantic.Field(None, max_length=300)
    page: int = pydantic.Field(1, ge=1, description="of a document with several")
    polygon: list[tuple[float, float]] | None = pydantic.Field(None, min_length=3, max_length=64)
    degrees: float = pydantic.Field(0.0, ge=-360, le=360)


class Corrected(pydantic.BaseModel):
    """Images, each once, by a name, in base64; and what is corrected in them."""

    model_config = pydantic.ConfigDict(extra="forbid")

    images: dict[str, str] = pydantic.Field(
        min_length=1, max_length=64, examples=[{"page": "BASE64"}]
    )
    corrections: list[Correction] = pydantic.Field(min_length=1, max_length=1_000)
    user: str | None = pydantic.Field(None, max_length=200)


class Corrections:
    """In a store; every replica writes, and none waits for another."""

    def __init__(self, store: Store, limits: LimitSettings) -> None:
        self._store, self._limits = store, limits
        self._seen, self._lock = dict[str, tuple[int, dict[str, Any]]](), threading.Lock()

    def put(self, asked: Corrected) -> dict[str, Any]:
        """Store all of them, or none where one is no good: `{stored, unchanged, ids}`. Sent again, what is there already is unchanged."""
        texts = [_text_of(place, one.text) for place, one in enumerate(asked.corrections)]
        pages = {
            name: hashlib.sha256(content.encode()).hexdigest()[:16]
            for name, content in asked.images.items()
        }
        stored, ids = 0, []
        for one, text, line in zip(asked.corrections, texts, self._lines(asked), strict=True):
            name = _name_of(line)
            ids.append(name)
            stored += self._put(
                name,
                line,
                text,
                {**_facts(one), "user": asked.user, "page": f"{pages[one.image]}-{one.page}"},
            )
        return {"stored": stored, "unchanged": len(ids) - stored, "ids": ids}

    def _lines(self, asked: Corrected) -> list[Pixels]:
        """Each line's pixels, as the reader got them but for their colours."""
        opened, found = dict[str, list[Pixels]](), []
        for place, one in enumerate(asked.corrections):
            if one.image not in asked.images:
                there = ", ".join(asked.images)[:200]
                raise Refused(
                    422,
                    "unknown_image",
                    f"corrections[{place}].image: {one.image[:80]!r} is none of the images sent ({there})",
                )
            if one.image not in opened:
                opened[one.image] = self._pages(one.image, asked.images[one.image])
            pages = opened[one.image]
            if one.page > len(pages):
                raise Refused(
                    422,
                    "unknown_page",
                    f"corrections[{place}].page: {one.page}; the document has {len(pages)}",
                )
            found.append(_part(place, pages[one.page - 1], one))
        return found

    def _pages(self, name: str, content: str) -> list[Pixels]:
        try:
            return open_pages(
                decoded(content),
                "as it is",
                self._limits.images,
                self._limits.max_pages,
                f"images.{name[:80]}",
            )
        except ImageRefused as problem:
            raise as_refused(problem) from None

    def _put(self, name: str, line: Pixels, text: str, facts: dict[str, Any]) -> bool:
        """Whether there was something to store."""
        there = self._record(f"{name}.json")
        if there and there["corrected_text"] == text:
            return False
        history = (
            [
                *there.get("history", []),
                {key: there.get(key) for key in ("corrected_text", "timestamp", "user")},
            ]
            if there
            else []
        )
        if not there:
            self._store.put(f"{FOLDER}/{name}.png", encode_image(line))
        record = {
            "corrected_text": text,
            "image": f"{name}.png",
            **facts,
            "timestamp": stamp(time.time_ns()),
        }
        told = {
            key: value
            for key, value in {**record, "history": history}.items()
            if value not in (None, [])
        }
        self._store.put(f"{FOLDER}/{name}.json", json.dumps(told, ensure_ascii=False).encode())
        return True

    def _record(self, file: str) -> dict[str, Any]:
        return dict(json.loads(self._store.get(f"{FOLDER}/{file}") or b"{}"))

    def records(self) -> dict[str, dict[str, Any]]:
        """By name; those that did not change are not read again."""
        with self._lock:
            stamps = {
                name: stamp
                for name, stamp in self._store.stamps(FOLDER).items()
                if name.endswith(".json")
            }
            self._seen = {
                name: self._seen[name]
                if name in self._seen and self._seen[name][0] == stamp
                else (stamp, self._record(name))
                for name, stamp in stamps.items()
            }
            return {
                name.removesuffix(".json"): record
                for name, (_, record) in self._seen.items()
                if record
            }

    def stats(self, trained_until: str | None) -> dict[str, Any]:
        """How many, how many of them no retraining has seen, and how wrong the readings were that people corrected: in all, by day, by model."""
        records = list(self.records().values())
        days, models = (
            defaultdict[str, list[dict[str, Any]]](list),
            defaultdict[str, list[dict[str, Any]]](list),
        )
        for record in records:
            if "original_text" in record:
                days[record["timestamp"][:10]].append(record)
                models[record.get("model", "unknown")].append(record)
        return {
            "corrections": len(records),
            "waiting": sum(
                trained_until is None or record["timestamp"] > trained_until for record in records
            ),
            "read": _errors([record for record in records if "original_text" in record]),
            "days": [{"day": day, **_errors(found)} for day, found in sorted(days.items())],
            "models": [
                {"model": model, **_errors(found)} for model, found in sorted(models.items())
            ],
        }

    def snapshot(self, folder: Path) -> str:
        """All that is there now, into a folder of this machine, whole or not at all; the time of the newest."""
        making = folder.with_name(f".{folder.name}.{os.getpid()}")
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        newest = ""
        for name, record in self.records().items():
            image = self._store.get(f"{FOLDER}/{name}.png")
            assert image is not None, f"{name}: a correction without its image"
            (making / f"{name}.png").write_bytes(image)
            (making / f"{name}.json").write_text(
                json.dumps(record, ensure_ascii=False), encoding="utf-8"
            )
            newest = max(newest, record["timestamp"])
        making.rename(folder)
        return newest


def _text_of(place: int, text: str) -> str:
    """In the one spelling; Refused where there is nothing in it, too much, or what no line can show."""
    if len(text) > MAX_CHARACTERS:
        raise Refused(
            422,
            "text_too_long",
            f"corrections[{place}].text: {len(text):,} characters; at most {MAX_CHARACTERS:,} are taken for a line",
        )
    text = normalise(text)
    if not text:
        raise Refused(
            422,
            "empty_text",
            f"corrections[{place}].text: empty; leave lines out that have no text",
        )
    odd = next(
        (
            character
            for character in text
            if unicodedata.category(character) in ("Cc", "Cs", "Co", "Cn") and character != "\n"
        ),
        None,
    )
    if odd is not None:
        raise Refused(
            422,
            "unprintable_character",
            f"corrections[{place}].text: U+{ord(odd):04X} cannot stand in a line",
        )
    return text


def _part(place: int, page: Pixels, one: Correction) -> Pixels:
    if one.polygon is None:
        return page
    try:
        return cut(page, np.array(one.polygon, dtype=np.float64), one.degrees)
    except ImageRefused as problem:
        raise Refused(
            422, "polygon_outside_the_image", f"corrections[{place}].polygon: {problem.detail}"
        ) from None


def _name_of(line: Pixels) -> str:
    return hashlib.sha256(
        f"{line.shape}".encode() + np.ascontiguousarray(line).tobytes()
    ).hexdigest()[:32]


def _facts(one: Correction) -> dict[str, Any]:
    reading = normalise(one.reading) if one.reading is not None else None
    return {"original_text": reading, "confidence": one.confidence, "model": one.model}


def _errors(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of the readings: `{lines, right, characters, errors, cer}`."""
    pairs = [(record["corrected_text"], record["original_text"]) for record in records]
    counts = score_all(pairs)
    right = sum(reference == reading for reference, reading in pairs)
    return {
        "lines": len(pairs),
        "right": right,
        "characters": counts.characters,
        "errors": counts.character_edits,
        "cer": counts.cer if pairs else None,
    }

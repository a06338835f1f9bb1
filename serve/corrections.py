"""Corrections by people: one PNG and one JSON per line, as `ocr/sources/corrections.py` reads them.

corrections/HASH.png     the line as it was read; its name is a hash of its pixels, so that a line
                         corrected twice is stored once
corrections/HASH.json    written last, and only with it the correction counts; a later text replaces
                         an earlier one, which is kept in `history`
"""

import hashlib
import json
import logging
import threading
import time
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ocr.files import replaced_folder
from ocr.retraining import MIN_CORRECTIONS
from ocr.scoring import score_all
from ocr.text import normalise
from serve.config import LimitSettings
from serve.correction_lines import Correction, Line, lines_of
from serve.correction_lines import CorrectionsRequest as CorrectionsRequest
from serve.decoding import Decoding
from serve.errors import Refused
from serve.store import Store, stamp

FOLDER = "corrections"
_log = logging.getLogger("ray.serve")
MAX_CHARACTERS = 2_000
_MOST_WAITING = 8  # requests that hold a thread
_LONGEST_S, _COUNTED_FOR_S = 60.0, 60.0
_UNPRINTABLE = ("Cc", "Cs", "Co", "Cn")  # Unicode categories


class Corrections:
    """Corrections in a store; every replica writes without waiting for another."""

    def __init__(
        self, store: Store, limits: LimitSettings, decoding: Decoding | None = None
    ) -> None:
        self._store, self._limits = store, limits
        self._decoding = decoding or Decoding(limits)
        self._seen, self._lock = dict[str, tuple[int, dict[str, Any]]](), threading.Lock()
        self._turn, self._waiting = threading.Lock(), threading.BoundedSemaphore(_MOST_WAITING)
        self._stored_bytes, self._counted_until = 0, 0.0

    def put(
        self, asked: CorrectionsRequest, deadline: float | None = None, by: str | None = None
    ) -> dict[str, Any]:
        """Store all corrections, or none where one is faulty; return `{stored, unchanged, ids}`.

        `by`: the name of the key that they came with. A correction that is stored already counts as
        unchanged. One request is cut at a time.
        Raises TimeoutError after the deadline (of `time.monotonic`), with nothing stored.
        """
        texts = [_text_of(index, one.text) for index, one in enumerate(asked.corrections)]
        if not self._waiting.acquire(blocking=False):
            message = f"{_MOST_WAITING} requests of corrections wait"
            raise Refused(503, "full", message, retry_after_s=1)
        deadline = time.monotonic() + _LONGEST_S if deadline is None else deadline
        try:
            if not self._turn.acquire(timeout=max(0.0, deadline - time.monotonic())):
                raise TimeoutError
            try:
                return self._put_all(asked, texts, deadline, by)
            finally:
                self._turn.release()
        finally:
            self._waiting.release()

    def _put_all(
        self,
        asked: CorrectionsRequest,
        texts: Sequence[str],
        deadline: float,
        by: str | None,
    ) -> dict[str, Any]:
        lines = dict[int, Line]()
        for line in lines_of(asked, self._limits, self._decoding, deadline):
            lines[line.index] = line
        self._require_room(sum(len(line.png) for line in lines.values()))
        pages = {
            name: hashlib.sha256(content.encode()).hexdigest()[:16]
            for name, content in asked.images.items()
        }
        stored, ids = 0, []
        for index, (one, text) in enumerate(zip(asked.corrections, texts, strict=True)):
            line = lines[index]
            page = one.document or f"{pages[one.image]}-{one.page}"
            ids.append(line.name)
            facts = {**_facts(one), "user": asked.user, "by": by, "page": page}
            stored += self._put(line.name, line.png, text, facts)
        return {"stored": stored, "unchanged": len(ids) - stored, "ids": ids}

    def _require_room(self, size: int) -> None:
        """Refuse what would make the corrections larger than their limit."""
        now, most = time.monotonic(), self._limits.max_store_bytes
        if now > self._counted_until:  # other replicas write, too
            self._stored_bytes = self._store.bytes_in(FOLDER)
            self._counted_until = now + _COUNTED_FOR_S
        if self._stored_bytes + size > most:
            message = (
                f"corrections take {self._stored_bytes:,} bytes; at most {most:,} are stored "
                "(limits.max_store_bytes): retrain, and remove old ones, or raise the limit"
            )
            raise Refused(507, "store_full", message)
        self._stored_bytes += size

    def _put(self, name: str, image: bytes, text: str, facts: dict[str, Any]) -> bool:
        """Store a correction; return whether it differs from what is stored."""
        old = self._record(f"{name}.json")
        if old and old["corrected_text"] == text:
            return False
        history = []
        if old:
            before = {key: old.get(key) for key in ("corrected_text", "timestamp", "user", "by")}
            history = [*old.get("history", []), before]
        else:
            self._store.put(f"{FOLDER}/{name}.png", image)
        record = {
            "corrected_text": text,
            "image": f"{name}.png",
            **facts,
            "timestamp": stamp(time.time_ns()),
            "history": history,
        }
        known = {key: value for key, value in record.items() if value not in (None, [])}
        self._store.put(f"{FOLDER}/{name}.json", json.dumps(known, ensure_ascii=False).encode())
        return True

    def _record(self, file: str) -> dict[str, Any]:
        """Return a correction's record; empty where it is missing or damaged."""
        return self._store.object(f"{FOLDER}/{file}") or {}

    def records(self) -> dict[str, dict[str, Any]]:
        """Return all records by name; unchanged files are not read again."""
        with self._lock:
            stamps = self._store.stamps(FOLDER)
            self._seen = {
                name: self._current(name, stamp)
                for name, stamp in stamps.items()
                if name.endswith(".json")
            }
            return {
                name.removesuffix(".json"): record
                for name, (_, record) in self._seen.items()
                if record
            }

    def _current(self, name: str, stamp: int) -> tuple[int, dict[str, Any]]:
        seen = self._seen.get(name)
        return seen if seen and seen[0] == stamp else (stamp, self._record(name))

    def stats(self, trained_until: str | None) -> dict[str, Any]:
        """Return counts, the corrections that no retraining has seen, and error rates.

        Error rates are those of the corrected readings: in all, by day and by model.
        """
        records = list(self.records().values())
        read = [record for record in records if "original_text" in record]
        days, models = defaultdict[str, list[Any]](list), defaultdict[str, list[Any]](list)
        for record in read:
            days[record["timestamp"][:10]].append(record)
            models[record.get("model", "unknown")].append(record)
        times = [record["timestamp"] for record in records]
        return {
            "corrections": len(records),
            "min_corrections": MIN_CORRECTIONS,
            "waiting": sum(trained_until is None or time > trained_until for time in times),
            "read": _errors(read),
            "days": [{"day": day, **_errors(some)} for day, some in sorted(days.items())],
            "models": [{"model": model, **_errors(some)} for model, some in sorted(models.items())],
        }

    def snapshot(self, folder: Path) -> None:
        """Copy all corrections into a folder of this machine, whole or not at all.

        Those whose image is lost are left out and counted in the log.
        """
        lost = []
        with replaced_folder(folder) as making:
            for name, record in self.records().items():
                image = self._store.get(f"{FOLDER}/{name}.png")
                if image is None:
                    lost.append(name)
                    continue
                (making / f"{name}.png").write_bytes(image)
                content = json.dumps(record, ensure_ascii=False)
                (making / f"{name}.json").write_text(content, encoding="utf-8")
        if lost:
            _log.warning("%d corrections left out, images missing: %s", len(lost), lost[:5])


def _text_of(index: int, text: str) -> str:
    """Normalise a text; Refused where it is empty, too long, or has what no line can show."""
    where = f"corrections[{index}].text"
    if len(text) > MAX_CHARACTERS:
        message = f"{where}: {len(text):,} characters; at most {MAX_CHARACTERS:,} fit a line"
        raise Refused(422, "text_too_long", message)
    text = normalise(text)
    if not text:
        raise Refused(422, "empty_text", f"{where}: empty; leave out lines that have no text")
    odd = [each for each in text if unicodedata.category(each) in _UNPRINTABLE and each != "\n"]
    if odd:
        message = f"{where}: U+{ord(odd[0]):04X} cannot be part of a line"
        raise Refused(422, "unprintable_character", message)
    return text


def _facts(one: Correction) -> dict[str, Any]:
    reading = normalise(one.reading) if one.reading is not None else None
    return {"original_text": reading, "confidence": one.confidence, "model": one.model}


def _errors(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return `{lines, right, characters, errors, cer}` of the corrected readings."""
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

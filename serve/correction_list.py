"""The stored corrections for people: listed by pages, removed, exported."""

import base64
import io
import json
import re
import zipfile
from typing import Any

from starlette.responses import JSONResponse, Response

from serve.config import KeySettings
from serve.corrections import FOLDER, Corrections
from serve.errors import Refused
from serve.store import Store

_MOST_BYTES = 100_000_000  # of the images of an export
_ID = re.compile(r"[0-9a-f]{32}")
_SHOWN = {
    "corrected_text": "text",
    "original_text": "reading",
    "confidence": "confidence",
    "model": "model",
    "user": "user",
    "by": "by",
    "timestamp": "at",
}

Record = dict[str, Any]


class CorrectionList:
    """Corrections as people look through them."""

    def __init__(self, corrections: Corrections, store: Store) -> None:
        self._corrections, self._store = corrections, store

    def page(self, number: int, size: int) -> dict[str, Any]:
        """Return `{total, pages, page, data}`, the newest first."""
        chosen, total, pages = self._page(number, size)
        data = [{"id": id, **_shown(record)} for id, record in chosen]
        return {"total": total, "pages": pages, "page": number, "data": data}

    def image(self, id: str) -> bytes:
        """Return the PNG of a line; Refused 404 where there is none."""
        content = self._store.get(f"{FOLDER}/{id}.png") if _ID.fullmatch(id) else None
        if content is None:
            raise _unknown(id)
        return content

    def remove(self, id: str, key: KeySettings | None) -> None:
        """Remove a correction; Refused 404 for an unknown one, 403 for another owner's."""
        name = f"{FOLDER}/{id}"
        record = self._store.object(f"{name}.json") if _ID.fullmatch(id) else None
        if record is None:
            raise _unknown(id)
        if key is not None and key.role != "train" and record.get("by") != key.name:
            owner = record.get("by") or "nobody known"
            message = f"stored by {owner}; {key.name} may remove their own corrections"
            raise Refused(403, "not_allowed", message)
        self._store.remove(f"{name}.json")  # the correction counts no longer
        self._store.remove(f"{name}.png")

    def export(self, number: int, size: int, format: str) -> Response:
        """Return a page of the corrections as a file; `X-Pages` is the number of pages.

        Refused 413 where their images take more than 100 MB, which are in memory at once.
        """
        chosen, _, pages = self._page(number, size)
        whole = self._with_images(chosen)
        kind = "zip" if format == "zip" else "json"
        headers = {
            "X-Pages": str(pages),
            "Content-Disposition": f'attachment; filename="corrections-{number}.{kind}"',
        }
        if format == "zip":
            return Response(_zipped(whole), headers=headers, media_type="application/zip")
        return JSONResponse([_task(*one) for one in whole], headers=headers)

    def _with_images(self, chosen: list[tuple[str, Record]]) -> list[tuple[str, Record, bytes]]:
        whole, size = list[tuple[str, Record, bytes]](), 0
        for id, record in chosen:
            image = self._store.get(f"{FOLDER}/{id}.png")
            if image is None:  # lost, or removed meanwhile
                continue
            size += len(image)
            if size > _MOST_BYTES:
                message = f"more than {_MOST_BYTES:,} bytes; ask for fewer at once (size)"
                raise Refused(413, "too_large", message)
            whole.append((id, record, image))
        return whole

    def _page(self, number: int, size: int) -> tuple[list[tuple[str, Record]], int, int]:
        records = self._corrections.records()
        newest = sorted(records, key=lambda id: (records[id]["timestamp"], id), reverse=True)
        chosen = newest[(number - 1) * size : number * size]
        return [(id, records[id]) for id in chosen], len(newest), -(-len(newest) // size)


def _unknown(id: str) -> Refused:
    return Refused(404, "not_found", f"{id[:80]}: no such correction")


def _shown(record: Record) -> Record:
    return {name: record.get(key) for key, name in _SHOWN.items()}


def _zipped(corrections: list[tuple[str, Record, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for id, record, image in corrections:
            archive.writestr(f"{id}.png", image)  # compressed already
            content = json.dumps(record, ensure_ascii=False)
            archive.writestr(f"{id}.json", content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _task(id: str, record: Record, image: bytes) -> Record:
    """Return a task of Label Studio for `<Image value="$image"/>` with a TextArea.

    The corrected text is its annotation, what the model read its prediction.
    """
    uri = f"data:image/png;base64,{base64.b64encode(image).decode()}"
    task: Record = {
        "data": {"image": uri, "lipi_id": id},
        "annotations": [{"result": [_text(record["corrected_text"])]}],
    }
    if "original_text" in record:
        read = {"model_version": record.get("model", ""), "score": record.get("confidence", 0.0)}
        task["predictions"] = [{**read, "result": [_text(record["original_text"])]}]
    return task


def _text(text: str) -> Record:
    names = {"from_name": "transcription", "to_name": "image", "type": "textarea"}
    return {**names, "value": {"text": [text]}}

"""A small client of the endpoint, with timeouts and retries on 502, 503 and 504."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload
from urllib.parse import urlsplit

import requests

from ocr.errors import UserError
from ocr.reading.config import FORMAT
from ocr.sample import Reading
from ocr.this_machine import is_this_machine

_RETRIED = (502, 503, 504)
File = bytes | Path | str
Level = Literal["line", "page", "auto"]


@dataclass(frozen=True, slots=True)
class Client:
    """`Client("http://127.0.0.1:8000").read("line.png")`.

    Reading changes nothing on the endpoint, so requests are safe to retry.
    """

    address: str
    key: str | None = None
    timeout_s: float = 35.0
    tries: int = 6

    @overload
    def read(self, images: File, level: Level = "line") -> Reading: ...  # type: ignore[overload-overlap]
    @overload
    def read(self, images: Sequence[File], level: Level = "line") -> list[Reading]: ...
    def read(self, images: File | Sequence[File], level: Level = "line") -> Reading | list[Reading]:
        """Return the Reading of one file (its bytes, or its path), or one of each.

        `level`: files show a line each, or pages (also PDF and TIFF files), or their kind and shape
        decide. A page's text has its lines one below the other, its confidence is their mean.
        Raises UserError, with the endpoint's message, for an image or a request that it refuses.
        """
        if isinstance(images, (bytes, str, Path)):
            return self.read([images], level)[0]
        files = [
            ("image", (f"image {number}", _bytes_of(image)))
            for number, image in enumerate(images, start=1)
        ]
        results = self._posted(files, level=level).json()["results"]
        refused = [
            f"{result['name']}: {result['error']['message']}"
            for result in results
            if "error" in result
        ]
        if refused:
            raise UserError(f"{self.address}: {'; '.join(refused)}")
        return [Reading(result["text"], result["confidence"]) for result in results]

    def read_document(self, file: File, format: FORMAT = "text", level: Level = "page") -> bytes:
        """Return a document as a file: text, tsv, json, alto, page, hocr, or a searchable pdf.

        ALTO and PAGE of several pages are a zip of files. Raises UserError as `read` does.
        """
        if format == "json":  # of one file, not of a list
            return self._posted(None, _bytes_of(file), level=level).content
        name = "document" if isinstance(file, bytes) else Path(file).name
        files = [("image", (name, _bytes_of(file)))]
        return self._posted(files, level=level, format=format).content

    def _posted(self, files: Any, body: bytes | None = None, **query: str) -> requests.Response:
        # bytes, since a key may be beyond ASCII
        headers = {"Authorization": f"Bearer {self.key}".encode()} if self.key else {}
        if body is not None:
            headers["Content-Type"] = b"application/octet-stream"
        problem, session = "", requests.Session()
        # past http_proxy, which does not know this machine
        session.trust_env = not is_this_machine(urlsplit(self.address).hostname or "")
        for trial in range(self.tries):
            if trial:
                time.sleep(min(8.0, 0.25 * 2**trial))
            try:
                answered = session.post(
                    f"{self.address}/v1/ocr",
                    params=query,
                    files=files,
                    data=body,
                    headers=headers,
                    timeout=self.timeout_s,
                )
            except requests.RequestException as failure:
                problem = str(failure)
                continue
            if answered.status_code == 200:
                return answered
            said = _message(answered)
            problem = f"{answered.status_code}: {said or answered.text[:200]}"
            if answered.status_code not in _RETRIED and said is not None:
                break
        raise UserError(f"{self.address}: {problem}")


def _bytes_of(file: File) -> bytes:
    return file if isinstance(file, bytes) else Path(file).read_bytes()


def _message(answered: requests.Response) -> str | None:
    """Return the endpoint's message; None for Ray Serve's own plain answers."""
    try:
        return str(answered.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return None

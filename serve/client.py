"""A small client of the endpoint, with timeouts and retries on 502, 503 and 504."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload
from urllib.parse import urlsplit

import requests

from ocr.errors import UserError
from ocr.sample import Reading
from ocr.this_machine import is_this_machine

_RETRIED = (502, 503, 504)


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
    def read(self, images: bytes | Path | str) -> Reading: ...  # type: ignore[overload-overlap]
    @overload
    def read(self, images: Sequence[bytes | Path | str]) -> list[Reading]: ...
    def read(
        self, images: bytes | Path | str | Sequence[bytes | Path | str]
    ) -> Reading | list[Reading]:
        """Return the Reading of one image (the bytes of a file, or its path), or one of each.

        Raises UserError, with the endpoint's message, for an image or a request that it refuses.
        """
        if isinstance(images, (bytes, str, Path)):
            return self.read([images])[0]
        files = [
            (
                "image",
                (
                    f"image {number}",
                    image if isinstance(image, bytes) else Path(image).read_bytes(),
                ),
            )
            for number, image in enumerate(images, start=1)
        ]
        results = self._posted(files)["results"]
        refused = [
            f"{result['name']}: {result['error']['message']}"
            for result in results
            if "error" in result
        ]
        if refused:
            raise UserError(f"{self.address}: {'; '.join(refused)}")
        return [Reading(result["text"], result["confidence"]) for result in results]

    def _posted(self, files: Any) -> dict[str, Any]:
        # bytes, since a key may be beyond ASCII
        headers = {"Authorization": f"Bearer {self.key}".encode()} if self.key else {}
        problem, session = "", requests.Session()
        # past http_proxy, which does not know this machine
        session.trust_env = not is_this_machine(urlsplit(self.address).hostname or "")
        for trial in range(self.tries):
            if trial:
                time.sleep(min(8.0, 0.25 * 2**trial))
            try:
                answered = session.post(
                    f"{self.address}/v1/ocr", files=files, headers=headers, timeout=self.timeout_s
                )
            except requests.RequestException as failure:
                problem = str(failure)
                continue
            if answered.status_code == 200:
                return dict(answered.json())
            said = _message(answered)
            problem = f"{answered.status_code}: {said or answered.text[:200]}"
            if answered.status_code not in _RETRIED and said is not None:
                break
        raise UserError(f"{self.address}: {problem}")


def _message(answered: requests.Response) -> str | None:
    """Return the endpoint's message; None for Ray Serve's own plain answers."""
    try:
        return str(answered.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return None

"""What is checked before the work: keys in constant time, bodies while they come in; and errors as one JSON shape."""

import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.responses import JSONResponse, Response


class Refused(Exception):
    """A request that gets no reading; `code` is for programs, the message for people."""

    def __init__(
        self, status: int, code: str, message: str, retry_after_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.retry_after_s = (
            status,
            code,
            message,
            retry_after_s,
        )

    def response(self) -> Response:
        """`{"error": {"code", "message"}}`, as OpenAI's clients know it too."""
        headers = (
            {"Retry-After": str(self.retry_after_s)} if self.retry_after_s is not None else None
        )
        return JSONResponse(told(self), self.status, headers)


def told(refused: Refused) -> dict[str, Any]:
    """The error as JSON."""
    return {"error": {"code": refused.code, "message": refused.message}}


def require_key(authorization: Sequence[str], digests: Sequence[str]) -> None:
    """Refused 401 unless the one Authorization header is `Bearer KEY` with a known key; every digest is compared, in constant time."""
    if not digests:
        return
    given = (
        authorization[0].removeprefix("Bearer ")
        if len(authorization) == 1 and authorization[0].startswith("Bearer ")
        else ""
    )
    digest = hashlib.sha256(given.encode()).hexdigest()
    if sum(hmac.compare_digest(digest, known) for known in digests) == 0 or not given:
        raise Refused(
            401, "unauthorized", "send Authorization: Bearer KEY with a key that is known here"
        )


async def read_body(chunks: AsyncIterator[bytes], most: int, deadline: float) -> bytes:
    """The whole body; Refused 413 as soon as it is too long, whatever it said of its length, and 408 where it does not come in time."""
    parts, size = list[bytes](), 0
    async for chunk in chunks:
        size += len(chunk)
        if size > most:
            raise Refused(
                413, "body_too_large", f"more than {most:,} bytes; send fewer or smaller images"
            )
        if time.monotonic() > deadline:
            raise Refused(408, "body_too_slow", "the request's body did not come in time")
        parts.append(chunk)
    return b"".join(parts)

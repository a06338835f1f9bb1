"""Refused requests: one exception, one JSON shape."""

from typing import Any

from starlette.responses import JSONResponse, Response

from ocr.images import ImageRefused
from serve.store import StorageError, StorageFull


class Refused(Exception):
    """A request without a reading; `code` is for programs, `message` for people."""

    def __init__(
        self, status: int, code: str, message: str, retry_after_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.retry_after_s = retry_after_s

    def to_json(self) -> dict[str, Any]:
        """Return `{"error": {"code", "message"}}`, the shape that OpenAI's clients know."""
        return {"error": {"code": self.code, "message": self.message}}

    def response(self) -> Response:
        """Return the answer with this error, and Retry-After where trying again may help."""
        headers = None
        if self.retry_after_s is not None:
            headers = {"Retry-After": str(self.retry_after_s)}
        return JSONResponse(self.to_json(), self.status, headers)


def as_refused(problem: ImageRefused) -> Refused:
    """Return the 422 for an image that cannot be read."""
    return Refused(422, problem.reason.replace(" ", "_"), f"{problem.reason}: {problem.detail}")


def as_unstored(problem: StorageError) -> Refused:
    """Return the answer to a request that may be sent again once the storage can be written."""
    if isinstance(problem, StorageFull):
        return Refused(507, "storage_full", str(problem), retry_after_s=60)
    return Refused(503, "storage", str(problem), retry_after_s=5)

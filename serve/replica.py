"""What routes share: the parts of a replica, who asks, and the errors of an answer."""

from typing import Any, Protocol

from starlette.requests import Request

from serve.batching import BatchingReader
from serve.config import ServeConfig
from serve.corrections import Corrections
from serve.models import Models
from serve.page_reading import PageReader
from serve.retraining import Retrainings
from serve.schemas import Refusal

_ALL_MAY = (401, 403, 421)
READ_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refusal} for status in (400, *_ALL_MAY, 408, 413, 415, 422, 503, 504)
}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refusal} for status in (400, *_ALL_MAY, 404, 409, 413, 415, 422, 503, 507)
}
KEY_ERROR: dict[int | str, dict[str, Any]] = {status: {"model": Refusal} for status in _ALL_MAY}


class Replica(Protocol):
    """The parts of an endpoint's replica that routes use."""

    config: ServeConfig
    models: Models
    reader: BatchingReader
    pages: PageReader
    corrections: Corrections
    retrainings: Retrainings
    promoter: Any

    @property
    def model(self) -> str:
        """The id of the model that reads new requests; empty while none is loaded."""
        ...

    @property
    def stuck_s(self) -> float:
        """Seconds that a batch has been read for, if more than the limit; else 0."""
        ...


def asker(request: Request) -> str | None:
    """Return the name of a request's key; None where no keys are asked for."""
    return request.state.key.name if request.state.key else None

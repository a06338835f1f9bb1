"""A request passed on to an ASGI application, and its complete answer."""

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send


class _Answered(Response):
    """An answer that is complete already."""

    def __init__(self, messages: list[Any]) -> None:
        self.status_code, self._messages = messages[0]["status"], messages
        self.raw_headers = messages[0]["headers"]  # may be added to

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Send it."""
        for message in self._messages:
            await send(message)


async def forwarded(app: ASGIApp, request: Request, body: bytes) -> Response:
    """Return FastAPI's complete answer to a request with this body; none of its routes streams.

    HEAD is answered as GET without a body.
    """
    is_head = request.method == "HEAD"
    scope = {**request.scope, "method": "GET"} if is_head else request.scope
    messages, received = list[Any](), False

    async def receive() -> Any:
        nonlocal received
        if received:
            await asyncio.Event().wait()  # a listener for disconnects, which are not handled here
        received = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def keep(message: Any) -> None:
        without = is_head and message["type"] == "http.response.body"
        messages.append({**message, "body": b""} if without else message)

    await app(scope, receive, keep)
    return _Answered(messages)

"""A load of HTTP requests, closed loop or open, every answer checked: the one client of the serving
benchmark and of the serving faults.

python tests/support/load.py http://127.0.0.1:8000 --clients 16 --seconds 10
python tests/support/load.py http://127.0.0.1:8000 --rate 200 --seconds 10     # open loop:
latencies from when a request was due, not from when it was sent
"""

import argparse
import asyncio
import base64
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import httptools
import numpy as np
import uvloop


@dataclass(frozen=True)
class Shot:
    """One request, as bytes on the wire without its body's end, and what its answer has to be."""

    wire: bytes
    right: Callable[[bytes], bool]


@dataclass
class Outcome:
    """What came of a load; latencies in ms.

    `lost`: connections that broke before an answer; `refused`: that were not taken at all.
    """

    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: int = 0
    lost: int = 0
    refused: int = 0
    sent: int = 0
    latencies: list[float] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)  # latencies of answers that are no 200
    wrong_bodies: list[str] = field(default_factory=list)

    def summary(self) -> dict[str, object]:
        """Counts, answers per second, percentiles of the 200s."""
        good = self.statuses[200]
        p50, p90, p99 = (
            np.percentile(self.latencies, (50, 90, 99)) if self.latencies else (float("nan"),) * 3
        )
        return {
            "sent": self.sent,
            "statuses": dict(self.statuses),
            "wrong": self.wrong,
            "lost": self.lost,
            "refused": self.refused,
            "per_second": round(good / self.seconds, 1) if self.seconds else 0.0,
            "p50_ms": round(float(p50), 2),
            "p90_ms": round(float(p90), 2),
            "p99_ms": round(float(p99), 2),
            "refusals_p99_ms": round(float(np.percentile(self.refusals, 99)), 2)
            if self.refusals
            else None,
        }


class _Connection(asyncio.Protocol):
    """One kept-alive HTTP/1.1 connection, one request at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[tuple[int, bytes]] | None = None
        self._parser, self._body = httptools.HttpResponseParser(self), list[bytes]()
        self.alive = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, _: Exception | None) -> None:
        self.alive = False
        if self._waiter and not self._waiter.done():
            self._waiter.set_exception(ConnectionResetError())

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        if not self._parser.should_keep_alive():
            self.alive = False
            self.transport.close()
        status = self._parser.get_status_code()
        if status != 100 and self._waiter and not self._waiter.done():
            self._waiter.set_result((status, b"".join(self._body)))
        self._body = []
        self._parser = httptools.HttpResponseParser(self)

    def send(self, wire: bytes) -> "asyncio.Future[tuple[int, bytes]]":
        self._waiter = asyncio.get_running_loop().create_future()
        self.transport.write(wire)
        return self._waiter


class Load:
    """`shots`, in an order drawn from `seed`, against one address until `stop()` or the time is
    over.
    """

    def __init__(self, host: str, port: int, shots: Sequence[Shot], seed: int = 0) -> None:
        self.host, self.port, self.shots = host, port, shots
        self.outcome, self._draw, self._over = Outcome(), random.Random(seed), False

    def stop(self) -> None:
        self._over = True

    async def closed(self, clients: int, seconds: float, pause_s: float = 0.0) -> Outcome:
        """Each client sends its next request when it has the answer to the one before."""
        began = time.perf_counter()

        async def client() -> None:
            connection = None
            while not self._over and time.perf_counter() - began < seconds:
                connection = await self._shoot(connection, time.perf_counter())
                if pause_s:
                    await asyncio.sleep(pause_s)
            if connection:
                connection.transport.close()

        await asyncio.gather(*[client() for _ in range(clients)])
        self.outcome.seconds = time.perf_counter() - began
        return self.outcome

    async def open(self, rate: float, seconds: float) -> Outcome:
        """Requests come by the clock (a Poisson process of `rate` a second), whether or not those
        before are answered.
        """
        began, due, free, tasks = (
            time.perf_counter(),
            0.0,
            list[_Connection](),
            set[asyncio.Task[None]](),
        )

        async def one(at: float) -> None:
            connection = await self._shoot(free.pop() if free else None, began + at)
            if connection:
                free.append(connection)

        while not self._over and (due := due + self._draw.expovariate(rate)) < seconds:
            delay = began + due - time.perf_counter()
            if delay > 0:
                await asyncio.sleep(delay)
            task = asyncio.create_task(one(due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        if tasks:
            await asyncio.wait(tasks, timeout=60)
        self.outcome.seconds = time.perf_counter() - began
        for connection in free:
            connection.transport.close()
        return self.outcome

    async def _shoot(self, connection: _Connection | None, due: float) -> _Connection | None:
        shot, outcome = self._draw.choice(self.shots), self.outcome
        outcome.sent += 1
        try:
            if connection is None or not connection.alive:
                _, connection = await asyncio.get_running_loop().create_connection(
                    _Connection, self.host, self.port
                )
        except OSError:
            outcome.refused += 1
            await asyncio.sleep(0.05)
            return None
        try:
            status, body = await connection.send(shot.wire)
        except (OSError, httptools.HttpParserError):
            outcome.lost += 1
            await asyncio.sleep(0.05)
            return None
        spent = (time.perf_counter() - due) * 1000
        outcome.statuses[status] += 1
        if status == 200:
            outcome.latencies.append(spent)
            if not shot.right(body):
                outcome.wrong += 1
                outcome.wrong_bodies.append(body[:300].decode(errors="replace"))
        else:
            outcome.refusals.append(spent)
        return connection if connection.alive else None


def request(
    host: str,
    path: str,
    body: bytes,
    kind: str,
    right: Callable[[bytes], bool],
    key: str | None = None,
) -> Shot:
    """A POST."""
    key_line = f"Authorization: Bearer {key}\r\n" if key else ""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: "
        f"{kind}\r\n{key_line}Content-Length: {len(body)}\r\n\r\n"
    )
    return Shot(head.encode() + body, right)


def form(images: Sequence[bytes], field_name: str = "files") -> tuple[bytes, str]:
    """A multipart/form-data body of several files, and its content type."""
    mark = "lipi-load-boundary"
    parts = [
        (
            f'--{mark}\r\nContent-Disposition: form-data; name="{field_name}"; '
            f'filename="{place}.webp"\r\nContent-Type: image/webp\r\n\r\n'
        ).encode()
        + image
        + b"\r\n"
        for place, image in enumerate(images)
    ]
    return b"".join(parts) + f"--{mark}--\r\n".encode(), f"multipart/form-data; boundary={mark}"


def run(coroutine: object) -> Outcome:
    """On uvloop."""
    return uvloop.run(coroutine)  # type: ignore[arg-type]


def odia_words(count: int = 200) -> tuple[list[bytes], list[str]]:
    """Encoded images of the embedded data set and the shipped recogniser's readings."""
    from pathlib import Path

    from ocr.dataset.read import Dataset
    from ocr.images import open_image
    from ocr.recognizers.factory import load

    data = Dataset.open("odia_words", "validation")
    images = [data.image_bytes(index) for index in range(count)]
    return images, [
        reading.text for reading in load(Path("odia")).read([open_image(image) for image in images])
    ]


def reads(text: str) -> Callable[[bytes], bool]:
    """Whether an answer is JSON with this text."""
    return lambda body: json.loads(body).get("text") == text


def words(
    host: str, images: Sequence[bytes], texts: Sequence[str], as_json: bool = False
) -> list[Shot]:
    """One image a request, as a raw body or as base64 in JSON."""
    kind = "application/json" if as_json else "image/webp"
    bodies = [
        json.dumps({"image": base64.b64encode(image).decode()}).encode() if as_json else image
        for image in images
    ]
    return [
        request(host, "/v1/ocr", body, kind, reads(text))
        for body, text in zip(bodies, texts, strict=True)
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("address")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument(
        "--json", action="store_true", help="images as base64 in JSON instead of raw bodies"
    )
    arguments = parser.parse_args()
    host, _, port = arguments.address.removeprefix("http://").partition(":")
    images, texts = odia_words()
    load_ = Load(host, int(port), words(host, images, texts, arguments.json))
    outcome = run(
        load_.open(arguments.rate, arguments.seconds)
        if arguments.rate
        else load_.closed(arguments.clients, arguments.seconds)
    )
    print(json.dumps(outcome.summary()))

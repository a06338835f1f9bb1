"""A real endpoint for a test.

Started as a user starts it, loaded from a thread, looked into by process.
"""

import contextlib
import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import requests

from ocr.images import open_image
from ocr.recognizers import factory
from tests.support import load
from tests.support.commands import start

REPLICA, CONTROLLER, PROMOTER, PROXY = (
    "ServeReplica",
    "ServeController",
    "Promoter",
    "HAProxyManager",
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Running:
    """An endpoint that is up; `address` is its front."""

    process: "subprocess.Popen[str]"
    port: int
    storage: Path

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> Any:
        answered = requests.get(self.address + path, timeout=10)
        answered.raise_for_status()
        return answered.json()

    def promote(self, bundle: str, timeout_s: float = 120) -> dict[str, Any]:
        """Over HTTP; what came of it."""
        answered = requests.post(
            f"{self.address}/v1/models/promote", json={"bundle": bundle}, timeout=10
        )
        assert answered.status_code == 202, answered.text
        return self.outcome(answered.json()["promotion"], timeout_s)

    def outcome(self, promotion: str, timeout_s: float = 120) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        while (found := self.get(f"/v1/models/promotions/{promotion}"))["what"] == "pending":
            assert time.monotonic() < deadline, self.get("/v1/models/journal")
            time.sleep(0.2)
        return dict(found)

    def processes(self, kind: str) -> list[psutil.Process]:
        """Ray's processes of this endpoint by what their command line has."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if kind in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def is_up(self) -> bool:
        try:
            return requests.get(f"{self.address}/readyz", timeout=2).ok
        except requests.RequestException:
            return False

    def wait_up(self, timeout_s: float = 120) -> float:
        """Seconds until it is ready."""
        began = time.monotonic()
        while not self.is_up():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() - began < timeout_s, "the endpoint did not come up"
            time.sleep(0.1)
        return time.monotonic() - began


@contextlib.contextmanager
def endpoint(
    storage: Path | str, *words: str, bundle: str = "odia", start_s: float = 120, **env: str
) -> Iterator[Running]:
    """`deploy.py BUNDLE`, up; ended by SIGTERM."""
    port = free_port()
    running = Running(
        start("deploy", bundle, f"port={port}", f"storage_path={storage}", *words, **env),
        port,
        Path(storage),
    )
    try:
        running.wait_up(start_s)
        yield running
    finally:
        if running.process.poll() is None:
            running.process.terminate()
        running.process.communicate(timeout=90)


@contextlib.contextmanager
def loaded(
    running: Running,
    shots: list[load.Shot],
    clients: int = 4,
    pause_s: float = 0.02,
    rate: float | None = None,
) -> Iterator[load.Outcome]:
    """A load from a thread for as long as the block lasts.

    Its outcome is whole when the block has ended.
    """
    traffic = load.Load("127.0.0.1", running.port, shots)
    thread = threading.Thread(
        target=lambda: load.run(
            traffic.open(rate, 3600) if rate else traffic.closed(clients, 3600, pause_s)
        )
    )
    thread.start()
    try:
        yield traffic.outcome
    finally:
        traffic.stop()
        thread.join()


def word_shots(images: list[bytes], texts: list[str]) -> list[load.Shot]:
    """Single words as raw bodies; each answer must have its text."""
    return [
        load.request("127.0.0.1", "/v1/ocr", image, "image/webp", load.reads(text))
        for image, text in zip(images, texts, strict=True)
    ]


def shots_by_model() -> tuple[list[load.Shot], list[str]]:
    """Words whose answer must be the reading of the model that it names; and Odia's readings."""
    images, odia = load.odia_words(60)
    pixels = [open_image(image) for image in images]
    thai = [reading.text for reading in factory.load(Path("thai")).read(pixels)]

    def of_its_model(odia_text: str, thai_text: str) -> Callable[[bytes], bool]:
        expected = {"base-odia": odia_text, "base-thai": thai_text}

        def right(body: bytes) -> bool:
            answer = json.loads(body)
            return bool(answer["text"] == expected[answer["model"].partition("@")[0]])

        return right

    shots = [
        load.request("127.0.0.1", "/v1/ocr", image, "image/webp", of_its_model(*texts))
        for image, *texts in zip(images, odia, thai, strict=True)
    ]
    return shots, odia

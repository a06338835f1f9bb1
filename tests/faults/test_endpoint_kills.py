"""SIGKILL of an endpoint's replicas under load: through our client nothing is lost, and every text is the right one."""

import random
import threading
import time
from pathlib import Path

import psutil
import requests

from ocr.dataset.read import Dataset
from ocr.errors import UserError
from ocr.images import open_image
from ocr.recognizers.base import load
from serve.client import Client
from tests.commands import start
from tests.serve.test_endpoint import free_port

KILLS, PAUSE_S, CLIENTS = 5, 8.0, 4


def test_replicas_that_die_under_load_lose_nothing_through_our_client() -> None:
    data, port = Dataset.open("odia_words", "validation"), free_port()
    images = [data.image_bytes(index) for index in range(20)]
    expected = [reading.text for reading in load(Path("odia")).read([open_image(image) for image in images])]
    server = start("deploy", "odia", f"port={port}", "autoscaling.min_replicas=2")
    client, found, over = Client(f"http://127.0.0.1:{port}"), list[str](), threading.Event()

    def ask(place: int) -> None:
        while not over.is_set():
            place = (place + 1) % len(images)
            try:
                text = client.read([images[place]])[0].text
                found.append("right" if text == expected[place] else f"wrong: {text}")
            except UserError as problem:
                found.append(f"lost: {problem}")
            time.sleep(0.1)

    try:
        deadline = time.monotonic() + 120
        while not up(port):
            assert time.monotonic() < deadline
            time.sleep(0.3)
        threads = [threading.Thread(target=ask, args=(place,)) for place in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for _ in range(KILLS):
            time.sleep(PAUSE_S)
            replicas = [process for process in psutil.Process(server.pid).children(recursive=True) if "ServeReplica" in " ".join(process.cmdline())]
            random.choice(replicas).kill()
        time.sleep(PAUSE_S)
        over.set()
        for thread in threads:
            thread.join()
    finally:
        server.terminate()
        server.communicate(timeout=60)
    print(f"{len(found)} requests, {KILLS} kills")
    assert [what for what in found if what != "right"] == []
    assert len(found) > 20 * KILLS


def up(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/readyz", timeout=2).ok
    except requests.RequestException:
        return False

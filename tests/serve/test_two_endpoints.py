"""Two endpoints on one machine: neither answers a request of the other, also while they start."""

import time

import psutil
import pytest
import requests

from tests.support.commands import start
from tests.support.load import odia_words
from tests.support.running import Running, free_port

NAMES = ("odia", "thai")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> "list[Running]":
    """Both started at once."""
    running = []
    for name in NAMES:
        storage, port = tmp_path_factory.mktemp(name), free_port()
        words = (f"port={port}", f"storage_path={storage}", "autoscaling.max_replicas=1")
        running.append(Running(start("deploy", name, *words), port, storage))
    yield running
    for one in running:
        one.process.terminate()
    for one in running:
        one.process.communicate(timeout=90)


@pytest.mark.long
def test_each_answers_with_its_own_model_from_the_first_request_on(pair: list[Running]) -> None:
    image, answered = odia_words(1)[0][0], {name: 0 for name in NAMES}
    deadline = time.monotonic() + 180
    while min(answered.values()) < 100 and time.monotonic() < deadline:
        for name, running in zip(NAMES, pair, strict=True):
            assert running.process.poll() is None, running.process.communicate()
            try:
                response = requests.post(
                    f"{running.address}/v1/ocr",
                    data=image,
                    headers={"Content-Type": "image/webp"},
                    timeout=20,
                )
            except requests.RequestException:
                continue
            if response.status_code == 200:
                assert response.json()["model"].startswith(f"base-{name}@"), "another's answer"
                answered[name] += 1
    assert min(answered.values()) >= 100


@pytest.mark.long
def test_their_ports_are_disjoint(pair: list[Running]) -> None:
    ports = [
        {
            connection.laddr.port
            for process in running.processes("Serve")
            for connection in process.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        }
        for running in pair
    ]
    assert ports[0] and ports[1] and not ports[0] & ports[1]

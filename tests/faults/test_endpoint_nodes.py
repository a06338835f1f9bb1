"""An endpoint over two nodes: what people sent stays, and a promotion waits for no lost node."""

import base64
import hashlib
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.support.load import odia_words
from tests.support.nodes import Nodes, needs_nodes, nodes

pytestmark = needs_nodes
KEY = {"Authorization": "Bearer secret-of-the-test"}
DIGEST = hashlib.sha256(b"secret-of-the-test").hexdigest()
TWO = ["autoscaling.min_replicas=2", "autoscaling.max_replicas=2"]
OPEN = ["host=0.0.0.0", "port=8077", f"api_keys_sha256=[{DIGEST}]"]
DEPLOY = ["python", "ray_jobs/deploy.py", "odia", *OPEN, *TWO]


@pytest.fixture
def cluster() -> Iterator[Nodes]:
    with nodes(2) as made:
        yield made


def end(running: "subprocess.Popen[str]") -> None:
    """Stop waiting for a command; what it started ends with its node."""
    running.kill()
    running.wait()
    assert running.stdout
    running.stdout.close()


def until_ready(address: str, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while True:
        try:
            if requests.get(f"{address}/readyz", timeout=5).status_code == 200:
                return
        except requests.RequestException:
            assert time.monotonic() < until, "the endpoint does not answer"
        time.sleep(0.5)


def correction() -> dict[str, Any]:
    images, texts = odia_words(1)
    return {
        "images": {"word": base64.b64encode(images[0]).decode()},
        "corrections": [{"image": "word", "text": texts[0], "reading": texts[0], "model": "m"}],
    }


def test_a_promotion_does_not_wait_for_a_replica_whose_node_is_gone(cluster: Nodes) -> None:
    running = cluster.head.start(*cluster.submit(*DEPLOY))
    address = f"http://{cluster.head.address}:8077"
    try:
        until_ready(address)
        cluster.nodes[1].kill()
        cluster.wait_alive(1)
        for name in ("thai", "odia"):  # another model, and back
            words = [name if word == "odia" else word for word in DEPLOY]
            done = cluster.head.run(*cluster.submit(*words, *TWO), timeout=150)
            assert done.returncode == 0 and f"base-{name}" in done.stdout, done.stdout
            print(f"{name}: live after {until_live(address, name):.0f} s with one of two replicas")
    finally:
        end(running)


def until_live(address: str, name: str, seconds: float = 120) -> float:
    began = time.monotonic()
    while True:
        journal = requests.get(f"{address}/v1/models/journal", headers=KEY, timeout=10).json()
        if journal and journal[-1]["what"] == "live" and name in journal[-1]["bundle"]:
            return time.monotonic() - began
        assert time.monotonic() - began < seconds, journal
        time.sleep(0.5)


def test_what_people_correct_is_not_kept_in_rays_cache(cluster: Nodes) -> None:
    serve = ["serve", "run", "--working-dir", ".", "serve.app:build", "bundle=odia"]
    running = cluster.head.start(*serve)
    address = f"http://{cluster.head.address}:8000"
    try:
        until_there(cluster, address)
        sent = cluster.head.run("python", "-c", SEND.format(body=correction()))
        assert "201" in sent.stdout, sent.stdout
        stored = list((cluster.shared / "runs" / "serve" / "corrections").glob("*.json"))
        assert len(stored) == 1
    finally:
        end(running)


SEND = (
    "import requests; print(requests.post('http://127.0.0.1:8000/v1/corrections', "
    "json={body!r}, timeout=30).status_code)"
)


def until_there(cluster: Nodes, address: str) -> None:
    ready = "requests.get('http://127.0.0.1:8000/readyz', timeout=5).status_code"
    ask = f"import requests; print({ready})"
    until = time.monotonic() + 120
    while "200" not in cluster.head.run("python", "-c", ask).stdout:
        assert time.monotonic() < until
        time.sleep(1)

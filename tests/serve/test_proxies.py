"""A proxy in the environment is for other machines: this one is asked past it."""

import base64
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from ocr.dataset.read import Dataset
from ocr.this_machine import is_this_machine, own_names, past_proxies
from serve.client import Client
from tests.support.commands import start
from tests.support.running import free_port

DEAD = "http://127.0.0.1:9"  # nothing listens there
PROXIES = {name: DEAD for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}


def direct() -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    return session


def eventually(found: Callable[[], Any], seconds: float) -> Any:
    end = time.monotonic() + seconds
    while True:
        try:
            if value := found():
                return value
        except requests.RequestException:
            pass
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.5)


def test_no_proxy_gets_this_machine_and_keeps_what_stood_there() -> None:
    environ = {"HTTP_PROXY": DEAD, "no_proxy": "example.org, localhost"}
    past_proxies(["10.1.2.3"], environ)
    names = environ["no_proxy"].split(",")
    assert environ["NO_PROXY"] == environ["no_proxy"]
    assert names[:2] == ["example.org", "localhost"] and len(names) == len(set(names))
    assert {"127.0.0.1", "::1", "10.1.2.3", *own_names()} <= set(names)
    again = dict(environ)
    past_proxies(["10.1.2.3"], again)
    assert again == environ
    for unchanged in ({}, {"no_proxy": "a"}, {"http_proxy": DEAD, "no_proxy": "*"}):
        values = dict(unchanged)
        past_proxies((), values)
        assert values == unchanged


def test_this_machine_is_known_by_its_names_and_addresses() -> None:
    for host in ("localhost", "LOCALHOST", "127.0.0.1", "127.0.1.1", "[::1]", *own_names()):
        assert is_this_machine(host), host
    for host in ("example.org", "", "192.0.2.7"):
        assert not is_this_machine(host), host


@pytest.mark.long
def test_an_endpoint_behind_a_proxy_reads_counts_and_retrains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    words = ["odia", f"port={port}", f"storage_path={tmp_path}", "autoscaling.max_replicas=1"]
    process = start("deploy", *words, **PROXIES)
    data, session = Dataset.open("odia_words", "validation"), direct()
    try:
        eventually(lambda: session.get(f"{address}/readyz", timeout=2).ok, 120)
        for name, value in PROXIES.items():
            monkeypatch.setenv(name, value)
        assert Client(address).read(data.image_bytes(0)).text
        again = start("deploy", *words, **PROXIES)
        said = again.communicate(timeout=120)
        assert again.returncode == 0, said

        images = {str(n): base64.b64encode(data.image_bytes(n)).decode() for n in range(12)}
        corrections = [{"image": name, "text": data.texts[int(name)]} for name in images]
        told = {"images": images, "corrections": corrections}
        assert session.post(f"{address}/v1/corrections", json=told, timeout=30).status_code == 201
        short = {"num_epochs": 0.1}
        asked = session.post(f"{address}/v1/retrain", json=short, timeout=30).json()
        state = f"{address}{asked['see']}"
        eventually(lambda: session.get(state, timeout=5).json()["status"] != "waiting", 60)
        eventually(
            lambda: "ray_lipi_requests_total" in session.get(f"{address}/metrics", timeout=9).text,
            60,
        )
    finally:
        process.terminate()
        process.communicate(timeout=90)


WITHOUT_JOBS = """
import sys, time, ray
from ocr.local_ray import start_local_ray
from serve.corrections import Corrections
from serve.config import LimitSettings
from serve.models import Models
from serve.retraining import Retrainings

start_local_ray(num_cpus=1, include_dashboard=False)
models = Models(sys.argv[1])
bundle = models.add("odia")
retrainings = Retrainings(models, Corrections(models.store, LimitSettings()))
retrainings.patience_s = 1.0
id = models.journal.append(what="retrain", bundle=bundle, settings={})
end = time.monotonic() + 60
while retrainings.pending() and time.monotonic() < end:
    try:
        retrainings.advance(retrainings.pending()[0])
    except Exception as problem:
        print("again:", type(problem).__name__)
        time.sleep(0.5)
state = retrainings.state(id)
print(state["status"], "|", state["why"])
ray.shutdown()
"""


def test_a_retraining_whose_job_ray_does_not_take_has_failed_with_the_reason(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_JOBS, str(tmp_path)],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith("failed | Ray takes no job: "), done.stdout
    assert "again:" in done.stdout

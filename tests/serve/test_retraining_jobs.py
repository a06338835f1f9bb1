"""A retraining as a Ray job: it goes to its own Ray of several on the machine, and can be ended."""

import subprocess
import sys
from pathlib import Path

import pytest

from ocr.retraining import CLUSTER_AWAY
from tests.support.commands import PROJECT, call, environment
from tests.support.corrected import twelve_corrections

ANOTHER = """
import logging, sys
from ocr.local_ray import start_local_ray
start_local_ray(num_cpus=1, include_dashboard=False, log_to_driver=False,
                logging_level=logging.ERROR)
import ray
print("up", flush=True)
sys.stdin.read()
drivers = [job["Entrypoint"] for job in ray._private.state.state.job_table()]
print([entrypoint for entrypoint in drivers if "/retrain" + ".py" in entrypoint])
"""
OURS = """
import base64, logging, sys, time
from pathlib import Path
import ray
from ocr.dataset.read import Dataset
from ocr.local_ray import start_local_ray
from serve.config import LimitSettings
from serve.corrections import Corrections, CorrectionsRequest
from serve.errors import Refused
from serve.models import Models
from serve.retraining import Retrainings

start_local_ray(num_cpus=2, include_dashboard=True, dashboard_port=0, log_to_driver=False,
                logging_level=logging.ERROR)
models = Models(sys.argv[1])
models.journal.append(what="live", of="", bundle=models.add("odia"))
corrections = Corrections(models.store, LimitSettings())
words = Dataset.open("odia_words", "validation")
for index in range(12):
    image = base64.b64encode(words.image_bytes(index)).decode()
    line = {"image": "word", "text": words.texts[index]}
    asked = {"images": {"word": image}, "corrections": [line]}
    corrections.put(CorrectionsRequest.model_validate(asked))
retrainings = Retrainings(models, corrections)
id = retrainings.ask({"num_epochs": 900}, "boss")

def drivers():
    return [job["Entrypoint"] for job in ray._private.state.state.job_table() if not job["IsDead"]]

def advance():
    try:
        retrainings.advance(retrainings.pending()[0])
    except Exception as problem:
        print("again:", problem)
    time.sleep(0.5)

end = time.monotonic() + 150
while not any("/retrain" + ".py" in each for each in drivers()) and time.monotonic() < end:
    advance()
print("ours:", any("/retrain" + ".py" in each for each in drivers()))
print(retrainings.state(id)["status"], retrainings.state(id)["by"])
retrainings.stop(id, "boss")
print(retrainings.state(id)["status"])
while retrainings.pending() and time.monotonic() < end:
    advance()
print(retrainings.state(id)["status"], retrainings.state(id)["why"])
print("left:", [each for each in drivers() if "/retrain" + ".py" in each])
print("pending:", Retrainings(Models(sys.argv[1]), corrections).pending())
try:
    retrainings.stop(id)
except Refused as refused:
    print(refused.status, refused.code)
second = retrainings.ask({}, None)
retrainings.stop(second)
advance()
print(retrainings.state(second)["status"])
ray.shutdown()
"""


@pytest.mark.long
@pytest.mark.timeout(400)
def test_of_two_rays_its_own_gets_the_job_and_a_stopped_one_is_not_taken_up_again(
    tmp_path: Path,
) -> None:
    options = {"cwd": PROJECT, "env": environment(), "text": True, "stdout": subprocess.PIPE}
    with subprocess.Popen(
        [sys.executable, "-c", ANOTHER], stdin=subprocess.PIPE, **options
    ) as another:
        assert another.stdout and another.stdout.readline() == "up\n"
        command = [sys.executable, "-c", OURS, str(tmp_path)]
        done = subprocess.run(command, stderr=subprocess.PIPE, timeout=300, check=False, **options)
        drivers, _ = another.communicate(timeout=60)
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert drivers == "[]\n", "the other Ray had none"
    said = [line for line in done.stdout.splitlines() if not line.startswith("again:")]
    assert said == [
        "ours: True",
        "running boss",
        "stopping",
        "stopped stopped by boss",
        "left: []",
        "pending: []",
        "409 ended",
        "stopped",
    ], done.stdout


def test_a_cluster_that_is_away_is_no_mistake_of_the_user(tmp_path: Path) -> None:
    """The endpoint starts a job with this exit status again; one with 2 has failed."""
    folder = twelve_corrections(tmp_path / "corrections")
    words = ("odia", folder, f"storage_path={tmp_path}", "max_steps=1")
    done = call("retrain", *words, RAY_ADDRESS="127.0.0.1:1")
    assert done.returncode == CLUSTER_AWAY, (done.stdout, done.stderr)
    assert "no Ray cluster answers there" in done.stderr

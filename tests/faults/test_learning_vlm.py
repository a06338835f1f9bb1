"""A vision-language model learns words from corrections, through the endpoint, and goes live."""

import base64
import time
from pathlib import Path

import pytest
import requests

from ocr.dataset.read import Dataset
from ocr.retraining import UNSURE
from serve.client import Client
from tests.support.running import Running, endpoint
from tests.support.tiny_vlm_bundle import adapter_bundle

KNOWN, NEW = "odia_few_words_base", "odia_few_words"  # what the base reads, and what it does not
ASKED = {"learning_rate": 0.004, "num_epochs": 3, "global_batch_size": 8}


def stored(running: Running, count: int) -> None:
    samples = Dataset.open(NEW, "train")
    for index in range(count):
        image = base64.b64encode(samples.image_bytes(index)).decode()
        line = {"image": "word", "text": samples.texts[index]}
        asked = {"images": {"word": image}, "corrections": [line]}
        answer = requests.post(f"{running.address}/v1/corrections", json=asked, timeout=60)
        assert answer.status_code == 201, answer.text


def right(running: Running) -> int:
    """How many of 30 other images of the new words are read."""
    samples = Dataset.open(NEW, "validation")
    shots = [samples.image_bytes(index) for index in range(30)]
    readings = Client(running.address).read(shots)
    return sum(
        reading.text == text for reading, text in zip(readings, samples.texts[:30], strict=True)
    )


@pytest.mark.timeout(1800)
def test_words_that_people_corrected_are_read_after_the_promotion(tmp_path: Path) -> None:
    bundle = adapter_bundle(tmp_path, steps=2, base_steps=450, data=KNOWN)
    with endpoint(
        tmp_path / "serve",
        "autoscaling.max_replicas=1",
        "gate.max_forgetting=1",
        bundle=str(bundle),
    ) as running:
        before = right(running)
        stored(running, 40)
        asked = requests.post(f"{running.address}/v1/retrain", json=ASKED, timeout=60).json()
        deadline = time.monotonic() + 1500
        while (came := running.get(f"/v1/retrain/{asked['retraining']}"))["ended"] is None:
            assert time.monotonic() < deadline, came
            time.sleep(2)
        assert came["status"] == "done", came
        print(f"\n{came['why']}")
        assert came["verdict"]["verdict"] == UNSURE, "few lines: a person decides"
        assert running.promote(came["candidate"])["what"] == "live"
        after = right(running)
        print(f"of 30 words: {before} → {after} right")
        assert before <= 3 and after >= 20

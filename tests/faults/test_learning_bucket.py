"""The loop that learns with a bucket as storage: corrected, retrained, promoted.

`tests/trainers/test_bucket_retrain.py` has two machines.
"""

import base64
import time
from pathlib import Path

import pytest
import requests
import torch

from ocr.place import Place
from ocr.retraining import RetrainConfig
from tests.support.buckets import bucket_server
from tests.support.corrected import twelve_corrections
from tests.support.load import odia_words
from tests.support.running import endpoint
from tests.support.tiny import train_here
from tests.support.tiny_vlm_bundle import few_samples
from trainers.retrain.run import retrain
from trainers.retrain.work import Work

STORAGE = "s3://lipi/serve"


@pytest.mark.timeout(1500)
def test_an_endpoint_in_a_bucket_retrains_and_promotes() -> None:
    images, texts = odia_words(12)
    with (
        bucket_server(),
        endpoint(STORAGE, "autoscaling.max_replicas=1") as running,
    ):
        for image, text in zip(images, texts, strict=True):
            asked = {
                "images": {"word": base64.b64encode(image).decode()},
                "corrections": [{"image": "word", "text": text}],
            }
            answer = requests.post(f"{running.address}/v1/corrections", json=asked, timeout=60)
            assert answer.status_code == 201, answer.text
        given = requests.post(f"{running.address}/v1/retrain", json={"num_epochs": 1}, timeout=60)
        id, until, shares = given.json()["retraining"], time.monotonic() + 1000, set[float]()
        while (came := running.get(f"/v1/retrain/{id}"))["ended"] is None:
            assert time.monotonic() < until, came
            shares.add(came["progress"])
            time.sleep(2)
        assert came["status"] == "done", came
        assert len(shares) > 2, "it was seen to move"
        log = requests.get(f"{running.address}/v1/retrain/{id}/log", timeout=60).text
        assert "part 1 of" in log and log.endswith("\n")
        assert Place(f"{STORAGE}/retrain/{id}/run").has("bundle/manifest.json")
        assert running.promote(came["candidate"])["what"] == "live"
        assert running.get("/readyz")["model"] == came["candidate"]


def test_a_retraining_in_a_bucket_is_the_one_in_a_folder(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    values = {
        "bundle": "odia",
        "corrections": str(twelve_corrections(tmp_path / "corrections")),
        "replay": few_samples(tmp_path / "replay", "odia_few_words", 20, 20),
        "folds": 2,
        "max_steps": 3,
        "output": "same",
    }
    with bucket_server():
        ours, theirs = (
            retrain(
                RetrainConfig.model_validate({**values, "storage_path": storage}),
                Work(train_here),
                "the command",
            ).values
            for storage in ("s3://lipi/runs", str(tmp_path / "runs"))
        )
    assert {**ours, "seconds": 0} == {**theirs, "seconds": 0}

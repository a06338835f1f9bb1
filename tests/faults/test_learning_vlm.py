"""A vision-language model is retrained on corrections: through the endpoint, until it is live.

So few steps teach it next to nothing; `test_new_words_are_learnt` takes more of them.
"""

import base64
import time
from pathlib import Path

import pytest
import requests
import torch

from ocr.dataset.read import Dataset
from ocr.retraining import UNSURE, RetrainConfig
from tests.support.running import Running, endpoint
from tests.support.tiny import train_here
from tests.support.tiny_vlm_bundle import adapter_bundle, corrections_of
from trainers.retrain.run import retrain
from trainers.retrain.work import Work

KNOWN, NEW = "odia_few_words_base", "odia_few_words"  # what the base reads, and what it does not
WEBP = {"Content-Type": "image/webp"}
ASKED = {"learning_rate": 0.004, "num_epochs": 3, "global_batch_size": 8}


def stored(running: Running, count: int) -> None:
    samples = Dataset.open(NEW, "train")
    for index in range(count):
        image = base64.b64encode(samples.image_bytes(index)).decode()
        line = {"image": "word", "text": samples.texts[index]}
        asked = {"images": {"word": image}, "corrections": [line]}
        answer = requests.post(f"{running.address}/v1/corrections", json=asked, timeout=60)
        assert answer.status_code == 201, answer.text


@pytest.mark.timeout(1800)
def test_an_endpoint_retrains_its_adapter_and_serves_the_candidate(tmp_path: Path) -> None:
    bundle = adapter_bundle(tmp_path, steps=2, base_steps=450, data=KNOWN)
    with endpoint(
        tmp_path / "serve",
        "autoscaling.max_replicas=1",
        "gate.max_forgetting=1",
        bundle=str(bundle),
    ) as running:
        stored(running, 40)
        asked = requests.post(f"{running.address}/v1/retrain", json=ASKED, timeout=60).json()
        deadline = time.monotonic() + 1500
        while (came := running.get(f"/v1/retrain/{asked['retraining']}"))["ended"] is None:
            assert time.monotonic() < deadline, came
            time.sleep(2)
        assert came["status"] == "done", came
        print(f"\n{came['why']}")
        assert came["verdict"]["judged_by"] == "folds", "few lines: a person decides"
        assert (
            "readings: as a task with" in running.get(f"/v1/retrain/{asked['retraining']}")["log"]
        )
        assert running.promote(came["candidate"])["what"] == "live"
        word = Dataset.open(NEW, "validation").image_bytes(0)
        answer = requests.post(f"{running.address}/v1/ocr", data=word, headers=WEBP, timeout=60)
        assert answer.json()["model"] == came["candidate"]


def test_new_words_are_learnt(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    values = {
        "bundle": str(adapter_bundle(tmp_path, steps=2, base_steps=450, data=KNOWN)),
        "corrections": str(corrections_of(tmp_path / "corrections", NEW, range(60))),
        "storage_path": str(tmp_path / "runs"),
        "learning_rate": 0.004,
        "replay_ratio": 1.0,
        "max_steps": 120,
        "micro_batch_size": 16,
        "folds": 2,
        "device": "cpu",
        "gate": {"max_forgetting": 1.0},
    }
    config = RetrainConfig.model_validate(values)
    found = retrain(config, Work(train_here), "the command").values
    print(f"\n{found['why']}")
    assert found["verdict"] == UNSURE
    assert found["corrections"]["new_errors"] < 0.95 * found["corrections"]["old_errors"]

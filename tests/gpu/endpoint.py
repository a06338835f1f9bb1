"""The endpoint with `num_gpus=1`.

200 requests, each text equal to what `load(bundle).read` gives.
"""

import time
from collections.abc import Iterator
from pathlib import Path

from ocr.dataset.read import Dataset
from ocr.images import open_image
from ocr.recognizers.factory import load
from ocr.settings import load_settings
from tests.gpu.phase import Found, Setup
from tests.support.commands import PROJECT
from tests.support.load import Outcome
from tests.support.running import endpoint, loaded, word_shots
from trainers.config import TrainConfig
from trainers.families import family_of
from trainers.families.model_card import card_of
from trainers.runs.job import Data

TIMEOUT_S = 60


def rows(setup: Setup) -> Iterator[Found]:
    """A CTC bundle with the torch backend, then the tiny vision-language model, merged."""
    yield served("CTC, torch", Path("odia"), "odia_words", "L", setup)
    yield served("tiny VLM, merged", merged(setup), "odia_few_words", "RGB", setup)


def merged(setup: Setup) -> Path:
    """The tiny base with an adapter as it is before training, as one model."""
    words = [
        f"storage_path={setup.work}",
        *setup.size((), ("model.base_steps=80", "export.max_cer_difference=1")),
    ]
    config = load_settings(TrainConfig, PROJECT / "configs" / "tiny_vlm.yaml", words)
    data = Data.open(config)
    task = data.task(config, setup.device, "fp32")
    card = card_of(task, [0], data.fingerprints, final=False)
    family_of(config).export(task, setup.work / "merged", card, "merged")
    return setup.work / "merged"


def served(name: str, bundle: Path, data: str, mode: str, setup: Setup) -> Found:
    """Start the endpoint on this device, send the requests, compare the texts."""
    count = setup.size(200, 20)
    samples = Dataset.open(data, "validation")
    images = [samples.image_bytes(index % len(samples)) for index in range(count)]
    reader = load(bundle, backend="torch", device=setup.device)
    pixels = [open_image(image, mode) for image in images]  # type: ignore[arg-type]
    texts = [reading.text for reading in reader.read(pixels)]
    began = time.monotonic()
    words = ("backend=torch", f"num_gpus={setup.size(1, 0)}", "autoscaling.max_replicas=1")
    with endpoint(
        setup.work / name.split(",")[0].replace(" ", "-"), *words, bundle=str(bundle)
    ) as up:
        started = time.monotonic() - began
        with loaded(up, word_shots(images, texts), clients=8, pause_s=0) as outcome:
            deadline = time.monotonic() + TIMEOUT_S
            while outcome.sent < count and time.monotonic() < deadline:
                time.sleep(0.05)
    return Found(name, f"up in {started:.0f} s; {told(outcome)}", is_right(outcome, count))


def is_right(outcome: Outcome, count: int) -> bool:
    """Whether all were answered, each with its text."""
    answered = outcome.statuses[200]
    return answered == outcome.sent >= count and not outcome.wrong and not outcome.lost


def told(outcome: Outcome) -> str:
    """Counts and latencies in words."""
    found = outcome.summary()
    return (
        f"{found['sent']} sent, {outcome.statuses[200]} answered, {outcome.wrong} other texts,"
        f" {found['per_second']} a second, p50 {found['p50_ms']} ms, p99 {found['p99_ms']} ms"
    )

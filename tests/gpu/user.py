"""The tiny vision-language run as a user starts it, through Ray Train, its worker killed once."""

import json
from collections.abc import Iterator
from pathlib import Path

from ocr.dataset.read import Dataset
from ocr.images import open_image
from ocr.recognizers.factory import load
from tests.gpu.phase import Found, Setup
from tests.support.commands import call

SMALL = ("model.base_steps=0", "train.max_steps=6", "train.save_steps=2", "train.eval_steps=3")
FEW = ("data.max_validation_samples=8", "data.max_train_samples=32")


def rows(setup: Setup) -> Iterator[Found]:
    """The run, what it leaves, and its bundle read on both devices."""
    steps, kill_at = setup.size((60, 25), (6, 4))
    words = ["configs/tiny_vlm.yaml", f"device={setup.device}", f"storage_path={setup.work}"]
    words += [f"train.max_steps={steps}", *setup.size((), (*SMALL, *FEW))]
    marker = setup.work / "killed"
    done = call("train", *words, LIPI_KILL_AT=f"step:{kill_at}:0:{marker}")
    if done.returncode:
        raise RuntimeError(f"train.py ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    run_dir = setup.work / "tiny-vlm"
    timings = [json.loads(line) for line in (run_dir / "timings.jsonl").read_text().splitlines()]
    restarts = [line["text"] for line in timings if line.get("event") == "restart"]
    survived = marker.exists() and len(restarts) == 1 and "exactly" in restarts[0]
    yield Found(f"worker killed in step {kill_at} of {steps}", "; ".join(restarts), survived)
    left = ("report.json", "report.html", "bundle/bundle.json")
    missing = [name for name in left if not (run_dir / name).is_file()]
    last = done.stdout.strip().splitlines()[-1]
    yield Found("its end", f"missing: {', '.join(missing)}" if missing else last, not missing)
    yield _read_on_both(run_dir / "bundle", setup)


def _read_on_both(bundle: Path, setup: Setup) -> Found:
    """The same images on this device and on the CPU; other kernels may round another way."""
    data = Dataset.open("odia_few_words", "validation")
    images = [open_image(data.image_bytes(index), "RGB") for index in range(setup.size(64, 8))]
    ours, theirs = (
        [reading.text for reading in load(bundle, device=device).read(images)]
        for device in (setup.device, "cpu")
    )
    differing = sum(one != other for one, other in zip(ours, theirs, strict=True))
    share = differing / len(images)
    figures = f"{differing} of {len(images)} texts differ ({share:.1%})"
    return Found(f"bundle on {setup.device} and cpu", figures)

"""vLLM against our own loop on one bundle: equal texts, seconds an image, start, memory.

.venv-vllm/bin/python benchmarks/vllm_engine.py runs/tiny-vlm/merged [--rounds 5]

In the environment of `make vllm`. Each engine has a process of its own; both read the validation
samples of the bundle's training, one at a time and in batches of 16, in turn.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

PROJECT = Path(__file__).parent.parent
sys.path.insert(0, str(PROJECT))

from ocr.bundle import open_bundle  # noqa: E402
from ocr.dataset.read import Dataset  # noqa: E402
from ocr.images import open_image  # noqa: E402
from ocr.recognizers.factory import load  # noqa: E402

ENGINES, BATCHES = ("torch", "vllm"), (1, 16)


@dataclass(frozen=True)
class Measured:
    """What one engine read, and how long it took; seconds are medians over the rounds."""

    texts: list[str]
    confidences: list[float]
    start_s: float
    cpu_s: float  # of the start
    image_s: dict[str, float]  # by batch size
    memory_mb: float  # private, at the end


def measured(bundle: str, engine: str, rounds: int) -> Measured:
    """Open the bundle and read; the first round is not counted."""
    process = psutil.Process()
    data = Dataset.open(open_bundle(bundle).card["data"], "validation")
    images = [open_image(data.image_bytes(index), "RGB") for index in range(len(data))]
    began, busy = time.perf_counter(), time.process_time()
    recognizer = load(bundle, engine)
    start_s, cpu_s = time.perf_counter() - began, time.process_time() - busy
    seconds: dict[str, list[float]] = {str(size): [] for size in BATCHES}
    readings = recognizer.read(images)
    for _ in range(rounds):
        for size in BATCHES:
            began = time.perf_counter()
            for first in range(0, len(images), size):
                recognizer.read(images[first : first + size])
            seconds[str(size)].append((time.perf_counter() - began) / len(images))
    return Measured(
        [reading.text for reading in readings],
        [reading.confidence for reading in readings],
        start_s,
        cpu_s,
        {size: statistics.median(each) for size, each in seconds.items()},
        process.memory_full_info().uss / 1e6,
    )


def in_a_process(bundle: str, engine: str, rounds: int) -> Measured:
    """The same in a new process."""
    command = [sys.executable, __file__, bundle, "--engine", engine, "--rounds", str(rounds)]
    done = subprocess.run(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True, check=True)
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Print a table for docs/results.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engine", choices=ENGINES)
    given = parser.parse_args()
    if given.engine:
        print(json.dumps(asdict(measured(given.bundle, given.engine, given.rounds))))
        return
    found = {engine: in_a_process(given.bundle, engine, given.rounds) for engine in ENGINES}
    ours, theirs = found["torch"], found["vllm"]
    equal = sum(one == other for one, other in zip(ours.texts, theirs.texts, strict=True))
    far = max(
        abs(one - other) for one, other in zip(ours.confidences, theirs.confidences, strict=True)
    )
    print(f"texts equal: {equal} of {len(ours.texts)}; confidences differ by at most {far:.1e}\n")
    print("| engine | images/s, one at a time | in batches of 16 | start, s | of it CPU, s | MB |")
    print("|---|---:|---:|---:|---:|---:|")
    for engine, row in found.items():
        alone, many = (1 / row.image_s[str(size)] for size in BATCHES)
        print(
            f"| {engine} | {alone:.1f} | {many:.1f} | {row.start_s:.1f} | {row.cpu_s:.1f} | "
            f"{row.memory_mb:.0f} |"
        )


if __name__ == "__main__":
    main()

"""What corrections are worth through the endpoint: errors on lines that nobody corrected, after 0,
12, 50 and 100 corrections, and the seconds from "start" to live.

python benchmarks/learning.py [--set thai] [--sizes 12 50 100] [--seed 1]      # about five minutes
a size on two cores

Corrections are posted, training is asked for, what comes of it is promoted whatever the verdict
says, all over HTTP; each size adds to the one before. Held-out lines share neither text nor
document with what is corrected (bangla: another page of the same writer).
"""

import argparse
import base64
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import requests

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from benchmarks.corrections import FOLDERS, Line, lines_of, split  # noqa: E402
from ocr.scoring import score_all  # noqa: E402
from serve.client import Client  # noqa: E402
from tests.support.running import Running, endpoint  # noqa: E402


def main() -> None:
    """A row for each number of corrections."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", default="thai", choices=FOLDERS)
    parser.add_argument("--sizes", type=int, nargs="+", default=[12, 50, 100])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--data", type=Path, default=PROJECT.parent / "shared" / "data")
    arguments = parser.parse_args()
    corrected, held_out = split(
        lines_of(arguments.data / FOLDERS[arguments.set]), arguments.seed, arguments.set == "thai"
    )
    print(f"{arguments.set}: {len(held_out)} held-out lines\n")
    print(
        "| corrections | CER on held-out lines | lines right | verdict | base validation CER | "
        "start to live, s |\n|---:|---:|---:|---|---:|---:|"
    )
    with (
        tempfile.TemporaryDirectory() as storage,
        endpoint(
            Path(storage),
            "autoscaling.max_replicas=1",
            "promote_when_sure=false",
            bundle=arguments.set,
        ) as running,
    ):
        print(f"| 0 | {read(running, held_out)} | – | – | – |", flush=True)
        done = 0
        for size in arguments.sizes:
            correct(running, corrected[done:size])
            done = size
            began = time.monotonic()
            came = trained(running)
            assert running.promote(came["candidate"])["what"] == "live"
            seconds, verdict = time.monotonic() - began, came["verdict"]
            base = f"{verdict['base']['old_cer']:.2%} → {verdict['base']['new_cer']:.2%}"
            print(
                f"| {min(size, len(corrected))} | {read(running, held_out)} | "
                f"{verdict['verdict']} | {base} | {seconds:.0f} |",
                flush=True,
            )


def read(running: Running, lines: list[Line]) -> str:
    """Two cells: the CER, and how many lines are all right."""
    client = Client(running.address)
    readings = [
        reading
        for start in range(0, len(lines), 32)
        for reading in client.read([line.image for line in lines[start : start + 32]])
    ]
    pairs = [(line.text, reading.text) for line, reading in zip(lines, readings, strict=True)]
    exact = statistics.mean(text == reading for text, reading in pairs)
    return f"{score_all(pairs).cer:.1%} | {exact:.0%}"


def correct(running: Running, lines: list[Line]) -> None:
    """As the page does, with what was read."""
    client = Client(running.address)
    for line in lines:
        reading = client.read([line.image])[0]
        images = {"line": base64.b64encode(line.image.read_bytes()).decode()}
        told = {
            "images": images,
            "corrections": [
                {
                    "image": "line",
                    "text": line.text,
                    "reading": reading.text,
                    "confidence": reading.confidence,
                }
            ],
        }
        answered = requests.post(f"{running.address}/v1/corrections", json=told, timeout=30)
        assert answered.status_code == 201, answered.text


def trained(running: Running) -> dict[str, Any]:
    """What came of a retraining, from the request to its end."""
    asked = requests.post(f"{running.address}/v1/retrain", json={}, timeout=30).json()["retraining"]
    while (found := running.get(f"/v1/retrain/{asked}"))["status"] not in ("done", "failed"):
        time.sleep(0.5)
    assert found["status"] == "done", found["log"]
    return dict(found)


if __name__ == "__main__":
    main()

"""What Ray Train, checkpoints and the loader cost, side by side in one run on this machine.

  python benchmarks/overhead.py [--minutes 8]

Every row trains the same network on the same samples: `odia-ctc`'s, evaluation left out. This
machine's speed swings by a tenth from minute to minute, so all rows run at the same time and take
turns: one process tree goes on for a few seconds while the others are stopped (SIGSTOP). A row's
speed is the steps that it took in its turns; ratios are of neighbouring turns, their median is
printed with the interval that holds 95 % of the medians of resampled turns. CPU ms are those of all
processes of a row for a step: what Ray and checkpoints cost where other cores take them. The bucket
is a server on this machine: it takes time from the row that writes to it, in which it is not
counted.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from ocr.mirror import copy_of  # noqa: E402
from tests.support.buckets import bucket_server  # noqa: E402

SETTLE_STEPS = 50
TURN_SECONDS, SETTLE_SECONDS = 6.0, 1.0
BATCH = 32

BARE = """
import sys, torch
from pathlib import Path
from ocr.files import write_json
from ocr.settings import load_settings
from trainers.config import TrainConfig
from trainers.runs.job import Data
from trainers.loop.loop import fit
from trainers.loop.run_state import RunContext
from trainers.runs.identity import environment, identity
config = load_settings(TrainConfig, Path("configs/odia_ctc.yaml"), sys.argv[1:])
torch.set_num_threads(config.threads_per_worker)
from trainers.on_ray import precision_on
data, precision = Data.open(config), precision_on(config, "cpu")
run = identity(config, data.fingerprints)
config.local_run_dir.mkdir(parents=True)
write_json(config.local_run_dir / "run.json", {"run": run})
about = environment(config, config.threads_per_worker, "cpu", precision)
context = RunContext(config.local_run_dir, run, 1, about, precision=precision)
fit(config, data.task(config, "cpu"), context)
"""

_BUCKET = "storage_path=s3://lipi/runs"
ROWS = {
    "bare": (False, ["threads_per_worker=1", "workers=1", "train.save_steps=100000"]),
    "Ray, 1 worker": (True, ["threads_per_worker=1", "workers=1", "train.save_steps=100000"]),
    "Ray, 1 worker, checkpoint every 10 steps": (
        True,
        ["threads_per_worker=1", "workers=1", "train.save_steps=10"],
    ),
    "Ray, 1 worker, the same into a bucket": (
        True,
        ["threads_per_worker=1", "workers=1", "train.save_steps=10", _BUCKET],
    ),
    "Ray, 2 workers of 1 thread": (
        True,
        ["threads_per_worker=1", "workers=2", "train.save_steps=100000"],
    ),
    "bare, 2 threads": (False, ["threads_per_worker=2", "workers=1", "train.save_steps=100000"]),
}
RATIOS = [
    ("Ray, 1 worker", "bare", "≥ 0.98"),
    ("Ray, 1 worker, checkpoint every 10 steps", "Ray, 1 worker", "≥ 0.98"),
    ("Ray, 1 worker, the same into a bucket", "Ray, 1 worker", "≥ 0.98"),
    ("Ray, 2 workers of 1 thread", "Ray, 1 worker", ""),
    ("Ray, 2 workers of 1 thread", "bare, 2 threads", ""),
]


class Row:
    """One way of training, as a tree of processes that can be stopped and continued."""

    def __init__(self, under_ray: bool, overrides: list[str], storage: str) -> None:
        few = [
            "data.max_validation_samples=20",
            "train.eval_steps=1000000",
            "train.logging_steps=1",
            "train.max_steps=1000000",
        ]
        words = [f"storage_path={storage}", "run_name=speed", *few, *overrides]
        command = ["ray_jobs/train.py", "configs/odia_ctc.yaml"] if under_ray else ["-c", BARE]
        threads = next(
            word.partition("=")[2] for word in overrides if word.startswith("threads_per_worker=")
        )
        self.process = subprocess.Popen(
            [sys.executable, *command, *words],
            cwd=PROJECT,
            env={**os.environ, "OMP_NUM_THREADS": threads},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        run_dir = (
            copy_of("s3://lipi/runs/speed") if _BUCKET in overrides else Path(storage) / "speed"
        )
        self.timings = run_dir / "timings.jsonl"
        self.rates: list[float] = []
        self.cpu: list[float] = []  # seconds of a step, of all processes, by turn
        self.loader_wait = 0.0

    def lines(self) -> list[dict[str, float]]:
        """The steps logged so far."""
        if not self.timings.exists():
            return []
        return [
            line
            for line in map(json.loads, self.timings.read_text().splitlines())
            if "samples_per_second" in line
        ]

    def signal(self, number: int) -> None:
        """Send a signal to every process of the tree."""
        for process in [
            *psutil.Process(self.process.pid).children(recursive=True),
            psutil.Process(self.process.pid),
        ]:
            if process.is_running():
                process.send_signal(number)

    def cpu_seconds(self) -> float:
        """What all processes of the tree have taken so far."""
        root = psutil.Process(self.process.pid)
        times = [each.cpu_times() for each in [root, *root.children(recursive=True)]]
        return sum(each.user + each.system for each in times)

    def settle(self) -> None:
        """Wait until the first steps are taken, then stop."""
        while len(self.lines()) < SETTLE_STEPS:
            if self.process.poll() is not None:
                raise SystemExit(
                    f"{self.timings.parent}: ended with status {self.process.returncode}"
                )
            time.sleep(0.2)
        self.signal(signal.SIGSTOP)

    def take_turn(self) -> None:
        """Go on for a few seconds and note the samples a second, those of the first second left
        out.
        """
        self.signal(signal.SIGCONT)
        time.sleep(SETTLE_SECONDS)
        steps, cpu, began = len(self.lines()), self.cpu_seconds(), time.perf_counter()
        time.sleep(TURN_SECONDS - SETTLE_SECONDS)
        taken, seconds = len(self.lines()) - steps, time.perf_counter() - began
        self.cpu.append((self.cpu_seconds() - cpu) / max(1, taken))
        self.signal(signal.SIGSTOP)
        self.rates.append(BATCH * taken / seconds)

    def finish(self) -> None:
        """End the tree; `loader_wait` is the median share of a step's time that was waiting for its
        batch.
        """
        self.signal(signal.SIGKILL)
        self.loader_wait = statistics.median(
            [line["loader_wait_share"] for line in self.lines()[SETTLE_STEPS:]] or [0.0]
        )


def measure(minutes: float) -> dict[str, Row]:
    """All rows, each started by itself, then in turns."""
    rows: dict[str, Row] = {}
    with tempfile.TemporaryDirectory() as storage, bucket_server():
        os.environ["LIPI_CACHE"] = f"{storage}/cache"
        try:
            for number, (name, (under_ray, overrides)) in enumerate(ROWS.items()):
                rows[name] = Row(under_ray, overrides, f"{storage}/{number}")
                rows[name].settle()
            end = time.monotonic() + minutes * 60
            while time.monotonic() < end:
                for row in rows.values():
                    row.take_turn()
        finally:
            for row in rows.values():
                row.finish()
    return rows


def main() -> None:
    """Measure and print the table and the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=8.0)
    rows = measure(parser.parse_args().minutes)
    print(f"{'':<44}{'samples/s':>10}{'CPU ms/step':>13}{'loader wait':>13}")
    for name, row in rows.items():
        speed, cpu = statistics.median(row.rates), 1000 * statistics.median(row.cpu)
        print(f"{name:<44}{speed:>10.1f}{cpu:>13.1f}{row.loader_wait:>13.2%}")
    for one, other, target in RATIOS:
        speeds = in_words(rows[one].rates, rows[other].rates)
        cpus = in_words(rows[one].cpu, rows[other].cpu)
        print(f"{one} / {other}: speed {speeds}{', goal ' + target if target else ''}; CPU {cpus}")


def in_words(ones: list[float], others: list[float]) -> str:
    """The median of the ratios of neighbouring turns, with its 95 % interval."""
    ratios, draw = np.array(ones) / np.array(others), np.random.default_rng(1)
    medians = [np.median(draw.choice(ratios, len(ratios))) for _ in range(2000)]
    low, high = np.percentile(medians, [2.5, 97.5])
    return f"{np.median(ratios):.3f} ({low:.3f}–{high:.3f}, {len(ratios)} turns)"


if __name__ == "__main__":
    main()

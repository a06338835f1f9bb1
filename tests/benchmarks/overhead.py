"""What Ray Train, checkpoints and the loader cost, side by side in one run on this machine.

  python tests/benchmarks/overhead.py [--steps 300]

Every row trains the same network on the same samples: `odia-ctc`'s, evaluation left out. Samples per second are counted from
the first 50 steps on (start-up apart), as the mean over the lines of timings.jsonl; each pair is measured in turn, three times,
and the median of the ratios is printed.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent.parent
SETTLE_STEPS = 50

BARE = """
import sys, torch
from pathlib import Path
from ocr.files import write_json
from ocr.settings import load_settings
from trainers.config import TrainConfig
from trainers.launch import Data
from trainers.loop import Place, fit
from trainers.run import environment, identity
config = load_settings(TrainConfig, Path("configs/odia_ctc.yaml"), sys.argv[1:])
torch.set_num_threads(config.threads_per_worker)
from trainers.on_ray import uses_bf16
data, bf16 = Data.open(config), uses_bf16(config, "cpu")
run = identity(config, data.fingerprints)
config.local_run_dir.mkdir(parents=True)
write_json(config.local_run_dir / "run.json", {"run": run})
fit(config, data.task(config, "cpu"), Place(config.local_run_dir, run, 1, environment(config, config.threads_per_worker, "cpu", ""), bf16=bf16))
"""


def speed(under_ray: bool, steps: int, *overrides: str) -> tuple[float, float]:
    """Samples per second and the share of waiting for batches, after the first steps."""
    with tempfile.TemporaryDirectory() as storage:
        few = ("data.max_validation_samples=20", "train.eval_steps=100000", "train.logging_steps=25")
        words = [f"storage_path={storage}", "run_name=speed", f"train.max_steps={steps}", *few, *overrides]
        command = ["ray_jobs/train.py", "configs/odia_ctc.yaml"] if under_ray else ["-c", BARE]
        subprocess.run(
            [sys.executable, *command, *words], cwd=PROJECT, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": words_threads(words)}
        )
        lines = [json.loads(line) for line in (Path(storage) / "speed" / "timings.jsonl").read_text().splitlines()]
        shutil.rmtree(storage, ignore_errors=True)
        Path(storage).mkdir()
    steady = [line for line in lines if line.get("step", 0) > SETTLE_STEPS and "samples_per_second" in line]
    return statistics.harmonic_mean([line["samples_per_second"] for line in steady]), statistics.mean(line["loader_wait_share"] for line in steady)


def words_threads(words: list[str]) -> str:
    """OMP_NUM_THREADS for a command with `threads_per_worker=N`."""
    return next(word.partition("=")[2] for word in words if word.startswith("threads_per_worker="))


ROWS = {
    "bare": (False, ["threads_per_worker=1", "workers=1", "train.save_steps=100000"]),
    "Ray, 1 worker": (True, ["threads_per_worker=1", "workers=1", "train.save_steps=100000"]),
    "Ray, 1 worker, checkpoint every 10 steps": (True, ["threads_per_worker=1", "workers=1", "train.save_steps=10"]),
    "Ray, 2 workers of 1 thread": (True, ["threads_per_worker=1", "workers=2", "train.save_steps=100000"]),
    "bare, 2 threads": (False, ["threads_per_worker=2", "workers=1", "train.save_steps=100000"]),
}
RATIOS = [
    ("Ray, 1 worker", "bare", "≥ 0.98"),
    ("Ray, 1 worker, checkpoint every 10 steps", "Ray, 1 worker", "≥ 0.98"),
    ("Ray, 2 workers of 1 thread", "Ray, 1 worker", ""),
    ("Ray, 2 workers of 1 thread", "bare, 2 threads", ""),
]


def main() -> None:
    """Measure every row three times in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in ROWS}
    for _ in range(arguments.rounds):
        for name, (under_ray, overrides) in ROWS.items():
            measured[name].append(speed(under_ray, arguments.steps, *overrides))
            print(f"  {name}: {measured[name][-1][0]:.1f} samples/s", file=sys.stderr, flush=True)
    print(f"{'':<44}{'samples/s':>10}{'loader wait':>13}")
    for name, results in measured.items():
        print(f"{name:<44}{statistics.median(rate for rate, _ in results):>10.1f}{statistics.median(wait for _, wait in results):>13.2%}")
    for one, other, goal in RATIOS:
        ratios = [mine[0] / theirs[0] for mine, theirs in zip(measured[one], measured[other], strict=True)]
        print(f"{one} / {other}: {statistics.median(ratios):.3f} ({min(ratios):.3f}–{max(ratios):.3f}){' goal ' + goal if goal else ''}")


if __name__ == "__main__":
    main()

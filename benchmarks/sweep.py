"""What early stopping and a searcher save, and what a trial costs over training alone.

  python benchmarks/sweep.py [--trials 16] [--storage DIR]

The tiny vision-language run, its rate, rank and focal γ: a grid of 4 × 2 × 2 to the end of every
trial, and as many trials by Optuna with successive halving, which go by the teacher-forced CER: by
that of generated text all trials are alike at the first rung. Trials have one thread each and hold
a core; seconds are those that trials held their cores, added up in the order in which evaluations
came. The CER to reach is that of the third best trial of the grid. Then, one at a time, the same
run as a trial and alone.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from trainers.sweep.ledger import Ledger

PROJECT = Path(__file__).resolve().parent.parent
BASE = {
    "base": "configs/tiny_vlm.yaml",
    "overrides": ["train.eval_steps=15", "train.save_steps=60", "train.eval_on_start=false"],
}
GRID = {
    "optimizer.learning_rate": {"choice": [0.0005, 0.002, 0.008, 0.032]},
    "lora.rank": {"choice": [8, 32]},
    "loss.focal_gamma": {"choice": [0.0, 2.0]},
}
RANGES = {
    "optimizer.learning_rate": {"log_uniform": [0.0005, 0.032]},
    "lora.rank": {"choice": [8, 32]},
    "loss.focal_gamma": {"uniform": [0.0, 2.0]},
}
EARLY = {
    "metric": "eval_cer_teacher_forced",
    "searcher": "optuna",
    "scheduler": "asha",
    "asha": {"grace_steps": 15, "reduction_factor": 3},
}


def swept(folder: Path, name: str, **settings: Any) -> Ledger:
    """The ledger of a sweep that was run, or had been, to its end."""
    file = folder / f"{name}.yaml"
    file.write_text(json.dumps({"sweep_name": name, **BASE, **settings}))
    subprocess.run(
        [sys.executable, "ray_jobs/sweep.py", str(file), f"storage_path={folder}"],
        cwd=PROJECT,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return Ledger(folder / name / "ledger.jsonl")


def seconds_to(path: Path, cer: float) -> float | None:
    """Seconds of all trials until an evaluation was this good."""
    spent = 0.0
    for line in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
        spent += line.get("seconds", 0.0)
        if line.get("metrics", {}).get("eval_cer", 2.0) <= cer:
            return spent
    return None


def told(ledger: Ledger, cer: float) -> str:
    """A row of the table."""
    trials = ledger.trials.values()
    best = min(found[1] for trial in trials if (found := trial.best("eval_cer")))
    stopped, reached = (
        sum(trial.status == "stopped" for trial in trials),
        seconds_to(ledger.path, cer),
    )
    seconds = sum(trial.seconds for trial in trials)
    reached_after = "never" if reached is None else f"{reached:.0f}"
    return f"{len(ledger.trials)} | {stopped} | {best:.2%} | {seconds:.0f} | {reached_after} |"


def alone(folder: Path) -> float:
    """Seconds of the same run by itself in this process, from its first step to its last
    evaluation.
    """
    code = (
        "import sys, time, torch; from pathlib import Path; from ocr.settings import "
        "load_settings; from trainers.config import TrainConfig\n"
        "from trainers.runs.launch import train_only; from trainers.loop.loop import fit; "
        "from trainers import on_ray; from trainers.loop.workers import Workers\n"
        "def here(job, data):\n"
        "    torch.set_num_threads(1)\n"
        "    task, place = on_ray.task_and_context('cpu', job, 1, Workers(), data); began = "
        "time.monotonic()\n"
        "    fit(job.config, task, place); print(time.monotonic() - began)\n"
        "train_only(load_settings(TrainConfig, Path(sys.argv[1]), sys.argv[2:]), here)"
    )
    words = [
        BASE["base"],
        *BASE["overrides"],
        f"storage_path={folder}",
        f"run_name=alone-{time.monotonic_ns()}",
    ]
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=PROJECT,
        check=True,
        capture_output=True,
        text=True,
    )
    return float(done.stdout.split()[-1])


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--storage", type=Path)
    options = parser.parse_args()
    folder = options.storage or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    grid = swept(folder, "grid", searcher="grid", space=GRID)
    early = [
        swept(folder, f"early-{seed}", trials=options.trials, space=RANGES, seed=seed, **EARLY)
        for seed in range(options.repeats)
    ]
    target = sorted(
        found[1] for trial in grid.trials.values() if (found := trial.best("eval_cer"))
    )[2]
    print(
        f"CER to reach: {target:.2%}\n\n| sweep | trials | stopped early | best CER | seconds in "
        "all | seconds to that CER |\n|---|---:|---:|---:|---:|---:|"
    )
    print(f"| grid, every trial to its end | {told(grid, target)}")
    for seed, ledger in enumerate(early):
        print(f"| Optuna and ASHA, seed {seed} | {told(ledger, target)}")
    whole, reached = (
        seconds_to(grid.path, target),
        [seconds_to(ledger.path, target) for ledger in early],
    )
    assert whole
    print(
        "\nmedian ratio of seconds to that CER: "
        f"{statistics.median(found / whole if found else float('inf') for found in reached):.2f} "
        "(target 0.33)"
    )
    in_all = statistics.median(
        sum(trial.seconds for trial in ledger.trials.values()) for ledger in early
    )
    print(
        f"seconds in all: {in_all / sum(trial.seconds for trial in grid.trials.values()):.2f} of "
        "the grid's\n"
    )
    same = swept(
        folder,
        "same",
        searcher="grid",
        space={"train.save_total_limit": {"choice": [2, 3, 4, 5]}},
        max_concurrent=1,
    )
    trials = [trial.seconds for trial in list(same.trials.values())[1:]]
    by_itself = [alone(folder) for _ in range(3)]
    print(
        f"one trial at a time: {statistics.median(trials):.1f} s; the same run alone: "
        f"{statistics.median(by_itself):.1f} s"
    )
    print(
        f"ratio {statistics.median(trials) / statistics.median(by_itself):.3f} (target 1.10), a "
        "trial's seconds being those from its function's first line to its last evaluation"
    )


if __name__ == "__main__":
    main()

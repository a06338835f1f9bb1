"""The kills of benchmarks/chaos.py over the same network under other loops than Lipi's.

  python benchmarks/chaos_peers.py [--kills 10] [--seed 1] [--loops lipi guide elastic trainer]

`guide` is Ray's TorchTrainer with FailureConfig as Ray's guide shows it, `elastic` the same with
one to two workers, `trainer` Hugging Face's Trainer with Ray's callback (`peers/loops.py`).
All have the network, the images, the steps between two checkpoints and the random moments in
common. Each is also left in peace twice, and the final weights are compared. The step whose samples
count is the last one of its number: it led to the weights. A human action is a command typed again.
"""

import argparse
import contextlib
import json
import os
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from benchmarks.chaos import TRAIN, Run, killed, undisturbed  # noqa: E402
from benchmarks.peers.loops import BATCH, EPOCH_STEPS  # noqa: E402
from trainers.loop.checkpoint import directory_of, verify_hashes  # noqa: E402
from trainers.report.records import read_records  # noqa: E402

LOOPS = {
    "lipi": "Lipi",
    "guide": "TorchTrainer, FailureConfig",
    "elastic": "… with 1 to 2 workers",
    "trainer": "Hugging Face Trainer on Ray",
}
STEPS_A_KILL = 45


class PeerRun(Run):
    """A run of benchmarks/peers/loops.py."""

    def steps(self) -> list[dict[str, Any]]:
        """Return what the first worker has written, steps taken again included."""
        file = self.run_dir / "steps-0.jsonl"
        return _lines(file) if file.exists() else []

    def saved(self) -> int:
        """Return a number that grows with every checkpoint."""
        times = [0]
        for path in self.run_dir.glob("run/checkpoint_*"):
            with contextlib.suppress(OSError):  # it was just deleted
                times.append(path.stat().st_mtime_ns)
        return max(times)


def _lines(file: Path) -> list[dict[str, Any]]:
    lines = list[dict[str, Any]]()
    for line in file.read_text().splitlines():
        with contextlib.suppress(json.JSONDecodeError):  # torn by a kill
            lines.append(json.loads(line))
    return lines


def main() -> None:
    """Print a row a loop."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--loops", nargs="+", choices=list(LOOPS), default=list(LOOPS))
    asked = parser.parse_args()
    os.environ["PYTHONPATH"] = str(PROJECT)  # of Ray's workers too
    print("| loop | kills | minutes in peace | with kills | steps taken again | ", end="")
    print(
        "samples lost, doubled | two in peace equal | weights equal | human actions |\n|---|"
        + "---:|" * 5
        + "---|---|---:|"
    )
    for name in asked.loops:
        with tempfile.TemporaryDirectory(prefix="lipi-chaos-") as folder:
            os.environ["LIPI_CACHE"] = f"{folder}/cache"
            print(row(name, Path(folder), asked.kills, asked.seed), flush=True)


def row(name: str, folder: Path, kills: int, seed: int) -> str:
    """Train in peace, train with kills, and compare."""
    steps = EPOCH_STEPS * (8 + STEPS_A_KILL * kills // EPOCH_STEPS)
    quiet, again_quiet, run = (
        run_of(name, folder / each, steps) for each in ("quiet", "again", "killed")
    )
    peace = undisturbed(quiet)
    undisturbed(again_quiet)
    with contextlib.redirect_stdout(sys.stderr):
        told, seconds = killed(run, kills, random.Random(seed))
    taken = run.steps()
    again = len(taken) - len({line["step"] for line in taken})
    lost, doubled = (0, 0) if name == "lipi" else samples(run.run_dir, steps)
    return (
        f"| {LOOPS[name]} | {len(told.strikes)} | {peace / 60:.1f} | {seconds / 60:.1f} | "
        f"{again:,} | {lost:,}, {doubled:,} | {difference(name, quiet, again_quiet, steps)} | "
        f"{difference(name, quiet, run, steps)} | "
        f"{run.starts - 1} |"
    )


def run_of(name: str, folder: Path, steps: int) -> Run:
    """The run of a loop in a folder of its own."""
    folder.mkdir()
    if name == "lipi":
        words = [
            *TRAIN,
            f"train.max_steps={steps}",
            f"data.max_train_samples={BATCH * EPOCH_STEPS}",
        ]
        return Run(["ray_jobs/train.py", *words, f"storage_path={folder}"], folder / "chaos")
    return PeerRun(["benchmarks/peers/loops.py", name, str(folder), str(steps)], folder)


def samples(run_dir: Path, steps: int) -> tuple[int, int]:
    """Return how many samples the epochs lack, and how many they have too often."""
    last = dict[tuple[int, str], list[int]]()
    for file in run_dir.glob("steps-*.jsonl"):
        for line in _lines(file):
            last[line["step"], file.name] = line["samples"]
    lost = doubled = 0
    for epoch in range(steps // EPOCH_STEPS):
        seen = Counter[int]()
        for (step, _), indices in last.items():
            if (step - 1) // EPOCH_STEPS == epoch:
                seen.update(indices)
        doubled += sum(count - 1 for count in seen.values())
        lost += BATCH * EPOCH_STEPS - len(seen)
    return lost, doubled


def difference(name: str, quiet: Run, run: Run, steps: int) -> str:
    """Return whether the final weights are the same bits, and how far they are apart."""
    if name == "lipi":
        states = [
            verify_hashes(directory_of(each.run_dir, steps)).weights() for each in (quiet, run)
        ]
        ledger = [line["step"] for line in read_records(run.run_dir / "samples.jsonl").lines]
        assert ledger == list(range(1, steps + 1)), "the ledger of samples has a gap or a double"
    else:
        states = [torch.load(each.run_dir / "final.pt", weights_only=True) for each in (quiet, run)]
    theirs, ours = states
    if all(torch.equal(ours[key], theirs[key]) for key in theirs):
        return "yes"
    apart = sum(float((ours[key] - theirs[key]).double().square().sum()) for key in theirs) ** 0.5
    size = sum(float(theirs[key].double().square().sum()) for key in theirs) ** 0.5
    return f"no, {100 * apart / size:.2g} % apart"


if __name__ == "__main__":
    main()

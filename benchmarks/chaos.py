"""A hundred kills over one training run: what is lost, what is done twice, how long it takes.

  python benchmarks/chaos.py [--kills 100] [--storage folder bucket] [--seed 1]

A run of two workers is left in peace first. Then the same run is trained again while this command
kills, at random moments, a worker, the driver, Ray's controller of the run, the raylet, or all of
them at once, as a machine's end does, or freezes all of them for some seconds (SIGSTOP); with a
bucket also in the middle of uploads, since these never stop. Whenever the driver is gone, the same
command starts it again. A kill comes only after the run has saved a checkpoint since the last one.
At the end the weights, the log and the ledger of samples are compared with those of the run left in
peace.
"""

import argparse
import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import psutil

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from ocr.mirror import copy_of, fetched  # noqa: E402
from tests.support.buckets import bucket_server  # noqa: E402
from tests.support.resuming import assert_same  # noqa: E402
from trainers.loop.checkpoint import directory_of, verify_hashes  # noqa: E402
from trainers.report.records import read_records  # noqa: E402

TRAIN = ["configs/tiny.yaml", "workers=2", "threads_per_worker=1", "train.save_steps=10"]
TRAIN += ["train.eval_steps=500", "train.logging_steps=1", "run_name=chaos"]
KINDS = {  # → words of the command lines of those that are killed
    "worker": ("RayTrainWorker",),
    "driver": ("ray_jobs/train.py", "peers/loops.py"),
    "controller": ("TrainController",),
    "raylet": ("raylet/raylet",),
    "machine": ("",),
    "frozen": ("",),
}
_STEPS = 110  # of training for each kill: those between two, and those until a loss is noticed
_BETWEEN = 45  # at most, from a checkpoint to the next kill
_FROZEN_S = 15.0  # at most


@dataclass
class Run:
    """The command of a run, and what of it is alive."""

    command: list[str]
    run_dir: Path
    driver: subprocess.Popen[bytes] | None = None
    starts: int = 0

    def ensure(self) -> bool:
        """Start the driver where none is; return False once the run is finished."""
        if self.driver and self.driver.poll() is None:
            return True
        if self.driver and self.driver.returncode == 0:
            return False
        self.starts += 1
        with (self.run_dir.parent / f"{self.run_dir.name}.log").open("ab") as log:
            self.driver = subprocess.Popen(
                [sys.executable, *self.command], cwd=PROJECT, stdout=log, stderr=subprocess.STDOUT
            )
        return True

    def processes(self) -> list[psutil.Process]:
        """Return the driver and all that it started, Ray's included."""
        assert self.driver
        with contextlib.suppress(psutil.Error):
            root = psutil.Process(self.driver.pid)
            return [root, *root.children(recursive=True)]
        return []

    def steps(self) -> list[dict[str, Any]]:
        """Return a line for each step taken, those taken again included."""
        file = self.run_dir / "timings.jsonl"
        lines = read_records(file).lines if file.exists() else ()
        return [line for line in lines if "samples_per_second" in line]

    def saved(self) -> int:
        """Return the newest checkpoint's step."""
        names = [path.name for path in self.run_dir.glob("checkpoint_[0-9]*[0-9]")]
        return max((int(name.removeprefix("checkpoint_")) for name in names), default=0)


@dataclass
class Told:
    """The kills: what, and when (seconds of the day's clock)."""

    strikes: list[tuple[str, float]] = field(default_factory=list)

    def table(self, taken: list[float]) -> Iterator[str]:
        """Yield a line a kind: kills, and the longest pause between two steps that came of one.

        `taken` has the time of each step. Those whom nobody killed go on for a step or two, so the
        pause does not begin with the kill.
        """
        waits = defaultdict[str, list[float]](list)
        ends = [moment for _, moment in self.strikes[1:]] + [float("inf")]
        for (kind, moment), end in zip(self.strikes, ends, strict=True):
            before = [step for step in taken if step <= moment][-1:]
            times = before + [step for step in taken if moment < step < end]
            waits[kind].append(max((after - step for step, after in pairwise(times)), default=0.0))
        yield f"{'killed':<12}{'kills':>6}{'median s without a step':>26}{'longest':>9}"
        for kind, found in sorted(waits.items(), key=lambda each: -len(each[1])):
            yield f"{kind:<12}{len(found):>6}{median(found):>26.1f}{max(found):>9.1f}"


def main() -> None:
    """Print the table, and what was compared."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument(
        "--storage", nargs="+", choices=["folder", "bucket"], default=["folder", "bucket"]
    )
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with contextlib.ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="lipi-chaos-")))
        os.environ["LIPI_CACHE"] = str(folder / "cache")
        steps = 80 + _STEPS * asked.kills
        words = ["ray_jobs/train.py", *TRAIN, f"train.max_steps={steps}"]
        golden = folder / "golden" / "chaos"
        peace = undisturbed(Run([*words, f"storage_path={golden.parent}"], golden))
        for storage in asked.storage:
            address = str(folder / "runs")
            if storage == "bucket":
                held.enter_context(bucket_server())
                address = "s3://lipi/runs"
            where = f"{address}/chaos"
            live = copy_of(where) if "://" in where else Path(where)
            run = Run([*words, f"storage_path={address}"], live)
            told, seconds = killed(run, asked.kills, random.Random(asked.seed))
            print(f"in a {storage}:")
            report(run, fetched(where), golden, steps, told, peace, seconds)


def undisturbed(run: Run) -> float:
    """Train in peace; return the seconds."""
    began = time.monotonic()
    run.run_dir.parent.mkdir(parents=True, exist_ok=True)
    run.ensure()
    assert run.driver and run.driver.wait() == 0, "the run that nobody disturbs has failed"
    return time.monotonic() - began


def killed(run: Run, kills: int, chance: random.Random) -> tuple[Told, float]:
    """Train to the end with kills on the way; return them and the seconds."""
    told, began = Told(), time.monotonic()
    run.run_dir.parent.mkdir(parents=True, exist_ok=True)
    for number in range(kills):
        kind = chance.choice(list(KINDS))
        saved = run.saved()
        if not until(run, lambda saved=saved: run.saved() > saved):
            print(f"the run was over after {number} kills", flush=True)
            break
        at = len(run.steps()) + chance.randrange(_BETWEEN)
        until(run, lambda at=at: len(run.steps()) >= at)
        time.sleep(chance.random())
        if not until(run, lambda kind=kind: kill(run, kind)):  # between two lives there is none
            break
        told.strikes.append((kind, time.time()))
        print(f"{number + 1}: {kind}, step {run.steps()[-1]['step']}", flush=True)
    until(run, lambda: False)
    return told, time.monotonic() - began


def until(run: Run, is_so: Callable[[], bool]) -> bool:
    """Keep the run going until something is so; return False where it finished before."""
    while not is_so():
        if not run.ensure():
            return False
        time.sleep(0.2)
    return True


def kill(run: Run, kind: str) -> bool:
    """Kill or freeze processes of a kind at once; return whether there were some."""
    found = [
        process
        for process in run.processes()
        if any(word in " ".join(_command(process)) for word in KINDS[kind])
    ]
    if kind == "worker" and found:
        found = [random.SystemRandom().choice(found)]
    if kind == "driver":
        found = found[:1]
    for process in found:
        with contextlib.suppress(psutil.Error):
            process.suspend() if kind == "frozen" else process.kill()
    if kind == "frozen":
        time.sleep(random.SystemRandom().uniform(0, _FROZEN_S))
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.resume()
    if kind in ("driver", "machine") and run.driver:
        run.driver.wait()
    return bool(found)


def _command(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return [process.name(), *process.cmdline()]
    return []


def report(
    run: Run, run_dir: Path, golden: Path, steps: int, told: Told, peace: float, seconds: float
) -> None:
    """Compare with the run left in peace, and print what the kills cost."""
    ours, theirs = (verify_hashes(directory_of(each, steps)) for each in (run_dir, golden))
    assert_same(ours.weights(), theirs.weights())
    assert_same(ours.optimizer(), theirs.optimizer())
    for log in ("metrics.jsonl", "samples.jsonl"):
        assert (run_dir / log).read_text() == (golden / log).read_text(), f"{log} differs"
    ledger = [line["step"] for line in read_records(run_dir / "samples.jsonl").lines]
    assert ledger == list(range(1, steps + 1))
    taken = run.steps()
    again = len(taken) - len({line["step"] for line in taken})
    kills = len(told.strikes)
    for line in told.table([line["time"] for line in taken]):
        print(line)
    print(
        f"{kills} kills, {run.starts - 1} of them ended the driver: {steps:,} steps, "
        f"{again:,} taken again ({again / max(1, kills):.1f} a kill); samples lost 0, doubled 0; "
        "weights, optimizer, log and ledger equal to the last bit"
    )
    print(
        f"{peace:.0f} s in peace, {seconds:.0f} s with kills; "
        f"{(seconds - peace) / max(1, kills):.1f} s a kill, so with one kill a minute "
        f"{100 * 60 / (60 + (seconds - peace) / max(1, kills)):.0f} % of the time is training"
    )


if __name__ == "__main__":
    main()

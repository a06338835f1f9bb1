"""GroupNorm against batch normalisation with summed statistics in the compact network: which learns
faster, by loss and CPU seconds.

  python benchmarks/normalisation.py [--steps 600]

Both train `odia-ctc`'s network on the same batches with one thread; the loss is the mean of the
last 50 steps.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from ocr.files import write_json
from ocr.recognizers.ctc.layers import MicroBatchNorm
from ocr.settings import load_settings
from trainers.config import TrainConfig
from trainers.families.ctc.task import CtcTask
from trainers.loop.loop import fit
from trainers.loop.run_state import RunContext
from trainers.report.records import read_records
from trainers.runs.identity import environment, identity
from trainers.runs.job import Data

GROUPS = 8


def with_group_norm(task: CtcTask) -> CtcTask:
    """The same task with GroupNorm in the place of every MicroBatchNorm.

    Groups sum over an image's own columns and its neighbours' zeros.
    """
    for module in list(task.network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, MicroBatchNorm):
                setattr(module, name, nn.GroupNorm(GROUPS, child.weight.numel()))
    task._norms = []
    return task


def main() -> None:
    """Train both and print a line for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=600)
    torch.set_num_threads(1)
    steps = parser.parse_args().steps
    for name, change in (
        ("batch normalisation, summed", lambda task: task),
        (f"GroupNorm, {GROUPS} groups", with_group_norm),
    ):
        with tempfile.TemporaryDirectory() as storage:
            words = [
                f"storage_path={storage}",
                f"train.max_steps={steps}",
                "data.max_validation_samples=500",
                "train.eval_steps=100000",
                "train.save_steps=100000",
            ]
            config = load_settings(
                TrainConfig, Path("configs/odia_ctc.yaml"), [*words, "workers=1"]
            )
            data = Data.open(config)
            run = identity(config, data.fingerprints)
            config.local_run_dir.mkdir(parents=True)
            write_json(config.local_run_dir / "run.json", {"run": run})
            task, began = change(data.task(config, "cpu")), time.process_time()
            fit(
                config,
                task,
                RunContext(config.local_run_dir, run, 1, environment(config, 1, "cpu", "fp32")),
            )
            spent = time.process_time() - began
            lines = read_records(config.local_run_dir / "metrics.jsonl").lines
        losses = {line["step"]: line["loss"] for line in lines}
        middle = statistics.mean(
            loss for step, loss in losses.items() if abs(step - steps / 2) <= 50
        )
        print(
            f"{name:<30} loss at step {steps // 2}: {middle:.3f}, at {steps}: "
            f"{losses[steps]:.3f}, CER {lines[-1]['eval_cer']:.1%}, {spent:.0f} CPU s",
            flush=True,
        )


if __name__ == "__main__":
    main()

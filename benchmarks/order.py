"""What the order of very large data costs: memory and CPU seconds of an epoch's plan.

  python benchmarks/order.py [--samples 100000000] [--batch 256]

Widths are random. Each worker of a run holds such a plan; every figure is of one.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import psutil

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from trainers.loop.batches import Plan  # noqa: E402


def main() -> None:
    """Print bytes a sample, the seconds that begin an epoch, and the milliseconds of a step."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--samples", type=int, default=100_000_000)
    parser.add_argument("--batch", type=int, default=256)
    asked = parser.parse_args()
    before = psutil.Process().memory_info().rss
    widths = np.random.default_rng(1).integers(32, 1024, asked.samples, dtype=np.int32)
    plan = Plan(widths, asked.batch, 16, 1)
    began = time.process_time()
    plan.step(0)
    first = time.process_time() - began
    held = psutil.Process().memory_info().rss - before
    steps = np.random.default_rng(2).integers(0, plan.steps_per_epoch, 10_000)
    began = time.process_time()
    for step in steps:
        plan.step(int(step))
    each = (time.process_time() - began) / len(steps)
    print(
        f"{asked.samples:,} samples: {held / asked.samples:.1f} bytes each; {first:.1f} CPU "
        f"seconds for the first step of an epoch, {1000 * each:.2f} ms for another"
    )


if __name__ == "__main__":
    main()

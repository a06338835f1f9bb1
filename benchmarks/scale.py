"""How much of the time a run trains on 8 to 512 GPUs: costs measured here, failures published.

  python benchmarks/scale.py [--stall 0.5] [--notice 72] [--restart 11] [--step 2]

Checkpoints are taken as far apart as costs least (Young 1974: the root of twice their stall times
the time between failures). A failure costs its noticing, the restart and half an interval.
"""

import argparse
import math
from dataclasses import dataclass

# Llama 3 (Dubey et al. 2024, table 5): 419 unexpected interruptions in 54 days on 16,384 GPUs
OWNED_HOURS = 54 * 24 * 16_384 / 419
SPOT_HOURS = 8 * 24.0  # of one GPU, where a machine of eight is taken away once a day
SIZES = (8, 64, 512)


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds: that training stops for a checkpoint, until a failure is noticed, of a restart."""

    stall: float
    notice: float
    restart: float

    def interval(self, between: float) -> float:
        """Return the seconds between checkpoints that cost least."""
        return math.sqrt(2 * self.stall * between)

    def goodput(self, between: float) -> float:
        """Return the share of the time that goes into steps that count."""
        interval = self.interval(between)
        lost = self.notice + self.restart + interval / 2
        return max(0.0, (1 - self.stall / (interval + self.stall)) * (1 - lost / between))


def main() -> None:
    """Print a line for each number of GPUs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--stall", type=float, default=0.5)
    parser.add_argument("--notice", type=float, default=72.0)
    parser.add_argument("--restart", type=float, default=11.0)
    parser.add_argument("--step", type=float, default=2.0)
    asked = parser.parse_args()
    costs = Costs(asked.stall, asked.notice, asked.restart)
    print(" GPUs  machines  h between failures  save_steps  goodput")
    for name, hours in (("owned", OWNED_HOURS), ("spot", SPOT_HOURS)):
        for size in SIZES:
            between = hours / size * 3600
            steps = max(1, round(costs.interval(between) / asked.step))
            goodput = f"{costs.goodput(between):8.2%}"
            print(f"{size:>5} {name:>9} {between / 3600:>19.2f} {steps:>11,} {goodput}")


if __name__ == "__main__":
    main()

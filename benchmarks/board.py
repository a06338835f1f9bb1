"""The board: CPU minutes of training until unseen Odia words are misread in 5 % of the characters.

  python benchmarks/board.py [--target 5] [--minutes 2 3 4 5 6 8 10] [--envs DIR]

Everyone trains with its defaults, on the same images, in one process of one thread
(benchmarks/ctc.py says how). A run is planned for its minutes, so each of `--minutes` is a run of
its own: the longest first, then those between by halves, and the shortest that reaches the target
counts.
"""

import argparse
import os
import subprocess
import sys
from bisect import bisect_left
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "benchmarks")]

from ctc import CONFIG, Bench, Figures, Row, Table, exported, figures, tables, trained, versions  # noqa: E402  # noqa: E402

from ocr.dataset.read import Dataset  # noqa: E402
from ocr.settings import load_settings  # noqa: E402
from trainers.config import TrainConfig  # noqa: E402


class Runs:
    """The runs of one trainer, by minutes; each is made when it is asked for."""

    def __init__(self, row: Row, images: Path, texts: list[str], envs: Path) -> None:
        self._row, self._images, self._texts, self._envs = row, images, texts, envs
        self._known = dict[float, Figures | str]()

    def after(self, minutes: float) -> Figures | str:
        """Return what training for so many CPU minutes gave, or why it gave nothing."""
        if minutes not in self._known:
            bench = Bench(self._envs, self._images, self._texts, minutes, rounds=1)
            table = Table("", "samples", (self._row,))
            self._known[minutes] = figures(bench, trained(bench, [table])[self._row])
        return self._known[minutes]

    def reaches(self, target: float, minutes: float) -> bool:
        """Return whether the CER after so many minutes is the target or less."""
        found = self.after(minutes)
        return isinstance(found, Figures) and found.cer <= target

    def line(self, target: float, minutes: list[float]) -> str:
        """Return the row of the board."""
        who = f"| {self._row.who} | {self._row.network} |"
        longest = self.after(minutes[-1])
        if isinstance(longest, str):
            return f"{who} {longest} | |"
        if longest.cer > target:
            return f"{who} not in {minutes[-1]:g} | {longest.cer:.2%} |"
        shortest = minutes[
            bisect_left(minutes[:-1], True, key=lambda budget: self.reaches(target, budget))
        ]
        found = self.after(shortest)
        assert isinstance(found, Figures)
        return f"{who} {found.cpu_seconds / 60:.1f} | {found.cer:.2%} |"


def main() -> None:
    """Print the board, a row as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--target", type=float, default=5.0, help="CER in percent")
    parser.add_argument("--minutes", type=float, nargs="+", default=[2, 3, 4, 5, 6, 8, 10])
    parser.add_argument("--envs", type=Path, default=Path.home() / ".cache" / "lipi" / "peers")
    asked = parser.parse_args()
    config = load_settings(TrainConfig, CONFIG)
    data, envs = str(config.data.train), asked.envs.absolute()
    texts = Dataset.open(data, "validation").texts
    images = exported(data, envs / "images")
    commit = subprocess.run(
        ["git", "log", "-1", "--format=%h of %as"], cwd=PROJECT, capture_output=True, text=True
    ).stdout.strip()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # the same core for everyone
    print(f"{len(texts):,} validation images of {data}; Lipi {commit}; {versions()}\n")
    print(f"| | network | CPU minutes to {asked.target:g} % CER | CER then |\n|---|---|---:|---:|")
    for row in tables(config)[0].rows:
        runs = Runs(row, images, texts, envs)
        print(runs.line(asked.target / 100, sorted(asked.minutes)), flush=True)


if __name__ == "__main__":
    main()

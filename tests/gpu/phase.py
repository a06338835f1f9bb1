"""What every phase of check.py shares: where it runs, how large, and how it reports.

python -m tests.gpu.phase MODULE[:FUNCTION] [--rehearse]     prints the rows of one phase
"""

import importlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

Size = TypeVar("Size")


@dataclass(frozen=True, slots=True)
class Setup:
    """Where a phase runs: on the GPU, or small on the CPU to rehearse; `work` is its own folder."""

    rehearse: bool
    work: Path

    @property
    def device(self) -> str:
        """The device as torch names it."""
        return "cpu" if self.rehearse else "cuda"

    def size(self, real: Size, small: Size) -> Size:
        """The real size, or the one to rehearse with."""
        return small if self.rehearse else real


@dataclass(frozen=True, slots=True)
class Found:
    """One thing measured: what, its figures in words, and whether it is as it must be."""

    what: str
    figures: str
    good: bool = True

    def show(self) -> None:
        """Print the line that check.py reads."""
        row = {"what": self.what, "figures": self.figures, "good": self.good}
        print(json.dumps(row, ensure_ascii=False), flush=True)


Rows = Callable[[Setup], Iterator[Found]]


def main() -> None:
    """Print each row of the phase when it is known."""
    module, _, function = sys.argv[1].partition(":")
    rehearse = "--rehearse" in sys.argv[2:]
    if not rehearse:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for deterministic kernels
    rows: Rows = getattr(importlib.import_module(module), function or "rows")
    with tempfile.TemporaryDirectory(prefix="lipi-gpu-") as work:
        for found in rows(Setup(rehearse, Path(work))):
            found.show()


if __name__ == "__main__":
    main()

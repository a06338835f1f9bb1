"""The ledger of a sweep: its decisions in their order; a killed sweep resumes from it.

ledger.jsonl: {trial, values} for a new trial, {trial, step, metrics, seconds, started} for each
evaluation, {trial, status, reason} for its end, or for its retry. Torn lines are counted and
removed.
"""

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Literal

from ocr.files import write_atomically
from ocr.json_lines import LineFile, Lines, read_lines, skipped
from trainers.loop.lease import SweepLease
from trainers.sweep.settings import Value

Status = Literal["waiting", "finished", "stopped", "failed", "out of budget"]
ENDED: tuple[Status, ...] = ("finished", "stopped", "failed")


@dataclass(slots=True)
class Trial:
    """One trial as the ledger has it."""

    id: str
    values: dict[str, Value]
    status: Status = "waiting"
    reason: str = ""
    evaluations: dict[int, dict[str, float]] = field(default_factory=dict)
    seconds: float = 0.0
    started: float | None = None  # seconds from being given to an actor to the loop's start

    def best(self, metric: str) -> tuple[int, float] | None:
        """Return (step, value) of the lowest evaluation, the first of equals."""
        values = [
            (step, result[metric])
            for step, result in sorted(self.evaluations.items())
            if metric in result
        ]
        return min(values, key=lambda pair: pair[1]) if values else None


def id_of(number: int) -> str:
    """Return the id of a sweep's trial, such as `t007`."""
    return f"t{number:03}"


class Ledger:
    """Reads the lines of a sweep, and appends; every line is on the disk before it counts.

    With a `lease`, `LostLease` where another process writes the ledger now. `push` uploads the file
    of a sweep in a bucket, likewise before a line counts.
    """

    def __init__(
        self, path: Path, lease: SweepLease | None = None, push: Callable[[], None] | None = None
    ) -> None:
        self.path, self._lease, self._push = path, lease, push
        self.trials: dict[str, Trial] = {}
        self.decided: list[tuple[str, int]] = []  # (trial, step) of the evaluations, as they came
        lines = read_lines(path)
        if unreadable := lines.unreadable + sum(not self._take(line) for line in lines.values):
            print(skipped(str(path), unreadable), flush=True)
        if lines.unreadable:
            self._repair(lines)

    def add(self, id: str, values: dict[str, Value]) -> None:
        """Add a trial with its values."""
        self._append({"trial": id, "values": values})

    def note(
        self, id: str, step: int, metrics: dict[str, float], seconds: float, started: float | None
    ) -> None:
        """Add an evaluation; one that is known, of a resumed trial, adds its seconds only."""
        self._append(
            {
                "trial": id,
                "step": step,
                "metrics": metrics,
                "seconds": round(seconds, 2),
                "started": started,
            }
        )

    def end(self, id: str, status: Status, reason: str = "") -> None:
        """Note that a trial is over, or out of budget."""
        self._append({"trial": id, "status": status, "reason": reason})

    def next_number(self) -> int:
        """Return the number of the first trial that is not in the ledger."""
        return next(number for number in count() if id_of(number) not in self.trials)

    def ended(self) -> list[Trial]:
        """Return the trials with nothing left to train."""
        return [trial for trial in self.trials.values() if trial.status in ENDED]

    def retry(self, id: str) -> None:
        """Note that a failed trial is tried again, from its last checkpoint."""
        self._append({"trial": id, "status": "waiting", "reason": ""})

    def _append(self, line: dict[str, Any]) -> None:
        if self._lease:
            self._lease.require()
        with closing(LineFile(self.path)) as file:
            file.write(line)
            file.sync()
        if self._push:
            self._push()
        self._take(line)

    def _take(self, line: dict[str, Any]) -> bool:
        """Apply a line; return whether it makes sense, since an earlier one may be lost."""
        try:
            id = line["trial"]
            if "values" in line:
                self.trials.setdefault(id, Trial(id, line["values"]))
            elif "step" in line:
                self._evaluated(self.trials[id], line)
            else:
                self.trials[id].status, self.trials[id].reason = line["status"], line["reason"]
        except KeyError:
            return False
        return True

    def _evaluated(self, trial: Trial, line: dict[str, Any]) -> None:
        if line["step"] not in trial.evaluations:
            trial.evaluations[line["step"]] = line["metrics"]
            self.decided.append((trial.id, line["step"]))
        trial.seconds += line["seconds"]
        trial.started = line["started"] if trial.started is None else trial.started

    def _repair(self, lines: Lines) -> None:
        """Remove the lines that a kill or a full disk has torn; the rest stays as it is."""
        rows = (json.dumps(line, ensure_ascii=False) + "\n" for line in lines.values)
        write_atomically(self.path, "".join(rows).encode())

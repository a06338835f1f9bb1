"""The ledger of a sweep: its decisions in their order; a killed sweep resumes from it.

ledger.jsonl: {trial, values} for a new trial, {trial, step, metrics, seconds, started} for each
evaluation, {trial, status, reason} for its end.
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

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


class Ledger:
    """Reads the lines of a sweep, and appends; every line is on the disk before it counts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.trials: dict[str, Trial] = {}
        self.decided: list[tuple[str, int]] = []  # (trial, step) of the evaluations, as they came
        self._repair()
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
            self._take(json.loads(line))

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

    def ended(self) -> list[Trial]:
        """Return the trials with nothing left to train."""
        return [trial for trial in self.trials.values() if trial.status in ENDED]

    def _append(self, line: dict[str, Any]) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._take(line)

    def _take(self, line: dict[str, Any]) -> None:
        id = line["trial"]
        if "values" in line:
            self.trials[id] = Trial(id, line["values"])
        elif "step" in line:
            trial = self.trials[id]
            if line["step"] not in trial.evaluations:
                trial.evaluations[line["step"]] = line["metrics"]
                self.decided.append((id, line["step"]))
            trial.seconds += line["seconds"]
            trial.started = line["started"] if trial.started is None else trial.started
        else:
            self.trials[id].status, self.trials[id].reason = line["status"], line["reason"]

    def _repair(self) -> None:
        """Remove a last line that a kill has torn."""
        content = self.path.read_bytes() if self.path.is_file() else b""
        if content and not content.endswith(b"\n"):
            self.path.write_bytes(content[: content.rfind(b"\n") + 1])

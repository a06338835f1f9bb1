"""What a sweep found, line by line in the order it was decided; from it alone a killed sweep goes on.

ledger.jsonl: {trial, values} when a trial is thought of, {trial, step, metrics, seconds} for each evaluation, {trial, status, reason} for its end.
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
    started: float | None = None  # seconds from being given a place to its loop's first sign

    def best(self, metric: str) -> tuple[int, float] | None:
        """(step, value) of its lowest evaluation, the first of equals."""
        found = [
            (step, result[metric])
            for step, result in sorted(self.evaluations.items())
            if metric in result
        ]
        return min(found, key=lambda pair: pair[1]) if found else None


class Ledger:
    """Reads what is there, and appends; every line is on the disk before it counts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.trials: dict[str, Trial] = {}
        self.decided: list[tuple[str, int]] = []  # (trial, step) of the evaluations, as they came
        self._repair()
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
            self._take(json.loads(line))

    def think_of(self, id: str, values: dict[str, Value]) -> None:
        """A trial's values are decided."""
        self._append({"trial": id, "values": values})

    def note(
        self, id: str, step: int, metrics: dict[str, float], seconds: float, started: float | None
    ) -> None:
        """An evaluation; one that is noted already, of a trial that was taken up again, adds its seconds only."""
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
        """A trial is over, or out of budget."""
        self._append({"trial": id, "status": status, "reason": reason})

    def ended(self) -> list[Trial]:
        """Those that nothing is left to do for."""
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
        """A kill may have torn the last line."""
        if (
            self.path.is_file()
            and (content := self.path.read_bytes())
            and not content.endswith(b"\n")
        ):
            self.path.write_bytes(content[: content.rfind(b"\n") + 1])

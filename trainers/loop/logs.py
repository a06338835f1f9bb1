"""The files a run writes line by line.

    metrics.jsonl   a line per log or evaluation step, with functions of the run alone; restored
                    from the checkpoint on resume
    samples.jsonl   the ids of every step (train.log_samples); cut back to the checkpoint's step
    timings.jsonl   speeds, waits and events as they happened; never cut back

Each has this one writer; the driver's memory watch has memory.jsonl for itself. Files are replaced
on resume, not truncated. A process of an older attempt that still lives writes
into a file that nobody reads.
"""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ocr.errors import UserError
from ocr.files import write_atomically
from ocr.json_lines import LineFile, read_lines
from trainers.loop.trackers import Reported, Trackers


class Logs:
    """The log files of a run directory, opened by the first worker.

    `metrics` holds the lines of metrics.jsonl.
    """

    def __init__(
        self,
        run_dir: Path,
        metrics: str,
        step: int,
        log_samples: bool,
        on_line: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.metrics, self._on_line = metrics, on_line
        self._metrics = _replace(run_dir / "metrics.jsonl", metrics)
        self._timings = LineFile(run_dir / "timings.jsonl")
        self._samples = (
            _replace(run_dir / "samples.jsonl", _ledger_until(run_dir / "samples.jsonl", step))
            if log_samples
            else None
        )
        self._trackers: Trackers | None = None
        began_at = _first_time(run_dir / "timings.jsonl")
        if began_at is None:
            self.write_timing({"step": step, "event": "start"})
        self._began_at = began_at or time.time()

    def report(self, reported: Reported) -> None:
        """Send the lines of metrics.jsonl, restored and coming, to the run's trackers too."""
        self._trackers = Trackers(reported, self.metrics, self.write_timing)

    def write_metrics(self, record: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        self.metrics += json.dumps(record, ensure_ascii=False) + "\n"
        self._metrics.write(record)
        if self._trackers:
            self._trackers.send(record)
        if self._on_line:
            self._on_line(record)

    def write_timing(self, record: dict[str, Any]) -> None:
        """Append one line to timings.jsonl, with the time of day."""
        self._timings.write({"time": round(time.time(), 3), **record})
        if self._on_line:
            self._on_line(record)

    def wall_seconds(self) -> float:
        """Return the seconds since the run's first line of timings.jsonl, pauses included."""
        return max(1e-3, time.time() - self._began_at)

    def write_samples(self, step: int, ids: list[str]) -> None:
        """Append the samples of one step to the ledger."""
        if self._samples:
            self._samples.write({"step": step, "samples": ids})

    def sync(self) -> None:
        """Push samples.jsonl to the disk, so that it is never behind a checkpoint."""
        if self._samples:
            self._samples.sync()

    def close(self) -> None:
        """Close trackers and files."""
        if self._trackers:
            self._trackers.close()
        for file in (self._metrics, self._timings, self._samples):
            if file:
                file.close()


def _replace(path: Path, content: str) -> LineFile:
    write_atomically(path, content.encode())
    return LineFile(path)


def _first_time(timings: Path) -> float | None:
    """Return when the run's first timed line was written; None where there is none."""
    if timings.is_file():
        with open(timings, "rb") as lines:
            for row in lines:
                with suppress(ValueError, TypeError, KeyError):  # a line that was cut
                    return float(json.loads(row)["time"])
    return None


def _ledger_until(path: Path, step: int) -> str:
    """Return the lines of steps 1 … step; UserError where one is missing."""
    lines = read_lines(path).values[:step] if step else ()
    if [line.get("step") for line in lines] != list(range(1, step + 1)):
        raise UserError(
            f"{path}: expected every step up to {step}, the checkpoint's; "
            "restore the file or set train.log_samples=false"
        )
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)

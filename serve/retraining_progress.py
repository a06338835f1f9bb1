"""How far the job of a retraining is, from the files that it writes."""

import time
from pathlib import Path
from typing import Any

from ocr.files import read_object
from ocr.json_lines import read_lines
from ocr.retraining import PROGRESS_FILE


def stored(file: Path) -> dict[str, Any]:
    """Return a file's content; empty where it is not written yet, or damaged."""
    try:
        return read_object(file) or {}
    except OSError:
        return {}


def progress_of(run: Path) -> float:
    """Return the share of the job that is done: its parts, and within a run its steps."""
    progress = stored(run / PROGRESS_FILE)
    if not progress:
        return 0.0
    within = _share_of_run(run, progress) if progress.get("run") else 0.0
    done = progress["part"] - 1 + min(1.0, within)
    return float(round(min(1.0, done / progress["parts"]), 3))


def _share_of_run(run: Path, progress: dict[str, Any]) -> float:
    try:
        lines = read_lines(run / progress["run"] / "metrics.jsonl").values
        last = lines[-1] if lines else {"step": 0, "epoch": 0.0}
        if progress["num_epochs"]:
            return float(last["epoch"] / progress["num_epochs"])
        return float(last["step"] / progress["max_steps"])
    except (OSError, ValueError, KeyError):
        return 0.0


def seconds_left(folder: Path, progress: float) -> int | None:
    """Return an estimate from the time since the job's start; None before there is progress."""
    since = stored(folder / "attempts.json").get("since")
    if not isinstance(since, float) or progress < 0.02:
        return None
    return max(1, round((time.time() - since) * (1 - progress) / progress))

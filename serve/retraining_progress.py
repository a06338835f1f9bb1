"""How far the job of a retraining is, from the files that it writes: on a disk or in a bucket."""

import time
from typing import Any

from ocr.json_lines import lines_of
from ocr.place import Place
from ocr.retraining import PROGRESS_FILE

RUN = "run"  # the job's output, in the retraining's folder
ATTEMPTS = "attempts.json"


def stored(place: Place, name: str) -> dict[str, Any]:
    """Return a file's content; empty where it is not written yet, or damaged."""
    try:
        return place.json(name) or {}
    except OSError:
        return {}


def progress_of(place: Place) -> float:
    """Return the share of the job that is done: its parts, and within a run its steps."""
    progress = stored(place, f"{RUN}/{PROGRESS_FILE}")
    if not progress:
        return 0.0
    within = _share_of_run(place, progress) if progress.get("run") else 0.0
    done = progress["part"] - 1 + min(1.0, within)
    return float(round(min(1.0, done / progress["parts"]), 3))


def _share_of_run(place: Place, progress: dict[str, Any]) -> float:
    try:
        lines = lines_of(place.read(f"{RUN}/{progress['run']}/metrics.jsonl")).values
        last = lines[-1] if lines else {"step": 0, "epoch": 0.0}
        if progress["num_epochs"]:
            return float(last["epoch"] / progress["num_epochs"])
        return float(last["step"] / progress["max_steps"])
    except (OSError, ValueError, KeyError):
        return 0.0


def seconds_left(place: Place, progress: float) -> int | None:
    """Return an estimate from the time since the job's start; None before there is progress."""
    since = stored(place, ATTEMPTS).get("since")
    if not isinstance(since, float) or progress < 0.02:
        return None
    return max(1, round((time.time() - since) * (1 - progress) / progress))

"""The status of a run, from its files alone: under way, ended, or silent."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ocr.processes import Process
from trainers.loop.lease import STALE_SECONDS
from trainers.report.records import Points, Records, finite
from trainers.watch.files import RunFiles

_TIMED_LINES = 20
_CHECKPOINTS = "checkpoint_[0-9]*/manifest.json"
_EVALUATIONS = "checkpoint_[0-9]*.eval.json"


@dataclass(frozen=True, slots=True)
class Status:
    """All that a look at a run shows."""

    name: str
    state: str
    is_live: bool
    step: int
    max_steps: int | None
    epoch: float | None
    workers: int | None
    device: str
    eta_seconds: float | None
    losses: Points
    error_rates: Points
    speeds: Points
    wait_share: float | None
    goodput: float | None
    restarts: int
    checkpoint: int | None
    sample: Mapping[str, str]
    sample_step: int
    last_event: str
    unreadable: int


def status_of(files: RunFiles, now: float) -> Status:
    """Return the run's status at the time `now`, in seconds since 1970."""
    metrics, timings = files.records("metrics.jsonl"), files.records("timings.jsonl")
    saved = files.named(_CHECKPOINTS)
    config, state = files.yaml("config.yaml"), _saved_state(files, saved)
    last = metrics.lines[-1] if metrics.lines else {}
    checkpoint = _step_of(saved[-1]) if saved else None
    step = max(int(last.get("step", 0)), checkpoint or 0)  # some steps have no line
    max_steps = _max_steps(config, state)
    how, is_live = _state(files, now)
    sample, sample_step = _sample(files)
    environment = state.get("environment", {})
    return Status(
        name=str(config.get("run_name", files.place.path.rpartition("/")[2])),
        state=how,
        is_live=is_live,
        step=step,
        max_steps=max_steps,
        epoch=last.get("epoch"),
        workers=environment.get("workers", config.get("workers")),
        device=str(environment.get("device", "")),
        eta_seconds=_eta(timings, step, max_steps) if is_live else None,
        losses=metrics.series("loss"),
        error_rates=metrics.series("eval_cer"),
        speeds=timings.series("samples_per_second"),
        wait_share=_last(timings, "loader_wait_share"),
        goodput=_last(timings, "goodput"),
        restarts=sum(line.get("event") == "restart" for line in timings.lines),
        checkpoint=checkpoint,
        sample=sample,
        sample_step=sample_step,
        last_event=next((line["text"] for line in reversed(timings.lines) if "text" in line), ""),
        unreadable=metrics.unreadable + timings.unreadable,
    )


def _state(files: RunFiles, now: float) -> tuple[str, bool]:
    """Return a phrase, and whether a process works on the run."""
    lease, report = files.json("lease.json"), files.json("report.json")
    renewed, process = lease.get("renewed_at"), Process.from_json(lease)
    if process and process.is_visible_to(Process.current()):
        if process.is_running():
            return f"under way on {process.host}, process {process.pid}", True
        return f"process {process.pid} has ended; the same command resumes it", False
    if finite(renewed):  # of another host, by both clocks
        silence = now - renewed
        if silence <= STALE_SECONDS:
            return f"under way on {lease.get('host')}, process {lease.get('pid')}", True
        return f"no sign of life for {silence:,.0f} s; the same command resumes it", False
    status = report.get("status")
    if status:
        return str(status), False
    return "not under way; the same command resumes it", False


def _saved_state(files: RunFiles, saved: list[str]) -> dict[str, Any]:
    return files.json(saved[-1].replace("manifest.json", "state.json")) if saved else {}


def _max_steps(config: Mapping[str, Any], state: Mapping[str, Any]) -> int | None:
    """Return the run's length: the setting, else what the newest checkpoint knows of it."""
    train = config.get("train", {})
    if train.get("num_epochs") is None and train.get("max_steps"):
        return int(train["max_steps"])
    known = state.get("train", {}).get("max_steps")
    return int(known) if known else None


def _eta(timings: Records, step: int, max_steps: int | None) -> float | None:
    """Return the seconds to the last step, by the last lines since the last restart.

    Evaluations and checkpoints between them count.
    """
    since = list(timings.lines)
    for index, line in enumerate(timings.lines):
        if line.get("event") == "restart":
            since = list(timings.lines[index:])
    timed = [line for line in since if finite(line.get("time")) and finite(line.get("step"))]
    timed = timed[-_TIMED_LINES:]
    if max_steps is None or not timed or timed[-1]["step"] <= timed[0]["step"]:
        return None
    per_step = (timed[-1]["time"] - timed[0]["time"]) / (timed[-1]["step"] - timed[0]["step"])
    return float(max(0, max_steps - step) * per_step)


def _sample(files: RunFiles) -> tuple[Mapping[str, str], int]:
    """Return reference and reading of the newest evaluation's example, and its step."""
    for name in reversed(files.named(_EVALUATIONS)):
        if sample := files.json(name).get("inference_check"):
            return sample, _step_of(name)
    return {}, 0


def _step_of(name: str) -> int:
    found = re.match(r"checkpoint_(\d+)", name)
    return int(found[1]) if found else 0


def _last(records: Records, key: str) -> float | None:
    points = records.series(key)
    return points[-1][1] if points else None

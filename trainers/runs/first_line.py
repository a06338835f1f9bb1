"""The first line of a run, before anything heavy is loaded: what this command goes on to do."""

from pathlib import Path
from typing import Any

from ocr.errors import UserError
from ocr.files import read_object, shown
from trainers.config import TrainConfig, config_of_run


def first_line(config: TrainConfig) -> str:
    """Return whether the run is new, or where it continues and about how long it still takes."""
    if config.in_bucket:
        return f"{config.address}: a run in a bucket, copied to {config.local_run_dir} as needed"
    run_dir, state = config.local_run_dir, _newest(config.local_run_dir)
    if not state:
        return f"{shown(run_dir)}: a new run; loading libraries and data, then Ray starts"
    step, steps = state["step"], config.train.max_steps or _learnt_length(config, state)
    if not steps:
        return f"{shown(run_dir)}: continues from step {step:,}"
    if step >= steps:
        return f"{shown(run_dir)}: all {steps:,} steps are taken; looking for what is left to do"
    seconds = state.get("step_seconds", 0.0) / step * (steps - step) if step else 0.0
    left = f", about {_duration(seconds)} left" if seconds else ""
    return f"{shown(run_dir)}: continues from step {step:,} of {steps:,}{left}"


def _newest(run_dir: Path) -> dict[str, Any]:
    """Return the state of the newest checkpoint; empty where there is none that can be read.

    Its hashes are verified later, when the run resumes.
    """
    files = run_dir.glob("checkpoint_[0-9]*/state.json")
    for file in sorted(files, key=lambda file: (len(file.parent.name), file), reverse=True):
        try:
            state = (read_object(file) or {}).get("train")
        except OSError:
            continue
        if isinstance(state, dict) and isinstance(state.get("step"), int):
            return state
    return {}


def _learnt_length(config: TrainConfig, state: dict[str, Any]) -> int | None:
    """Return the steps that epochs or minutes became; None where the config says other epochs."""
    try:
        before = config_of_run(config.local_run_dir / "config.yaml").train.num_epochs
    except UserError:
        return None
    return state.get("max_steps") if before == config.train.num_epochs else None


def _duration(seconds: float) -> str:
    """Return seconds as a person says them: 40 s, 12 min, 3 h 5 min."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"

"""A run from the command to the final line: check, take the directory, train, export and report.

Nothing here knows Ray: the training itself arrives as an argument (`trainers.on_ray.train`).
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocr.errors import UserError
from ocr.files import read_json, read_object, shown, write_atomically, write_json
from ocr.json_lines import read_lines
from ocr.settings import changed_settings, written_yaml
from trainers.config import TrainConfig, config_of_run
from trainers.families import family_of
from trainers.families.splits import Splits
from trainers.loop import checkpoint as checkpoints
from trainers.loop.bucket import RunInBucket, place_of
from trainers.loop.checkpoint import Checkpoint
from trainers.loop.lease import Lease, SweepLease
from trainers.loop.run_state import TrainState, find, is_over, plan_of, planned_steps
from trainers.loop.trackers import require_packages
from trainers.runs.finish import finish_here, is_reported
from trainers.runs.gpus import require_gpu
from trainers.runs.identity import identity, refused_changes
from trainers.runs.job import Data, Job


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished run; `was_finished`: this command had nothing left to do."""

    run_dir: Path
    report: dict[str, Any]
    was_finished: bool

    def __str__(self) -> str:
        report = self.report
        bundle = report["bundle"]
        return (
            f"{report['run_name']}: CER {report['eval_cer']:.2%} "
            f"(word exact {report['eval_exact_match']:.1%}) "
            f"on {report['validation_samples']:,} validation samples, "
            f"step {report['best_step']}, {bundle if '://' in bundle else shown(Path(bundle))}"
        )


def launch(
    config: TrainConfig,
    train: Callable[[Job], None],
    command: str,
    finish: Callable[[Job, str], None] | None = None,
    sweep: SweepLease | None = None,
) -> Outcome:
    """Train `config` to its end, or find it finished; the same command again resumes a stopped run.

    `finish` exports and reports for a family that reads slowly without a GPU; None: done here.
    `sweep`: that of a trial.
    `config.storage_path` is absolute. Raises UserError before anything is written where a setting,
    the data or the directory is wrong.
    """
    require_gpu(config)
    require_packages(config.report_to)
    data = checked_data(config)
    if config.list_samples:
        print(data.listing(), flush=True)
    config = named(config, data)
    run_dir, run_id = _run_dir(config, data)
    with Lease(place_of(config), sweep) as lease:
        was_finished = not _train_rest(config, data, run_id, lease, train)
        if was_finished:
            print(
                f"{config.shown_address}: this run is finished; "
                "raise train.max_steps to continue, or choose another run_name",
                flush=True,
            )
        lease.require()
        if not is_reported(config, run_dir):
            usable, fingerprints = data.usable, data.fingerprints
            job = Job(config, run_dir, run_id, lease.attempt, None, usable, fingerprints)
            if finish and family_of(config).finishes_on_gpu:
                finish(job, command)
            else:
                finish_here(job, command, data)
            _fetch(config)
        return Outcome(run_dir, read_json(run_dir / "report.json"), was_finished)


def checked_data(config: TrainConfig) -> Data:
    """Print the table of the family's preflight, if any, and return the data, checked."""
    splits = Splits(config)
    if not config.skip_preflight and (table := family_of(config).preflight(config, splits)):
        print(table, flush=True)
    return Data.open(config, splits)


def train_only(
    config: TrainConfig, train: Callable[[Job, Data], None], sweep: SweepLease | None = None
) -> None:
    """Train a config that was checked, like `launch`, without bundle and report.

    A sweep makes those of its best trial alone.
    """
    data = Data.open(config)
    _, run_id = _run_dir(config, data)
    with Lease(place_of(config), sweep) as lease:
        _train_rest(config, data, run_id, lease, lambda job: train(job, data))


def _run_dir(config: TrainConfig, data: Data) -> tuple[Path, str]:
    """Make the run's directory, and return it with the run's identity."""
    config.local_run_dir.mkdir(parents=True, exist_ok=True)
    return config.local_run_dir, identity(config, data.fingerprints)


def _train_rest(
    config: TrainConfig, data: Data, run_id: str, lease: Lease, train: Callable[[Job], None]
) -> bool:
    """Train the steps that are left, and return whether there were some."""
    run_dir, bucket = config.local_run_dir, RunInBucket.of(config)
    if bucket:
        bucket.fetch(exactly=True)
    checkpoint = _take_over(config, data, run_dir, run_id)
    if bucket:
        bucket.push_settings()
    if checkpoint and _is_finished(config, data, run_dir, checkpoint):
        return False
    threads = checkpoint.state()["environment"]["threads_per_worker"] if checkpoint else None
    usable, fingerprints = data.usable, data.fingerprints
    train(Job(config, run_dir, run_id, lease.attempt, threads, usable, fingerprints))
    _fetch(config)
    return True


def _fetch(config: TrainConfig) -> None:
    """Have what workers or a task on other machines have put into the run's bucket, if any."""
    if bucket := RunInBucket.of(config):
        bucket.fetch()


def named(config: TrainConfig, data: Data) -> TrainConfig:
    """Return the config with `{data}` in its name replaced by eight digits of the data's hash."""
    digest = hashlib.sha256(" ".join(data.fingerprints.values()).encode()).hexdigest()[:8]
    return config.model_copy(update={"run_name": config.run_name.replace("{data}", digest)})


def _take_over(config: TrainConfig, data: Data, run_dir: Path, run_id: str) -> Checkpoint | None:
    """Compare with the directory's run, write config.yaml and run.json.

    Returns the checkpoint to resume from, if any.
    """
    record = _record(run_dir)
    if record.get("last_published") is not None:
        _refuse_another_run(config, data, run_dir, record)
    checkpoint, damaged = find(run_dir, run_id)
    for problem in damaged:
        print(f"skipped {problem}", flush=True)
    is_newest = config.train.resume_from in (None, "latest", record.get("resumed_from"))
    if checkpoint and not is_newest:
        checkpoint = _go_back(config, run_dir, run_id)
    if checkpoint:
        _refuse_shorter(config, data, checkpoint)
    write_atomically(run_dir / "config.yaml", written_yaml(config))
    written = {
        "run": run_id,
        "fingerprints": data.fingerprints,
        "resumed_from": config.train.resume_from,
        "last_published": record.get("last_published") if checkpoint else None,
    }
    write_json(run_dir / "run.json", written)
    return checkpoint


def _record(run_dir: Path) -> dict[str, Any]:
    """Return run.json; where it is missing or damaged, what the newest good checkpoint says."""
    file = run_dir / "run.json"
    record = read_object(file)
    if record is not None or not (file.exists() or checkpoints.steps_of(run_dir)):
        return record or {}
    checkpoint, _ = checkpoints.newest_good(run_dir, None)
    found = "missing" if not file.exists() else f"damaged ({file.stat().st_size} bytes)"
    source = f"from {checkpoint.path.name}" if checkpoint else "anew, since no checkpoint is good"
    print(f"{file}: {found}; written {source}", flush=True)
    if checkpoint is None:
        return {}
    resumed_from = config_of_run(run_dir / "config.yaml").train.resume_from
    return {"last_published": checkpoint.step, "resumed_from": resumed_from}


def _refuse_another_run(
    config: TrainConfig, data: Data, run_dir: Path, record: dict[str, Any]
) -> None:
    old = config_of_run(run_dir / "config.yaml")
    changed: dict[str, str] = dict(changed_settings(old, config))
    refused = refused_changes(old, config, changed)
    refused += [
        f"data.{split}: its content is not what this run learns from"
        for split, fingerprint in data.fingerprints.items()
        if record.get("fingerprints", {}).get(split, fingerprint) != fingerprint
    ]
    minutes = config.train.max_minutes
    if "train.max_minutes" in changed and minutes is not None:
        refused.append(
            f"train.max_minutes: {old.train.max_minutes} → {minutes} "
            "(its length was turned into steps; set train.max_minutes=null train.max_steps=N "
            "instead, to end it earlier or later)"
        )
    if refused:
        listed = "".join(f"\n  {line}" for line in refused)
        raise UserError(
            f"{config.address}: another run than the one in this folder:{listed}\n"
            "set them back to continue it, or choose another run_name"
        )


def _go_back(config: TrainConfig, run_dir: Path, run_id: str) -> Checkpoint:
    """Return the checkpoint of `train.resume_from`, and set later ones aside."""
    path = Path(str(config.train.resume_from))
    checkpoint = checkpoints.verify_hashes(path if path.is_dir() else run_dir / path.name, run_id)
    if checkpoint.path.parent.resolve() != run_dir.resolve():
        raise UserError(
            f"{path}: not a checkpoint of {run_dir}; "
            "to start another run from its weights set train.init_from"
        )
    checkpoints.set_aside(run_dir, checkpoint.step)
    return checkpoint


def _planned_steps(config: TrainConfig, data: Data) -> int | None:
    return planned_steps(config, plan_of(config, data.usable.widths, data.usable.replayed))


def _refuse_shorter(config: TrainConfig, data: Data, checkpoint: Checkpoint) -> None:
    steps = _planned_steps(config, data)
    if steps is not None and steps < checkpoint.step:
        raise UserError(
            f"{checkpoint.path}: the run has taken {checkpoint.step} steps, its length is now "
            f"{steps}; set train.max_steps={checkpoint.step} or more (the learning rate ends "
            "there), or go back with train.resume_from"
        )


def _is_finished(config: TrainConfig, data: Data, run_dir: Path, checkpoint: Checkpoint) -> bool:
    state = TrainState(**checkpoint.state()["train"])
    state.max_steps = _planned_steps(config, data) or state.max_steps
    evaluations = {
        step: result
        for step, result in checkpoints.evaluations(run_dir).items()
        if step <= checkpoint.step
    }
    is_evaluated = checkpoint.step in evaluations
    return is_evaluated and is_over(config, state, evaluations) and _is_logged(run_dir, state)


def _is_logged(run_dir: Path, state: TrainState) -> bool:
    """Return whether metrics.jsonl has the line of the checkpoint's step.

    A process that dies between the evaluation and the line leaves the line to be written.
    """
    if state.pending is None:
        return True
    lines = read_lines(run_dir / "metrics.jsonl").values
    return bool(lines) and lines[-1].get("step") == state.step

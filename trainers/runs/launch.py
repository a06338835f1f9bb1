"""A run from the command to the final line: check everything, take the directory, train what is left, export and report.

Nothing here knows Ray: the training itself arrives as an argument (`trainers.on_ray.train`).
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ocr.dataset.joined import Joined
from ocr.dataset.prepared import open_splits, open_training
from ocr.dataset.read import Dataset
from ocr.errors import UserError
from ocr.files import read_json, write_atomically, write_json
from ocr.settings import changed_settings, parse_settings, read_yaml, resolved
from trainers.config import TrainConfig
from trainers.config.deepspeed import DeepSpeedSettings
from trainers.families import check, make_task, origins, verified
from trainers.families.task import Checked, Task
from trainers.loop import checkpoint as checkpoints
from trainers.loop.checkpoint import Checkpoint
from trainers.loop.lease import Lease
from trainers.loop.loop import TrainState, find, is_over, plan_of, planned_steps
from trainers.loop.trackers import require_packages
from trainers.runs.finish import final_report, is_reported
from trainers.runs.gpus import require_gpu
from trainers.runs.identity import identity, refused_changes
from trainers.runs.list_samples import table


@dataclass(frozen=True, slots=True)
class Job:
    """What a process that trains needs to know; picklable."""

    config: TrainConfig
    run_dir: Path
    run: str
    attempt: int
    threads_per_worker: (
        int | None
    )  # of the checkpoint to go on from, so that continuing is exact; None: to be chosen


@dataclass(frozen=True, slots=True)
class Data:
    """Both splits of a run, checked."""

    train: Dataset | Joined
    validation: Dataset
    checked: Checked
    origins: dict[str, str]  # SHA-256 of what the weights start from

    @classmethod
    def open(cls, config: TrainConfig) -> "Data":
        """Open and check; UserError names what is missing, empty or unusable."""
        data = config.data
        train, validation = open_splits(
            data.train, data.validation, data.validation_ratio, config.max_skipped
        )
        trained = (
            Joined(train, open_training(data.replay, config.max_skipped))
            if data.replay is not None
            else train
        )
        return cls(trained, validation, check(config, trained, validation), origins(config))

    @property
    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of each split's content, and of what the weights start from."""
        return {
            "train": self.train.fingerprint,
            "validation": self.validation.fingerprint,
            **self.origins,
        }

    @property
    def told(self) -> str:
        """Each sample and what is wrong with it, and how many."""
        return table(self.train, self.validation, self.checked)

    def task(self, config: TrainConfig, device: str, precision: str = "fp32") -> Task:
        """A fresh network with this data."""
        return make_task(config, self.checked, self.train, self.validation, device, precision)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished run; `was_finished` when this command found nothing left to do."""

    run_dir: Path
    report: dict[str, Any]
    was_finished: bool

    def __str__(self) -> str:
        report = self.report
        return (
            f"{report['run_name']}: CER {report['eval_cer']:.2%} (word exact {report['eval_exact_match']:.1%}) on {report['validation_samples']:,} "
            f"validation samples, step {report['best_step']}, {shown(self.run_dir / 'bundle')}"
        )


def launch(config: TrainConfig, train: Callable[[Job], None], command: str) -> Outcome:
    """Train `config` to its end, or find that it is there; the same command again continues whatever was stopped.

    `config.storage_path` is absolute. UserError before anything is written where a setting, the data or the directory is not good.
    """
    require_gpu(config)
    require_packages(config.report_to)
    if told := verified(config):
        print(told, flush=True)
    data = Data.open(config)
    if config.verify:
        print(data.told, flush=True)
    config = named(config, data)
    run_dir, run = config.local_run_dir, identity(config, data.fingerprints)
    run_dir.mkdir(parents=True, exist_ok=True)
    with Lease(run_dir) as lease:
        if was_finished := not _train_what_is_left(config, data, run_dir, run, lease, train):
            print(
                f"{shown(run_dir)}: this run is finished; raise train.max_steps to go on, or choose another run_name",
                flush=True,
            )
        if not is_reported(config, run_dir):
            final_report(
                config,
                finishing_task(config, data, run_dir),
                data.checked,
                run_dir,
                data.fingerprints,
                command,
            )
        return Outcome(run_dir, read_json(run_dir / "report.json"), was_finished)


def train_only(config: TrainConfig, train: Callable[[Job, Data], None]) -> None:
    """As `launch`, of a config that was verified, without bundle and report: a sweep makes those of its best trial alone."""
    data = Data.open(config)
    run_dir, run = config.local_run_dir, identity(config, data.fingerprints)
    run_dir.mkdir(parents=True, exist_ok=True)
    with Lease(run_dir) as lease:
        _train_what_is_left(config, data, run_dir, run, lease, lambda job: train(job, data))


def _train_what_is_left(
    config: TrainConfig,
    data: Data,
    run_dir: Path,
    run: str,
    lease: Lease,
    train: Callable[[Job], None],
) -> bool:
    """Whether there was something."""
    found = _take_up(config, data, run_dir, run)
    if _is_finished(config, data, run_dir, found):
        return False
    train(
        Job(
            config,
            run_dir,
            run,
            lease.attempt,
            found.state()["environment"]["threads_per_worker"] if found else None,
        )
    )
    return True


def finishing_task(config: TrainConfig, data: Data, run_dir: Path) -> Task:
    """A network to read a run's checkpoints with: a vision-language model on a GPU where this process has one, in the precision it was trained in."""
    import torch

    last = checkpoints.verify(checkpoints.directory_of(run_dir, checkpoints.steps_of(run_dir)[-1]))
    on_gpu = config.family == "vlm" and config.device != "cpu" and torch.cuda.is_available()
    whole = config.model_copy(
        update={"engine": "all_reduce", "deepspeed": DeepSpeedSettings()}
    )  # nothing is divided in a process by itself
    return data.task(whole, "cuda" if on_gpu else "cpu", last.state()["environment"]["precision"])


def named(config: TrainConfig, data: Data) -> TrainConfig:
    """The config with `{data}` in its name replaced by eight hexadecimal digits of the data's hash."""
    digest = hashlib.sha256(" ".join(data.fingerprints.values()).encode()).hexdigest()[:8]
    return config.model_copy(update={"run_name": config.run_name.replace("{data}", digest)})


def shown(path: Path) -> str:
    """The path as a person at this prompt would write it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _take_up(config: TrainConfig, data: Data, run_dir: Path, run: str) -> Checkpoint | None:
    """Compare with what the directory holds and note the run; the checkpoint to go on from, if any."""
    record = read_json(run_dir / "run.json") if (run_dir / "run.json").is_file() else {}
    if record.get("last_published") is not None:
        _refuse_another_run(config, data, run_dir, record)
    found, damaged = find(run_dir, run)
    for problem in damaged:
        print(f"passed over {problem}", flush=True)
    if found and config.train.resume_from not in (None, "latest", record.get("resumed_from")):
        found = _go_back(config, run_dir, run)
    if found:
        _refuse_shorter(config, data, found)
    write_atomically(
        run_dir / "config.yaml",
        yaml.safe_dump(resolved(config), allow_unicode=True, sort_keys=False).encode(),
    )
    published = record.get("last_published") if found else None
    write_json(
        run_dir / "run.json",
        {
            "run": run,
            "fingerprints": data.fingerprints,
            "resumed_from": config.train.resume_from,
            "last_published": published,
        },
    )
    return found


def _refuse_another_run(
    config: TrainConfig, data: Data, run_dir: Path, record: dict[str, Any]
) -> None:
    old = parse_settings(
        TrainConfig, read_yaml(run_dir / "config.yaml"), str(run_dir / "config.yaml")
    )
    changed: dict[str, str] = dict(changed_settings(old, config))
    refused = refused_changes(old, config, changed)
    refused += [
        f"data.{split}: its content is not what this run learns from"
        for split, found in data.fingerprints.items()
        if record["fingerprints"][split] != found
    ]
    if "train.max_minutes" in changed and config.train.max_minutes is not None:
        refused.append(
            f"train.max_minutes: {old.train.max_minutes} → {config.train.max_minutes} (its length was turned into steps; give train.max_steps instead)"
        )
    if refused:
        listed = "".join(f"\n  {line}" for line in refused)
        raise UserError(
            f"{run_dir}: another run than the one that is here:{listed}\nput them back to continue it, or choose another run_name"
        )


def _go_back(config: TrainConfig, run_dir: Path, run: str) -> Checkpoint:
    path = Path(str(config.train.resume_from))
    found = checkpoints.verify(path if path.is_dir() else run_dir / path.name, run)
    if found.path.parent.resolve() != run_dir.resolve():
        raise UserError(
            f"{path}: not a checkpoint of {run_dir}; to start another run from its weights set train.init_from"
        )
    checkpoints.set_aside(run_dir, found.step)
    return found


def _refuse_shorter(config: TrainConfig, data: Data, found: Checkpoint) -> None:
    steps = planned_steps(config, plan_of(config, data.checked.widths, data.checked.replayed))
    if steps is not None and steps < found.step:
        raise UserError(
            f"{found.path}: the run has taken {found.step} steps, its length is now {steps}; raise it, or go back with train.resume_from"
        )


def _is_finished(config: TrainConfig, data: Data, run_dir: Path, found: Checkpoint | None) -> bool:
    if found is None:
        return False
    state = TrainState(**found.state()["train"])
    state.max_steps = (
        planned_steps(config, plan_of(config, data.checked.widths, data.checked.replayed))
        or state.max_steps
    )
    evaluations = {
        step: result
        for step, result in checkpoints.evaluations(run_dir).items()
        if step <= found.step
    }
    return (
        found.step in evaluations
        and is_over(config, state, evaluations)
        and _is_written_down(run_dir, state)
    )


def _is_written_down(run_dir: Path, state: TrainState) -> bool:
    """Whether metrics.jsonl has the line of the checkpoint's step; a death between the evaluation and the line leaves it to be written."""
    if state.pending is None:
        return True
    lines = (
        (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        if (run_dir / "metrics.jsonl").is_file()
        else []
    )
    return bool(lines) and lines[-1].startswith(f'{{"step": {state.step},')

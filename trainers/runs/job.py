"""The opened data of a run, and the job that its launcher hands to each worker."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from ocr.dataset.read import Dataset
from trainers.config import TrainConfig
from trainers.families import family_of
from trainers.families.splits import Splits, Trained
from trainers.families.task import Task, UsableSamples
from trainers.loop.bucket import RunInBucket
from trainers.loop.checkpoint import steps_of
from trainers.runs.list_samples import table


@dataclass(frozen=True, slots=True)
class Job:
    """All that a process that trains needs to know; picklable.

    `threads_per_worker` is that of the checkpoint to resume from, so that the resume is exact;
    None: to be chosen. `usable` and `fingerprints` save the workers a check of every sample.
    """

    config: TrainConfig
    run_dir: Path
    run_id: str
    attempt: int
    threads_per_worker: int | None
    usable: UsableSamples | None = None
    fingerprints: dict[str, str] = field(default_factory=dict)

    def here(self) -> "Job":
        """Return the job with the run's folder on this machine, which a bucket's copy may differ
        in from one machine to the next.
        """
        return replace(self, run_dir=self.config.local_run_dir) if self.config.in_bucket else self

    def saved_steps(self) -> list[int]:
        """Return the steps of the run's checkpoints, where it lives."""
        bucket = RunInBucket.of(self.config)
        return bucket.steps() if bucket else steps_of(self.run_dir)


@dataclass(frozen=True, slots=True)
class Data:
    """Both splits of a run, with their usable samples.

    `fingerprints`: SHA-256 of each split's content, and of the weights that training starts from.
    """

    train: Trained
    validation: Dataset
    usable: UsableSamples
    fingerprints: dict[str, str]

    @classmethod
    def open(cls, config: TrainConfig, splits: Splits | None = None) -> "Data":
        """Open both splits and check every sample.

        Raises UserError naming what is missing, empty or unusable. `splits`: those of the config
        that are already open.
        """
        splits, family = splits or Splits(config), family_of(config)
        usable = family.usable_samples(config, splits.train, splits.validation)
        fingerprints = {**splits.fingerprints, **family.origins(config)}
        return cls(splits.train, splits.validation, usable, fingerprints)

    @classmethod
    def of_job(cls, job: Job) -> "Data":
        """Open both splits of a job; samples are checked only where the launcher saw other data."""
        splits = Splits(job.config)
        is_same = splits.fingerprints.items() <= job.fingerprints.items()
        if job.usable is None or not is_same:
            return cls.open(job.config, splits)
        return cls(splits.train, splits.validation, job.usable, job.fingerprints)

    def listing(self) -> str:
        """Return each sample with its problems, and how many have each."""
        return table(self.train, self.validation, self.usable)

    def task(self, config: TrainConfig, device: str, precision: str = "fp32") -> Task:
        """Return a task with a new network and this data."""
        return family_of(config).task(
            config, self.usable, self.train, self.validation, device, precision
        )

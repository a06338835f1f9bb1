"""Every setting of a sweep. No torch, no ray here."""

import re
from pathlib import Path
from typing import Any, Literal

import pydantic

from ocr.files import shown
from ocr.mirror import local_folder
from ocr.settings import PathText, Setting, Settings
from trainers.config.metrics import Metric

_WORD_OF_A_NUMBER = re.compile(r"[+-]?\d+\.?\d*[eE][+-]?\d+")
Value = bool | int | float | str | list[Any] | None


class Range(Settings):
    """The range of a setting's values: exactly one of these."""

    uniform: tuple[float, float] | None = Setting(
        None, on_resume="refuse", description="Any number between these two"
    )
    log_uniform: tuple[float, float] | None = Setting(
        None,
        on_resume="refuse",
        description="Any number between these two, each order of magnitude equally likely",
    )
    integer: tuple[int, int] | None = Setting(
        None, on_resume="refuse", description="Any whole number between these two, both included"
    )
    choice: tuple[Value, ...] | None = Setting(
        None, on_resume="refuse", description="One of these values", min_length=1
    )
    times: tuple[str, float] | None = Setting(
        None,
        on_resume="refuse",
        description="[key, factor]: the value of another key of the space times the factor",
    )

    @pydantic.field_validator("choice", mode="before")
    @classmethod
    def _numbers(cls, given: Any) -> Any:
        """Turn words such as 1e-4 into numbers: YAML takes them, without a point, for words."""
        if not isinstance(given, list):
            return given

        def number(value: Any) -> Any:
            is_number = isinstance(value, str) and _WORD_OF_A_NUMBER.fullmatch(value)
            return float(value) if is_number else value

        return [number(value) for value in given]

    @pydantic.model_validator(mode="after")
    def _one_kind(self) -> "Range":
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"expected exactly one of {', '.join(type(self).model_fields)}, "
                f"got {', '.join(given) or 'none'}"
            )
        for name in ("uniform", "log_uniform", "integer"):
            bounds = getattr(self, name)
            if bounds is not None and not bounds[0] < bounds[1]:
                raise ValueError(
                    f"{name}: the range {list(bounds)} is empty; the first must be below the second"
                )
        if self.log_uniform is not None and self.log_uniform[0] <= 0:
            raise ValueError(
                f"log_uniform: {self.log_uniform[0]} has no logarithm; the range must be above 0"
            )
        return self

    @property
    def extremes(self) -> tuple[Value, ...]:
        """Both ends of the range, or every choice; where these are good, all values are."""
        return self.choice or self.uniform or self.log_uniform or self.integer or ()


class AshaSettings(Settings):
    """Asynchronous successive halving (Li et al. 2020).

    At each rung a trial continues only if it is among the best so far.
    """

    grace_steps: int = Setting(
        50,
        ge=1,
        on_resume="refuse",
        description="First rung, in optimizer steps of a trial; none stops before it",
    )
    reduction_factor: float = Setting(
        3.0,
        gt=1,
        on_resume="refuse",
        description="Factor from one rung's step to the next; one trial in so many continues",
    )


class BudgetSettings(Settings):
    """Limits at which a sweep ends with the trials it has; they may be raised later."""

    steps: int | None = Setting(
        None, ge=1, on_resume="free", description="Optimizer steps of all trials together"
    )
    gpu_hours: float | None = Setting(
        None, gt=0, on_resume="free", description="GPU hours of all trials together"
    )
    minutes: float | None = Setting(
        None, gt=0, on_resume="free", description="Minutes of wall clock of this command"
    )


class SweepConfig(Settings):
    """One sweep: a base config, the settings to vary, and how to choose."""

    sweep_name: str = Setting(
        on_resume="free",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Name of the sweep's folder under storage_path",
    )
    storage_path: PathText = Setting(
        "runs",
        min_length=1,
        on_resume="free",
        description="Folder of runs and sweeps, or an s3:// or gs:// address; a relative one lies "
        "in LIPI_STORAGE where that is set",
    )
    base: PathText = Setting(
        on_resume="refuse", description="Config of every trial, but for the settings of the space"
    )
    overrides: tuple[str, ...] = Setting(
        (), on_resume="refuse", description="Settings of the base as key=value, for all trials"
    )
    space: dict[str, Range] = Setting(
        on_resume="refuse",
        description="Settings to vary: dotted key of the base → range of its values",
        min_length=1,
    )
    metric: Metric = Setting(
        "eval_cer",
        on_resume="refuse",
        description="Metric of evaluations that trials are compared by, each with its lowest value",
    )
    mode: Literal["min"] = Setting(
        "min",
        on_resume="refuse",
        description="Direction of the metric: each is an error or a loss, the lower the better",
    )
    trials: int | None = Setting(
        None, ge=1, on_resume="free", description="Number of trials; null: the whole grid"
    )
    searcher: Literal["random", "grid", "optuna"] = Setting(
        "random",
        on_resume="refuse",
        description="Source of values. random: by the seed; grid: every combination of the "
        "choices; optuna: by earlier trials (TPE)",
    )
    scheduler: Literal["fifo", "asha"] = Setting(
        "fifo",
        on_resume="refuse",
        description="Scheduler. fifo: every trial to its end; asha: early stopping by "
        "successive halving",
    )
    asha: AshaSettings = Setting(
        AshaSettings(), on_resume="refuse", description="Early stopping (scheduler=asha)"
    )
    budget: BudgetSettings = Setting(
        BudgetSettings(), on_resume="free", description="Limits of the sweep's cost"
    )
    max_concurrent: int | None = Setting(
        None,
        ge=1,
        on_resume="free",
        description="Trials at a time; null: as many as the cluster has cores and GPUs for, or may "
        "get, asked anew before each trial",
    )
    max_failed: float = Setting(
        0.3,
        ge=0,
        le=1,
        on_resume="free",
        description="Largest share of trials that may fail, each with its reason; beyond it the "
        "sweep stops",
    )
    max_failures: int = Setting(
        3,
        ge=0,
        on_resume="free",
        description="Number of failures of a trial's process after which the trial still retries",
    )
    retry_failed: bool = Setting(
        False,
        on_resume="free",
        description="Try failed trials again, each from its last checkpoint; without it they stay "
        "failed when the same command runs again",
    )
    seed: int = Setting(
        42,
        ge=0,
        on_resume="refuse",
        description="Key of the searcher's random numbers; a trial's own are keyed by the base's "
        "train.seed",
    )

    @pydantic.model_validator(mode="after")
    def _searcher_fits(self) -> "SweepConfig":
        ranges = [
            key for key, where in self.space.items() if where.choice is None and where.times is None
        ]
        mistakes = []
        if self.searcher == "grid" and ranges:
            mistakes.append(
                f"searcher=grid needs a choice for every key, {', '.join(ranges)} has a range; "
                "set searcher=random, or list values"
            )
        if self.searcher != "grid" and self.trials is None:
            mistakes.append(f"trials: missing; searcher={self.searcher} has no end of its own")
        for key, where in self.space.items():
            source = where.times[0] if where.times else None
            if source is not None and (source not in self.space or self.space[source].times):
                mistakes.append(
                    f"space.{key}: times {source!r}, "
                    "which is no key of the space with values of its own"
                )
        if mistakes:
            raise ValueError("\n  ".join(mistakes))
        return self

    @property
    def address(self) -> str:
        """Where the sweep lives: `storage_path/sweep_name`, a path or an address in a bucket."""
        return f"{self.storage_path.rstrip('/')}/{self.sweep_name}"

    @property
    def trials_address(self) -> str:
        """Where the runs of the trials live, each as `trials_address/ID`."""
        return f"{self.address}/trials"

    @property
    def in_bucket(self) -> bool:
        """Whether the sweep lives in a bucket."""
        return "://" in self.storage_path

    @property
    def shown_address(self) -> str:
        """The address as a user at this prompt would write it."""
        return self.address if self.in_bucket else shown(self.local_dir)

    @property
    def local_dir(self) -> Path:
        """The sweep's folder on this machine: `storage_path/sweep_name`, or its copy."""
        return local_folder(self.address)

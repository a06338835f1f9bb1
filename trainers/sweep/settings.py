"""Every setting of a sweep. No torch, no ray here."""

import re
from pathlib import Path
from typing import Any, Literal

import pydantic

from ocr.settings import Setting, Settings

_WORD_OF_A_NUMBER = re.compile(r"[+-]?\d+\.?\d*[eE][+-]?\d+")
Value = bool | int | float | str | list[Any] | None


class Range(Settings):
    """Where a setting's values come from: exactly one of these."""

    uniform: tuple[float, float] | None = Setting(
        None, on_resume="refuse", description="any number from … to"
    )
    log_uniform: tuple[float, float] | None = Setting(
        None, on_resume="refuse", description="any number from … to, each order of magnitude alike"
    )
    integer: tuple[int, int] | None = Setting(
        None, on_resume="refuse", description="any whole number from … to, both included"
    )
    choice: tuple[Value, ...] | None = Setting(
        None, on_resume="refuse", description="one of these", min_length=1
    )
    times: tuple[str, float] | None = Setting(
        None,
        on_resume="refuse",
        description="[key, factor]: so many times the value of another key of the space",
    )

    @pydantic.field_validator("choice", mode="before")
    @classmethod
    def _numbers(cls, given: Any) -> Any:
        """YAML takes 1e-4, without a point, for a word."""
        return (
            [
                float(value)
                if isinstance(value, str) and _WORD_OF_A_NUMBER.fullmatch(value)
                else value
                for value in given
            ]
            if isinstance(given, list)
            else given
        )

    @pydantic.model_validator(mode="after")
    def _one_kind(self) -> "Range":
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"exactly one of {', '.join(type(self).model_fields)} is expected, found {', '.join(given) or 'none'}"
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
        """Values that must be good where all are: both ends, or every choice."""
        return self.choice or self.uniform or self.log_uniform or self.integer or ()


class AshaSettings(Settings):
    """Asynchronous successive halving (Li et al. 2020): at each rung a trial goes on only if it is among the best so far."""

    grace_steps: int = Setting(
        50,
        ge=1,
        on_resume="refuse",
        description="the first rung, in optimizer steps of a trial; none stops before it",
    )
    reduction_factor: float = Setting(
        3.0,
        gt=1,
        on_resume="refuse",
        description="a rung lies so many times later than the one before; one in so many goes on",
    )


class BudgetSettings(Settings):
    """What a sweep may cost before it ends with what it has; more may be given later."""

    steps: int | None = Setting(
        None, ge=1, on_resume="free", description="optimizer steps of all trials together"
    )
    gpu_hours: float | None = Setting(
        None, gt=0, on_resume="free", description="hours of GPUs that trials held"
    )
    minutes: float | None = Setting(
        None, gt=0, on_resume="free", description="wall clock of this command"
    )


class SweepConfig(Settings):
    """One sweep: a base config, the settings to vary, and how to choose."""

    sweep_name: str = Setting(
        on_resume="free",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="name of the sweep's folder under storage_path",
    )
    storage_path: str = Setting(
        "runs",
        min_length=1,
        on_resume="free",
        description="folder of runs and sweeps; LIPI_STORAGE, where set, holds relative ones",
    )
    base: str = Setting(
        on_resume="refuse", description="the config that every trial is, but for the space"
    )
    overrides: tuple[str, ...] = Setting(
        (), on_resume="refuse", description="key=value words for the base, for all trials"
    )
    space: dict[str, Range] = Setting(
        on_resume="refuse",
        description="dotted keys of the base's settings → where their values come from",
        min_length=1,
    )
    metric: Literal[
        "eval_cer", "eval_grapheme_cer", "eval_wer", "eval_loss", "eval_cer_teacher_forced"
    ] = Setting(
        "eval_cer",
        on_resume="refuse",
        description="of what an evaluation reports, that which trials are compared by, each with its lowest",
    )
    mode: Literal["min"] = Setting(
        "min",
        on_resume="refuse",
        description="every metric here is an error or a loss: the lower the better",
    )
    trials: int | None = Setting(
        None, ge=1, on_resume="free", description="how many; null: the whole grid"
    )
    searcher: Literal["random", "grid", "optuna"] = Setting(
        "random",
        on_resume="refuse",
        description="drawn by the seed; every combination of the choices; or by what earlier trials found (optuna's TPE)",
    )
    scheduler: Literal["fifo", "asha"] = Setting(
        "fifo",
        on_resume="refuse",
        description="every trial to its end; or early stopping by successive halving",
    )
    asha: AshaSettings = Setting(
        AshaSettings(), on_resume="refuse", description="early stopping (scheduler=asha)"
    )
    budget: BudgetSettings = Setting(
        BudgetSettings(), on_resume="free", description="what it may cost"
    )
    max_concurrent: int | None = Setting(
        None,
        ge=1,
        on_resume="free",
        description="trials at a time; null: as many as the cluster's cores and GPUs carry",
    )
    max_failed: float = Setting(
        0.3,
        ge=0,
        le=1,
        on_resume="free",
        description="share of trials that may fail, each with its reason, before the sweep gives up",
    )
    max_failures: int = Setting(
        3, ge=0, on_resume="free", description="how many deaths of its processes a trial survives"
    )
    seed: int = Setting(
        42,
        ge=0,
        on_resume="refuse",
        description="key of the searcher's draws; what trials draw is keyed by the base's train.seed",
    )

    @pydantic.model_validator(mode="after")
    def _searcher_fits(self) -> "SweepConfig":
        mistakes = []
        if self.searcher == "grid" and (
            ranges := [
                key
                for key, where in self.space.items()
                if where.choice is None and where.times is None
            ]
        ):
            mistakes.append(
                f"searcher=grid needs a choice for every key, {', '.join(ranges)} has a range; take searcher=random, or list values"
            )
        if self.searcher != "grid" and self.trials is None:
            mistakes.append(f"trials: missing; searcher={self.searcher} has no end of its own")
        for key, where in self.space.items():
            source = where.times[0] if where.times else None
            if source is not None and (source not in self.space or self.space[source].times):
                mistakes.append(
                    f"space.{key}: times {source!r}, which is no key of the space with values of its own"
                )
        if mistakes:
            raise ValueError("\n  ".join(mistakes))
        return self

    @property
    def local_dir(self) -> Path:
        """`storage_path/sweep_name`."""
        return Path(self.storage_path) / self.sweep_name

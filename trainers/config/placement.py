"""How many workers a run has, and what each of them needs, by Ray's names. No Ray here."""

import re
from collections.abc import Mapping
from typing import Any, Literal, Self

import pydantic

from ocr.settings import Setting, Settings

# value, !value, in(a, b), !in(a, b): Ray's four forms
_SELECTED = re.compile(r"!?(in\([\w.-]+(\s*,\s*[\w.-]+)*\)|[\w.-]+)")


class PlacementSettings(Settings):
    """The workers of a run, and the nodes that Ray may place them on."""

    workers: int | Literal["auto"] = Setting(
        1,
        on_resume="rounding",
        description="Number of Ray Train workers, 1 or more. auto: as many as the cluster has GPUs "
        "for, or may get, else cores, and never more than a step has micro-batches. {min: 1, "
        "max: 8} is short for workers=8 min_workers=1",
    )
    min_workers: int | None = Setting(
        None,
        ge=1,
        on_resume="free",
        description="Fewest workers that a run goes on with where nodes are lost; it grows to "
        "`workers` again where nodes come. Equal to rounding, as with another number of workers. "
        "null: never fewer than `workers`, and the same bits",
    )
    threads_per_worker: int | None = Setting(
        None,
        ge=1,
        on_resume="rounding",
        description="Torch threads of each worker; null: the CPU of resources_per_worker, else its "
        "share of the cores",
    )
    resources_per_worker: dict[str, float] = Setting(
        {},
        on_resume="rounding",
        description="What each worker reserves, by Ray's names, such as {CPU: 4, GPU: 1}, memory "
        "in bytes, or a resource of the cluster's own; empty: its threads, and a GPU on GPUs",
    )
    accelerator_type: str | None = Setting(
        None,
        min_length=1,
        on_resume="rounding",
        description="Kind of GPU that every worker needs, by Ray's names, such as A100 or L4",
    )
    label_selector: dict[str, str] = Setting(
        {},
        on_resume="free",
        description="Labels of nodes that may have workers, such as {ray.io/region: us-east-1}; "
        "values also as !value, in(a, b) or !in(a, b)",
    )
    wait_minutes: float | None = Setting(
        1440.0,
        gt=0,
        on_resume="free",
        description="Most minutes that a run waits for nodes that can have its workers; null: no "
        "limit. The same command goes on later",
    )
    hang_minutes: float | None = Setting(
        30.0,
        gt=0,
        on_resume="free",
        description="Minutes without a step, or without a sign of life from a worker, after which "
        "the workers are ended and resume from the last checkpoint; null: never. Evaluations, "
        "checkpoints and the first step may take longer",
    )
    max_failures: int = Setting(
        3,
        ge=0,
        on_resume="free",
        description="Number of failures of workers, or of Ray, without a new checkpoint between, "
        "after which the run still retries",
    )

    @pydantic.model_validator(mode="before")
    @classmethod
    def _a_range(cls, values: Any) -> Any:
        """Turn `workers: {min: 1, max: 8}` into its two settings."""
        workers = values.get("workers") if isinstance(values, Mapping) else None
        if not isinstance(workers, Mapping) or set(workers) != {"min", "max"}:
            return values
        if values.get("min_workers") is not None:
            raise ValueError("workers has a min already; leave min_workers out")
        return {**values, "workers": workers["max"], "min_workers": workers["min"]}

    @pydantic.model_validator(mode="after")
    def _no_more_than_there_are(self) -> Self:
        if self.min_workers and isinstance(self.workers, int) and self.min_workers > self.workers:
            raise ValueError(f"min_workers={self.min_workers}: more than workers={self.workers}")
        return self

    @pydantic.field_validator("workers", mode="before")
    @classmethod
    def _a_number_or_auto(cls, value: Any) -> Any:
        is_number = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if value != "auto" and not is_number:
            raise ValueError("expected a whole number from 1, auto, or {min: 1, max: 8}")
        return value

    @pydantic.field_validator("resources_per_worker", mode="before")
    @classmethod
    def _amounts(cls, values: Any) -> Any:
        """Refuse what Ray refuses only once the run waits for it."""
        if not isinstance(values, Mapping):
            raise ValueError(f"expected a mapping such as {{CPU: 4, GPU: 1}}, found {values!r}")
        for name, amount in values.items():
            known = {"cpu": "CPU", "gpu": "GPU", "memory": "memory"}.get(str(name).lower(), name)
            if known != name:
                raise ValueError(f"{name}: Ray's name of it is {known}")
            if isinstance(amount, bool) or not isinstance(amount, (int, float)) or amount < 0:
                raise ValueError(f"{name}: expected a number from 0, found {amount!r}")
            if name in ("CPU", "GPU") and amount != int(amount):
                raise ValueError(f"{name}: expected a whole number, found {amount:g}")
        if values.get("CPU", 1) < 1:
            raise ValueError("CPU: a worker needs one at least, found 0")
        return values

    @pydantic.field_validator("label_selector", mode="after")
    @classmethod
    def _selectors(cls, values: dict[str, str]) -> dict[str, str]:
        for key, value in values.items():
            if not _SELECTED.fullmatch(value):
                raise ValueError(
                    f"{key}: expected value, !value, in(a, b) or !in(a, b), found {value!r}"
                )
        return values

    @property
    def worker_count(self) -> int:
        """The number of workers, once auto has become one."""
        assert isinstance(self.workers, int), "workers: auto is a number before a run starts"
        return self.workers

    @property
    def least_workers(self) -> int:
        """The number of workers that there must be places for."""
        return min(self.min_workers or self.worker_count, self.worker_count)

    @property
    def threads_asked(self) -> int | None:
        """The threads of each worker where settings name them."""
        cores = self.resources_per_worker.get("CPU")
        return self.threads_per_worker or (int(cores) if cores else None)

    def require_work(self, micro_batches: int) -> None:
        """Raise ValueError where a step has fewer micro-batches than there are workers."""
        if isinstance(self.workers, int) and self.workers > micro_batches:
            raise ValueError(
                f"workers={self.workers}: a step has {micro_batches} micro-batches and nothing for "
                f"the other workers; set workers={micro_batches}, or a smaller "
                "train.micro_batch_size in a new run"
            )

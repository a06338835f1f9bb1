"""From a space to configs: draws keyed by (seed, trial), the grid, and every mistake before anything starts."""

import copy
import itertools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ocr.errors import UserError
from ocr.keyed import generator
from ocr.settings import parse_settings, read_yaml, resolved, settings_from
from trainers.config import TrainConfig
from trainers.sweep.settings import Range, SweepConfig, Value

_DIGITS = 4  # of a drawn number: nobody needs more, and a table can be read


def base_of(sweep: SweepConfig) -> TrainConfig:
    """The base config, with the sweep's overrides."""
    return settings_from(TrainConfig, read_yaml(Path(sweep.base)), sweep.overrides, sweep.base)


def trial_config(
    base: TrainConfig, values: Mapping[str, Value], folder: Path, name: str
) -> TrainConfig:
    """The base with these values, as the run `name` in `folder`; UserError where they do not fit."""
    changed = copy.deepcopy(resolved(base))
    for key, value in {**values, "storage_path": str(folder), "run_name": name}.items():
        *parents, last = key.split(".")
        group: Any = changed
        for parent in parents:
            group = group.setdefault(parent, {})
            if not isinstance(group, dict):
                raise UserError(f"{name}: {key}: {parent} holds a value, no settings")
        group[last] = value
    return parse_settings(TrainConfig, changed, name)


def drawn(sweep: SweepConfig, trial: int) -> dict[str, Value]:
    """The values of a random or grid trial: a function of the sweep and the trial's number."""
    if sweep.searcher == "grid":
        return with_multiples(sweep, next(itertools.islice(_grid(sweep), trial, None)))
    draw = generator(sweep.seed, "sweep", trial)
    return with_multiples(
        sweep,
        {
            key: _one(sweep.space[key], draw.random())
            for key in sorted(sweep.space)
            if not sweep.space[key].times
        },
    )


def with_multiples(sweep: SweepConfig, values: Mapping[str, Value]) -> dict[str, Value]:
    """And those that are so many times another, in the order of the space."""
    complete = dict(values)
    for key, where in sweep.space.items():
        if where.times:
            multiple = complete[where.times[0]] * where.times[1]  # type: ignore[operator]
            complete[key] = (
                int(multiple)
                if isinstance(complete[where.times[0]], int) and float(multiple).is_integer()
                else rounded(multiple)
            )
    return {key: complete[key] for key in sweep.space}


def number_of_trials(sweep: SweepConfig) -> int:
    """As asked for, a grid no more than it has."""
    if sweep.searcher != "grid":
        return sweep.trials or 0
    whole = math.prod(len(where.choice or ()) for where in sweep.space.values() if not where.times)
    return min(whole, sweep.trials or whole)


def rounded(number: float) -> float:
    """To four digits."""
    return float(f"{number:.{_DIGITS}g}")


def mistakes(sweep: SweepConfig, base: TrainConfig) -> Iterator[str]:
    """What is wrong with the space for this base: unknown settings, values out of bounds, a metric its family does not report."""
    for key in sorted(
        {"workers", "threads_per_worker", "device", "run_name", "storage_path", "train.max_minutes"}
        & set(sweep.space)
    ):
        yield f"space.{key}: belongs to the place of a trial, and is the same for all; set it in overrides"
    for key, where in sweep.space.items():
        sources = sweep.space[where.times[0]].extremes if where.times else where.extremes
        for value in (source * where.times[1] for source in sources) if where.times else sources:  # type: ignore[operator]
            try:
                whole = where.times and float(value).is_integer()  # type: ignore[arg-type]
                given = int(value) if whole else value  # type: ignore[arg-type]
                trial_config(base, {key: given}, Path("runs"), "trial")
            except UserError as problem:
                yield f"space.{key} at {value}: " + "; ".join(
                    line.strip() for line in str(problem).splitlines()[1:] or [str(problem)]
                )
                break
    if sweep.metric == "eval_cer_teacher_forced" and base.family == "ctc":
        yield f"metric: {sweep.metric} is for vision-language models; model.kind={base.model.kind} reports eval_cer, eval_loss …"
    if base.train.max_minutes is not None:
        yield "base: train.max_minutes makes every trial's length its own; set train.max_steps or num_epochs"
    if (
        sweep.scheduler == "asha"
        and base.train.max_steps is not None
        and sweep.asha.grace_steps >= base.train.max_steps
    ):
        yield f"asha.grace_steps: {sweep.asha.grace_steps} is no less than train.max_steps={base.train.max_steps}: no trial could stop early"
    if (
        sweep.scheduler == "asha"
        and base.train.eval_epochs is None
        and base.train.eval_steps > sweep.asha.grace_steps
    ):
        yield f"asha.grace_steps: {sweep.asha.grace_steps} comes before the first evaluation at train.eval_steps={base.train.eval_steps}"


def _grid(sweep: SweepConfig) -> Iterator[dict[str, Value]]:
    keys = [key for key, where in sweep.space.items() if not where.times]
    for values in itertools.product(*(sweep.space[key].choice or () for key in keys)):
        yield dict(zip(keys, values, strict=True))


def _one(where: Range, share: float) -> Value:
    """The value at this share of the range."""
    if where.choice is not None:
        return where.choice[int(share * len(where.choice))]
    if where.integer is not None:
        return where.integer[0] + int(share * (where.integer[1] - where.integer[0] + 1))
    if where.log_uniform is not None:
        low, high = (math.log(bound) for bound in where.log_uniform)
        return rounded(math.exp(low + share * (high - low)))
    assert where.uniform is not None
    return rounded(where.uniform[0] + share * (where.uniform[1] - where.uniform[0]))

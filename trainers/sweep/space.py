"""A sweep's space becomes configs: random values keyed by (seed, trial), or the grid.

Every mistake is found before anything starts.
"""

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
from trainers.config.metrics import VLM_ONLY
from trainers.sweep.settings import Range, SweepConfig, Value

_SAME_FOR_ALL = frozenset(
    {"workers", "threads_per_worker", "device", "run_name", "storage_path", "train.max_minutes"}
)
_DIGITS = 4  # of a random number: enough, and a table stays readable


def base_of(sweep: SweepConfig) -> TrainConfig:
    """Return the base config, with the sweep's overrides; `workers: auto` is one worker a trial."""
    base = settings_from(TrainConfig, read_yaml(Path(sweep.base)), sweep.overrides, sweep.base)
    return base.model_copy(update={"workers": 1}) if base.workers == "auto" else base


def trial_config(
    base: TrainConfig, values: Mapping[str, Value], folder: Path | str, name: str
) -> TrainConfig:
    """Return the base with these values, as the run `name` in `folder`, also an address.

    UserError for misfits.
    """
    changed = copy.deepcopy(resolved(base))
    for key, value in {**values, "storage_path": str(folder), "run_name": name}.items():
        *parents, last = key.split(".")
        group: Any = changed
        for parent in parents:
            group = group.setdefault(parent, {})
            if not isinstance(group, dict):
                raise UserError(f"{name}: {key}: {parent} is a value, not a group of settings")
        group[last] = value
    return parse_settings(TrainConfig, changed, name)


def sampled(sweep: SweepConfig, trial: int) -> dict[str, Value]:
    """Return the values of a random or grid trial, a function of the sweep and its number."""
    if sweep.searcher == "grid":
        return with_multiples(sweep, next(itertools.islice(_grid(sweep), trial, None)))
    random = generator(sweep.seed, "sweep", trial)
    values = {
        key: _one(sweep.space[key], random.random())
        for key in sorted(sweep.space)
        if not sweep.space[key].times
    }
    return with_multiples(sweep, values)


def with_multiples(sweep: SweepConfig, values: Mapping[str, Value]) -> dict[str, Value]:
    """Return the values with those that are multiples of another, in the order of the space."""
    complete = dict(values)
    for key, where in sweep.space.items():
        if where.times:
            source, factor = complete[where.times[0]], where.times[1]
            multiple = source * factor  # type: ignore[operator]
            is_whole = isinstance(source, int) and float(multiple).is_integer()
            complete[key] = int(multiple) if is_whole else rounded(multiple)
    return {key: complete[key] for key in sweep.space}


def number_of_trials(sweep: SweepConfig) -> int:
    """Return the number of trials of the settings; a grid has no more than its combinations."""
    if sweep.searcher != "grid":
        return sweep.trials or 0
    whole = math.prod(len(where.choice or ()) for where in sweep.space.values() if not where.times)
    return min(whole, sweep.trials or whole)


def rounded(number: float) -> float:
    """Return the number to four digits."""
    return float(f"{number:.{_DIGITS}g}")


def mistakes(sweep: SweepConfig, base: TrainConfig) -> Iterator[str]:
    """Yield what is wrong with the space for this base.

    Unknown settings, values out of bounds, and a metric that the family does not report.
    """
    for key in sorted(_SAME_FOR_ALL & set(sweep.space)):
        yield (
            f"space.{key}: belongs to a trial's slot, and is the same for all; set it in overrides"
        )
    for key in sweep.space:
        yield from _bad_values(sweep, base, key)
    if sweep.metric in VLM_ONLY and base.family == "ctc":
        yield (
            f"metric: {sweep.metric} is for vision-language models; "
            f"model.kind={base.model.kind} reports eval_cer, eval_loss …"
        )
    if base.train.max_minutes is not None:
        yield (
            "base: train.max_minutes gives every trial its own length; "
            "set train.max_steps or num_epochs"
        )
    for key in ("resources_per_worker", "accelerator_type", "label_selector"):
        if getattr(base, key):
            yield f"base: {key}: a sweep places its trials itself; leave it out"
    if sweep.scheduler == "asha":
        yield from _bad_grace(sweep, base)


def _bad_values(sweep: SweepConfig, base: TrainConfig, key: str) -> Iterator[str]:
    """Yield the first of a setting's extreme values that the base does not take."""
    where = sweep.space[key]
    values = where.extremes
    if where.times:
        factor = where.times[1]
        values = tuple(value * factor for value in sweep.space[where.times[0]].extremes)  # type: ignore[operator]
    for value in values:
        try:
            whole = where.times and float(value).is_integer()  # type: ignore[arg-type]
            given = int(value) if whole else value  # type: ignore[arg-type]
            trial_config(base, {key: given}, Path("runs"), "trial")
        except UserError as problem:
            lines = str(problem).splitlines()[1:] or [str(problem)]
            yield f"space.{key} at {value}: {'; '.join(line.strip() for line in lines)}"
            return


def _bad_grace(sweep: SweepConfig, base: TrainConfig) -> Iterator[str]:
    grace, train = sweep.asha.grace_steps, base.train
    if train.max_steps is not None and grace >= train.max_steps:
        yield (
            f"asha.grace_steps: {grace} is no less than train.max_steps={train.max_steps}: "
            "no trial could stop early"
        )
    if train.eval_epochs is None and train.eval_steps > grace:
        yield (
            f"asha.grace_steps: {grace} comes before the first evaluation at "
            f"train.eval_steps={train.eval_steps}"
        )


def _grid(sweep: SweepConfig) -> Iterator[dict[str, Value]]:
    keys = [key for key, where in sweep.space.items() if not where.times]
    for values in itertools.product(*(sweep.space[key].choice or () for key in keys)):
        yield dict(zip(keys, values, strict=True))


def _one(where: Range, share: float) -> Value:
    """Return the value at this share of the range."""
    if where.choice is not None:
        return where.choice[int(share * len(where.choice))]
    if where.integer is not None:
        return where.integer[0] + int(share * (where.integer[1] - where.integer[0] + 1))
    if where.log_uniform is not None:
        low, high = (math.log(bound) for bound in where.log_uniform)
        return rounded(math.exp(low + share * (high - low)))
    assert where.uniform is not None
    return rounded(where.uniform[0] + share * (where.uniform[1] - where.uniform[0]))

"""The learning rate as a function of the step, so that no schedule needs to be saved."""

import math

from trainers.config import OptimizerSettings


def learning_rate(settings: OptimizerSettings, step: int, max_steps: int | None) -> float:
    """Return the rate of the optimizer step `step`, from 0.

    While the run's length is unknown (`max_steps` None) the rate is that of the warm-up. constant:
    the highest rate; linear and cosine: down to 0 at `max_steps`; one_cycle: up and down along
    cosines, from 1/25 of the rate and to 1/10,000 of that, the peak after `warmup_steps` (Smith &
    Topin 2018).
    """
    if settings.lr_scheduler_type == "one_cycle":
        return settings.learning_rate * _one_cycle(step, settings.warmup_steps, max_steps)
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    if max_steps is None or settings.lr_scheduler_type == "constant":
        return settings.learning_rate
    left = 1 - (step - settings.warmup_steps) / max(1, max_steps - settings.warmup_steps)
    return settings.learning_rate * (
        left if settings.lr_scheduler_type == "linear" else 0.5 * (1 - math.cos(math.pi * left))
    )


def _one_cycle(step: int, warmup_steps: int, max_steps: int | None) -> float:
    start, end = 1 / 25, 1 / 250_000
    if step < warmup_steps:
        return _cosine(start, 1.0, step / warmup_steps)
    if max_steps is None:
        return 1.0
    return _cosine(1.0, end, (step - warmup_steps) / max(1, max_steps - 1 - warmup_steps))


def _cosine(before: float, after: float, share: float) -> float:
    return after + (before - after) * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))

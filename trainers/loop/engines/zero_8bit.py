"""The state of bitsandbytes' 8-bit AdamW under ZeRO-1 and 2, in checkpoints.

ZeRO gives the optimizer one flat tensor for each group of parameters and worker. bitsandbytes
quantises it in blocks of 256 with a scale each. Blocks cross the borders of parameters, so no whole
tensor of one parameter can be cut out without rounding. Checkpoints therefore hold the parts of all
workers as they are, and a run resumes, bit for bit, with the same engine and number of workers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ocr.errors import UserError
from trainers.loop.engines.engine import copied
from trainers.loop.workers import Workers

_PARTS = "zero_parts"


def gathered(
    optimizer: torch.optim.Optimizer, flat: Sequence[Tensor], workers: Workers
) -> dict[str, Any]:
    """Return the state of all workers' parts, on the CPU; every worker calls it.

    `flat`: this worker's part of each group.
    """
    return {_PARTS: workers.gather([copied(dict(optimizer.state[part])) for part in flat])}


def load_parts(
    optimizer: torch.optim.Optimizer,
    flat: Sequence[Tensor],
    workers: Workers,
    state: Mapping[Any, Any],
) -> int:
    """Take this worker's part and return the steps; UserError where it was cut in another way."""
    if _PARTS not in state:
        raise UserError(
            "optimizer.name=adamw_8bit: this checkpoint was written by engine=all_reduce, whose "
            "8-bit state ZeRO cannot divide; resume with engine=all_reduce, or start a new run "
            "with train.init_from"
        )
    parts = state[_PARTS]
    if len(parts) != workers.world:
        raise UserError(
            f"optimizer.name=adamw_8bit under engine=deepspeed: the checkpoint holds the parts of "
            f"{len(parts)} workers, this run has {workers.world}; set workers={len(parts)}, or "
            "start a new run with train.init_from"
        )
    for part, held in zip(flat, parts[workers.rank], strict=True):
        optimizer.state[part] = {
            key: value.to(part.device) if isinstance(value, Tensor) else value
            for key, value in held.items()
        }
    return max((int(held["step"]) for held in parts[workers.rank] if held), default=0)


def require_whole(state: Mapping[str, Any]) -> None:
    """Raise UserError for a state that `gathered` made, which the other engine cannot take."""
    if _PARTS in state["state"]:
        raise UserError(
            "optimizer.name=adamw_8bit: this checkpoint holds ZeRO's parts of the 8-bit state; "
            "resume with engine=deepspeed, or start a new run with train.init_from"
        )

"""A run stopped twice and resumed is the run that never stopped, bit for bit, on this device."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tests.gpu.phase import Found, Setup
from tests.support.tiny import tiny_config, tiny_context, tiny_vlm_config
from trainers.config import TrainConfig
from trainers.loop.checkpoint import directory_of, verify_hashes
from trainers.loop.loop import fit
from trainers.loop.workers import Workers
from trainers.on_ray import task_and_context
from trainers.runs.job import Job

DEEPSPEED = "configs/deepspeed/zero{}.json"


def rows(setup: Setup) -> Iterator[Found]:
    """One row for each network, optimizer and engine."""
    steps, stops = setup.size((12, (3, 7)), (4, (1, 3)))
    for name, config in configs(setup, steps):
        through = _fit(config(setup.work / name / "through"), setup)
        for stop in stops:
            _fit(config(setup.work / name / "stopped"), setup, stop)
        stopped = _fit(config(setup.work / name / "stopped"), setup)
        differing = first_difference(_state(through, steps), _state(stopped, steps))
        figures = f"differs first: {differing}" if differing else "equal to the last bit"
        told = " and ".join(map(str, stops))
        yield Found(f"{name}, stopped at {told} of {steps}", figures, not differing)


def configs(setup: Setup, steps: int) -> Iterator[tuple[str, Any]]:
    """(name, storage → config); bf16 where the device computes in it."""
    length = {"max_steps": steps, "save_steps": 2, "eval_steps": steps}
    bf16 = setup.size("bf16", "fp32")
    for precision in ("fp32", "bf16"):
        few = {"data": {"max_train_samples": 60}, "train": length, "precision": precision}
        yield f"CTC {precision}", lambda storage, few=few: tiny_config(storage, **few)
    eight_bit = {"optimizer": {"name": "adamw_8bit"}, "lora": {"rank": 64}}
    variants: dict[str, dict[str, Any]] = {
        "VLM, AdamW": {},
        "VLM, 8-bit AdamW": eight_bit,
        "VLM, 4-bit base": {"model": {"load_in_4bit": True}, **eight_bit},
        **{
            f"VLM, ZeRO-{stage}": {
                "engine": "deepspeed",
                "deepspeed": {"config": DEEPSPEED.format(stage)},
            }
            for stage in (2, 3)
        },
    }
    for name, changes in variants.items():
        run = {"train": length, "precision": bf16, **changes}
        yield name, lambda storage, run=run: tiny_vlm_config(storage, **run)


def _fit(config: TrainConfig, setup: Setup, stop_after: int | None = None) -> Path:
    """Train in this process as a Ray worker would; gives the run directory."""
    torch.set_num_threads(1)
    run = tiny_context(config)
    job = Job(config, run.run_dir, run.run_id, 1, 1)
    task, place = task_and_context(setup.device, job, 1, Workers())
    torch.manual_seed(torch.seed())  # a resumed process has another state of the global generator
    fit(config, task, place, stop_after)
    return run.run_dir


def _state(run_dir: Path, step: int) -> dict[str, Any]:
    last = verify_hashes(directory_of(run_dir, step))
    return {"weights": last.weights(), "optimizer": last.optimizer(), "metrics": last.metrics()}


def first_difference(one: Any, other: Any, where: str = "") -> str:
    """The path of the first value that is not equal to the last bit; empty where all are."""
    if isinstance(one, torch.Tensor):
        if torch.equal(one, other):
            return ""
        return f"{where} by up to {(one.double() - other.double()).abs().max():.1e}"
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return f"{where}: other keys"
        pairs = ((f"{where}.{key}".lstrip("."), one[key], other[key]) for key in one)
    elif isinstance(one, list):
        if len(one) != len(other):
            return f"{where}: {len(one)} and {len(other)} values"
        pairs = (
            (f"{where}.{index}", *pair) for index, pair in enumerate(zip(one, other, strict=True))
        )
    else:
        return "" if one == other else f"{where}: {one!r:.80} and {other!r:.80}"
    found = (first_difference(left, right, path) for path, left, right in pairs)
    return next(filter(None, found), "")

"""The CTC network `compact base` on lines of 48 px.

This device against one CPU core, and its waits.
"""

import json
import statistics
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from ocr.dataset.build import build
from ocr.dataset.config import PrepareConfig
from ocr.dataset.read import Dataset
from ocr.settings import parse_settings
from tests.gpu.phase import Found, Setup
from tests.gpu.preflight import synchronise
from tests.support.pasted import pasted_line
from trainers.config import TrainConfig
from trainers.families.ctc.losses import ctc_losses
from trainers.families.ctc.task import CtcTask
from trainers.loop.batches import micro_batches_of
from trainers.loop.loop import fit
from trainers.loop.run_state import plan_of
from trainers.loop.workers import Workers
from trainers.on_ray import task_and_context
from trainers.runs.identity import identity
from trainers.runs.job import Data, Job

WORDS_A_LINE, HEIGHT_PX, WARM_UP = 6, 48, 3


def rows(setup: Setup) -> Iterator[Found]:
    """Samples a second on the device and on one core, then what a step consists of."""
    data = lines(setup)
    steps, batch = setup.size(40, 5), setup.size(64, 4)
    on_device, waits, task = trained(data, setup, setup.device, steps, batch)
    on_core, _, _ = trained(data, setup, "cpu", setup.size(6, 5), setup.size(16, 4))
    ratio = on_device / on_core
    figures = f"{on_device:,.0f} samples/s; one CPU core {on_core:,.1f}: {ratio:.1f} ×"
    yield Found(f"compact base, {HEIGHT_PX} px lines", figures)
    yield Found(
        "where it waits", f"{waits:.0%} of the time for batches; {parts(task, setup, batch)}"
    )


def lines(setup: Setup) -> str:
    """A data set of pasted lines, made before any clock starts."""
    words, draw = Dataset.open("odia_words", "train"), np.random.default_rng(0)
    sources = []
    for split, count in (("train", setup.size(512, 24)), ("validation", 8)):
        folder = setup.work / split
        folder.mkdir()
        for number in range(count):
            order = draw.integers(0, len(words), WORDS_A_LINE).tolist()
            image, text = pasted_line(words, order, HEIGHT_PX)
            image.save(folder / f"{number:03}.png", compress_level=1)
            (folder / f"{number:03}.gt.txt").write_text(text, encoding="utf-8")
        source = {"format": "pairs", "path": str(folder), "split": split, "level": "line"}
        sources.append(source)
    build(
        parse_settings(PrepareConfig, {"output": str(setup.work / "set"), "sources": sources}, "")
    )
    return str(setup.work / "set")


def trained(
    data: str, setup: Setup, device: str, steps: int, batch: int
) -> tuple[float, float, CtcTask]:
    """Median samples a second and the share of waiting after the warm-up, and the task."""
    values: dict[str, Any] = {
        "run_name": f"ctc-{device}-{batch}-{steps}",
        "storage_path": str(setup.work / device),
        "data": {"train": data},
        "train": {
            "max_steps": steps,
            "global_batch_size": batch,
            "micro_batch_size": batch,
            "save_steps": steps,
            "eval_steps": steps,
            "logging_steps": 1,
        },
        "model": {"kind": "compact", "size": "base", "height_px": HEIGHT_PX},
        "max_skipped": 1.0,
    }
    config = parse_settings(TrainConfig, values, "ctc")
    opened = Data.open(config)
    run_dir, run = config.local_run_dir, identity(config, opened.fingerprints)
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "run.json").write_text(json.dumps({"run": run}))
    torch.set_num_threads(1)
    task, place = task_and_context(device, Job(config, run_dir, run, 1, 1), 1, Workers(), opened)
    assert isinstance(task, CtcTask)
    fit(config, task, place)
    found = [json.loads(line) for line in (run_dir / "timings.jsonl").read_text().splitlines()]
    speeds = [line for line in found if "samples_per_second" in line][WARM_UP:]
    rate, waits = (
        statistics.median(line[key] for line in speeds)
        for key in ("samples_per_second", "loader_wait_share")
    )
    return rate, waits, task


def parts(task: CtcTask, setup: Setup, batch: int) -> str:
    """Seconds of a step's parts, one after another: batch on the CPU, forward, loss, backward."""
    plan = plan_of(task.config, task.widths)
    marks: dict[str, list[float]] = {}
    for step in range(setup.size(8, 3)):
        clock = _Clock(setup, marks)
        (turn,) = micro_batches_of(plan, step, 0, 1)
        made = task.batch(turn, plan.epoch_of(step))
        clock.mark("batch on one CPU thread")
        logits_TBK, lengths_B = task.network(
            made.ink_BCHW.to(task.device), made.widths_B.to(task.device)
        )
        clock.mark("forward")
        loss = ctc_losses(
            logits_TBK, lengths_B, made.targets_S, made.target_lengths_B, task.config.loss
        ).sum()
        clock.mark("loss on the CPU")
        loss.backward()
        clock.mark("backward")
    told = [f"{name} {statistics.median(times) * 1e3:.0f} ms" for name, times in marks.items()]
    return f"a batch of {batch}: {', '.join(told)}"


class _Clock:
    """Notes the seconds since the mark before, the device's work done."""

    def __init__(self, setup: Setup, marks: dict[str, list[float]]) -> None:
        self._setup, self._marks, self._since = setup, marks, time.perf_counter()

    def mark(self, name: str) -> None:
        synchronise(self._setup)
        now = time.perf_counter()
        self._marks.setdefault(name, []).append(now - self._since)
        self._since = now

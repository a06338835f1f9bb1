"""Our own trainer without Ray.

`launch`, `fit` and the settings of a config; options: config, overrides.
"""

import contextlib
import math
import shutil
import sys
from pathlib import Path

from meter import Enough, Meter, Request, Result

from ocr.errors import UserError
from ocr.images import open_image
from ocr.settings import load_settings
from trainers.config import TrainConfig
from trainers.loop.loop import fit
from trainers.loop.run_state import RunContext
from trainers.runs.identity import environment
from trainers.runs.job import Data, Job
from trainers.runs.launch import launch

TRIAL_SHARE = 0.15  # of the CPU seconds, used beforehand to learn how many steps fit into them
ENDLESS_STEPS = 1_000_000


def measure(request: Request) -> Result:
    """Train for as many steps as the CPU seconds have room for, so that the schedule ends with
    them.

    The bundle lies in output/lipi/bundle.
    """
    shutil.rmtree(request.output, ignore_errors=True)
    trial = Meter(TRIAL_SHARE * request.cpu_seconds)
    config = _config(request, "trial", ENDLESS_STEPS)
    with contextlib.suppress(Enough):
        _train(config, trial, request)
    steps = max(2, round(trial.rate * request.cpu_seconds / config.train.global_batch_size))
    return _train(_config(request, "lipi", steps), Meter(math.inf), request)


def _config(request: Request, name: str, steps: int) -> TrainConfig:
    """The config at another length.

    Its warm-up is the same share of it, and it is judged once, at its end.
    """
    path, overrides = Path(request.options["config"]), request.options["overrides"]
    given = load_settings(TrainConfig, path, overrides)
    assert given.train.max_steps, f"{path}: its length is not in steps"
    warm_up = round(steps * given.optimizer.warmup_steps / given.train.max_steps)
    data = [
        f"data.{split}=[{{format: pairs, level: word, path: {request.data}/{split}}}]"
        for split in ("train", "validation")
    ]
    data.append(f"data.max_validation_samples={request.judged}")
    place = [
        f"storage_path={request.output}",
        f"run_name={name}",
        "workers=1",
        "threads_per_worker=1",
        "device=cpu",
    ]
    length = [
        f"train.max_steps={steps}",
        f"train.eval_steps={steps}",
        f"optimizer.warmup_steps={warm_up}",
        f"train.seed={request.seed}",
    ]
    return load_settings(TrainConfig, path, [*overrides, *data, *place, *length])


def _train(config: TrainConfig, meter: Meter, request: Request) -> Result:
    """One run; it is read with the live network by best path, as the peers are, whatever the bundle
    decodes with.
    """
    found: list[Result] = []

    def train(job: Job) -> None:
        task = Data.open(config).task(config, "cpu")
        meter.watch(task.network)
        fit(
            config,
            task,
            RunContext(job.run_dir, job.run_id, job.attempt, environment(config, 1, "cpu", "")),
        )
        files = sorted(Path(request.data, "validation").glob("*.png"))[: request.judged]
        readings = task.recognizer.read(
            [open_image(file, task.recognizer.image_mode) for file in files]
        )
        found.append(meter.result([reading.text for reading in readings]))

    try:
        launch(config, train, "benchmarks/ctc.py")
    except UserError as problem:
        if not found:
            raise
        print(
            problem, file=sys.stderr
        )  # a bundle that cannot be exported is missed by reading, not by training
    return found[0]

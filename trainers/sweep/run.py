"""A sweep on Ray Tune: Tune places trials, starts them again when they die and stops them when told; what is decided lies in the ledger.

A trial of one worker trains in Tune's own actor, which the next trial uses again; one of more workers nests a run of Ray Train. Either is
a run like any other, in trials/ID, that goes on exactly from its checkpoints.
"""

import math
import os
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault(
    "TUNE_GLOBAL_CHECKPOINT_S", "3600"
)  # Tune's own snapshots are not what a sweep goes on from
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
os.environ.setdefault(
    "TUNE_DISABLE_STRICT_METRIC_CHECKING", "1"
)  # a trial that fails reports why, and no metric

import ray
import torch
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from ocr.errors import UserError
from ocr.files import write_json
from ocr.settings import changed_settings, load_settings, resolved
from trainers import on_ray
from trainers.config import TrainConfig
from trainers.families import verified
from trainers.loop import checkpoint as checkpoints
from trainers.loop.lease import Lease
from trainers.loop.loop import fit, plan_of, planned_steps
from trainers.loop.workers import Workers
from trainers.runs.gpus import require_gpu
from trainers.runs.launch import Data, Job, launch, named, shown, train_only
from trainers.sweep import space
from trainers.sweep.ledger import Ledger, Trial
from trainers.sweep.report import Findings, Progress, Summary, best_of, write_sweep_report
from trainers.sweep.settings import SweepConfig
from trainers.sweep.tpe import suggested

SETTINGS, BASE = "sweep_config.yaml", "base.yaml"
_DRIVER_CPUS = 0.01  # of a trial that only waits for its own workers


@dataclass(frozen=True, slots=True)
class Places:
    """What a trial needs of the cluster, and how many have room."""

    cpus: float
    gpus: float
    at_once: int
    threads: int


def run_sweep(sweep: SweepConfig, command: str) -> Summary:
    """Run what is left of the sweep and write sweep.json, sweep.html, best.yaml and the best trial's bundle; UserError with all mistakes before anything starts."""
    base = space.base_of(sweep)
    require_gpu(base)
    wrong = list(space.mistakes(sweep, base))
    sweep_dir = sweep.local_dir
    _refuse_another(sweep, base, sweep_dir)
    is_here, waiting = not os.environ.get("RAY_ADDRESS"), int(base.workers > 1)
    if is_here:  # then what it has is known before Ray starts
        wrong += _places(
            sweep, base, {"CPU": (os.cpu_count() or 1) + waiting}, waiting, use_gpu=False
        )[1]
    _refuse(sweep, wrong)
    with on_ray.connected(
        base.model_copy(update={"workers": 1, "storage_path": sweep.storage_path}), waiting
    ):
        places, lack = _places(
            sweep, base, ray.cluster_resources(), waiting if is_here else 0, on_ray.uses_gpu(base)
        )
        _refuse(sweep, lack)
        if told := verified(base):
            print(told, flush=True)
        data = Data.open(base)
        sweep_dir.mkdir(parents=True, exist_ok=True)
        with Lease(sweep_dir):
            write_json(sweep_dir / SETTINGS, resolved(sweep))  # JSON is YAML
            write_json(sweep_dir / BASE, resolved(base))
            ledger = Ledger(sweep_dir / "ledger.jsonl")
            steps = planned_steps(base, plan_of(base, data.checked.widths, data.checked.replayed))
            assert steps is not None
            _run_trials(sweep, base, sweep_dir, ledger, places, steps)
            return _finish(sweep, base, data, ledger, places, steps, command)


def _refuse(sweep: SweepConfig, wrong: Sequence[str]) -> None:
    if wrong:
        count = f"{len(wrong)} mistakes" if len(wrong) > 1 else "1 mistake"
        raise UserError(
            "\n".join([f"{sweep.base}: {count} in the sweep", *(f"  {line}" for line in wrong)])
        )


def _refuse_another(sweep: SweepConfig, base: TrainConfig, sweep_dir: Path) -> None:
    """Compare with the sweep that is here, if any, and with what its base config said then."""
    if (sweep_dir / SETTINGS).is_file() and (sweep_dir / BASE).is_file():
        changed = [
            key
            for key, rule in changed_settings(
                load_settings(SweepConfig, sweep_dir / SETTINGS), sweep
            ).items()
            if rule == "refuse"
        ]
        changed += [
            f"base: {key}"
            for key, rule in changed_settings(
                load_settings(TrainConfig, sweep_dir / BASE), base
            ).items()
            if rule == "refuse"
        ]
        if changed:
            raise UserError(
                f"{sweep_dir}: another sweep than the one that is here: {', '.join(changed)} differ; put them back, or choose another sweep_name"
            )


def _places(
    sweep: SweepConfig, base: TrainConfig, there: Mapping[str, float], waiting: int, use_gpu: bool
) -> tuple[Places, list[str]]:
    """From the cluster's cores and GPUs (Ray's words for what is `there`), so that trials that have started can always go on.

    `waiting` of the cores are counted for processes that only wait. GPUs that a scaling cluster does not show yet bound nothing.
    """
    threads = base.threads_per_worker or 1
    cpus = float(threads) if base.workers == 1 else base.workers * threads + _DRIVER_CPUS
    gpus = float(base.workers if use_gpu else 0)
    room = [
        there.get("CPU", 1) / cpus,
        *([there["GPU"] / gpus] if gpus and there.get("GPU") else []),
    ]
    at_once = min(math.floor(min(room) + 1e-6), sweep.max_concurrent or 10**6)
    found = (
        f"the cluster has {there.get('CPU', 0) - waiting:g} cores and {there.get('GPU', 0):g} GPUs"
    )
    lack = (
        []
        if at_once
        else [
            f"workers={base.workers} threads_per_worker={threads}: a trial needs {cpus:g} cores and {gpus:g} GPUs, {found}"
        ]
    )
    return Places(cpus, gpus, max(1, at_once), threads), lack


def _run_trials(
    sweep: SweepConfig,
    base: TrainConfig,
    sweep_dir: Path,
    ledger: Ledger,
    places: Places,
    steps: int,
) -> None:
    decider = Decider(sweep, ledger, steps, places.gpus)
    if len(ledger.ended()) >= space.number_of_trials(sweep):
        print(f"{shown(sweep_dir)}: this sweep is finished; raise trials to go on", flush=True)
        return
    ray_dir = sweep_dir / "ray"
    shutil.rmtree(ray_dir, ignore_errors=True)
    own = (
        {"CPU": places.cpus, **({"GPU": places.gpus} if places.gpus else {})}
        if base.workers == 1
        else {"CPU": _DRIVER_CPUS}
    )
    trial = partial(
        _run_trial,
        base=base,
        folder=sweep_dir / "trials",
        threads=places.threads,
        on_gpu=places.gpus > 0,
        started_in=Path.cwd(),
    )
    tuner = tune.Tuner(
        tune.with_resources(trial, own),
        tune_config=tune.TuneConfig(
            search_alg=Suggestions(sweep, ledger, decider),
            scheduler=decider,
            max_concurrent_trials=places.at_once,
            num_samples=-1,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=f"attempt_{uuid.uuid4().hex[:8]}",
            storage_path=str(ray_dir),
            failure_config=tune.FailureConfig(max_failures=sweep.max_failures),
            verbose=0,
        ),
    )
    tuner.fit()
    shutil.rmtree(ray_dir, ignore_errors=True)
    decider.progress.close()
    if decider.gave_up:
        raise UserError(decider.gave_up)


class Suggestions(Searcher):
    """Trials that were interrupted first, then new ones up to the number that was asked for."""

    def __init__(self, sweep: SweepConfig, ledger: Ledger, decider: "Decider") -> None:
        super().__init__(metric=sweep.metric, mode=sweep.mode)
        self._sweep, self._ledger, self._decider = sweep, ledger, decider
        self._left = [trial.id for trial in ledger.trials.values() if trial not in ledger.ended()]

    def suggest(self, trial_id: str) -> Any:  # noqa: ARG002  (Tune's own name for it)
        """The config that `_run_trial` gets."""
        if self._decider.is_over:
            return Searcher.FINISHED
        if not self._left and len(self._ledger.trials) < space.number_of_trials(self._sweep):
            number = len(self._ledger.trials)
            values = (
                suggested(self._sweep, self._ledger, number)
                if self._sweep.searcher == "optuna"
                else space.drawn(self._sweep, number)
            )
            self._ledger.think_of(f"t{number:03}", values)
            self._left.append(f"t{number:03}")
        if not self._left:
            return Searcher.FINISHED
        id = self._left.pop(0)
        self._decider.given_at[id] = time.time()
        return {"id": id, "values": self._ledger.trials[id].values}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Nothing: the ledger knows."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is what a sweep goes on from."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""


class Decider(FIFOScheduler):
    """Writes each evaluation into the ledger, then says whether its trial goes on: rungs, budget, and how many may fail."""

    def __init__(self, sweep: SweepConfig, ledger: Ledger, steps: int, gpus: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._sweep, self._ledger, self._steps, self._gpus, self._began = (
            sweep,
            ledger,
            steps,
            gpus,
            time.monotonic(),
        )
        self.given_at: dict[str, float] = {}
        self.gave_up = ""
        self.progress = Progress(sweep, ledger, space.number_of_trials(sweep), steps)
        self._rungs = Rungs(sweep, steps) if sweep.scheduler == "asha" else None
        if self._rungs:
            for (
                id,
                step,
            ) in ledger.decided:  # in the order in which they were: the rungs stand as they stood
                stops = self._stops(id, step, ledger.trials[id].evaluations[step][sweep.metric])
                if stops and ledger.trials[id].status == "waiting":
                    ledger.end(id, "stopped", stops)

    @property
    def is_over(self) -> bool:
        """Whether no new trial is to start."""
        return bool(self.gave_up) or self._is_out_of_budget

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:  # noqa: ARG002
        """Tune's question after every report."""
        id = trial.config["id"]
        if result.get("done"):
            return str(TrialScheduler.CONTINUE)
        if "failed" in result:
            self._end(id, "failed", result["failed"])
            return str(TrialScheduler.CONTINUE)
        step, metrics = (
            result["step"],
            {
                key: value
                for key, value in result.items()
                if key.startswith("eval_") and isinstance(value, (int, float))
            },
        )
        self._ledger.note(
            id,
            step,
            metrics,
            result.get("elapsed", result["time_this_iter_s"]),
            result["began_at"] - self.given_at[id],
        )
        self.progress.tell(id)
        if stops := self._stops(id, step, metrics[self._sweep.metric]):
            self._end(id, "stopped", stops)
            return str(TrialScheduler.STOP)
        if self.is_over and step < self._steps:
            self._end(id, "out of budget")
            return str(TrialScheduler.STOP)
        return str(TrialScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:  # noqa: ARG002
        """At its own end, or when it was told to stop."""
        if (
            self._ledger.trials[trial.config["id"]].status in ("waiting", "out of budget")
            and not self.gave_up
        ):
            evaluations = self._ledger.trials[trial.config["id"]].evaluations
            if max(evaluations, default=0) >= self._steps or not self._is_out_of_budget:
                self._end(trial.config["id"], "finished")

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:  # noqa: ARG002
        """Its process died; told of every death, also of those after which Tune starts it again."""
        if trial.should_recover():
            return
        self._end(
            trial.config["id"],
            "failed",
            f"died {self._sweep.max_failures + 1} times; the last time: {_last_words(trial)}",
        )

    @property
    def _is_out_of_budget(self) -> bool:
        budget, trials = self._sweep.budget, self._ledger.trials.values()
        steps = sum(max(trial.evaluations, default=0) for trial in trials)
        gpu_hours = sum(trial.seconds for trial in trials) * self._gpus / 3600
        minutes = (time.monotonic() - self._began) / 60
        spent = ((budget.steps, steps), (budget.gpu_hours, gpu_hours), (budget.minutes, minutes))
        return any(most is not None and found >= most for most, found in spent)

    def _stops(self, id: str, step: int, value: float) -> str:
        """The rung that a trial does not pass, empty where it goes on; at its last step it has come to its end, however it fares there."""
        passes = self._rungs is None or self._rungs.goes_on(id, step, value)
        return (
            "" if self._rungs is None or passes or step >= self._steps else self._rungs.told(step)
        )

    def _end(self, id: str, status: Any, reason: str = "") -> None:
        self._ledger.end(id, status, reason)
        self.progress.tell(id)
        failed = [trial for trial in self._ledger.trials.values() if trial.status == "failed"]
        if len(failed) > self._sweep.max_failed * space.number_of_trials(self._sweep):
            reasons = "".join(f"\n  {trial.id} {trial.values}: {trial.reason}" for trial in failed)
            self.gave_up = f"{len(failed)} trials failed, more than max_failed={self._sweep.max_failed:g} of them all:{reasons}"


class Rungs:
    """Ray's own bracket of successive halving, by the trials' names in the ledger and their own steps."""

    def __init__(self, sweep: SweepConfig, steps: int) -> None:
        scheduler = ASHAScheduler(
            time_attr="step",
            metric=sweep.metric,
            mode=sweep.mode,
            grace_period=sweep.asha.grace_steps,
            reduction_factor=sweep.asha.reduction_factor,
            max_t=max(steps, sweep.asha.grace_steps + 1),
        )
        self._bracket = scheduler._brackets[0]

    def goes_on(self, id: str, step: int, value: float) -> bool:
        """Record the value at the rungs it has come to, and say whether it is among the best at the last of them."""
        trial: Any = SimpleNamespace(trial_id=id)  # all that the bracket looks at
        return bool(self._bracket.on_result(trial, step, -value) == TrialScheduler.CONTINUE)

    def recorded(self) -> dict[int, dict[str, float]]:
        """Rung (step) → trial → metric."""
        return {
            round(milestone): {id: -value for id, value in rung.items()}
            for milestone, rung in reversed(self._bracket._rungs)
        }

    def told(self, step: int) -> str:
        """Where a trial was stopped."""
        return f"rung {max(milestone for milestone in self.recorded() if milestone <= step)}"


def _run_trial(
    given: dict[str, Any],
    base: TrainConfig,
    folder: Path,
    threads: int,
    on_gpu: bool,
    started_in: Path,
) -> None:
    """In Tune's actor: train the trial to its end. A user's mistake, such as a rate that explodes, is the trial's result, not the sweep's end."""
    if started_in.is_dir():
        os.chdir(started_in)
    clock = _Clock()
    try:
        config = space.trial_config(base, given["values"], folder, given["id"])
        config = config.model_copy(
            update={"threads_per_worker": threads, "skip_verification": True, "verify": False}
        )
        for step, result in sorted(
            checkpoints.evaluations(config.local_run_dir).items()
            if config.local_run_dir.is_dir()
            else []
        ):
            clock.report(
                {**result, "step": step}
            )  # what was found before a death may not have been heard
        train_only(
            config,
            partial(_train_here, device="cuda" if on_gpu else "cpu", clock=clock)
            if config.workers == 1
            else _train_nested,
        )
    except UserError as mistake:
        tune.report({"failed": str(mistake), "elapsed": 0.0, "began_at": clock.began_at})
    except torch.OutOfMemoryError as problem:
        tune.report(
            {
                "failed": f"out of memory: {str(problem).splitlines()[0]}",
                "elapsed": 0.0,
                "began_at": clock.began_at,
            }
        )


def _train_here(job: Job, data: Data, device: str, clock: "_Clock") -> None:
    threads = on_ray.threads_of(job, 1)
    torch.set_num_threads(threads)
    task, place = on_ray.placed(device, job, threads, Workers(), data)
    clock.began_at = time.time()
    fit(job.config, task, place, on_evaluation=lambda result, _: clock.report(result))


def _train_nested(job: Job, _: Data) -> None:
    callback: Any = TuneReportCallback()
    on_ray.train(job, [callback])


@dataclass(slots=True)
class _Clock:
    """Reports to Tune what an evaluation gave, and the seconds since the one before."""

    began_at: float = field(default_factory=time.time)
    _last: float = field(default_factory=time.monotonic)

    def report(self, result: dict[str, Any]) -> None:
        """Of one evaluation."""
        now = time.monotonic()
        elapsed, self._last = now - self._last, now
        tune.report(
            {
                **{key: value for key, value in result.items() if isinstance(value, (int, float))},
                "elapsed": elapsed,
                "began_at": self.began_at,
            }
        )


def _last_words(trial: Any) -> str:
    text = (
        Path(trial.error_file).read_text(encoding="utf-8", errors="replace")
        if trial.error_file and Path(trial.error_file).is_file()
        else ""
    )
    return next(
        (line.strip() for line in reversed(text.splitlines()) if line.strip()), "no word of it"
    )


def _finish(
    sweep: SweepConfig,
    base: TrainConfig,
    data: Data,
    ledger: Ledger,
    places: Places,
    steps: int,
    command: str,
) -> Summary:
    """sweep.json, best.yaml, the best bundle and sweep.html."""
    sweep_dir, best = sweep.local_dir, best_of(ledger, sweep.metric)
    if best is None:
        raise UserError(
            f"{sweep_dir}: no trial came to its end: {'; '.join(f'{trial.id}: {trial.status} {trial.reason}' for trial in ledger.trials.values())}"
        )
    outcome = launch(_as_trained(sweep, base, best, places), _nothing_left, command)
    shutil.rmtree(sweep_dir / "bundle", ignore_errors=True)
    shutil.copytree(outcome.run_dir / "bundle", sweep_dir / "bundle")
    alone = space.trial_config(
        base, best.values, Path(base.storage_path), f"{sweep.sweep_name}-best"
    )
    alone = named(alone.model_copy(update={"threads_per_worker": places.threads}), data)
    configs = {
        trial.id: resolved(space.trial_config(base, trial.values, sweep_dir / "trials", trial.id))
        for trial in ledger.trials.values()
    }
    rungs = stages(sweep, ledger, steps) if sweep.scheduler == "asha" else {}
    found = Findings(
        sweep,
        ledger,
        best,
        resolved(alone),
        configs,
        rungs,
        places.cpus,
        places.gpus,
        steps,
        outcome.report,
        command,
    )
    return write_sweep_report(found, sweep_dir)


def _as_trained(sweep: SweepConfig, base: TrainConfig, trial: Trial, places: Places) -> TrainConfig:
    config = space.trial_config(base, trial.values, sweep.local_dir / "trials", trial.id)
    return config.model_copy(
        update={"threads_per_worker": places.threads, "skip_verification": True, "verify": False}
    )


def _nothing_left(job: Job) -> None:
    raise AssertionError(f"{job.run_dir}: a trial that ended has something left to train")


def stages(sweep: SweepConfig, ledger: Ledger, steps: int) -> dict[int, dict[str, float]]:
    """The rungs (step → trial → metric) that a ledger's evaluations fill, in their order: those that a sweep that goes on starts from."""
    rungs = Rungs(sweep, steps)
    for id, step in ledger.decided:
        rungs.goes_on(id, step, ledger.trials[id].evaluations[step][sweep.metric])
    return rungs.recorded()

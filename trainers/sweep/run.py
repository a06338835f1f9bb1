"""A sweep on Ray Tune: Tune places, restarts and stops trials; decisions are in the ledger.

A trial of one worker trains in Tune's own actor, which the next trial uses again. A trial of more
workers nests a run of Ray Train. Either is a run like any other, in trials/ID, that resumes exactly
from its checkpoints.
"""

import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

# a sweep resumes from its ledger, not from Tune's own snapshots
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "3600")
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
# slots.py says how many; Tune would keep to as many as had room at the start
os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", "1000")
# a trial that fails reports why, and no metric
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")

from ray import tune

from ocr.errors import GivenUp, UserError
from ocr.files import replaced_folder, write_json
from ocr.place import Unreachable
from ocr.ray_address import names_cluster
from ocr.settings import changed_settings, load_settings, resolved
from trainers.config import TrainConfig, config_of_run
from trainers.loop.lease import Lease, SweepLease
from trainers.loop.run_state import plan_of, planned_steps
from trainers.ray_cluster import connected, uses_gpu
from trainers.runs.gpus import require_gpu
from trainers.runs.job import Data, Job
from trainers.runs.launch import checked_data, launch, named
from trainers.sweep import space
from trainers.sweep.decider import Decider, Suggestions, stages
from trainers.sweep.ledger import Ledger, Trial
from trainers.sweep.report import REPORTS, Findings, Summary, best_of, write_sweep_report
from trainers.sweep.settings import SweepConfig
from trainers.sweep.slots import (
    DRIVER_CPUS,
    Places,
    Slots,
    lack_of,
    resources_of_the_cluster,
    slots_of,
)
from trainers.sweep.stored import BASE, LEDGER, SETTINGS, StoredSweep
from trainers.sweep.trial import run_trial


def run_sweep(sweep: SweepConfig, command: str) -> Summary:
    """Run what is left of the sweep.

    Writes sweep.json, sweep.html, best.yaml and the best trial's bundle. Raises UserError with all
    mistakes before anything starts.
    """
    base = space.base_of(sweep)
    require_gpu(base)
    wrong = list(space.mistakes(sweep, base))
    stored = StoredSweep(sweep)
    stored.fetch()
    _refuse_another(sweep, base, stored)
    is_local, waiting = not names_cluster(), int(base.worker_count > 1)
    if is_local:  # then its cores are known before Ray starts
        cores = {"CPU": (os.cpu_count() or 1) + waiting}
        wrong += lack_of(slots_of(sweep, base, use_gpu=False), base, cores, waiting)
    _refuse(sweep, wrong)
    alone = base.model_copy(update={"workers": 1, "storage_path": sweep.storage_path})
    with connected(alone, waiting):
        slots, resources = slots_of(sweep, base, uses_gpu(base)), resources_of_the_cluster()
        _refuse(sweep, lack_of(slots, base, resources, waiting if is_local else 0))
        data = checked_data(base)
        stored.folder.mkdir(parents=True, exist_ok=True)
        with Lease(stored.place) as held, outages_told():
            lease = SweepLease(stored.place.path, held.attempt)
            ledger = _ledger(sweep, base, stored, lease)
            steps = planned_steps(base, plan_of(base, data.usable.widths, data.usable.replayed))
            assert steps is not None
            _run_trials(sweep, base, ledger, slots, steps, lease)
            findings = _findings(sweep, base, data, ledger, slots, steps, command, lease)
            summary = write_sweep_report(findings, stored.folder)
            stored.push_bundle()
            stored.push(*REPORTS)
            return summary


@contextmanager
def outages_told() -> Iterator[None]:
    """Turn a bucket that stays away into one message."""
    try:
        yield
    except Exception as problem:
        cause: BaseException | None = problem
        while cause is not None and not isinstance(cause, Unreachable):
            cause = cause.__cause__  # Tune raises an error of its own from it
        if cause is None:
            raise
        raise GivenUp(f"{cause}; run the same command again to resume") from problem


def _ledger(
    sweep: SweepConfig, base: TrainConfig, stored: StoredSweep, lease: SweepLease
) -> Ledger:
    """Return the ledger as it is where the sweep lives, after writing its settings."""
    stored.fetch()  # another machine may have had the lease until now
    write_json(stored.path(SETTINGS), resolved(sweep))  # JSON is YAML
    write_json(stored.path(BASE), resolved(base))
    stored.push(SETTINGS, BASE)
    return Ledger(stored.path(LEDGER), lease, stored.push_ledger)


def _refuse(sweep: SweepConfig, wrong: Sequence[str]) -> None:
    if wrong:
        count = f"{len(wrong)} mistakes" if len(wrong) > 1 else "1 mistake"
        lines = [f"{sweep.base}: {count} in the sweep", *(f"  {line}" for line in wrong)]
        raise UserError("\n".join(lines))


def _refuse_another(sweep: SweepConfig, base: TrainConfig, stored: StoredSweep) -> None:
    """Compare with the sweep of this folder, if any, and with its base config."""
    settings, base_file = stored.path(SETTINGS), stored.path(BASE)
    if not settings.is_file() or not base_file.is_file():
        return
    try:
        known = load_settings(SweepConfig, settings)
    except UserError as problem:
        raise UserError(
            f"{problem}\nexpected the settings of this sweep; restore the file, or delete it where "
            "the command still has them"
        ) from None
    before = changed_settings(known, sweep)
    before_base = changed_settings(config_of_run(base_file), base)
    changed = [key for key, rule in before.items() if rule == "refuse"]
    changed += [f"base: {key}" for key, rule in before_base.items() if rule == "refuse"]
    if changed:
        raise UserError(
            f"{stored.place}: another sweep than the one in this folder: {', '.join(changed)} "
            "differ; set them back, or choose another sweep_name"
        )


def _run_trials(
    sweep: SweepConfig,
    base: TrainConfig,
    ledger: Ledger,
    slots: Slots,
    steps: int,
    lease: SweepLease,
) -> None:
    ray_dir = sweep.local_dir / "ray"
    _retry_failed(sweep, ledger)
    decider = Decider(sweep, ledger, steps, slots.gpus)
    if len(ledger.ended()) >= space.number_of_trials(sweep):
        print(
            f"{sweep.shown_address}: this sweep is finished; raise trials to continue", flush=True
        )
        return
    shutil.rmtree(ray_dir, ignore_errors=True)
    tune_config = tune.TuneConfig(
        search_alg=Places(Suggestions(sweep, ledger, decider), slots),
        scheduler=decider,
        num_samples=-1,
        reuse_actors=True,
    )
    run_config = tune.RunConfig(
        name=f"attempt_{uuid.uuid4().hex[:8]}",
        storage_path=str(ray_dir),
        failure_config=tune.FailureConfig(max_failures=sweep.max_failures),
        verbose=0,
    )
    trial = _trainable(base, sweep.trials_address, slots, lease)
    tune.Tuner(trial, tune_config=tune_config, run_config=run_config).fit()
    shutil.rmtree(ray_dir, ignore_errors=True)
    decider.progress.close()
    if decider.gave_up:
        raise UserError(decider.gave_up)
    if decider.troubles:
        listed = "".join(f"\n  {trouble}" for trouble in decider.troubles)
        raise GivenUp(
            f"{sweep.shown_address}: trials are left; run the same command again:{listed}"
        )


def _trainable(base: TrainConfig, trials: str, slots: Slots, lease: SweepLease) -> Any:
    """Return what Tune calls with each suggestion, with the resources that it reserves."""
    resources = {"CPU": DRIVER_CPUS}
    if base.worker_count == 1:
        resources = {"CPU": slots.cpus, **({"GPU": slots.gpus} if slots.gpus else {})}
    trial = partial(
        run_trial,
        base=base,
        folder=trials,
        threads=slots.threads,
        on_gpu=slots.gpus > 0,
        started_in=Path.cwd(),
        sweep=lease,
    )
    return tune.with_resources(trial, resources)


def _retry_failed(sweep: SweepConfig, ledger: Ledger) -> None:
    failed = [trial.id for trial in ledger.trials.values() if trial.status == "failed"]
    if failed and sweep.retry_failed:
        print(f"{', '.join(failed)}: tried again", flush=True)
        for id in failed:
            ledger.retry(id)
    elif failed:
        print(f"{', '.join(failed)}: failed; retry_failed=true tries again", flush=True)


def _findings(
    sweep: SweepConfig,
    base: TrainConfig,
    data: Data,
    ledger: Ledger,
    slots: Slots,
    steps: int,
    command: str,
    lease: SweepLease,
) -> Findings:
    """Export the best trial's bundle, and return all that the report needs."""
    best = best_of(ledger, sweep.metric)
    if best is None:
        ends = (f"{trial.id}: {trial.status} {trial.reason}" for trial in ledger.trials.values())
        raise UserError(f"{sweep.address}: no trial finished: {'; '.join(ends)}")
    outcome = launch(_as_trained(sweep, base, best, slots), _nothing_left, command, sweep=lease)
    with replaced_folder(sweep.local_dir / "bundle") as bundle:
        shutil.copytree(outcome.run_dir / "bundle", bundle, dirs_exist_ok=True)
    name = f"{sweep.sweep_name}-best"
    alone = space.trial_config(base, best.values, base.storage_path, name)
    alone = named(alone.model_copy(update={"threads_per_worker": slots.threads}), data)
    configs = {
        trial.id: resolved(space.trial_config(base, trial.values, sweep.trials_address, trial.id))
        for trial in ledger.trials.values()
    }
    return Findings(
        sweep,
        ledger,
        best,
        resolved(alone),
        configs,
        stages(sweep, ledger, steps) if sweep.scheduler == "asha" else {},
        slots.cpus,
        slots.gpus,
        steps,
        outcome.report,
        command,
    )


def _as_trained(sweep: SweepConfig, base: TrainConfig, trial: Trial, slots: Slots) -> TrainConfig:
    config = space.trial_config(base, trial.values, sweep.trials_address, trial.id)
    changes = {"threads_per_worker": slots.threads, "skip_preflight": True, "list_samples": False}
    return config.model_copy(update=changes)


def _nothing_left(job: Job) -> None:
    raise AssertionError(f"{job.run_dir}: a trial that ended has something left to train")

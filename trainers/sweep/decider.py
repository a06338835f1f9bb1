"""Which trials start, continue and stop: suggestions, successive halving, budget and failures."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from ocr.errors import last_line
from trainers.sweep import space
from trainers.sweep.ledger import Ledger, id_of
from trainers.sweep.report import Progress
from trainers.sweep.settings import SweepConfig
from trainers.sweep.tpe import suggested


class Suggestions(Searcher):
    """Interrupted trials first, then new ones up to the number of the settings."""

    def __init__(self, sweep: SweepConfig, ledger: Ledger, decider: "Decider") -> None:
        super().__init__(metric=sweep.metric, mode=sweep.mode)
        self._sweep, self._ledger, self._decider = sweep, ledger, decider
        self._left = [trial.id for trial in ledger.trials.values() if trial not in ledger.ended()]

    def suggest(self, trial_id: str) -> Any:  # noqa: ARG002  (Tune's own name for it)
        """Return the config that `run_trial` gets."""
        if self._decider.is_over:
            return Searcher.FINISHED
        number = self._ledger.next_number()
        if not self._left and number < space.number_of_trials(self._sweep):
            is_tpe = self._sweep.searcher == "optuna"
            values = (
                suggested(self._sweep, self._ledger, number)
                if is_tpe
                else space.sampled(self._sweep, number)
            )
            self._ledger.add(id_of(number), values)
            self._left.append(id_of(number))
        if not self._left:
            return Searcher.FINISHED
        id = self._left.pop(0)
        self._decider.given(id)
        return {"id": id, "values": self._ledger.trials[id].values}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Do nothing: the ledger has the trial's end."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: a sweep resumes from the ledger."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: a sweep resumes from the ledger."""


class Decider(FIFOScheduler):
    """Writes each evaluation into the ledger, then decides whether the trial continues.

    Rungs, budget and the number of failed trials decide.
    """

    def __init__(self, sweep: SweepConfig, ledger: Ledger, steps: int, gpus: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._sweep, self._ledger, self._steps, self._gpus = sweep, ledger, steps, gpus
        self._began = time.monotonic()
        self._given_at: dict[str, float] = {}
        self._troubles: dict[str, str] = {}
        self.gave_up = ""
        self.progress = Progress(sweep, ledger, space.number_of_trials(sweep), steps)
        self._rungs = Rungs(sweep, steps) if sweep.scheduler == "asha" else None
        if self._rungs:
            self._fill_rungs()

    def _fill_rungs(self) -> None:
        """Decide again in the ledger's order, so that the rungs are as they were."""
        for id, step in self._ledger.decided:
            trial = self._ledger.trials[id]
            stops = self._stops(id, step, trial.evaluations[step][self._sweep.metric])
            if stops and trial.status == "waiting":
                self._ledger.end(id, "stopped", stops)

    def given(self, id: str) -> None:
        """Note that a trial was given to an actor now."""
        self._given_at[id] = time.time()

    @property
    def troubles(self) -> tuple[str, ...]:
        """The trials whose directories another process has, with the reasons; they are not over."""
        return tuple(self._troubles.values())

    @property
    def is_over(self) -> bool:
        """Whether no new trial is to start."""
        return bool(self.gave_up) or self._is_out_of_budget

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:  # noqa: ARG002
        """Return whether the trial continues; Tune asks after every report."""
        id = trial.config["id"]
        if result.get("done"):
            return str(TrialScheduler.CONTINUE)
        if "trouble" in result:
            self._troubles[id] = f"{id}: {result['trouble']}"
            return str(TrialScheduler.CONTINUE)
        self._troubles.pop(id, None)
        if "failed" in result:
            self._end(id, "failed", result["failed"])
            return str(TrialScheduler.CONTINUE)
        step = result["step"]
        metrics = {
            key: value
            for key, value in result.items()
            if key.startswith("eval_") and isinstance(value, (int, float))
        }
        seconds = result.get("elapsed", result["time_this_iter_s"])
        self._ledger.note(id, step, metrics, seconds, result["began_at"] - self._given_at[id])
        self.progress.show(id)
        if stops := self._stops(id, step, metrics[self._sweep.metric]):
            self._end(id, "stopped", stops)
            return str(TrialScheduler.STOP)
        if self.is_over and step < self._steps:
            self._end(id, "out of budget")
            return str(TrialScheduler.STOP)
        return str(TrialScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:  # noqa: ARG002
        """Note the end of a trial that finished, or that was stopped."""
        known = self._ledger.trials[trial.config["id"]]
        if known.status not in ("waiting", "out of budget") or self.gave_up:
            return
        if max(known.evaluations, default=0) >= self._steps or not self._is_out_of_budget:
            self._end(known.id, "finished")

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:  # noqa: ARG002
        """Note a trial whose process failed for the last time; Tune restarts it before that."""
        if trial.should_recover() or trial.config["id"] in self._troubles:
            return
        failures = self._sweep.max_failures + 1
        times = "once" if failures == 1 else f"{failures} times"
        self._end(trial.config["id"], "failed", f"failed {times}; {_last_output(trial)}")

    @property
    def _is_out_of_budget(self) -> bool:
        budget, trials = self._sweep.budget, self._ledger.trials.values()
        steps = sum(max(trial.evaluations, default=0) for trial in trials)
        gpu_hours = sum(trial.seconds for trial in trials) * self._gpus / 3600
        minutes = (time.monotonic() - self._began) / 60
        spent = ((budget.steps, steps), (budget.gpu_hours, gpu_hours), (budget.minutes, minutes))
        return any(most is not None and amount >= most for most, amount in spent)

    def _stops(self, id: str, step: int, value: float) -> str:
        """Return the rung that stops a trial, or an empty string; at its last step none does."""
        if self._rungs is None:
            return ""
        continues = self._rungs.record(id, step, value)
        return "" if continues or step >= self._steps else self._rungs.name(step)

    def _end(self, id: str, status: Any, reason: str = "") -> None:
        self._ledger.end(id, status, reason)
        self.progress.show(id)
        failed = [trial for trial in self._ledger.trials.values() if trial.status == "failed"]
        if len(failed) > self._sweep.max_failed * space.number_of_trials(self._sweep):
            reasons = "".join(f"\n  {trial.id} {trial.values}: {trial.reason}" for trial in failed)
            self.gave_up = (
                f"{len(failed)} trials failed, "
                f"more than max_failed={self._sweep.max_failed:g} of them all:{reasons}"
            )


class Rungs:
    """Ray's own bracket of successive halving, by the ledger's trial ids and the trials' steps."""

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

    def record(self, id: str, step: int, value: float) -> bool:
        """Record the value at the rungs up to this step.

        Returns whether the trial is among the best at the last of them.
        """
        trial: Any = SimpleNamespace(trial_id=id)  # the bracket reads nothing else
        return bool(self._bracket.on_result(trial, step, -value) == TrialScheduler.CONTINUE)

    def recorded(self) -> dict[int, dict[str, float]]:
        """Return rung (step) → trial → metric."""
        return {
            round(milestone): {id: -value for id, value in rung.items()}
            for milestone, rung in reversed(self._bracket._rungs)
        }

    def name(self, step: int) -> str:
        """Return the rung where a trial was stopped."""
        return f"rung {max(milestone for milestone in self.recorded() if milestone <= step)}"


def stages(sweep: SweepConfig, ledger: Ledger, steps: int) -> dict[int, dict[str, float]]:
    """Return the rungs (step → trial → metric) that a ledger's evaluations fill, in their order.

    A resumed sweep starts from them.
    """
    rungs = Rungs(sweep, steps)
    for id, step in ledger.decided:
        rungs.record(id, step, ledger.trials[id].evaluations[step][sweep.metric])
    return rungs.recorded()


def _last_output(trial: Any) -> str:
    file = Path(trial.error_file) if trial.error_file else None
    output = ""
    if file and file.is_file():
        output = file.read_text(encoding="utf-8", errors="replace")
    return f"last output: {last_line(output)}" if output.strip() else "no error output"

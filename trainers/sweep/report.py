"""The report of a sweep: a live table while it runs; then sweep.json, best.yaml and sweep.html."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ocr.files import write_atomically, write_json
from ocr.templates import environment
from trainers.config.metrics import is_rate
from trainers.report import formats
from trainers.sweep.curves import learning_curves, setting_against_metric
from trainers.sweep.ledger import Ledger, Trial
from trainers.sweep.settings import SweepConfig
from trainers.sweep.tpe import importances

REPORTS = ("sweep.json", "best.yaml", "sweep.html")
_SIGNS = {"finished": "✓", "stopped": "■", "failed": "✗", "waiting": "…", "out of budget": "–"}


@dataclass(frozen=True, slots=True)
class Summary:
    """A finished sweep; `address`: as a user at this prompt would write it."""

    sweep_name: str
    address: str
    metric: str
    best: Trial
    counts: Mapping[str, int]

    def __str__(self) -> str:
        best = self.best.best(self.metric)
        assert best
        values = ", ".join(f"{key}={value}" for key, value in self.best.values.items())
        ends = ", ".join(f"{count} {status}" for status, count in self.counts.items())
        return (
            f"{self.sweep_name}: best {self.best.id} with {self.metric} "
            f"{formatted(best[1], self.metric)} ({values}); {ends}; "
            f"{self.address}/best.yaml"
        )


class Progress:
    """The trials in the terminal: a table that is rewritten; without a terminal, lines.

    A line is printed for each evaluation.
    """

    def __init__(self, sweep: SweepConfig, ledger: Ledger, trials: int, steps: int) -> None:
        self._sweep, self._ledger, self._trials, self._steps = sweep, ledger, trials, steps
        self._lines = 0

    def show(self, id: str) -> None:
        """Show that this trial has changed."""
        if not sys.stdout.isatty():
            print(self._row(self._ledger.trials[id]), flush=True)
            return
        rows = self.table()
        clear = f"\033[{self._lines}F\033[J" if self._lines else ""
        sys.stdout.write(clear + "\n".join(rows) + "\n")
        sys.stdout.flush()
        self._lines = len(rows)

    def table(self) -> list[str]:
        """Return a row for each trial, the best first, and a line of counts."""
        trials = ranked(list(self._ledger.trials.values()), self._sweep.metric)
        ended = f"{len(self._ledger.ended())} of {self._trials} trials ended"
        rows = [self._row(trial) for trial in trials[:20]]
        return [*rows, ended + (", 20 shown" if len(trials) > 20 else "")]

    def close(self) -> None:
        """Leave the table as it is."""
        self._lines = 0

    def _row(self, trial: Trial) -> str:
        metric = self._sweep.metric
        best, step = trial.best(metric), max(trial.evaluations, default=0)
        values = " ".join(
            f"{key.rpartition('.')[2]}={value}" for key, value in trial.values.items()
        )
        value = formatted(best[1], metric) if best else "–"
        return (
            f"{_SIGNS[trial.status]} {trial.id}  step {step:>5,}/{self._steps:,}  "
            f"{metric} {value:>7}  {values}  {trial.reason}"
        ).rstrip()


def ranked(trials: Sequence[Trial], metric: str) -> list[Trial]:
    """Return the trials by their lowest metric; those without an evaluation come last."""
    return sorted(
        trials, key=lambda trial: best[1] if (best := trial.best(metric)) else float("inf")
    )


def best_of(ledger: Ledger, metric: str) -> Trial | None:
    """Return the finished trial with the lowest metric, the first of equals."""
    finished = [
        trial
        for trial in ledger.trials.values()
        if trial.status == "finished" and trial.best(metric) is not None
    ]
    return min(finished, key=lambda trial: trial.best(metric)[1]) if finished else None  # type: ignore[index]


def formatted(value: float, metric: str) -> str:
    """Return a rate in per cent, a loss as it is."""
    return formats.percent(value) if is_rate(metric) else formats.decimal(value)


@dataclass(frozen=True, slots=True)
class Findings:
    """A sweep at its end.

    `configs`: whole configs, by trial; `rungs`: by step, where there was early stopping; `report`:
    that of the best trial.
    """

    sweep: SweepConfig
    ledger: Ledger
    best: Trial
    best_config: dict[str, Any]
    configs: Mapping[str, dict[str, Any]]
    rungs: Mapping[int, Mapping[str, float]]
    cpus: float
    gpus: float
    steps: int
    report: Mapping[str, Any]
    command: str

    @property
    def trials(self) -> list[Trial]:
        """The trials in their order."""
        return list(self.ledger.trials.values())

    @property
    def best_value(self) -> float:
        """The best trial's lowest metric."""
        best = self.best.best(self.sweep.metric)
        assert best
        return best[1]

    @property
    def counts(self) -> dict[str, int]:
        """The number of trials with each end."""
        return {
            status: number
            for status in _SIGNS
            if (number := sum(trial.status == status for trial in self.trials))
        }


def write_sweep_report(findings: Findings, folder: Path) -> Summary:
    """Write sweep.json, best.yaml and sweep.html, each whole or not at all.

    sweep.json has every trial with its whole config; train.py takes best.yaml as it is.
    """
    sweep, best = findings.sweep, findings.best
    weight = importances(sweep, findings.ledger)
    write_json(folder / "sweep.json", formats.plain(_values(findings, weight)))
    file = folder / "best.yaml"
    heading = (
        f"# python ray_jobs/train.py {file.name if sweep.in_bucket else file}\n"
        f"# the best of {len(findings.trials)} trials of {sweep.sweep_name}: "
        f"{best.id}, {sweep.metric} {findings.best_value:.6g}\n"
    )
    config = yaml.safe_dump(findings.best_config, allow_unicode=True, sort_keys=False)
    write_atomically(file, (heading + config).encode())
    write_atomically(folder / "sweep.html", _page(findings, weight).encode())
    return Summary(sweep.sweep_name, sweep.shown_address, sweep.metric, best, findings.counts)


def _values(findings: Findings, weight: Mapping[str, float]) -> dict[str, Any]:
    """Return the content of sweep.json."""
    sweep, report = findings.sweep, findings.report
    hours, saved = spent(findings.trials, findings.steps)
    shown_of_best = ("eval_cer", "eval_wer", "eval_exact_match", "step", "best_step")
    return {
        "sweep_name": sweep.sweep_name,
        "metric": sweep.metric,
        "mode": sweep.mode,
        "best": findings.best.id,
        "best_value": findings.best_value,
        "counts": findings.counts,
        "max_steps": findings.steps,
        "cpu_hours": round(hours * findings.cpus, 4),
        "gpu_hours": round(hours * findings.gpus, 4),
        "hours_saved_by_early_stopping": round(saved, 4),
        "rungs": {str(step): dict(rung) for step, rung in findings.rungs.items()},
        "importances": weight,
        "command": findings.command,
        "best_report": {key: report.get(key) for key in shown_of_best},
        "trials": [_trial_values(trial, findings) for trial in findings.trials],
    }


def _trial_values(trial: Trial, findings: Findings) -> dict[str, Any]:
    """Return a trial as sweep.json has it."""
    return {
        "id": trial.id,
        "status": trial.status,
        "reason": trial.reason,
        "values": trial.values,
        "config": findings.configs[trial.id],
        "metrics": _metrics(trial, findings.sweep.metric),
        "evaluations": {str(step): result for step, result in sorted(trial.evaluations.items())},
        "seconds": round(trial.seconds, 1),
        "seconds_to_start": trial.started,
    }


def spent(trials: list[Trial], steps: int) -> tuple[float, float]:
    """Return the hours that trials held their slots, and the hours that early stopping saved.

    Saved are the steps not taken, at each trial's own speed.
    """
    hours = sum(trial.seconds for trial in trials) / 3600
    saved = sum(
        trial.seconds / 3600 * (steps / max(trial.evaluations) - 1)
        for trial in trials
        if trial.status == "stopped" and max(trial.evaluations, default=0)
    )
    return hours, saved


def _metrics(trial: Trial, metric: str) -> dict[str, float]:
    """Return the metrics of the best evaluation, with its step."""
    best = trial.best(metric)
    return {"step": best[0], **trial.evaluations[best[0]]} if best else {}


def _page(findings: Findings, weight: Mapping[str, float]) -> str:
    sweep, trials, best = findings.sweep, findings.trials, findings.best
    hours, saved = spent(trials, findings.steps)
    template = environment(Path(__file__).parent, Path(formats.__file__).parent).get_template(
        "sweep.html.j2"
    )
    charts = [
        setting_against_metric(key, where, trials, best, sweep.metric)
        for key, where in sweep.space.items()
    ]
    return template.render(
        sweep=sweep,
        best=best,
        best_value=formatted(findings.best_value, sweep.metric),
        rows=[_row(trial, sweep.metric) for trial in ranked(trials, sweep.metric)],
        signs=_SIGNS,
        curves=learning_curves(trials, best, sweep.metric),
        charts=[chart for chart in charts if chart],
        weight=sorted(weight.items(), key=lambda pair: -pair[1]),
        hours=formats.decimal(hours * findings.cpus),
        gpu_hours=formats.decimal(hours * findings.gpus) if findings.gpus else "",
        saved=formats.decimal(saved * (findings.gpus or findings.cpus)),
        steps=findings.steps,
        command=findings.command,
        f=formats,
    )


def _row(trial: Trial, metric: str) -> tuple[Trial, str, int]:
    best = trial.best(metric)
    value = formatted(best[1], metric) if best else "–"
    return trial, value, max(trial.evaluations, default=0)

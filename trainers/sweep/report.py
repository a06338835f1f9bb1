"""What a sweep says: a live table while it runs; then sweep.json, best.yaml and sweep.html."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ocr.files import write_atomically, write_json
from trainers.report import formats
from trainers.sweep.curves import learning_curves, setting_against_metric
from trainers.sweep.ledger import Ledger, Trial
from trainers.sweep.settings import SweepConfig
from trainers.sweep.tpe import importances

_SIGNS = {"finished": "✓", "stopped": "■", "failed": "✗", "waiting": "…", "out of budget": "–"}


@dataclass(frozen=True, slots=True)
class Summary:
    """A sweep that came to its end."""

    folder: Path
    metric: str
    best: Trial
    counts: Mapping[str, int]

    def __str__(self) -> str:
        found = self.best.best(self.metric)
        assert found
        values = ", ".join(f"{key}={value}" for key, value in self.best.values.items())
        ends = ", ".join(f"{count} {status}" for status, count in self.counts.items())
        where = (
            self.folder.relative_to(Path.cwd())
            if self.folder.is_relative_to(Path.cwd())
            else self.folder
        )
        return f"{self.folder.name}: best {self.best.id} with {self.metric} {told(found[1], self.metric)} ({values}); {ends}; {where / 'best.yaml'}"


class Progress:
    """The trials in the terminal: a table that is drawn anew, or a line an evaluation where there is no terminal."""

    def __init__(self, sweep: SweepConfig, ledger: Ledger, trials: int, steps: int) -> None:
        self._sweep, self._ledger, self._trials, self._steps, self._lines = (
            sweep,
            ledger,
            trials,
            steps,
            0,
        )

    def tell(self, id: str) -> None:
        """Something new is known of this trial."""
        if not sys.stdout.isatty():
            print(self._row(self._ledger.trials[id]), flush=True)
            return
        rows = self.table()
        sys.stdout.write(
            (f"\033[{self._lines}F\033[J" if self._lines else "") + "\n".join(rows) + "\n"
        )
        sys.stdout.flush()
        self._lines = len(rows)

    def table(self) -> list[str]:
        """Every trial, the best first, and a line of counts."""
        trials = sorted(
            self._ledger.trials.values(),
            key=lambda trial: (
                found[1] if (found := trial.best(self._sweep.metric)) else float("inf")
            ),
        )
        ended = len(self._ledger.ended())
        return [
            *(self._row(trial) for trial in trials[:20]),
            f"{ended} of {self._trials} trials ended" + (", 20 shown" if len(trials) > 20 else ""),
        ]

    def close(self) -> None:
        """Leave the table as it is."""
        self._lines = 0

    def _row(self, trial: Trial) -> str:
        found, step = trial.best(self._sweep.metric), max(trial.evaluations, default=0)
        values = " ".join(
            f"{key.rpartition('.')[2]}={value}" for key, value in trial.values.items()
        )
        shown = told(found[1], self._sweep.metric) if found else "–"
        return f"{_SIGNS[trial.status]} {trial.id}  step {step:>5,}/{self._steps:,}  {self._sweep.metric} {shown:>7}  {values}  {trial.reason}".rstrip()


def best_of(ledger: Ledger, metric: str) -> Trial | None:
    """The trial with the lowest metric among those that came to their end, the first of equals."""
    finished = [
        trial
        for trial in ledger.trials.values()
        if trial.status == "finished" and trial.best(metric) is not None
    ]
    return min(finished, key=lambda trial: trial.best(metric)[1]) if finished else None  # type: ignore[index]


def told(value: float, metric: str) -> str:
    """A rate in per cent, a loss as it is."""
    return formats.decimal(value) if metric == "eval_loss" else formats.percent(value)


@dataclass(frozen=True, slots=True)
class Findings:
    """A sweep at its end; `configs` are whole, by trial, `rungs` by step where there was early stopping, `report` that of the best trial."""

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
        """In their order."""
        return list(self.ledger.trials.values())

    @property
    def best_value(self) -> float:
        """The best trial's lowest metric."""
        found = self.best.best(self.sweep.metric)
        assert found
        return found[1]

    @property
    def counts(self) -> dict[str, int]:
        """How the trials ended."""
        return {
            status: number
            for status in _SIGNS
            if (number := sum(trial.status == status for trial in self.trials))
        }


def write_sweep_report(found: Findings, folder: Path) -> Summary:
    """sweep.json (every trial with its whole config), best.yaml (a config that train.py takes as it is) and sweep.html, each whole or not at all."""
    sweep, weight = found.sweep, importances(found.sweep, found.ledger)
    hours, saved = spent(found.trials, found.steps)
    values = {
        "sweep_name": sweep.sweep_name,
        "metric": sweep.metric,
        "mode": sweep.mode,
        "best": found.best.id,
        "best_value": found.best_value,
        "counts": found.counts,
        "max_steps": found.steps,
        "cpu_hours": round(hours * found.cpus, 4),
        "gpu_hours": round(hours * found.gpus, 4),
        "hours_saved_by_early_stopping": round(saved, 4),
        "rungs": {str(step): dict(rung) for step, rung in found.rungs.items()},
        "importances": weight,
        "command": found.command,
        "best_report": {
            key: found.report.get(key)
            for key in ("eval_cer", "eval_wer", "eval_exact_match", "step", "best_step")
        },
        "trials": [_told(trial, found) for trial in found.trials],
    }
    write_json(folder / "sweep.json", formats.plain(values))
    heading = f"# python ray_jobs/train.py {folder / 'best.yaml'}\n# the best of {len(found.trials)} trials of {sweep.sweep_name}: {found.best.id}, {sweep.metric} {found.best_value:.6g}\n"
    write_atomically(
        folder / "best.yaml",
        (heading + yaml.safe_dump(found.best_config, allow_unicode=True, sort_keys=False)).encode(),
    )
    write_atomically(folder / "sweep.html", _page(found, weight, hours, saved).encode())
    return Summary(folder, sweep.metric, found.best, found.counts)


def _told(trial: Trial, found: Findings) -> dict[str, Any]:
    """A trial as sweep.json has it."""
    return {
        "id": trial.id,
        "status": trial.status,
        "reason": trial.reason,
        "values": trial.values,
        "config": found.configs[trial.id],
        "metrics": _metrics(trial, found.sweep.metric),
        "evaluations": {str(step): result for step, result in sorted(trial.evaluations.items())},
        "seconds": round(trial.seconds, 1),
        "seconds_to_start": trial.started,
    }


def spent(trials: list[Trial], steps: int) -> tuple[float, float]:
    """Hours that trials held their places, and those that early stopping saved: the steps not taken at each trial's own speed."""
    hours = sum(trial.seconds for trial in trials) / 3600
    saved = sum(
        trial.seconds / 3600 * (steps / max(trial.evaluations) - 1)
        for trial in trials
        if trial.status == "stopped" and max(trial.evaluations, default=0)
    )
    return hours, saved


def _metrics(trial: Trial, metric: str) -> dict[str, float]:
    """Of its best evaluation, with its step."""
    found = trial.best(metric)
    return {"step": found[0], **trial.evaluations[found[0]]} if found else {}


def _page(found: Findings, weight: Mapping[str, float], hours: float, saved: float) -> str:
    sweep, trials, best = found.sweep, found.trials, found.best
    folders = [Path(__file__).parent, Path(formats.__file__).parent]
    environment = Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    ranked = sorted(
        trials, key=lambda trial: pair[1] if (pair := trial.best(sweep.metric)) else float("inf")
    )
    charts = [
        setting_against_metric(key, where, trials, best, sweep.metric)
        for key, where in sweep.space.items()
    ]
    return environment.get_template("sweep.html.j2").render(
        sweep=sweep,
        best=best,
        best_value=told(found.best_value, sweep.metric),
        rows=[
            (
                trial,
                told(pair[1], sweep.metric) if (pair := trial.best(sweep.metric)) else "–",
                max(trial.evaluations, default=0),
            )
            for trial in ranked
        ],
        signs=_SIGNS,
        curves=learning_curves(trials, best, sweep.metric),
        charts=[chart for chart in charts if chart],
        weight=sorted(weight.items(), key=lambda pair: -pair[1]),
        hours=formats.decimal(hours * found.cpus),
        gpu_hours=formats.decimal(hours * found.gpus) if found.gpus else "",
        saved=formats.decimal(saved * (found.gpus or found.cpus)),
        steps=found.steps,
        command=found.command,
        f=formats,
    )

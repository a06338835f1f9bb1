"""Optuna's TPE, without a state: a suggestion is a function of the sweep's seed and the ledger."""

from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from ocr.keyed import key_of
from trainers.sweep.ledger import Ledger, Trial
from trainers.sweep.settings import Range, SweepConfig, Value
from trainers.sweep.space import rounded, with_multiples

_STATES = {"finished": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}
optuna.logging.set_verbosity(optuna.logging.WARNING)


def suggested(sweep: SweepConfig, ledger: Ledger, number: int) -> dict[str, Value]:
    """Return values for the trial `number` (Bergstra et al. 2011); running trials count as bad."""
    sampler = optuna.samplers.TPESampler(
        seed=key_of(sweep.seed, "tpe", number) % 2**32,
        constant_liar=True,
        n_startup_trials=max(4, len(sweep.space) + 1),
    )
    study = study_of(sweep, ledger, sampler)
    asked = study.ask(
        {key: _distribution(where) for key, where in sweep.space.items() if not where.times}
    )
    return with_multiples(
        sweep, {key: _value(sweep.space[key], value) for key, value in asked.params.items()}
    )


def study_of(sweep: SweepConfig, ledger: Ledger, sampler: Any = None) -> optuna.Study:
    """Return the trials so far as Optuna's; a stopped one has its evaluations until then."""
    study = optuna.create_study(direction="minimize", sampler=sampler)
    study.add_trials([_frozen(sweep, trial) for trial in ledger.trials.values()])
    return study


def importances(sweep: SweepConfig, ledger: Ledger) -> dict[str, float]:
    """Return the share of the metric's variation that each setting explains.

    PED-ANOVA, Watanabe et al. 2023. Empty with too few finished trials.
    """
    study = study_of(sweep, ledger)
    values = {trial.value for trial in study.trials if trial.state == TrialState.COMPLETE}
    if len(values) < 4 or len([where for where in sweep.space.values() if not where.times]) < 2:
        return {}
    found = optuna.importance.get_param_importances(
        study, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
    )
    return dict(found)


def _frozen(sweep: SweepConfig, trial: Trial) -> FrozenTrial:
    best, state = trial.best(sweep.metric), _STATES.get(trial.status, TrialState.RUNNING)
    if best is None:
        state = TrialState.FAIL if state != TrialState.RUNNING else state
    distributions = {
        key: _distribution(where) for key, where in sweep.space.items() if not where.times
    }
    return create_trial(
        state=state,
        value=best[1] if best and state in (TrialState.COMPLETE, TrialState.PRUNED) else None,
        params={key: _param(sweep.space[key], trial.values[key]) for key in distributions},
        distributions=distributions,
        intermediate_values={
            step: result[sweep.metric] for step, result in trial.evaluations.items()
        },
    )


def _distribution(where: Range) -> BaseDistribution:
    if where.choice is not None:
        return CategoricalDistribution(range(len(where.choice)))
    if where.integer is not None:
        return IntDistribution(*where.integer)
    bounds = where.log_uniform or where.uniform
    assert bounds
    return FloatDistribution(*bounds, log=where.log_uniform is not None)


def _value(where: Range, number: int | float) -> Value:
    if where.choice is not None:
        return where.choice[int(number)]
    return rounded(number) if isinstance(number, float) else number


def _param(where: Range, value: Any) -> Any:
    """Return Optuna's parameter of a value; a rounded one may lie just outside its range."""
    if where.choice is not None:
        return where.choice.index(value)
    bounds = where.log_uniform or where.uniform
    return min(max(value, bounds[0]), bounds[1]) if bounds else value

"""The training loop: restore, then steps, each settled (logged, saved, judged) before the next; it runs without Ray.

A run is a function of its config and its step: the order of samples, every random draw and the learning rate are computed
from the step, so a checkpoint and the step's number are all that continuing takes.
"""

import math
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ocr.errors import UserError
from ocr.files import read_json, write_json
from ocr.settings import resolved
from trainers.config import TrainConfig
from trainers.families.task import Judged, Task
from trainers.loop import checkpoint as checkpoints
from trainers.loop import faults
from trainers.loop.batches import Plan, Prefetcher, Turn, turns_of
from trainers.loop.checkpoint import Checkpoint, CheckpointThread, Snapshot
from trainers.loop.engines import engine_for
from trainers.loop.engines.engine import Engine, LossScale, NotFiniteError, StepResult
from trainers.loop.lease import Writer
from trainers.loop.logs import Logs
from trainers.loop.schedule import learning_rate
from trainers.loop.trackers import Reported
from trainers.loop.workers import Workers

WARMUP_STEPS_OF_TIMING, TIMED_STEPS = (
    5,
    20,
)  # of max_minutes: the median of so many steps, after so many


@dataclass(frozen=True, slots=True)
class Place:
    """Where and as what this process trains; `environment` is what must be equal for a resume to be exact."""

    run_dir: Path
    run: str
    attempt: int
    environment: dict[str, Any]
    workers: Workers = field(default_factory=Workers)
    device: str = "cpu"
    precision: str = "fp32"


@dataclass(slots=True)
class TrainState:
    """All that changes from step to step besides weights and optimizer; plain data, in every checkpoint."""

    step: int = 0
    samples: int = 0
    max_steps: int | None = None
    loss_sum: float = 0.0
    loss_weight: float = 0.0
    pending: dict[str, Any] | None = None
    training_seconds: float = 0.0
    skipped_steps: int = 0
    loss_scale: dict[str, Any] | None = None
    resumed_at: list[dict[str, Any]] = field(default_factory=list)
    extended_at: list[int] = field(default_factory=list)


Evaluations = dict[int, dict[str, Any]]
EXACT = "exact"


def fit(
    config: TrainConfig,
    task: Task,
    place: Place,
    stop_after: int | None = None,
    on_evaluation: Callable[[dict[str, Any], Checkpoint | None], None] | None = None,
) -> TrainState:
    """Train from where the run directory is to its end, or, with a checkpoint, to the step `stop_after`.

    Every worker calls it with the same arguments but `place.workers`. Raises UserError (DamagedCheckpoint, NotFiniteError …).
    """
    with closing(Loop(config, task, place, on_evaluation)) as loop:
        loop.restore()
        loop.settle(restored=True)
        with closing(loop.coming_batches(stop_after)) as coming:
            for turns, batches in coming:
                loop.take_step(turns, batches)
                loop.settle(stopping=loop.state.step == stop_after)
                if loop.is_over:
                    break
        return loop.state


class Loop:
    """One process's part in a run; see `fit`."""

    def __init__(
        self,
        config: TrainConfig,
        task: Task,
        place: Place,
        on_evaluation: Callable[[dict[str, Any], Checkpoint | None], None] | None,
    ) -> None:
        self.plan = plan_of(config, task.widths, task.replayed)
        self.config, self.task, self.place, self.workers = (
            in_steps(config, self.plan),
            task,
            place,
            place.workers,
        )
        self.engine: Engine  # from `restore` on
        self.state = TrainState(max_steps=planned_steps(config, self.plan))
        self.evaluations: Evaluations = {}
        self.writer = Writer.claim(place.run_dir, place.attempt) if self.workers.first else None
        self.saver = CheckpointThread(self._publish)
        self.logs: Logs | None = None
        self._on_evaluation = on_evaluation
        self._latest: Checkpoint | None = None
        self._timed: list[float] = []
        self._length_is_new = False
        self.clock = Clock()

    @property
    def is_over(self) -> bool:
        """Whether the last step was taken, or patience ran out."""
        return is_over(self.config, self.state, self.evaluations)

    def restore(self) -> None:
        """Take everything from the newest good checkpoint; without any, stay at step 0."""
        found, damaged, self.evaluations = self.workers.from_first(
            self._find() if self.workers.first else None
        )
        self._latest = found
        metrics = ""
        if found:
            checkpoints.load_trained_state(self.task.network, found.weights())
            state, metrics = found.state(), found.metrics()
            self.state = _resumed(
                TrainState(**state["train"]),
                self.state.max_steps,
                state["environment"],
                self.place.environment,
            )
        self.engine = engine_for(
            self.task, self.config, self.workers, self.place.device, self.place.precision
        )
        if found:
            self.engine.load_state_dict(found.optimizer())
        if self.engine.scale and self.state.loss_scale:
            self.engine.scale = LossScale(**self.state.loss_scale)
        if self.workers.first:
            self.logs = Logs(
                self.place.run_dir, metrics, self.state.step, self.config.train.log_samples
            )
            self.logs.report(
                Reported(
                    self.config, self.place.run_dir, self.place.run, found.step if found else -1
                )
            )
            self._tell_of_restart(damaged)

    def coming_batches(self, stop_after: int | None) -> "Prefetcher[tuple[list[Turn], list[Any]]]":
        """This worker's micro-batches of the steps to come, made a few steps ahead."""
        end = (
            self.state.step
            if self.is_over
            else min(stop_after or sys.maxsize, self.state.max_steps or sys.maxsize)
        )
        return Prefetcher(range(self.state.step, end), self._make)

    def take_step(self, turns: list[Turn], batches: list[Any]) -> None:
        """One optimizer step and what is counted of it."""
        state = self.state
        self.clock.begin_step()
        faults.point("step", state.step + 1, self.workers.rank)
        result = self.engine.take_step(
            turns, batches, learning_rate(self.config.optimizer, state.step, state.max_steps)
        )
        seconds = self.clock.end_step(result.samples)
        state.step += 1
        state.samples += result.samples
        state.loss_sum += result.loss * result.weight
        state.loss_weight += result.weight
        if result.overflow:
            self._note_overflow()
        self._write_ledger(turns)
        if state.max_steps is None:
            self._learn_length(seconds)
        if state.step % self.config.train.logging_steps == 0 or self._is_evaluation_due:
            self._log(result)

    def settle(self, restored: bool = False, stopping: bool = False) -> None:
        """Save, judge and write down the step just taken, or just restored, as far as it is due."""
        state = self.state
        if not state.step and self._is_evaluation_due and state.step not in self.evaluations:
            self._judge_start()
        if (
            state.step
            and not restored
            and (
                state.step % self.config.train.save_steps == 0
                or self._is_evaluation_due
                or self._length_is_new
                or stopping
            )
        ):
            self._save()
        if self._is_evaluation_due and state.step not in self.evaluations:
            self._evaluate()
        if state.pending:
            record, state.pending = {**state.pending, **self.evaluations.get(state.step, {})}, None
            if self.logs:
                self.logs.write_metrics(record)
        self.clock.start_waiting()

    def close(self) -> None:
        """Wait for the checkpoint in flight and close the files."""
        try:
            self.saver.wait()
        finally:
            if self.logs:
                self.logs.close()

    @property
    def _is_evaluation_due(self) -> bool:
        if not self.state.step:
            return self.config.train.eval_on_start
        return (
            self.state.step % self.config.train.eval_steps == 0
            or self.state.step == self.state.max_steps
        )

    def _judge_start(self) -> None:
        """The weights that training starts from get a checkpoint and a line of their own."""
        self.state.pending = {"step": 0, "samples": 0, "epoch": 0.0}
        if self._latest is None:
            self._save()

    def _note_overflow(self) -> None:
        self.state.skipped_steps += 1
        scale = self.engine.scale
        assert scale
        if self.logs:
            text = f"step {self.state.step:,}: overflow in fp16, no weight was changed; loss scale now {scale.value:g}"
            self.logs.write_timing({"event": "overflow", "step": self.state.step, "text": text})

    def _make(self, step: int) -> tuple[list[Turn], list[Any]]:
        turns = turns_of(self.plan, step, self.workers.rank, self.workers.world)
        return turns, [self.task.batch(turn, self.plan.epoch_of(step)) for turn in turns]

    def _find(self) -> tuple[Checkpoint | None, list[str], Evaluations]:
        """The checkpoint to go on from; what lies after it is set aside."""
        run_dir = self.place.run_dir
        checkpoints.clear_leftovers(run_dir)
        found, damaged = find(run_dir, self.place.run)
        checkpoints.set_aside(run_dir, found.step if found else 0)
        return found, damaged, checkpoints.evaluations(run_dir)

    def _tell_of_restart(self, damaged: list[str]) -> None:
        assert self.logs
        for problem in damaged:
            self.logs.write_timing(
                {"event": "damaged", "step": self.state.step, "text": f"passed over {problem}"}
            )
        if self.state.step:
            exactness = self.state.resumed_at[-1]["exactness"]
            how = "continues exactly" if exactness == EXACT else f"continues, {exactness}"
            self.logs.write_timing(
                {
                    "event": "restart",
                    "step": self.state.step,
                    "text": f"{how}, from step {self.state.step:,}",
                }
            )

    def _write_ledger(self, turns: list[Turn]) -> None:
        if self.config.train.log_samples:
            mine = [
                (turn.index, [self.task.train_ids[index] for index in turn.samples])
                for turn in turns
                if turn.weight
            ]
            everyone = sorted(pair for pairs in self.workers.gather(mine) for pair in pairs)
            if self.logs:
                self.logs.write_samples(self.state.step, [id for _, ids in everyone for id in ids])

    def _learn_length(self, seconds: float) -> None:
        """Turn max_minutes into max_steps, once, from the median of the timed steps; the first worker's clock decides."""
        self._timed.append(seconds)
        if len(self._timed) < WARMUP_STEPS_OF_TIMING + TIMED_STEPS:
            return
        assert self.config.train.max_minutes
        left = self.config.train.max_minutes * 60 - sum(self._timed)
        per_step = statistics.median(self._timed[WARMUP_STEPS_OF_TIMING:])
        self.state.max_steps = self.workers.from_first(
            self.state.step + max(1, round(left / per_step))
        )
        self._length_is_new = True

    def _log(self, result: StepResult) -> None:
        """Make the step's line of metrics.jsonl, written once its evaluation, if any, is done; and its line of timings.jsonl."""
        state = self.state
        state.pending = {
            "step": state.step,
            "samples": state.samples,
            "epoch": round(state.samples / self.plan.samples_per_epoch, 4),
            "loss": state.loss_sum / state.loss_weight if state.loss_weight else None,
            "learning_rate": learning_rate(self.config.optimizer, state.step - 1, state.max_steps),
            "grad_norm": result.grad_norm,
            **self.task.train_metrics(),
        }
        state.loss_sum = state.loss_weight = 0.0
        if self.logs:
            self.logs.write_timing({"step": state.step, **self.clock.speeds()})

    def _save(self) -> None:
        """Copy everything to the CPU and let the first worker's thread write it; NotFiniteError, on all workers, rather than save a NaN."""
        state, began = self.state, time.perf_counter()
        weights, optimizer = self.engine.weights(), self.engine.state_dict()
        if bad := checkpoints.not_finite(weights):
            raise NotFiniteError(
                f"step {state.step}: the weights {', '.join(bad[:5])} are not finite; no checkpoint was written. Lower optimizer.learning_rate"
            )
        state.training_seconds += self.clock.running()
        state.loss_scale = asdict(self.engine.scale) if self.engine.scale else None
        self._length_is_new = False
        if self.logs:
            self.logs.sync()
            plain = {"train": asdict(state), "environment": self.place.environment}
            config_yaml = yaml.safe_dump(resolved(self.config), allow_unicode=True, sort_keys=False)
            self.saver.save(
                Snapshot(state.step, weights, optimizer, plain, config_yaml, self.logs.metrics)
            )
            self._write_seconds("checkpoint", began)

    def _publish(self, snapshot: Snapshot) -> None:
        """In the writer's thread: write, note in run.json that it was, and prune; what is pruned was read back before."""
        assert self.writer
        run_dir = self.place.run_dir
        self._latest = checkpoints.write_checkpoint(run_dir, self.place.run, snapshot, self.writer)
        write_json(
            run_dir / "run.json",
            {**read_json(run_dir / "run.json"), "last_published": snapshot.step},
        )
        best = best_step(self.config, self.evaluations)
        checkpoints.prune(
            run_dir, self.config.train.save_total_limit, [] if best is None else [best]
        )

    def _write_seconds(self, what: str, began: float) -> None:
        """A line of timings.jsonl: how long training stood still for a checkpoint's copy, or for an evaluation."""
        if self.logs:
            self.logs.write_timing(
                {"step": self.state.step, f"{what}_seconds": round(time.perf_counter() - began, 3)}
            )

    def _evaluate(self) -> None:
        """Read the validation samples, each worker its share, after the checkpoint of this step is published."""
        self.saver.wait()
        began = time.perf_counter()
        faults.point("before_evaluation", self.state.step, self.workers.rank)
        together = self.engine.reads_together
        mine = self.task.evaluate(
            self.task.validation
            if together
            else self.task.validation[self.workers.rank :: self.workers.world]
        ).as_vector()
        judged = Judged.from_vector(
            self.workers.from_first(mine) if together else self.workers.sum_counts(mine)
        )
        result: dict[str, Any] = {"step": self.state.step, **judged.rates()}
        if (self.workers.first or together) and (example := self.task.example()):
            result["inference_check"] = example
        self.evaluations[self.state.step] = result
        if self.writer and self.logs:
            self.writer.require()
            write_json(checkpoints.evaluation_of(self.place.run_dir, self.state.step), result)
            self._write_seconds("evaluation", began)
        if self._on_evaluation:
            self._on_evaluation(result, self._latest)


def plan_of(config: TrainConfig, widths: tuple[int, ...], replayed: int = 0) -> Plan:
    """The order of the run's samples, of which the last `replayed` are the replay pool."""
    train = config.train
    drawn = min(replayed, round(config.data.replay_ratio * (len(widths) - replayed)))
    return Plan(
        widths, train.global_batch_size, train.micro_batch_size, train.seed, replayed, drawn
    )


def in_steps(config: TrainConfig, plan: Plan) -> TrainConfig:
    """The config with what it says in passes said in steps: save_epochs, eval_epochs, warmup_epochs."""
    train, optimizer = config.train, config.optimizer
    steps = {
        name: epochs * plan.steps_per_epoch
        for name, epochs in (("save_steps", train.save_epochs), ("eval_steps", train.eval_epochs))
        if epochs
    }
    warmup = (
        {}
        if optimizer.warmup_epochs is None
        else {"warmup_steps": round(optimizer.warmup_epochs * plan.steps_per_epoch)}
    )
    return config.model_copy(
        update={
            "train": train.model_copy(update=steps),
            "optimizer": optimizer.model_copy(update=warmup),
        }
    )


def planned_steps(config: TrainConfig, plan: Plan) -> int | None:
    """The run's length in optimizer steps; None while max_minutes has not been turned into steps."""
    if config.train.num_epochs is not None:
        return math.ceil(config.train.num_epochs * plan.steps_per_epoch)
    return config.train.max_steps


def is_over(config: TrainConfig, state: TrainState, evaluations: Evaluations) -> bool:
    """Whether the last step was taken, or patience ran out."""
    if state.max_steps is not None and state.step >= state.max_steps:
        return True
    patience, best = config.train.early_stopping_patience, best_step(config, evaluations)
    return (
        patience is not None
        and best is not None
        and sum(step > best for step in evaluations) >= patience
    )


def best_step(config: TrainConfig, evaluations: Evaluations) -> int | None:
    """The step of the best evaluation: the first that none beats by more than the threshold."""
    metric, best = config.train.metric_for_best_model, None
    for step, result in sorted(evaluations.items()):
        if (
            best is None
            or result[metric] < evaluations[best][metric] - config.train.early_stopping_threshold
        ):
            best = step
    return best


def find(run_dir: Path, run: str) -> tuple[Checkpoint | None, list[str]]:
    """The newest good checkpoint and what is wrong with newer ones; None only for a run that never published one.

    Raises UserError where checkpoints were written and none is good: a run never starts again from nothing in silence.
    """
    found, damaged = checkpoints.newest_good(run_dir, run)
    published = (
        read_json(run_dir / "run.json").get("last_published")
        if (run_dir / "run.json").is_file()
        else None
    )
    if found is None and (damaged or published is not None):
        problems = (
            "".join(f"\n  {problem}" for problem in damaged)
            or f"\n  {checkpoints.directory_of(run_dir, published or 0)}: missing"
        )
        raise UserError(
            f"{run_dir}: no checkpoint of this run is good:{problems}\nput one back from a copy, or move {run_dir} away to start anew"
        )
    return found, damaged


def _resumed(
    state: TrainState, max_steps: int | None, before: dict[str, Any], now: dict[str, Any]
) -> TrainState:
    """The restored state with its place in the run's history: how exact, and whether the run is longer now."""
    state.resumed_at.append({"step": state.step, "exactness": exactness(before, now)})
    if max_steps is not None and max_steps != state.max_steps:
        state.extended_at += [state.step] if state.max_steps is not None else []
        state.max_steps = max_steps
    return state


def exactness(before: dict[str, Any], now: dict[str, Any]) -> str:
    """`exact`, or `equal to rounding, because workers 4 → 2`."""
    differing = [
        f"{key.replace('_', ' ')} {before.get(key)} → {now.get(key)}"
        for key in {**before, **now}
        if before.get(key) != now.get(key)
    ]
    return f"equal to rounding, because {', '.join(differing)}" if differing else EXACT


class Clock:
    """What the steps since the last line cost, and how much of it was waiting for batches."""

    def __init__(self) -> None:
        self._started = self._waiting_since = self._step_began = time.perf_counter()
        self._waited = self._stepped = 0.0
        self._samples = 0

    def start_waiting(self) -> None:
        """From here on the loop waits for the next batches."""
        self._waiting_since = time.perf_counter()

    def begin_step(self) -> None:
        """The batches are there."""
        self._step_began = time.perf_counter()
        self._waited += self._step_began - self._waiting_since

    def end_step(self, samples: int) -> float:
        """Seconds of the step, its wait included."""
        now = time.perf_counter()
        self._stepped += now - self._step_began
        self._samples += samples
        return now - self._waiting_since

    def speeds(self) -> dict[str, float]:
        """Samples per second and the share of waiting since the last call."""
        total = self._waited + self._stepped
        line = {
            "samples_per_second": round(self._samples / total, 2),
            "loader_wait_share": round(self._waited / total, 4),
        }
        self._waited = self._stepped = 0.0
        self._samples = 0
        return line

    def running(self) -> float:
        """Seconds since the last call, evaluations and all."""
        now = time.perf_counter()
        seconds, self._started = now - self._started, now
        return seconds

"""The training loop, without Ray: restore, then steps, each settled before the next.

Settling a step logs, saves and evaluates it as far as due. A run is a function of its config and
its step: sample order, random numbers and learning rate follow from the step. A checkpoint and
its step's number are all that resuming takes. (Over 300 lines, because every method of `Loop` works
on the same state.)
"""

import statistics
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from typing import Any

from ocr.files import read_object, write_json
from ocr.settings import written_yaml
from trainers.config import TrainConfig
from trainers.families.task import EvaluationSums, MicroBatch, Task
from trainers.loop import checkpoint as checkpoints
from trainers.loop import faults
from trainers.loop.batches import Prefetcher, micro_batches_of
from trainers.loop.checkpoint import Checkpoint, CheckpointThread, Snapshot
from trainers.loop.doing import CHECKPOINT, END, EVALUATION, HALTED, STEPS
from trainers.loop.engines import engine_for
from trainers.loop.engines.engine import Engine, LossScale, NotFiniteError, StepResult
from trainers.loop.lease import Writer
from trainers.loop.logs import Logs
from trainers.loop.notices import HALT, NOTHING
from trainers.loop.run_state import (
    EXACT,
    Evaluations,
    RunContext,
    TrainState,
    best_step,
    find,
    in_steps,
    is_over,
    plan_of,
    planned_steps,
)
from trainers.loop.schedule import learning_rate
from trainers.loop.trackers import Reported

# max_minutes is turned into steps by the median of TIMED_STEPS, after the first WARMUP_STEPS_…
WARMUP_STEPS_OF_TIMING, TIMED_STEPS = 5, 20

OnEvaluation = Callable[[dict[str, Any], Checkpoint | None], None]
OnLine = Callable[[dict[str, Any]], None]


def fit(
    config: TrainConfig,
    task: Task,
    context: RunContext,
    stop_after: int | None = None,
    on_evaluation: OnEvaluation | None = None,
    on_line: OnLine | None = None,
) -> TrainState:
    """Train from the run directory's newest checkpoint to the end, or to the step `stop_after`.

    Stopping writes a checkpoint. Every worker calls `fit` with the same arguments but
    `context.workers`. The first worker calls `on_line` with each line of its logs. Raises UserError
    (DamagedCheckpoint, NotFiniteError …).
    """
    with closing(Loop(config, task, context, on_evaluation, on_line)) as loop:
        loop.restore()
        loop.settle(restored=True)
        loop.doing.what = STEPS
        with closing(loop.coming_batches(stop_after)) as coming:
            for micro_batches, batches in coming:
                loop.take_step(micro_batches, batches)
                loop.settle(stopping=loop.state.step == stop_after)
                loop.halt_if_asked()
                if loop.is_over:
                    break
        return loop.state


class Loop:
    """One process's part in a run, which `fit` drives."""

    def __init__(
        self,
        config: TrainConfig,
        task: Task,
        context: RunContext,
        on_evaluation: OnEvaluation | None,
        on_line: OnLine | None = None,
    ) -> None:
        self.plan = plan_of(config, task.widths, task.replayed)
        self.config, self._config_yaml = in_steps(config, self.plan), written_yaml(config).decode()
        self.task, self.context, self.workers = task, context, context.workers
        self.doing = context.doing
        self.engine: Engine  # from `restore` on
        self.state = TrainState(max_steps=planned_steps(config, self.plan))
        self.evaluations: Evaluations = {}
        self.writer: Writer | None = None  # the first worker's
        if self.workers.first:
            self.writer = Writer.claim(context.place, context.attempt)
        self.saver = CheckpointThread(self._publish)
        self.logs: Logs | None = None  # the first worker's, from `restore` on
        self._on_evaluation, self._on_line = on_evaluation, on_line
        self._latest: Checkpoint | None = None
        self._timed: list[float] = []
        self._length_is_new = False
        self._notice = NOTHING  # the one of the step just taken
        self.clock = Clock()

    @property
    def is_over(self) -> bool:
        """Whether the last step was taken, or patience ran out."""
        return is_over(self.config, self.state, self.evaluations)

    def restore(self) -> None:
        """Take everything from the newest good checkpoint; without any, stay at step 0."""
        checkpoint, damaged, self.evaluations = self.workers.from_first(
            self._newest_checkpoint() if self.workers.first else None
        )
        if checkpoint and self.context.bucket:  # each machine has a copy of its own
            copy = checkpoints.directory_of(self.context.run_dir, checkpoint.step)
            checkpoint = checkpoints.verify_hashes(copy, self.context.run_id)
        self._latest = checkpoint
        if checkpoint:
            checkpoints.load_trained_state(self.task.network, checkpoint.weights())
            state, environment = checkpoint.state(), self.context.environment
            self.state = TrainState(**state["train"]).resume(
                self.state.max_steps, state["environment"], environment
            )
        self._make_engine(checkpoint)
        if self.workers.first:
            self._open_logs(checkpoint)
            self._log_restart(damaged)

    def _make_engine(self, checkpoint: Checkpoint | None) -> None:
        device, precision = self.context.device, self.context.precision
        self.engine = engine_for(self.task, self.config, self.workers, device, precision)
        if checkpoint:
            self.engine.load_state_dict(checkpoint.optimizer())
        if self.engine.scale and self.state.loss_scale:
            self.engine.scale = LossScale(**self.state.loss_scale)

    def _open_logs(self, checkpoint: Checkpoint | None) -> None:
        run_dir, run_id = self.context.run_dir, self.context.run_id
        metrics = checkpoint.metrics() if checkpoint else ""
        self.logs = Logs(
            run_dir, metrics, self.state.step, self.config.train.log_samples, self._on_line
        )
        last_step = checkpoint.step if checkpoint else -1
        self.logs.report(Reported(self.config, run_dir, run_id, last_step))

    def coming_batches(
        self, stop_after: int | None
    ) -> "Prefetcher[tuple[list[MicroBatch], list[Any]]]":
        """Return this worker's micro-batches of the steps to come, made a few steps ahead."""
        end = min(stop_after or sys.maxsize, self.state.max_steps or sys.maxsize)
        steps = range(self.state.step, self.state.step if self.is_over else end)
        return Prefetcher(steps, self._make)

    def take_step(self, micro_batches: list[MicroBatch], batches: list[Any]) -> None:
        """Take one optimizer step and add up its samples, loss and time."""
        state = self.state
        self.clock.begin_step()
        faults.point("step", state.step + 1, self.workers.rank)
        rate = learning_rate(self.config.optimizer, state.step, state.max_steps)
        asked = self.context.notices.asked() if self.workers.first else NOTHING
        with self.doing.step():
            result = self.engine.take_step(micro_batches, batches, rate, asked)
        self._notice = result.notice
        seconds = self.clock.end_step(result.samples)
        state.step += 1
        state.step_seconds += self.clock.last_step
        state.samples += result.samples
        state.loss_sum += result.loss * result.weight
        state.loss_weight += result.weight
        if result.overflow:
            self._log_overflow()
        self._log_samples(micro_batches)
        if state.max_steps is None:
            self._learn_length(seconds)
        if state.step % self.config.train.logging_steps == 0 or self._is_evaluation_due:
            self._log(result)

    def settle(self, restored: bool = False, stopping: bool = False) -> None:
        """Save, evaluate and log the step just taken, or just restored, as far as due."""
        state = self.state
        evaluates = self._is_evaluation_due and state.step not in self.evaluations
        if not state.step and evaluates:
            self._save_start()
        stopping = stopping or self._notice != NOTHING
        if state.step and not restored and (self._is_save_due or stopping):
            with self.doing.long(CHECKPOINT):
                self._save()
        if evaluates:
            with self.doing.long(EVALUATION):
                self._evaluate()
        if state.pending:
            record, state.pending = {**state.pending, **self.evaluations.get(state.step, {})}, None
            if self.logs:
                self.logs.write_metrics(record)
        self.clock.start_waiting()

    def halt_if_asked(self) -> None:
        """After HALT: the checkpoint is on the disk, and no step is taken for a while."""
        if self._notice != HALT:
            return
        with self.doing.long(CHECKPOINT):
            self.saver.wait()
        notices = self.context.notices
        if self.workers.first:
            self._log_event("halt", f"step {self.state.step:,} is saved; no step is taken now")
            notices.saved(self.state.step)
        seconds = self.workers.from_first(notices.seconds_to_halt())
        with self.doing.long(HALTED):
            time.sleep(seconds)
        self.clock.start_waiting()

    def close(self) -> None:
        """Wait for the checkpoint in flight and close the files."""
        self.doing.what = END
        try:
            self.saver.wait()
        finally:
            if self.logs:
                self.logs.close()
                if self.context.bucket:
                    self.context.bucket.push_logs()

    @property
    def _is_save_due(self) -> bool:
        is_saved = self.state.step % self.config.train.save_steps == 0
        return is_saved or self._is_evaluation_due or self._length_is_new

    @property
    def _is_evaluation_due(self) -> bool:
        state, train = self.state, self.config.train
        if not state.step:
            return train.eval_on_start
        return state.step % train.eval_steps == 0 or state.step == state.max_steps

    def _save_start(self) -> None:
        """Give the initial weights a checkpoint and a metrics line of their own."""
        self.state.pending = {"step": 0, "samples": 0, "epoch": 0.0}
        if self._latest is None:
            self._save()

    def _log_overflow(self) -> None:
        self.state.skipped_steps += 1
        step, scale = self.state.step, self.engine.scale
        assert scale
        text = f"step {step:,}: overflow in fp16, no weight was changed; loss scale now "
        self._log_event("overflow", f"{text}{scale.value:g}")

    def _log_event(self, event: str, text: str) -> None:
        if self.logs:
            self.logs.write_timing({"event": event, "step": self.state.step, "text": text})

    def _make(self, step: int) -> tuple[list[MicroBatch], list[Any]]:
        faults.point("batch", step + 1, self.workers.rank)
        micro_batches = micro_batches_of(self.plan, step, self.workers.rank, self.workers.world)
        epoch = self.plan.epoch_of(step)
        return micro_batches, [self.task.batch(each, epoch) for each in micro_batches]

    def _newest_checkpoint(self) -> tuple[Checkpoint | None, list[str], Evaluations]:
        """Return the checkpoint to resume from, and set later ones aside."""
        run_dir = self.context.run_dir
        checkpoints.clear_leftovers(run_dir)
        checkpoint, damaged = find(run_dir, self.context.run_id)
        checkpoints.set_aside(run_dir, checkpoint.step if checkpoint else 0)
        return checkpoint, damaged, checkpoints.evaluations(run_dir)

    def _log_restart(self, damaged: list[str]) -> None:
        for problem in damaged:
            self._log_event("damaged", f"skipped {problem}")
        if self.state.step:
            exactness = self.state.resumed_at[-1]["exactness"]
            how = "continues exactly" if exactness == EXACT else f"continues, {exactness}"
            self._log_event("restart", f"{how}, from step {self.state.step:,}")

    def _log_samples(self, micro_batches: list[MicroBatch]) -> None:
        if not self.config.train.log_samples:
            return
        mine = [
            (each.index, [self.task.train_ids[index] for index in each.samples])
            for each in micro_batches
            if each.weight
        ]
        everyone = sorted(pair for pairs in self.workers.gather(mine) for pair in pairs)
        if self.logs:
            self.logs.write_samples(self.state.step, [id for _, ids in everyone for id in ids])

    def _learn_length(self, seconds: float) -> None:
        """Turn max_minutes into max_steps, once, by the median time of the first worker's steps."""
        self._timed.append(seconds)
        if len(self._timed) < WARMUP_STEPS_OF_TIMING + TIMED_STEPS:
            return
        assert self.config.train.max_minutes
        left = self.config.train.max_minutes * 60 - sum(self._timed)
        per_step = statistics.median(self._timed[WARMUP_STEPS_OF_TIMING:])
        max_steps = self.state.step + max(1, round(left / per_step))
        self.state.max_steps = self.workers.from_first(max_steps)
        self._length_is_new = True

    def _log(self, result: StepResult) -> None:
        """Write the step's line of timings.jsonl, and make its line of metrics.jsonl.

        `settle` writes the line of metrics.jsonl, with an evaluation where one is due.
        """
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
            goodput = min(1.0, round(state.step_seconds / self.logs.wall_seconds(), 4))
            self.logs.write_timing({"step": state.step, **self.clock.speeds(), "goodput": goodput})

    def _save(self) -> None:
        """Copy everything to the CPU and let the first worker's thread write it.

        Raises NotFiniteError on all workers rather than save a NaN.
        """
        state, began = self.state, time.perf_counter()
        weights, optimizer = self.engine.weights(), self.engine.state_dict()
        if bad := checkpoints.not_finite(weights):
            raise NotFiniteError(
                f"step {state.step}: the weights {', '.join(bad[:5])} are not finite; "
                "no checkpoint was written. Lower optimizer.learning_rate"
            )
        state.training_seconds += self.clock.running()
        state.loss_scale = asdict(self.engine.scale) if self.engine.scale else None
        self._length_is_new = False
        if self.logs:
            self.logs.sync()
            plain = {"train": asdict(state), "environment": self.context.environment}
            self.saver.save(
                Snapshot(
                    state.step, weights, optimizer, plain, self._config_yaml, self.logs.metrics
                )
            )
            self._log_seconds("checkpoint", began)

    def _publish(self, snapshot: Snapshot) -> None:
        """Write a checkpoint, note it in run.json, and prune; runs in the writer's thread."""
        assert self.writer
        run_dir, run_id = self.context.run_dir, self.context.run_id
        self._latest = checkpoints.write_checkpoint(run_dir, run_id, snapshot, self.writer)
        record = read_object(run_dir / "run.json") or {"run": run_id}
        write_json(run_dir / "run.json", {**record, "last_published": snapshot.step})
        if self.context.bucket:
            self.context.bucket.publish(self._latest, self.writer)
        best = best_step(self.config, self.evaluations)
        keep = [] if best is None else [best]
        checkpoints.prune(run_dir, self.config.train.save_total_limit, keep)
        if self.context.bucket:
            self.context.bucket.prune()

    def _log_seconds(self, what: str, began: float) -> None:
        """Log how long training stopped for a checkpoint's copy, or for an evaluation."""
        if self.logs:
            seconds = round(time.perf_counter() - began, 3)
            self.logs.write_timing({"step": self.state.step, f"{what}_seconds": seconds})

    def _evaluate(self) -> None:
        """Read the validation samples, each worker its share, after this step's checkpoint."""
        self.saver.wait()
        began = time.perf_counter()
        faults.point("before_evaluation", self.state.step, self.workers.rank)
        together = self.engine.reads_together
        result: dict[str, Any] = {"step": self.state.step, **self._evaluation_sums().rates()}
        if (self.workers.first or together) and (example := self.task.example()):
            result["inference_check"] = example
        self.evaluations[self.state.step] = result
        if self.writer and self.logs:
            self.writer.require()
            write_json(checkpoints.evaluation_of(self.context.run_dir, self.state.step), result)
            if self.context.bucket:
                self.context.bucket.push_evaluation(self.state.step)
            self._log_seconds("evaluation", began)
        if self._on_evaluation:
            self._on_evaluation(result, self._latest)

    def _evaluation_sums(self) -> EvaluationSums:
        indices = self.task.validation
        if self.engine.reads_together:
            mine = self.task.evaluate(indices).as_vector()
            return EvaluationSums.from_vector(self.workers.from_first(mine))
        mine = self.task.evaluate(indices[self.workers.rank :: self.workers.world]).as_vector()
        return EvaluationSums.from_vector(self.workers.sum_counts(mine))


class Clock:
    """Measures the steps since the last line of timings.jsonl, and their wait for batches."""

    def __init__(self) -> None:
        self._started = self._waiting_since = self._step_began = time.perf_counter()
        self._waited = self._stepped = 0.0
        self._samples = 0
        self.last_step = 0.0  # seconds, its wait for batches left out

    def start_waiting(self) -> None:
        """Note that the loop waits for the next batches from now on."""
        self._waiting_since = time.perf_counter()

    def begin_step(self) -> None:
        """Note that the batches have arrived."""
        self._step_began = time.perf_counter()
        self._waited += self._step_began - self._waiting_since

    def end_step(self, samples: int) -> float:
        """Return the seconds of the step, its wait included."""
        now = time.perf_counter()
        self.last_step = now - self._step_began
        self._stepped += self.last_step
        self._samples += samples
        return now - self._waiting_since

    def speeds(self) -> dict[str, float]:
        """Return samples per second and the share of waiting since the last call."""
        total = self._waited + self._stepped
        line = {
            "samples_per_second": round(self._samples / total, 2),
            "loader_wait_share": round(self._waited / total, 4),
        }
        self._waited = self._stepped = 0.0
        self._samples = 0
        return line

    def running(self) -> float:
        """Return the seconds since the last call, evaluations included."""
        now = time.perf_counter()
        seconds, self._started = now - self._started, now
        return seconds

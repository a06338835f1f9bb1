"""Trackers that get the lines of metrics.jsonl too (`report_to`): TensorBoard, W&B, MLflow.

Each tracker knows the last step that it keeps and gets the steps after it alone: a resumed run
reports no step twice. A tracker that lost lines, or was added later, gets them from the restored
ones. Addresses and keys are read from the environment of the first worker: WANDB_MODE,
WANDB_API_KEY, MLFLOW_TRACKING_URI … (Over 300 lines: three trackers and their common part.)
"""

import hashlib
import os
import shlex
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from ocr.errors import UserError, first_line
from ocr.json_lines import lines_of
from ocr.settings import flattened, resolved
from trainers.config import TrainConfig

PROJECT = "lipi"
_PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}
_PARAMS_AT_ONCE = 100  # MLflow's limit
# of the environment: no telemetry, and at most a minute's wait for a server that is gone
_DEFAULTS = {
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_INIT_TIMEOUT": "30",
    "WANDB_FINISH_TIMEOUT": "60",
    "WANDB_FINISH_TIMEOUT_RAISES": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


@dataclass(frozen=True, slots=True)
class Reported:
    """The run that is reported; `step` is that of the checkpoint it resumes from, or -1."""

    config: TrainConfig
    run_dir: Path
    run_id: str
    step: int

    @property
    def key(self) -> str:
        """Sixteen hexadecimal digits of identity and name, equal whenever the run is resumed."""
        return hashlib.sha256(f"{self.run_id} {self.config.run_name}".encode()).hexdigest()[:16]


class Tracker(Protocol):
    """A service that keeps numbers by step; `last` is the last step that it keeps.

    It may raise anything.
    """

    last: int

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Keep the numbers of one step, later than `last`."""

    def close(self) -> None:
        """Send what is left."""


class Trackers:
    """The open trackers of a run.

    A tracker that fails is reported once through `log_event` and closed; the run continues.
    """

    def __init__(
        self, reported: Reported, restored: str, log_event: Callable[[dict[str, Any]], None]
    ) -> None:
        """Open the trackers of `report_to`, and send them `restored` lines that they lack."""
        self._log_event, self._step = log_event, max(0, reported.step)
        self._open: dict[str, Tracker] = {}
        for name in dict.fromkeys(reported.config.report_to):
            os.environ.update({**_DEFAULTS, **os.environ})
            with self._surviving(name):
                self._open[name] = _KINDS[name](reported)
        if "tensorboard" in self._open:
            log_event({"event": "viewer", "step": self._step, "text": _viewer(reported.run_dir)})
        for line in lines_of(restored.encode()).values if self._open else ():
            self.send(line)

    def send(self, record: Mapping[str, Any]) -> None:
        """Send the numbers of one line to each tracker that lacks its step."""
        self._step = record["step"]
        numbers = {
            key: float(value)
            for key, value in record.items()
            if key != "step" and isinstance(value, (int, float)) and not isinstance(value, bool)
        }
        for name, tracker in list(self._open.items()):
            if self._step > tracker.last:
                with self._surviving(name):
                    tracker.log(self._step, numbers)

    def close(self) -> None:
        """Close them all."""
        for name, tracker in list(self._open.items()):
            with self._surviving(name):
                tracker.close()

    @contextmanager
    def _surviving(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as problem:  # noqa: BLE001  (no run shall end because of a chart)
            self._open.pop(name, None)
            kind = type(problem).__name__
            why = first_line(problem) if str(problem).strip() else ""
            text = f"report_to {name} failed, the run continues without it: {kind}: {why}"
            self._log_event({"event": "tracker", "step": self._step, "text": text})


def _viewer(run_dir: Path) -> str:
    """Return how to look at the charts; the package that writes them has no viewer."""
    first = "" if _is_installed("tensorboard") else "pip install tensorboard, then "
    return f"charts: {first}tensorboard --logdir {shlex.quote(str(run_dir / 'tensorboard'))}"


def require_packages(names: Sequence[str]) -> None:
    """Raise UserError where a tracker's package is missing, before a run starts."""
    if missing := [
        package
        for name, package in _PACKAGES.items()
        if name in names and not _is_installed(package)
    ]:
        listed = " ".join(missing)
        raise UserError(
            f"report_to=[{', '.join(names)}]: {' and '.join(missing)} not installed; "
            f"pip install {listed}, or set another report_to"
        )


def _is_installed(package: str) -> bool:
    """Return whether it is a package; a folder such as W&B's wandb/ is none."""
    found = find_spec(package)
    return found is not None and found.origin is not None


class _TensorBoard:
    """Event files in run_dir/tensorboard, flushed with every line.

    Steps after `last` are purged.
    """

    def __init__(self, reported: Reported) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        folder = reported.run_dir / "tensorboard"
        folder.mkdir(exist_ok=True)
        self.last = max((step for step in _steps_in(folder) if step <= reported.step), default=-1)
        # a file of its own, even within the same second
        self._writer = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
        purge_step = self.last + 1
        self._writer.write_event(
            Event(
                wall_time=time.time(),
                step=purge_step,
                session_log=SessionLog(status=SessionLog.START),
            )
        )

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=key, simple_value=value) for key, value in numbers.items()]
        self._writer.write_event(
            Event(wall_time=time.time(), step=step, summary=Summary(value=values))
        )
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def _steps_in(folder: Path) -> set[int]:
    """Return the steps that TensorBoard shows; a session's start purges those from its step on."""
    steps = set[int]()
    for file in sorted(folder.glob("events.out.tfevents.*")):
        for event in _events_in(file):
            if event.HasField("session_log"):
                steps = {step for step in steps if step < event.step}
            elif event.HasField("summary"):
                steps.add(event.step)
    return steps


def _events_in(file: Path) -> Iterator[Any]:
    """Yield the whole records (length, its checksum, data, its checksum) of an event file.

    A killed process leaves a part of a record at the end.
    """
    from tensorboardX.proto.event_pb2 import Event

    with open(file, "rb") as records:
        while len(head := records.read(12)) == 12:
            data = records.read(struct.unpack("<Q", head[:8])[0])
            if len(records.read(4)) < 4:
                return
            yield Event.FromString(data)


class _WeightsAndBiases:
    """A W&B run of the project lipi, below run_dir/wandb.

    It is offline unless WANDB_MODE or WANDB_API_KEY is set. Online W&B continues its run, gives its
    last step and keeps its numbers. Offline it cannot: it would upload two folders of one run one
    after the other (wandb 0.31). Each start therefore writes the whole run anew and sets earlier
    folders aside.
    """

    def __init__(self, reported: Reported) -> None:
        import wandb

        mode = os.environ.get("WANDB_MODE") or (
            "online" if "WANDB_API_KEY" in os.environ else "offline"
        )
        offline = mode in ("offline", "dryrun")
        if offline:
            _set_aside(reported.run_dir / "wandb", f"offline-run-*-{reported.key}")
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=reported.config.run_name,
            id=reported.key,
            resume=None if offline else "allow",
            dir=reported.run_dir,
            mode=mode,
            config=resolved(reported.config),
            allow_val_change=True,
            settings=wandb.Settings(silent=True, console="off"),
        )
        self.last = int(self._run.starting_step) - 1

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log(dict(numbers), step=step, commit=True)

    def close(self) -> None:
        self._run.finish()


def _set_aside(folder: Path, pattern: str) -> None:
    for old in folder.glob(pattern):
        (folder / "superseded").mkdir(exist_ok=True)
        old.rename(folder / "superseded" / old.name)


class _MlFlow:
    """An MLflow run of the experiment lipi, at MLFLOW_TRACKING_URI or in run_dir/mlflow.db.

    A tag identifies it. Its metrics cannot be withdrawn, so steps that it has are not sent again.
    """

    def __init__(self, reported: Reported) -> None:
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(
            tracking_uri=os.environ.get("MLFLOW_TRACKING_URI")
            or f"sqlite:///{reported.run_dir / 'mlflow.db'}"
        )
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        experiment_id = (
            experiment.experiment_id if experiment else self._client.create_experiment(name)
        )
        found = self._client.search_runs(
            [experiment_id], f"tags.`lipi.run` = '{reported.key}'", max_results=1
        )
        self._run_id = found[0].info.run_id if found else self._new_run(experiment_id, reported)
        self._client.update_run(self._run_id, status="RUNNING")
        self.last = max(
            (metric.step for metric in self._client.get_metric_history(self._run_id, "samples")),
            default=-1,
        )

    def _new_run(self, experiment_id: str, reported: Reported) -> str:
        from mlflow.entities import Param

        run = self._client.create_run(
            experiment_id, run_name=reported.config.run_name, tags={"lipi.run": reported.key}
        )
        settings = [
            Param(key, str(value)) for key, (value, _) in flattened(reported.config).items()
        ]
        for start in range(0, len(settings), _PARAMS_AT_ONCE):
            self._client.log_batch(
                run.info.run_id, params=settings[start : start + _PARAMS_AT_ONCE]
            )
        return str(run.info.run_id)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(
            self._run_id, metrics=[Metric(key, value, now, step) for key, value in numbers.items()]
        )

    def close(self) -> None:
        self._client.set_terminated(self._run_id)


_KINDS: dict[str, Callable[[Reported], Tracker]] = {
    "tensorboard": _TensorBoard,
    "wandb": _WeightsAndBiases,
    "mlflow": _MlFlow,
}

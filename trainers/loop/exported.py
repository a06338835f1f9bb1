"""The numbers of a run for Prometheus, from the lines of its logs.

Only gauges: the process that trains may be restarted, and a gauge continues where a counter would
begin at 0. Ray forgets a gauge once it is exported, so all are set again every few seconds. The
class of the gauges arrives as an argument, since Ray is not imported here.
"""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from trainers.report.records import finite, read_records

_SET_AGAIN_SECONDS = 5.0  # Ray exports every ten

# key of a line → gauge and what it says
GAUGES = {
    "step": ("lipi_train_step", "Optimizer steps taken"),
    "samples": ("lipi_train_samples", "Samples trained on, repeated ones counted once"),
    "epoch": ("lipi_train_epoch", "Passes over the training data"),
    "loss": ("lipi_train_loss", "Mean training loss since the line before"),
    "grad_norm": ("lipi_train_grad_norm", "Norm of the gradient before clipping"),
    "learning_rate": ("lipi_train_learning_rate", "Learning rate of the last step"),
    "eval_loss": ("lipi_train_eval_loss", "Validation loss"),
    "eval_cer": ("lipi_train_cer", "Character error rate of the validation samples, 0.01 is 1 %"),
    "samples_per_second": ("lipi_train_samples_per_second", "Samples per second of all workers"),
    "loader_wait_share": ("lipi_train_wait_share", "Share of the time that waits for data"),
    "goodput": ("lipi_train_goodput", "Share of the wall time spent in steps that were kept"),
    "checkpoint_seconds": ("lipi_train_checkpoint_seconds", "Pause of the last checkpoint"),
    "evaluation_seconds": ("lipi_train_evaluation_seconds", "Pause of the last evaluation"),
    "restarts": ("lipi_train_restarts", "How often the run was resumed from a checkpoint"),
}


class Gauge(Protocol):
    """A number with tags, as ray.util.metrics has it."""

    def set(self, value: float, tags: dict[str, str]) -> None:
        """Set it."""


class MakesGauges(Protocol):
    """The class of gauges."""

    def __call__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> Gauge:
        """Return a gauge."""


class Exported:
    """The gauges of one run, tagged with its name, for as long as the `with` block runs.

    The first worker's lines set them. Nothing here ends a run: a failure ends the gauges alone.
    """

    def __init__(self, run_name: str, run_dir: Path, gauge: MakesGauges) -> None:
        self._tags, self._make = {"run": run_name}, gauge
        self._timings = run_dir / "timings.jsonl"
        self._gauges: dict[str, Gauge] = {}
        self._values: dict[str, float] = {}
        self._restarts: int | None = None
        self._lock, self._stopped = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._set_again, name="lipi-gauges", daemon=True)

    def __enter__(self) -> "Exported":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def line(self, line: Mapping[str, Any]) -> None:
        """Take the numbers that a line of metrics.jsonl or timings.jsonl has."""
        self._surviving({**line, **self._restarts_by(line)})

    def _set_again(self) -> None:
        while not self._stopped.wait(_SET_AGAIN_SECONDS):
            self._surviving({})

    def _surviving(self, line: Mapping[str, Any]) -> None:
        if self._stopped.is_set():
            return
        try:
            with self._lock:
                self._values |= {key: line[key] for key in GAUGES if finite(line.get(key))}
                self._set_all()
        except Exception as problem:  # noqa: BLE001  (no run shall end because of a chart)
            self._stopped.set()
            print(f"metrics for Prometheus ended, the run continues: {problem}", flush=True)

    def _set_all(self) -> None:
        for key, value in self._values.items():
            if key not in self._gauges:
                name, about = GAUGES[key]
                self._gauges[key] = self._make(name, about, ("run",))
            self._gauges[key].set(float(value), self._tags)

    def _restarts_by(self, line: Mapping[str, Any]) -> dict[str, int]:
        """Return the count of restarts once, and again after each one.

        The line of a restart is in the file before it arrives here.
        """
        if self._restarts is None or line.get("event") == "restart":
            lines = read_records(self._timings).lines
            self._restarts = sum(each.get("event") == "restart" for each in lines)
            return {"restarts": self._restarts}
        return {}

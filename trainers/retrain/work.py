"""The heavy parts of a retraining, and where they are done.

What reads slowly without a GPU is read with where a worker would be: a Ray job's own process has
none. No Ray here: `ray_jobs/retrain.py` gives what does it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ocr.bundle import MANIFEST
from ocr.dataset.read import Dataset
from ocr.evaluation import Evaluation, evaluate
from ocr.mirror import copied
from ocr.place import Place
from ocr.recognizers.factory import load
from trainers.config import TrainConfig
from trainers.families import family_of
from trainers.runs.export import export_run
from trainers.runs.job import Job

AtAWorker = Callable[..., Any]  # trainers.finish_on_ray.at_a_worker


@dataclass(frozen=True, slots=True)
class Work:
    """How a retraining trains, and how it ends runs and reads; None: in this process."""

    train: Callable[[Job], None]
    finish: Callable[[Job, str], None] | None = None
    at_a_worker: AtAWorker | None = None

    def read(
        self, config: TrainConfig, bundle: str, data: Dataset, indices: Sequence[int] | None
    ) -> Evaluation:
        """Return how a bundle reads samples (None: all); `config`: of a run of its family."""
        device = "cpu" if config.device == "cpu" else None
        found: Evaluation = self._done(config, "readings", _read, bundle, data, indices, device)
        return found

    def merged(self, config: TrainConfig) -> str:
        """Return a finished run's best checkpoint as a merged bundle, exported unless it is there.

        Raises GateFailed where it does not read as the trained network.
        """
        if not Place(config.address).has(f"merged/{MANIFEST}"):
            self._done(config, "merged weights", _merge, config.address)
        return f"{config.address}/merged"

    def _done(
        self, config: TrainConfig, what: str, work: Callable[..., Any], *arguments: Any
    ) -> Any:
        if self.at_a_worker is None or not family_of(config).finishes_on_gpu:
            return work(*arguments)
        log = config.local_run_dir / "ray" / f"{work.__name__.strip('_')}.log"
        return self.at_a_worker(config, what, log, work, *arguments)


def _read(
    bundle: str, data: Dataset, indices: Sequence[int] | None, device: str | None
) -> Evaluation:
    return evaluate(load(bundle, None, device), data, indices)


def _merge(address: str) -> None:
    with copied(address) as run_dir:
        export_run(run_dir, ["format=merged"])

"""A model family: its functions that check data, build a task and export."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocr.dataset.read import Dataset
from ocr.errors import UserError
from trainers.config import TrainConfig
from trainers.families.export_gate import Exported
from trainers.families.splits import Splits, Trained
from trainers.families.task import Task, UsableSamples

Exporter = Callable[[Any, Path, Mapping[str, Any]], Exported]


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of recogniser that can be trained."""

    name: str
    usable_samples: Callable[[TrainConfig, Trained, Dataset], UsableSamples]
    preflight: Callable[[TrainConfig, Splits], str]  # a table; UserError where anything is wrong
    origins: Callable[[TrainConfig], dict[str, str]]  # SHA-256 of the weights at the start
    new_task: Callable[[TrainConfig, Any, Trained, Dataset, str, str], Any]
    exporters: Mapping[str, Exporter]  # by form: bundle, merged, gguf
    finishes_on_gpu: bool  # whether reading is too slow without one

    def task(
        self,
        config: TrainConfig,
        usable: UsableSamples,
        train: Trained,
        validation: Dataset,
        device: str,
        precision: str,
    ) -> Task:
        """Return a task with a new network, or one that starts from `train.init_from`."""
        task = self.new_task(config, usable, train, validation, device, precision)
        if config.train.init_from:
            task.init_from(config.train.init_from)
        return task  # type: ignore[no-any-return]

    def export(
        self, task: Task, path: Path, card: Mapping[str, Any], form: str = "bundle"
    ) -> Exported:
        """Write the task's network to `path` through the export gate.

        Raises UserError for a form that the family does not have.
        """
        if form not in self.exporters:
            raise UserError(
                f"format={form}: expected one of {', '.join(self.exporters)} or onnx for "
                f"model.kind={task.config.model.kind}, which has no adapter"
            )
        return self.exporters[form](task, path, card)

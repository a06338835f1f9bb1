"""A finished run exported again: other backends, another decoding, or the mean of several checkpoints' weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ocr.errors import UserError
from ocr.settings import Setting, Settings, changed_settings, load_settings, settings_from
from trainers import checkpoint as checkpoints
from trainers.checkpoint import Checkpoint
from trainers.config import TrainConfig
from trainers.export.exported import Exported
from trainers.families import card_of, export
from trainers.launch import Data, finishing_task


class ExportRequest(Settings):
    """What `export.py` takes besides the run's own settings."""

    format: Literal["bundle", "onnx"] = Setting("bundle", on_resume="free", description="a bundle with the run's backends, or with both ONNX ones besides")
    output: str | None = Setting(None, on_resume="free", description="the bundle's folder; null: RUN/bundle, or RUN/bundle-averageK")
    data_name: str | None = Setting(None, on_resume="free", description="what the card says of the data, in place of its folder on this machine")
    average: int = Setting(1, ge=1, on_resume="free", description="mean of the weights of so many checkpoints")
    of: Literal["best", "last"] = Setting("best", on_resume="free", description="which checkpoints: those of the lowest metric_for_best_model, or the newest")


def export_run(run_dir: Path, overrides: Sequence[str]) -> Exported:
    """Write a bundle of the run's checkpoints by its config with `overrides` (export.…, decoding.…, average, of, output); UserError where there are too few."""
    if not (run_dir / "config.yaml").is_file():
        raise UserError(f"{run_dir}: not a run (no config.yaml); give a folder such as runs/odia-ctc")
    own = [word for word in overrides if word.partition("=")[0] in ExportRequest.model_fields]
    request = settings_from(ExportRequest, {}, own, "export.py")
    config = _config(run_dir, [word for word in overrides if word not in own])
    if request.format == "onnx":
        backends = tuple(dict.fromkeys((*config.export.backends, "onnx-fp32", "onnx-int8")))
        config = config.model_copy(update={"export": config.export.model_copy(update={"backends": backends})})
    chosen = _checkpoints(config, run_dir, request)
    data = Data.open(config)
    task = finishing_task(config, data, run_dir)
    checkpoints.load_trained_state(task.network, averaged([checkpoint.weights() for checkpoint in chosen]))
    target = Path(request.output) if request.output else run_dir / ("bundle" if request.average == 1 else f"bundle-average{request.average}")
    card = card_of(task, [checkpoint.step for checkpoint in chosen], data.fingerprints)
    return export(task, target, {**card, "data": request.data_name} if request.data_name else card)


def averaged(weights: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each tensor, running statistics included (Izmailov et al. 2018, without their extra pass); counters are the last one's."""
    mean = {name: torch.stack([each[name].double() for each in weights]).mean(0).to(tensor.dtype) for name, tensor in weights[-1].items()}
    return {name: mean[name] if tensor.is_floating_point() else tensor for name, tensor in weights[-1].items()}


def _config(run_dir: Path, overrides: Sequence[str]) -> TrainConfig:
    before = load_settings(TrainConfig, run_dir / "config.yaml")
    config = load_settings(TrainConfig, run_dir / "config.yaml", overrides)
    foreign = [key for key in changed_settings(before, config) if not key.startswith(("export.", "decoding."))]
    if foreign:
        raise UserError(f"{', '.join(foreign)}: settings of the training; export.py takes export.…, decoding.…, {', '.join(ExportRequest.model_fields)}")
    return config


def _checkpoints(config: TrainConfig, run_dir: Path, request: ExportRequest) -> list[Checkpoint]:
    """The wanted checkpoints by step, each verified."""
    evaluations, steps = checkpoints.evaluations(run_dir), checkpoints.steps_of(run_dir)
    if request.of == "best":
        steps = sorted((step for step in steps if step in evaluations), key=lambda step: -evaluations[step][config.train.metric_for_best_model])
    if len(steps) < request.average:
        raise UserError(
            f"{run_dir}: average={request.average} of={request.of}: {len(steps)} such checkpoints are there; raise train.save_total_limit for the next run"
        )
    return [checkpoints.verify(checkpoints.directory_of(run_dir, step)) for step in sorted(steps[-request.average :])]

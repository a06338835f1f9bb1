"""A finished run exported again: other backends, another decoding, or the mean of several checkpoints' weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ocr.errors import UserError
from ocr.files import read_json
from ocr.hub import upload
from ocr.settings import Setting, Settings, changed_settings, load_settings, settings_from
from trainers.config import TrainConfig
from trainers.families import card_of, export
from trainers.families.export_gate import Exported
from trainers.loop import checkpoint as checkpoints
from trainers.loop.checkpoint import Checkpoint
from trainers.runs.launch import Data, finishing_task


class ExportRequest(Settings):
    """What `export.py` takes besides the run's own settings."""

    format: Literal["bundle", "onnx", "merged", "gguf", "hub"] = Setting(
        "bundle",
        on_resume="free",
        description="a bundle with the run's backends, or with both ONNX ones besides; base and adapter merged; "
        "files for llama.cpp (export.llama_cpp); or `upload` on the Hugging Face hub",
    )
    output: str | None = Setting(
        None,
        on_resume="free",
        description="the bundle's folder; null: RUN/bundle, RUN/merged, RUN/gguf, or RUN/bundle-averageK",
    )
    upload: Literal["bundle", "merged", "gguf"] = Setting(
        "bundle", on_resume="free", description="what format=hub exports and uploads"
    )
    repo_id: str | None = Setting(
        None,
        on_resume="free",
        pattern=r"^[\w.-]+/[\w.-]+$",
        description="OWNER/NAME on the hub; the token comes from HF_TOKEN alone",
    )
    private: bool = Setting(
        True, on_resume="free", description="whether a repository that format=hub makes is private"
    )
    data_name: str | None = Setting(
        None,
        on_resume="free",
        description="what the card says of the data, in place of its folder on this machine",
    )
    average: int = Setting(
        1, ge=1, on_resume="free", description="mean of the weights of so many checkpoints"
    )
    of: Literal["best", "last"] = Setting(
        "best",
        on_resume="free",
        description="which checkpoints: those of the lowest metric_for_best_model, or the newest",
    )


def export_run(run_dir: Path, overrides: Sequence[str]) -> Exported:
    """Write a bundle of the run's checkpoints by its config with `overrides` (export.…, decoding.…, average, of, output); UserError where there are too few."""
    if not (run_dir / "config.yaml").is_file():
        raise UserError(
            f"{run_dir}: not a run (no config.yaml); give a folder such as runs/odia-ctc"
        )
    own = [word for word in overrides if word.partition("=")[0] in ExportRequest.model_fields]
    request = settings_from(ExportRequest, {}, own, "export.py")
    if request.format == "hub" and not request.repo_id:
        raise UserError("format=hub needs repo_id=OWNER/NAME")
    form: Any = {"onnx": "bundle", "hub": request.upload}.get(request.format, request.format)
    config = _config(run_dir, [word for word in overrides if word not in own])
    if request.format == "onnx":
        backends = tuple(dict.fromkeys((*config.export.backends, "onnx-fp32", "onnx-int8")))
        config = config.model_copy(
            update={"export": config.export.model_copy(update={"backends": backends})}
        )
    chosen = _checkpoints(config, run_dir, request)
    data = Data.open(config)
    task = finishing_task(config, data, run_dir)
    checkpoints.load_for_export(
        task.network,
        averaged([checkpoint.weights() for checkpoint in chosen]),
        config.export.initial_share,
    )
    target = (
        Path(request.output)
        if request.output
        else run_dir / (form if request.average == 1 else f"{form}-average{request.average}")
    )
    card = card_of(
        task, [checkpoint.step for checkpoint in chosen], data.fingerprints, _is_final(run_dir)
    )
    exported = export(
        task, target, {**card, "data": request.data_name} if request.data_name else card, form
    )
    if request.format == "hub" and request.repo_id:
        print(
            upload(
                target,
                request.repo_id,
                "model",
                request.private,
                f"{config.run_name}, step {card['step']}, exported by Lipi",
            ),
            flush=True,
        )
    return exported


def _is_final(run_dir: Path) -> bool:
    """Whether the run was finished when it was last trained."""
    report = run_dir / "report.json"
    return report.is_file() and read_json(report).get("step") == checkpoints.steps_of(run_dir)[-1]


def averaged(weights: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each tensor, running statistics included (Izmailov et al. 2018, without their extra pass); counters are the last one's."""
    mean = {
        name: torch.stack([each[name].double() for each in weights]).mean(0).to(tensor.dtype)
        for name, tensor in weights[-1].items()
    }
    return {
        name: mean[name] if tensor.is_floating_point() else tensor
        for name, tensor in weights[-1].items()
    }


def _config(run_dir: Path, overrides: Sequence[str]) -> TrainConfig:
    before = load_settings(TrainConfig, run_dir / "config.yaml")
    config = load_settings(TrainConfig, run_dir / "config.yaml", overrides)
    foreign = [
        key
        for key in changed_settings(before, config)
        if not key.startswith(("export.", "decoding."))
    ]
    if foreign:
        raise UserError(
            f"{', '.join(foreign)}: settings of the training; export.py takes export.…, decoding.…, {', '.join(ExportRequest.model_fields)}"
        )
    return config


def _checkpoints(config: TrainConfig, run_dir: Path, request: ExportRequest) -> list[Checkpoint]:
    """The wanted checkpoints by step, each verified."""
    evaluations, steps = checkpoints.evaluations(run_dir), checkpoints.steps_of(run_dir)
    if request.of == "best":
        steps = sorted(
            (step for step in steps if step in evaluations),
            key=lambda step: -evaluations[step][config.train.metric_for_best_model],
        )
    if len(steps) < request.average:
        raise UserError(
            f"{run_dir}: average={request.average} of={request.of}: {len(steps)} such checkpoints are there; raise train.save_total_limit for the next run"
        )
    return [
        checkpoints.verify(checkpoints.directory_of(run_dir, step))
        for step in sorted(steps[-request.average :])
    ]

"""A finished run exported again: other backends or decoding, or averaged checkpoints."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ocr.errors import UserError
from ocr.files import read_object
from ocr.hub import upload
from ocr.settings import changed_settings, settings_from
from trainers.config import TrainConfig, config_of_run
from trainers.config.export_request import ExportRequest
from trainers.families import family_of
from trainers.families.export_gate import Exported
from trainers.families.model_card import card_of
from trainers.loop import checkpoint as checkpoints
from trainers.loop.checkpoint import Checkpoint
from trainers.loop.run_state import best_step
from trainers.runs.finish import finishing_task
from trainers.runs.job import Data


def export_run(run_dir: Path, overrides: Sequence[str]) -> Exported:
    """Write a bundle of the run's checkpoints by its config.

    `overrides` are of ExportRequest, export.… and decoding.…. Raises UserError where there are
    fewer checkpoints than `average`.
    """
    if not (run_dir / "config.yaml").is_file():
        raise UserError(
            f"{run_dir}: not a run (no config.yaml); give a folder such as runs/odia-ctc"
        )
    own = [word for word in overrides if word.partition("=")[0] in ExportRequest.model_fields]
    request = settings_from(ExportRequest, {}, own, "export.py")
    if request.format == "hub" and not request.repo_id:
        raise UserError("format=hub needs repo_id=OWNER/NAME")
    config = _config(run_dir, [word for word in overrides if word not in own])
    if request.format == "onnx":
        config = _with_onnx(config, run_dir)
    chosen = _checkpoints(config, run_dir, request)
    data = Data.open(config)
    task = finishing_task(config, data, run_dir)
    weights = averaged([checkpoint.weights() for checkpoint in chosen])
    checkpoints.load_for_export(task.network, weights, config.export.initial_share)
    steps = [checkpoint.step for checkpoint in chosen]
    card = card_of(task, steps, data.fingerprints, _is_final(run_dir))
    if request.data_name:
        card["data"] = request.data_name
    target = _target(run_dir, request)
    exported = family_of(config).export(task, target, card, _form(request))
    if request.format == "hub" and request.repo_id:
        message = f"{config.run_name}, step {card['step']}, exported by Lipi"
        address = upload(target, request.repo_id, "model", request.private, message)
        print(address, flush=True)
    return exported


def _form(request: ExportRequest) -> str:
    """Return bundle, merged or gguf."""
    return {"onnx": "bundle", "hub": request.upload}.get(request.format, request.format)


def _target(run_dir: Path, request: ExportRequest) -> Path:
    if request.output:
        return Path(request.output)
    form = _form(request)
    return run_dir / (form if request.average == 1 else f"{form}-average{request.average}")


def _with_onnx(config: TrainConfig, run_dir: Path) -> TrainConfig:
    """Return the config with both ONNX backends besides the run's own.

    UserError for a vision-language model, which has none.
    """
    if config.family == "vlm":
        raise UserError(
            f"{run_dir}: format=onnx is for CTC networks, and this run has "
            f"model.kind={config.model.kind}; for a CPU export format=gguf, which llama.cpp reads"
        )
    backends = tuple(dict.fromkeys((*config.export.backends, "onnx-fp32", "onnx-int8")))
    export = config.export.model_copy(update={"backends": backends})
    return config.model_copy(update={"export": export})


def _is_final(run_dir: Path) -> bool:
    """Return whether the run was finished when it was last trained."""
    report = read_object(run_dir / "report.json") or {}
    return report.get("step") == checkpoints.steps_of(run_dir)[-1]


def averaged(weights: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean of each tensor, running statistics included; counters are the last ones.

    Izmailov et al. 2018, without their extra epoch for running statistics.
    """
    mean = {
        name: torch.stack([each[name].double() for each in weights]).mean(0).to(tensor.dtype)
        for name, tensor in weights[-1].items()
    }
    return {
        name: mean[name] if tensor.is_floating_point() else tensor
        for name, tensor in weights[-1].items()
    }


def _config(run_dir: Path, overrides: Sequence[str]) -> TrainConfig:
    before = config_of_run(run_dir / "config.yaml")
    config = config_of_run(run_dir / "config.yaml", overrides)
    foreign = [
        key
        for key in changed_settings(before, config)
        if not key.startswith(("export.", "decoding."))
    ]
    if foreign:
        raise UserError(
            f"{', '.join(foreign)}: settings of the training; "
            f"export.py takes export.…, decoding.…, {', '.join(ExportRequest.model_fields)}"
        )
    return config


def _checkpoints(config: TrainConfig, run_dir: Path, request: ExportRequest) -> list[Checkpoint]:
    """Return the wanted checkpoints by step, each verified."""
    steps = checkpoints.steps_of(run_dir)[::-1]
    if request.of == "best":
        found = checkpoints.evaluations(run_dir)
        there = {step: found[step] for step in steps if step in found}
        best, metric = best_step(config, there), config.train.metric_for_best_model
        # the run's own best first: of equals it is the earliest
        steps = sorted(there, key=lambda step: (step != best, there[step][metric], step))
    if len(steps) < request.average:
        raise UserError(
            f"{run_dir}: average={request.average} of={request.of}: found {len(steps)} such "
            "checkpoints; raise train.save_total_limit for the next run"
        )
    return [
        checkpoints.verify_hashes(checkpoints.directory_of(run_dir, step))
        for step in sorted(steps[: request.average])
    ]

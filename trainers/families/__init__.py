"""Which code trains which kind of model; each is imported when it is asked for, so that a CTC run never waits for transformers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ocr.dataset.read import Dataset
from ocr.errors import UserError
from trainers.config import TrainConfig
from trainers.families.task import Checked, Task, Trained

if TYPE_CHECKING:
    from trainers.families.export_gate import Exported


def check(config: TrainConfig, train: Trained, validation: Dataset) -> Checked:
    """What can be learnt from and judged by; UserError where too little is."""
    if config.family == "vlm":
        from trainers.families.vlm import task as vlm_lora

        return vlm_lora.check(config, train, validation)
    from trainers.families.ctc import task as ctc

    return ctc.check(config, train, validation)


def verified(config: TrainConfig) -> str:
    """What was found when base, processor, adapter and data were looked at; empty for a family that needs none of it. UserError where they do not fit."""
    if config.family == "ctc" or config.skip_verification:
        return ""
    from trainers.families.vlm import preflight as vlm_verify

    return vlm_verify.verified(config)


def origins(config: TrainConfig) -> dict[str, str]:
    """SHA-256 of what the weights start from: the base, the bundle or adapter of `train.init_from`."""
    if config.family == "vlm":
        from trainers.families.vlm import task as vlm_lora

        return vlm_lora.origins(config)
    from trainers.families.ctc.task import initial_bundle

    return (
        {"init_from": initial_bundle(config.train.init_from).sha256}
        if config.train.init_from
        else {}
    )


def make_task(
    config: TrainConfig,
    checked: Checked,
    train: Trained,
    validation: Dataset,
    device: str,
    precision: str,
) -> Task:
    """A fresh network, or one that starts from `train.init_from`, with its data."""
    task: Any
    if config.family == "vlm":
        from trainers.families.vlm.task import VlmTask

        task = VlmTask(config, checked, train, validation, device, precision)
    else:
        from trainers.families.ctc.task import CtcChecked, CtcTask

        assert isinstance(checked, CtcChecked)
        task = CtcTask(config, checked, train, validation, device)
    if config.train.init_from:
        task.init_from(config.train.init_from)
    return task  # type: ignore[no-any-return]


def export(
    task: Task,
    path: Path,
    card: Mapping[str, Any],
    form: Literal["bundle", "merged", "gguf"] = "bundle",
) -> "Exported":
    """Write the task's network as it is now as a bundle at `path`, through the gate; UserError for a form that its family has not."""
    if task.config.family == "vlm":
        from trainers.families.vlm.export import export_adapter, export_merged
        from trainers.families.vlm.gguf import export_gguf

        forms = {"bundle": export_adapter, "merged": export_merged, "gguf": export_gguf}
        return forms[form](task, path, card)  # type: ignore[arg-type]
    if form != "bundle":
        raise UserError(
            f"format={form}: for vision-language models; model.kind={task.config.model.kind} has no adapter: take format=bundle or onnx"
        )
    from trainers.families.ctc.export import export_bundle

    return export_bundle(task, path, task.config.run_name, card)  # type: ignore[arg-type]


def card_of(
    task: Task, steps: Sequence[int], fingerprints: Mapping[str, str], final: bool
) -> dict[str, Any]:
    """What a bundle says of where it comes from; `final`: nothing of the run was left to train."""
    about = {
        "run": task.config.run_name,
        "step": max(steps),
        "final": final,
        "data": task.validation_data.folder,
        "samples": len(task.train_ids),
        "fingerprints": dict(fingerprints),
    }
    return {**about, "averaged_steps": list(steps)} if len(steps) > 1 else about

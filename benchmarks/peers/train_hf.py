"""Hugging Face Trainer on the same model and adapter (PEFT), batches, optimizer and schedule.

Options: config, overrides, steps.
"""

import contextlib
from typing import Any

import torch
from datasets import Dataset
from meter import Enough, Request
from transformers import Trainer, TrainingArguments
from vlm_meter import Bench, Trained, Watch

from ocr.recognizers.vlm.inputs import grid, patches


class Noting:
    """Beside a Trainer: keeps each step's loss."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.losses: list[float] = []
        super().__init__(*arguments, **named)

    def training_step(self, *arguments: Any, **named: Any) -> torch.Tensor:
        loss: torch.Tensor = super().training_step(*arguments, **named)
        self.losses.append(float(loss))
        return loss


class HuggingFaceTrainer(Noting, Trainer):
    """transformers' own."""


def measure(request: Request) -> Trained:
    """Train so many steps."""
    bench = Bench(request)
    watch = Watch(bench)
    return trained(
        watch,
        HuggingFaceTrainer(
            bench.task.network.model, TrainingArguments(**settings(bench)), **batches(bench)
        ),
    )


def trained(watch: Watch, trainer: Any) -> Trained:
    """Until the watch says that it is enough."""
    with contextlib.suppress(Enough):
        trainer.train()
    return watch.result(trainer.losses)


def settings(bench: Bench) -> dict[str, Any]:
    """The run's own, in the words of TrainingArguments.

    Without warm-up, where the two count differently, their cosine is ours.
    """
    train, optimizer = bench.config.train, bench.config.optimizer
    assert (
        optimizer.name == "adamw"
        and optimizer.lr_scheduler_type == "cosine"
        and not optimizer.warmup_steps
    )
    return {
        "output_dir": str(bench.config.local_run_dir),
        "max_steps": train.max_steps,
        "per_device_train_batch_size": 1,
        "train_sampling_strategy": "sequential",
        "remove_unused_columns": False,
        "optim": "adamw_torch_fused",
        "learning_rate": optimizer.learning_rate,
        "weight_decay": optimizer.weight_decay,
        "adam_beta1": optimizer.betas[0],
        "adam_beta2": optimizer.betas[1],
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0,
        "max_grad_norm": optimizer.max_grad_norm,
        "logging_steps": train.logging_steps,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }


def batches(bench: Bench) -> dict[str, Any]:
    """A data set of steps, and the collator that makes a step's batch when it is asked for."""
    assert bench.config.train.max_steps
    return {
        "train_dataset": Dataset.from_dict({"step": range(bench.config.train.max_steps)}),
        "data_collator": lambda steps: _inputs(bench, steps[0]["step"]),
    }


def _inputs(bench: Bench, step: int) -> dict[str, torch.Tensor]:
    """Our batch under transformers' names, with the mask that its processors give."""
    batch, patching = bench.batch(step), bench.task.base.patching
    return {
        "input_ids": batch.ids_BT,
        "attention_mask": bench.seen(batch.ids_BT).long(),
        "labels": torch.where(batch.answers_BT, batch.ids_BT, -100),
        "mm_token_type_ids": (batch.ids_BT == bench.task.fitting.prompt.image_token).int(),
        "pixel_values": torch.cat([patches(image, patching) for image in batch.images]),
        "image_grid_thw": torch.tensor([grid(image, patching) for image in batch.images]),
    }

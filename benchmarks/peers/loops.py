"""One training run under another loop than Lipi's: Ray's guide, or Hugging Face's Trainer on Ray.

  python benchmarks/peers/loops.py guide|elastic|trainer FOLDER STEPS

Network, images, augmentation and loss are Lipi's; the loop, its checkpoints and its restarts are
written as their makers show them (Ray 2.60, "Saving and Loading Checkpoints" and "Get Started with
Hugging Face Transformers"): `guide` with FailureConfig, `elastic` with one to two workers besides.
Every worker writes the samples of each step to FOLDER/steps-<rank>.jsonl, the first one the final
weights to FOLDER/final.pt. benchmarks/chaos.py kills it.
"""

from __future__ import annotations  # Ray sends these functions without what annotations name

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import ray.train.torch
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT))

from tests.support.tiny import tiny_config, tiny_task  # noqa: E402
from trainers.families.task import MicroBatch  # noqa: E402

BATCH, EPOCH_STEPS = 12, 10  # samples of a step over all workers; a checkpoint is saved an epoch
LEARNING_RATE = 1e-3


class Lines(nn.Module):
    """Lipi's smallest network, with the images that it trains on; called with their indices."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        data = {"max_train_samples": BATCH * EPOCH_STEPS}
        self.task = tiny_task(tiny_config(folder, data=data))
        self.network = self.task.network.to(memory_format=torch.contiguous_format)  # as HF saves
        self.count = len(self.task.usable.train)

    def forward(self, samples: Tensor) -> dict[str, Tensor]:
        """Return the loss of these samples, [B], and update the running statistics."""
        micro_batch = MicroBatch(0, 0, tuple(samples.tolist()), 1.0)
        losses = self.task.losses(self.task.batch(micro_batch, 0), 1.0)
        if self.training:
            self.task.absorb([sums.clone() for sums in self.task.statistics()])
        return {"loss": losses.sums_B.mean()}


class Indices(Dataset[Any]):
    """The samples of the run, as their indices."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, int]:
        return {"samples": index}


def told(folder: str, step: int, samples: Tensor) -> None:
    """Write down the samples that a worker has trained on in a step."""
    rank = ray.train.get_context().get_world_rank()
    with (Path(folder) / f"steps-{rank}.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, "samples": samples.tolist()}) + "\n")


def kept(folder: str, network: nn.Module) -> None:
    """Store the final weights, once."""
    if ray.train.get_context().get_world_rank() == 0:
        torch.save(network.state_dict(), Path(folder) / "final.part")
        (Path(folder) / "final.part").replace(Path(folder) / "final.pt")


def by_the_guide(setup: dict[str, Any]) -> None:
    """Ray's guide: epochs, one checkpoint each from the first worker."""
    torch.manual_seed(1)
    torch.set_num_threads(1)
    lines = Lines(setup["folder"])
    model = ray.train.torch.prepare_model(lines, parallel_strategy="ddp")
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    context = ray.train.get_context()
    world, first = context.get_world_size(), context.get_world_rank() == 0
    sampler = DistributedSampler(Indices(lines.count), world, context.get_world_rank(), seed=1)
    loader = DataLoader(Indices(lines.count), BATCH // world, sampler=sampler)
    began = 0
    if checkpoint := ray.train.get_checkpoint():
        with checkpoint.as_directory() as folder:
            saved = torch.load(Path(folder) / "checkpoint.pt", weights_only=True)
            lines.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            began = saved["epoch"] + 1
    for epoch in range(began, setup["steps"] // EPOCH_STEPS):
        sampler.set_epoch(epoch)
        for number, batch in enumerate(loader):
            loss = model(batch["samples"])["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            told(setup["folder"], epoch * EPOCH_STEPS + number + 1, batch["samples"])
        state = {"model": lines.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}
        with tempfile.TemporaryDirectory() as folder:
            if first:
                torch.save(state, Path(folder) / "checkpoint.pt")
            saved = ray.train.Checkpoint.from_directory(folder) if first else None
            ray.train.report({"loss": loss.item()}, checkpoint=saved)
    kept(setup["folder"], lines.network)


def by_trainer(setup: dict[str, Any]) -> None:
    """Hugging Face's Trainer with Ray's callback."""
    from ray.train.huggingface.transformers import RayTrainReportCallback, prepare_trainer
    from transformers import Trainer, TrainingArguments

    torch.set_num_threads(1)
    torch.manual_seed(1)
    lines = Lines(setup["folder"])

    class Telling(Trainer):  # type: ignore[misc]
        def training_step(self, model: nn.Module, inputs: dict[str, Tensor], *more: Any) -> Tensor:
            loss: Tensor = super().training_step(model, inputs, *more)
            told(setup["folder"], self.state.global_step + 1, inputs["samples"])
            return loss

    world = ray.train.get_context().get_world_size()
    trainer = Telling(
        model=lines,
        train_dataset=Indices(lines.count),
        args=TrainingArguments(
            output_dir=f"{setup['folder']}/trainer",
            max_steps=setup["steps"],
            per_device_train_batch_size=BATCH // world,
            learning_rate=LEARNING_RATE,
            save_steps=EPOCH_STEPS,
            logging_steps=EPOCH_STEPS,
            save_total_limit=2,
            seed=1,
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
        ),
    )
    trainer.add_callback(RayTrainReportCallback())
    trainer = prepare_trainer(trainer)
    if checkpoint := ray.train.get_checkpoint():
        with checkpoint.as_directory() as folder:
            trainer.train(resume_from_checkpoint=str(Path(folder) / "checkpoint"))
    else:
        trainer.train()
    kept(setup["folder"], lines.network)


def main() -> None:
    """Train to the end, or go on: Ray takes up a run of the same name and storage."""
    kind, folder, steps = sys.argv[1:]
    np.random.seed(1)
    trainer = ray.train.torch.TorchTrainer(
        by_trainer if kind == "trainer" else by_the_guide,
        train_loop_config={"folder": folder, "steps": int(steps)},
        scaling_config=ray.train.ScalingConfig(num_workers=(1, 2) if kind == "elastic" else 2),
        run_config=ray.train.RunConfig(
            name="run",
            storage_path=folder,
            failure_config=ray.train.FailureConfig(max_failures=-1),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
        ),
    )
    trainer.fit()


if __name__ == "__main__":
    main()

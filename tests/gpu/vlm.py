"""The configs for GPUs as they stand, on bases of their sizes with random weights.

MFU: the operations that the mathematics asks for, over the bf16 product rate measured on this chip
in the time of a step. A frozen matrix costs 4 operations a weight and token (forward, and the
gradient of its input), a trained one 6; the image encoder without an adapter costs 2 a weight and
patch; attention costs 6·layers·width·T² a sample (causal; forward, and twice that backward).
Activations computed again under gradient checkpointing do not count.
"""

import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ocr.dataset.build import build
from ocr.dataset.config import PrepareConfig
from ocr.dataset.read import Dataset
from ocr.recognizers.vlm.base_model import Base
from ocr.recognizers.vlm.inputs import grid, patches
from ocr.settings import load_settings, parse_settings
from tests.gpu import random_base
from tests.gpu.phase import Found, Setup
from tests.gpu.preflight import product_rate, synchronise
from tests.support.commands import PROJECT
from tests.support.pasted import pasted_page
from trainers.config import TrainConfig
from trainers.families.vlm.task import VlmTask
from trainers.loop.batches import micro_batches_of
from trainers.loop.loop import fit
from trainers.loop.run_state import plan_of
from trainers.loop.workers import Workers
from trainers.on_ray import task_and_context
from trainers.runs.identity import identity
from trainers.runs.job import Data, Job

WARM_UP = 3
PAGES = {"odia": ((768, 512), 256), "chandra": ((1152, 832), 900)}  # pixels, tokens of text
RANDOM_READS = ("generation.max_new_tokens=48", "generation.max_eval_samples=2")


@dataclass(frozen=True, slots=True)
class Speed:
    """What a trainer took: the median seconds of a step, its samples and tokens, its memory."""

    seconds: float
    samples: int
    tokens: float
    operations: float
    memory_gib: float

    def told(self, rate: float) -> str:
        """Rates in words; `rate` in operations a second is what MFU is a share of."""
        mfu = self.operations * self.samples / self.seconds / rate
        memory = f"{self.memory_gib:.1f} GiB" if self.memory_gib else "memory not measured"
        samples, tokens = (count / self.seconds for count in (self.samples, self.all_tokens))
        return f"{samples:.2f} samples/s, {tokens:,.0f} tokens/s, MFU {mfu:.1%}, {memory}"

    @property
    def all_tokens(self) -> float:
        """Tokens of a step."""
        return self.tokens * self.samples


def odia(setup: Setup) -> Iterator[Found]:
    """configs/odia.yaml on 3 billion parameters; the same by Hugging Face Trainer."""
    steps, size, rate = setup.size(15, 5), setup.size("3 B", "small"), product_rate(setup)
    base = random_base.make_folder(random_base.QWEN25_3B, setup.work / "base", setup.rehearse)
    pages = make_pages("odia", random_base.base_at(base), setup)
    config = config_of("odia", base, pages, setup, steps, "precision=bf16")
    run = Run(config, setup)
    ours = run.train()
    yield Found(f"odia.yaml, {size}, {steps} steps", ours.told(rate))
    yield Found("one checkpoint, one evaluation", run.pauses())
    theirs = hugging_face(run, steps)
    ratio = theirs.seconds / ours.seconds
    yield Found("Hugging Face Trainer", f"{theirs.told(rate)}; Lipi is {ratio:.2f} × as fast")


def bangla(setup: Setup) -> Iterator[Found]:
    """configs/bangla.yaml on 2 billion parameters in both half precisions, word images."""
    steps, size, rate = setup.size(8, 4), setup.size("2 B", "small"), product_rate(setup)
    base = random_base.make_folder(random_base.QWEN3_2B, setup.work / "base", setup.rehearse)
    for precision in ("fp16", "bf16"):
        words = ("train.num_epochs=null", f"precision={precision}", "data.max_train_samples=400")
        small = setup.size((), ("train.global_batch_size=2", "train.micro_batch_size=2"))
        config = config_of("bangla", base, "odia_words", setup, steps, *words, *small)
        run = Run(config, setup)
        yield Found(f"bangla.yaml, {size}, {precision}, {steps} steps", run.train().told(rate))
        run.free()


def chandra(setup: Setup) -> Iterator[Found]:
    """configs/chandra.yaml on 8 billion parameters in 4 bits, pages."""
    steps, size, rate = setup.size(8, 4), setup.size("8 B", "small"), product_rate(setup)
    base = random_base.make_folder(random_base.QWEN3_8B, setup.work / "base", setup.rehearse)
    pages = make_pages("chandra", random_base.base_at(base), setup)
    small = setup.size((), ("train.global_batch_size=2", "model.max_length=2048"))
    run = Run(config_of("chandra", base, pages, setup, steps, *small), setup)
    yield Found(f"chandra.yaml, {size} in 4 bits, {steps} steps", run.train().told(rate))


def zero(setup: Setup) -> Iterator[Found]:
    """configs/odia.yaml under DeepSpeed's ZeRO-2 and ZeRO-3, one worker."""
    rate, steps = product_rate(setup), setup.size(8, 4)
    base = random_base.make_folder(random_base.QWEN25_3B, setup.work / "base", setup.rehearse)
    pages = make_pages("odia", random_base.base_at(base), setup)
    for stage in (2, 3):
        words = ("engine=deepspeed", f"deepspeed.config=configs/deepspeed/zero{stage}.json")
        run = Run(config_of("odia", base, pages, setup, steps, "precision=bf16", *words), setup)
        yield Found(f"odia.yaml under ZeRO-{stage}, {steps} steps", run.train().told(rate))
        run.free()


def make_pages(name: str, base: Base, setup: Setup) -> str:
    """A data set of pages of pasted words, 64 to train on and 4 to evaluate with."""
    (size, most), small = PAGES[name], ((224, 96), 40)
    size, most = setup.size((size, most), small)
    words, draw = Dataset.open("odia_words", "train"), np.random.default_rng(0)

    def fits(text: str) -> bool:
        return len(base.tokenizer.encode(text, add_special_tokens=False)) < most

    sources = []
    for split, count in (("train", setup.size(64, 8)), ("validation", 4)):
        folder = setup.work / "pages" / split
        folder.mkdir(parents=True)
        for number in range(count):
            page, text = pasted_page(words, draw.permutation(len(words)).tolist(), size, fits)
            page.save(folder / f"{number}.png", compress_level=1)
            (folder / f"{number}.gt.txt").write_text(text, encoding="utf-8")
        source = {"format": "pairs", "path": str(folder), "split": split, "level": "page"}
        sources.append(source)
    values = {"output": str(setup.work / "set"), "sources": sources}
    build(parse_settings(PrepareConfig, values, "pages"))
    return str(setup.work / "set")


def config_of(
    name: str, base: Path, data: str, setup: Setup, steps: int, *words: str
) -> TrainConfig:
    """The config as it stands but for its base, its data, and its length."""
    storage = setup.work / "-".join(["runs", *[word.replace("/", "_") for word in words]])
    changes = [
        f"model.name_or_path={base}",
        f"data.train={data}",
        "data.max_validation_samples=4",
        f"storage_path={storage}",
        f"train.max_steps={steps}",
        f"train.save_steps={steps}",
        f"train.eval_steps={steps}",
        "train.eval_on_start=false",
        "train.logging_steps=1",
        f"device={setup.device}",
        "workers=1",
        *RANDOM_READS,
        *setup.size((), ("generation.max_new_tokens=4", "precision=fp32")),
        *words,
    ]
    return load_settings(TrainConfig, PROJECT / "configs" / f"{name}.yaml", changes)


class Run:
    """A run of this process, as a Ray worker would run it; the network stays to be used again."""

    def __init__(self, config: TrainConfig, setup: Setup) -> None:
        self.config, self.setup = config, setup
        self.data = Data.open(config)
        run_dir, run = config.local_run_dir, identity(config, self.data.fingerprints)
        run_dir.mkdir(parents=True)
        (run_dir / "run.json").write_text(json.dumps({"run": run}))
        job = Job(config, run_dir, run, 1, None)
        threads = torch.get_num_threads()
        with random_base.random_weights(setup.device):
            task, self.place = task_and_context(setup.device, job, threads, Workers(), self.data)
        assert isinstance(task, VlmTask)
        self.task: VlmTask = task
        self.plan = plan_of(config, task.widths)

    def train(self) -> Speed:
        """To its end; the speed of the steps after the warm-up."""
        reset_memory(self.setup)
        fit(self.config, self.task, self.place)
        rates = [line["samples_per_second"] for line in self._timings("samples_per_second")]
        seconds = [self.plan.global_batch_size / rate for rate in rates[WARM_UP:]]
        return self.speed(seconds)

    def speed(self, seconds: list[float]) -> Speed:
        """Of steps that took these seconds."""
        samples, tokens = self.plan.global_batch_size, statistics.mean(self.task.widths)
        each, memory = operations(self.task), memory_gib(self.setup)
        return Speed(statistics.median(seconds), samples, tokens, each, memory)

    def pauses(self) -> str:
        """The seconds that training stood still at its end."""
        (saved,), (judged,) = (
            [line[key] for line in self._timings(key)]
            for key in ("checkpoint_seconds", "evaluation_seconds")
        )
        return f"{saved:.2f} s for the copy of a checkpoint, {judged:.2f} s for an evaluation"

    def free(self) -> None:
        """Give the memory back."""
        self.task.network.to("meta")
        reset_memory(self.setup)

    def _timings(self, key: str) -> list[dict[str, Any]]:
        lines = (self.place.run_dir / "timings.jsonl").read_text().splitlines()
        return [line for line in map(json.loads, lines) if key in line]


def hugging_face(run: Run, steps: int) -> Speed:
    """Hugging Face Trainer on the same model, adapter, batches and optimizer."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    times, train, setup = list[float](), run.config.train, run.setup
    parts = -(-train.global_batch_size // train.micro_batch_size)

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            synchronise(setup)
            times.append(time.perf_counter())

    arguments = TrainingArguments(
        output_dir=str(setup.work / "hf"),
        max_steps=steps + 1,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=parts,
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        optim="adamw_torch_fused",
        learning_rate=run.config.optimizer.learning_rate,
        weight_decay=run.config.optimizer.weight_decay,
        max_grad_norm=run.config.optimizer.max_grad_norm,
        bf16=run.place.precision == "bf16",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=setup.device == "cpu",
    )
    rows = [{"row": row} for row in range(parts * (steps + 1))]
    model = run.task.network.model.train()
    reset_memory(setup)
    Trainer(
        model,
        arguments,
        train_dataset=rows,
        data_collator=lambda rows: their_inputs(run, *divmod(rows[0]["row"], parts)),
        callbacks=[Clock()],
    ).train()
    return run.speed(np.diff(times).tolist()[WARM_UP - 1 :])


def their_inputs(run: Run, step: int, part: int) -> dict[str, Any]:
    """A micro-batch of ours under transformers' names."""
    turn = micro_batches_of(run.plan, step, 0, 1)[part]
    batch, prompt = run.task.batch(turn, run.plan.epoch_of(step)), run.task.fitting.prompt
    patching = run.task.base.patching
    return {
        "input_ids": batch.ids_BT,
        "attention_mask": (batch.ids_BT != prompt.padding_token).long(),
        "labels": torch.where(batch.answers_BT, batch.ids_BT, -100),
        "mm_token_type_ids": (batch.ids_BT == prompt.image_token).int(),
        "pixel_values": torch.cat([patches(image, patching) for image in batch.images]),
        "image_grid_thw": torch.tensor([grid(image, patching) for image in batch.images]),
    }


def operations(task: VlmTask) -> float:
    """What the mathematics asks of an average sample; see the header."""
    text, trained = task.base.config["text_config"], 0
    frozen = {"vision": 0, "language": 0}
    for name, module in task.network.named_modules():
        if isinstance(module, torch.nn.Linear) and "lora_" in name:
            trained += module.in_features * module.out_features
        elif isinstance(module, torch.nn.Linear) and not name.endswith("lm_head"):
            part = "vision" if "visual" in name else "language"
            frozen[part] += module.in_features * module.out_features
    widths, checked = task.widths, task.usable
    answers = statistics.mean(
        len(task.fitting.answer(task.train.texts[index])) for index in checked.train
    )
    tokens = statistics.mean(widths)
    image = tokens - answers - (task.fitting.prompt.length(1) - 1)
    attention = 6 * text["num_hidden_layers"] * text["hidden_size"]
    head = 4 * text["vocab_size"] * text["hidden_size"] * answers  # of answer tokens alone
    encoder = 4 if "vision" in task.config.lora.parts else 2
    dense = (4 * frozen["language"] + 6 * trained) * tokens + head
    seen = encoder * frozen["vision"] * image * task.base.patching.merge**2
    return dense + seen + attention * statistics.mean(width**2 for width in widths)


def reset_memory(setup: Setup) -> None:
    """Forget the peak of the GPU's memory."""
    if setup.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def memory_gib(setup: Setup) -> float:
    """The peak of the GPU's memory; 0 on a CPU."""
    return torch.cuda.max_memory_allocated() / 2**30 if setup.device == "cuda" else 0.0

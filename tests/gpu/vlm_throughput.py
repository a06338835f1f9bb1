"""LoRA on a Qwen2.5-VL-3B with random weights (speed does not depend on the values), ours and Hugging Face Trainer in one run on one GPU.

  python tests/gpu/vlm_throughput.py [--steps 20] [--rows lipi hf adamw_8bit nf4 zero2 zero3] [--model qwen2.5-3b|qwen3-8b|small] [--device cuda]

bf16, rank 32 on the language model, gradient checkpointing, images of about 768×512 px, answers of 256 tokens, batches of 8 in
micro-batches of 4. Prints steps, samples and tokens (padding apart) per second, the peak memory, and MFU: the operations that the mathematics
asks for over what the chip's dense bf16 rate could do in the time. Of a frozen matrix that is 4 operations a weight and token (forward, and the
gradient of its input), of a trained one 6, of the image encoder, which has no adapter here, 2 a weight and patch; attention 6·layers·width·T²
a sample (causal, forward and twice that backward) in the language model. Computing activations again is not counted. Then the exact resume: two
steps, a checkpoint, two more, against four without a stop, bit for bit, for each of our rows: the all-reduce engine with AdamW, with 8-bit AdamW, on
a 4-bit base, and DeepSpeed's ZeRO-2 and ZeRO-3. --model=small and --device=cpu try the script where there is no GPU.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ocr.dataset.build import build
from ocr.dataset.config import PrepareConfig
from ocr.dataset.read import Dataset
from ocr.recognizers.vlm.base import Base, find_base
from ocr.recognizers.vlm.inputs import grid, patches
from ocr.recognizers.vlm.settings import TinyVlmSettings
from ocr.settings import parse_settings
from trainers.batches import turns_of
from trainers.checkpoint import load_trained_state
from trainers.config import TrainConfig
from trainers.engines import engine_for
from trainers.launch import Data
from trainers.loop import plan_of
from trainers.vlm_lora import VlmBatch, VlmTask
from trainers.workers import Workers

ANSWER_TOKENS, PAGES, WARM_UP = 256, 64, 3
DENSE_BF16 = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}  # operations a second, from the makers' sheets
QWEN25_3B = {
    "text": {"hidden_size": 2048, "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 2, "intermediate_size": 11008},
    "vision": {"depth": 32, "hidden_size": 1280, "num_heads": 16, "intermediate_size": 3420, "out_hidden_size": 2048, "fullatt_block_indexes": [7, 15, 23, 31]},
    "mrope": [16, 24, 24],
}
QWEN3_8B = {
    "text": {"hidden_size": 4096, "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 12288, "head_dim": 128},
    "vision": {"depth": 27, "hidden_size": 1152, "num_heads": 16, "intermediate_size": 4304, "out_hidden_size": 4096, "deepstack_visual_indexes": [8, 16, 24]},
    "mrope": [24, 20, 20],
}
SMALL = {
    "text": {"hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 512},
    "vision": {"depth": 2, "hidden_size": 128, "num_heads": 4, "intermediate_size": 256, "out_hidden_size": 256, "fullatt_block_indexes": [1]},
    "mrope": [16, 24, 24],
}


MODELS = {"qwen2.5-3b": QWEN25_3B, "qwen3-8b": QWEN3_8B, "small": SMALL}
ROWS: dict[str, dict[str, Any]] = {  # what each changes in `config_of`
    "lipi": {},
    "hf": {},
    "adamw_8bit": {"optimizer": {"learning_rate": 1e-4, "max_grad_norm": 1.0, "name": "adamw_8bit"}},
    "nf4": {"model": {"load_in_4bit": True}},
    "zero2": {"engine": "deepspeed", "deepspeed": {"config": "configs/deepspeed/zero2.json"}},
    "zero3": {"engine": "deepspeed", "deepspeed": {"config": "configs/deepspeed/zero3.json"}},
}
NAMES = {"lipi": "Lipi", "hf": "Hugging Face Trainer", "adamw_8bit": "8-bit AdamW", "nf4": "4-bit base", "zero2": "ZeRO-2", "zero3": "ZeRO-3"}


def make_base(sizes: dict[str, Any], folder: Path) -> None:
    """The model in bf16 with random weights, the tiny base's tokenizer, and the processor's config of its architecture."""
    import transformers

    is_qwen3 = "deepstack_visual_indexes" in sizes["vision"]
    tiny = find_base(TinyVlmSettings(architecture="qwen3_vl" if is_qwen3 else "qwen2_5_vl", base_steps=0))
    configured, built = (
        (transformers.Qwen3VLConfig, transformers.Qwen3VLForConditionalGeneration)
        if is_qwen3
        else (transformers.Qwen2_5_VLConfig, transformers.Qwen2_5_VLForConditionalGeneration)
    )
    ids = {key: value for key, value in tiny.config.items() if key.endswith("_token_id") and key != "eos_token_id"}
    text = {**sizes["text"], "vocab_size": 151_936, "max_position_embeddings": 32_768, "tie_word_embeddings": not is_qwen3}
    text["rope_scaling"] = {"rope_type": "default", "mrope_section": sizes["mrope"], **({"mrope_interleaved": True} if is_qwen3 else {})}
    vision = {**sizes["vision"], "spatial_merge_size": 2, **({"patch_size": 16} if is_qwen3 else {"patch_size": 14, "window_size": 112})}
    with torch.device("cpu"):
        torch.manual_seed(0)
        torch.set_default_dtype(torch.bfloat16)
        model = built(configured(text_config=text, vision_config=vision, tie_word_embeddings=not is_qwen3, **ids))
        torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)
    tiny.tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text((tiny.folder / "preprocessor_config.json").read_text())


def make_pages(base: Base, folder: Path) -> str:
    """Pages of noise of about 768×512 px with texts of 255 tokens."""
    words, draw = Dataset.open("odia_words", "train").texts, np.random.default_rng(0)
    sources = []
    for split, count in (("train", PAGES), ("validation", 2)):
        (folder / split).mkdir(parents=True)
        for number in range(count):
            ids = base.tokenizer.encode(" ".join(draw.choice(words, 200)), add_special_tokens=False)[: ANSWER_TOKENS - 1]
            height, width = 512 + int(draw.integers(-28, 29)), 768 + int(draw.integers(-28, 29))
            Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / split / f"{number}.png", compress_level=1)
            (folder / split / f"{number}.gt.txt").write_text(base.tokenizer.decode(ids).strip("\ufffd "), encoding="utf-8")
        sources.append({"format": "pairs", "path": str(folder / split), "split": split, "level": "page"})
    build(parse_settings(PrepareConfig, {"output": str(folder / "set"), "sources": sources, "max_skipped": 1.0}, "throughput"))
    return str(folder / "set")


def config_of(base: Path, data: str, storage: Path, changes: dict[str, Any]) -> TrainConfig:
    """The run of a row."""
    values: dict[str, Any] = {
        "run_name": "throughput",
        "storage_path": str(storage),
        "data": {"train": data},
        "train": {"max_steps": 1000, "global_batch_size": 8, "micro_batch_size": 4},
        "optimizer": {"learning_rate": 1e-4, "max_grad_norm": 1.0},
        "model": {"kind": "vlm", "name_or_path": str(base), "gradient_checkpointing": True},
        "lora": {"rank": 32, "alpha": 64},
        "loss": {"name": "cross_entropy"},
        "max_skipped": 0.5,
    }
    changed = {key: {**values.get(key, {}), **change} if isinstance(change, dict) else change for key, change in changes.items()}
    return parse_settings(TrainConfig, {**values, **changed}, "throughput")


class Ours:
    """The task and the engine, as the loop uses them."""

    def __init__(self, config: TrainConfig, device: str, weights: dict[str, torch.Tensor] | None = None) -> None:
        self.task: VlmTask = Data.open(config).task(config, device, "bf16")  # type: ignore[assignment]
        self.plan = plan_of(config, self.task.widths)
        if weights:
            load_trained_state(self.task.network, weights)
        self.engine = engine_for(self.task, config, Workers(), device, "bf16")

    def batches(self, step: int) -> list[VlmBatch]:
        """Of a step."""
        return [self.task.batch(turn, self.plan.epoch_of(step)) for turn in turns_of(self.plan, step, 0, 1)]

    def step(self, step: int) -> None:
        """One optimizer step."""
        self.engine.take_step(turns_of(self.plan, step, 0, 1), self.batches(step), 1e-4)


def theirs(ours: Ours, steps: int, device: str) -> Callable[[], list[float]]:
    """Hugging Face Trainer on the same model, adapter and batches; gives the seconds of each step."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    times: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            synchronise(device)
            times.append(time.perf_counter())

    def inputs(rows: list[dict[str, int]]) -> dict[str, Any]:
        row, prompt, patching = rows[0]["row"], ours.task.fitting.prompt, ours.task.base.patching
        batch = ours.batches(row // 2)[row % 2]
        return {
            "input_ids": batch.ids_BT,
            "attention_mask": (batch.ids_BT != prompt.padding_token).long(),
            "labels": torch.where(batch.answers_BT, batch.ids_BT, -100),
            "mm_token_type_ids": (batch.ids_BT == prompt.image_token).int(),
            "pixel_values": torch.cat([patches(image, patching) for image in batch.images]),
            "image_grid_thw": torch.tensor([grid(image, patching) for image in batch.images]),
        }

    def run() -> list[float]:
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder,
                max_steps=steps + WARM_UP,
                per_device_train_batch_size=1,
                gradient_accumulation_steps=2,
                train_sampling_strategy="sequential",
                remove_unused_columns=False,
                learning_rate=1e-4,
                max_grad_norm=1.0,
                bf16=True,
                gradient_checkpointing=True,
                gradient_checkpointing_kwargs={"use_reentrant": False},
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                use_cpu=device == "cpu",
                dataloader_num_workers=0,
            )
            rows = [{"row": row} for row in range(2 * (steps + WARM_UP))]
            Trainer(ours.task.network.model, arguments, train_dataset=rows, data_collator=inputs, callbacks=[Clock()]).train()
        return np.diff(times).tolist()[WARM_UP - 1 :]

    return run


def synchronise(device: str) -> None:
    """Wait for the GPU."""
    if device != "cpu":
        torch.cuda.synchronize()


def timed(ours: Ours, steps: int, device: str) -> list[float]:
    """Seconds of each step after the warm-up."""
    seconds = []
    for step in range(steps + WARM_UP):
        began = time.perf_counter()
        ours.step(step)
        synchronise(device)
        seconds.append(time.perf_counter() - began)
    return seconds[WARM_UP:]


def operations(ours: Ours) -> tuple[float, float, float]:
    """Of an average sample: what the mathematics asks for, its tokens, its image tokens."""
    task, text = ours.task, ours.task.base.config["text_config"]
    sizes = {"vision": 0, "language": 0, "adapter": 0}
    for name, parameter in task.network.named_parameters():
        if parameter.ndim == 2 and "embed_tokens" not in name:
            sizes["adapter" if "lora_" in name else "vision" if "visual" in name else "language"] += parameter.numel()
    head = text["vocab_size"] * text["hidden_size"]  # of answer tokens alone
    tokens = statistics.mean(task.widths)
    answers = statistics.mean(len(task.fitting.answer(task.train.texts[index])) for index in task.checked.train)
    image = tokens - answers - (task.fitting.prompt.length(1) - 1)
    attention = 6 * text["num_hidden_layers"] * text["hidden_size"] * statistics.mean(width**2 for width in task.widths)
    dense = (4 * sizes["language"] + 6 * sizes["adapter"]) * tokens + 4 * head * answers + 2 * sizes["vision"] * image * task.base.patching.merge**2
    return dense + attention, tokens, image


def report(name: str, seconds: list[float], ours: Ours, device: str) -> None:
    """One line."""
    each, tokens, _ = operations(ours)
    per_step, samples = statistics.median(seconds), ours.plan.global_batch_size
    chip = torch.cuda.get_device_name() if device != "cpu" else "cpu"
    rate = next((rate for known, rate in DENSE_BF16.items() if known in chip), None)
    mfu = f"{each * samples / per_step / rate:.1%}" if rate else "– (rate unknown)"
    peak = f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if device != "cpu" else "–"
    print(f"| {name} | {1 / per_step:.2f} | {samples / per_step:.1f} | {tokens * samples / per_step:,.0f} | {mfu} | {peak} |", flush=True)


def is_exact(config: TrainConfig, device: str) -> bool:
    """Whether two steps, a stop and two more are four steps without a stop."""
    through = Ours(config, device)
    for step in range(4):
        through.step(step)
    expected = through.engine.weights()
    del through
    first = Ours(config, device)
    for step in range(2):
        first.step(step)
    weights, optimizer = first.engine.weights(), first.engine.state_dict()
    del first
    second = Ours(config, device, weights)
    second.engine.load_state_dict(optimizer)
    for step in range(2, 4):
        second.step(step)
    found = second.engine.weights()
    return all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def main() -> None:
    """Print the table and whether the resume is exact."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--model", choices=MODELS, default="qwen2.5-3b")
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    if options.device != "cpu":
        torch.use_deterministic_algorithms(True, warn_only=True)
    with tempfile.TemporaryDirectory() as work:
        make_base(MODELS[options.model], Path(work) / "base")
        base = Base(Path(work) / "base", "random")
        pages = make_pages(base, Path(work) / "pages")
        print("| | steps/s | samples/s | tokens/s | MFU | peak memory |\n|---|---|---|---|---|---|")
        configs = {name: config_of(base.folder, pages, Path(work), ROWS[name]) for name in options.rows}
        for name, config in configs.items():
            if options.device != "cpu":
                torch.cuda.reset_peak_memory_stats()
            ours = Ours(config, options.device)
            seconds = theirs(ours, options.steps, options.device)() if name == "hf" else timed(ours, options.steps, options.device)
            report(NAMES[name], seconds, ours, options.device)
            del ours
        for name in [name for name in options.rows if name != "hf"]:
            exact = is_exact(configs[name], options.device)
            print(f"{NAMES[name]}: stopped after two of four steps and resumed: {'equal to the last bit' if exact else 'NOT EQUAL'}", flush=True)


if __name__ == "__main__":
    main()

"""LoRA on a vision-language model, ours against Hugging Face Trainer with PEFT and against TRL's
SFTTrainer, side by side in one run.

  python benchmarks/vlm.py [--steps N] [--rounds 1] [--models tiny mid] [--only "HF Trainer" …]
  [--envs DIR]

Everyone trains the same adapter, drawn by our seed (rank 16, the language model's linear layers),
on the same base in fp32, with the same AdamW, learning rates (a cosine) and clipping, without
dropout, augmentation and gradient checkpointing, in a process of its own with one thread on the
same core. The batches are the very ones that our plan makes, a micro-batch a step, and everyone
makes them by our code, from the encoded image to patches and token ids, while it is measured: what
differs is the trainer alone. Ours is the whole `fit` but for Ray: loader, engine, log lines.
Trainers take turns, a step each, all others being stopped (SIGSTOP), for this machine's speed
swings. CPU seconds run from the third optimizer step to the last; the peak of the resident set is
taken above what it is with base and adapter in memory. With more rounds medians are printed, of the
ratios too. Losses of the first ten steps are compared.

tiny  configs/tiny_vlm.yaml's base of 1.6 million parameters and its 587 tokens, word images: what a
trainer costs around next to no model.
      A quarter of the config's rate: there is no warm-up here, for its steps are counted otherwise
      elsewhere, and at the full rate the
      first ten steps blow up a last bit: our losses then end 1.1e-5 from those of the same run in
      fp64, those of transformers 2.8e-5.
mid   a Qwen3-VL of random weights: 4 layers of 512, and the vocabulary of the real ones, 151,936
tokens, of which the texts use the
      tiny one's 587. Its images are pages of 512×256 px, 128 image tokens, with words of the
      embedded data set on them, its answers
      their text in 64 to 256 tokens, as a paragraph's are. The head is 78 of its 97 million
      parameters, a larger share than in a
      Qwen3-VL-2B, where it is 311 of 2,100 million: there the head's share of the time is smaller,
      and so is what can be won by it.
"""

import argparse
import contextlib
import importlib.metadata
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ctc import PEERS, PROJECT, output_of
from peers.meter import WARM_UP_STEPS, Request

from ocr.dataset.read import Dataset
from ocr.errors import last_line
from ocr.keyed import generator
from ocr.recognizers.vlm.base_model import Base, quieten
from ocr.recognizers.vlm.find import find_base
from ocr.settings import load_settings
from trainers.config import TrainConfig

sys.path.insert(0, str(PROJECT))
from tests.support.pasted import pasted_page

CONFIG = PROJECT / "configs" / "tiny_vlm.yaml"
TRL = "trl==1.16.0"
OURS = "Lipi"
MODULES = {OURS: "train_vlm", "HF Trainer": "train_hf", "TRL SFTTrainer": "train_trl"}
SPEED_TARGET, MEMORY_TARGET, LOSS_TARGET = 1.5, 0.5, 1e-5
COMPARED_LOSSES = 10
RUN = {
    "optimizer.warmup_steps": 0,
    "lora": "{rank: 16, alpha: 32, parts: [language]}",
    "train.eval_on_start": "false",
    "train.eval_steps": 1_000_000,
    "train.save_steps": 1_000_000,
    "train.logging_steps": 1,
    "device": "cpu",
    "precision": "fp32",
    "workers": 1,
    "threads_per_worker": 1,
}
ALONE = {
    **dict.fromkeys(
        (
            "OMP_NUM_THREADS",
            "MKL_NUM_THREADS",
            "OPENBLAS_NUM_THREADS",
            "MALLOC_ARENA_MAX",
            "HF_HUB_OFFLINE",
            "HF_HUB_DISABLE_TELEMETRY",
        ),
        "1",
    ),
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONPATH": str(PROJECT),
}
RECIPE = "1"  # of the mid-size model and its pages: another one, another folder
PAGES, WIDTH_PX, HEIGHT_PX = 64, 512, 256
LEAST_TOKENS, MOST_TOKENS, VOCABULARY = 64, 256, 151_936


@dataclass(frozen=True, slots=True)
class Model:
    """A base with its data, as overrides of CONFIG."""

    name: str
    steps: int
    overrides: dict[str, Any]
    has_targets: bool = False


Outcome = dict[str, Any] | str


def tiny() -> Model:
    """The config's own."""
    return Model("tiny", 60, {"optimizer.learning_rate": 1e-3})


def mid(envs: Path) -> Model:
    """Built and drawn where it is missing."""
    folder = envs / "vlm" / RECIPE
    if not (folder / "made").is_file():
        print(f"making the mid-size model and its pages in {folder}", file=sys.stderr, flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        base = find_base(load_settings(TrainConfig, CONFIG).vlm)
        with contextlib.redirect_stdout(sys.stderr):
            build(base, folder / "base")
        draw_pages(base, folder / "pages")
        (folder / "made").touch()
    pages = {
        f"data.{split}": f"[{{format: pairs, level: paragraph, path: {folder}/pages/{split}}}]"
        for split in ("train", "validation")
    }
    model = f"{{kind: vlm, name_or_path: {folder}/base, instruction: OCR}}"
    images = f"{{max_side_px: {WIDTH_PX}, min_pixels: 1024, max_pixels: {WIDTH_PX * HEIGHT_PX}}}"
    rates = {"optimizer.learning_rate": 2e-4, "optimizer.betas": "[0.9, 0.999]"}
    return Model(
        "mid",
        12,
        {
            **pages,
            "model": model,
            "images": images,
            "train.global_batch_size": 4,
            "train.micro_batch_size": 4,
            **rates,
        },
        has_targets=True,
    )


def build(tiny_base: Base, folder: Path) -> None:
    """A Qwen3-VL of random weights, with the tiny one's tokenizer and image processing."""
    import torch
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    text: dict[str, Any] = {
        "hidden_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "head_dim": 64,
    }
    text |= {
        "intermediate_size": 1536,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
    }
    text |= {
        "rope_scaling": {
            "rope_type": "default",
            "mrope_section": [12, 10, 10],
            "mrope_interleaved": True,
        }
    }
    vision = {
        "hidden_size": 256,
        "depth": 2,
        "num_heads": 4,
        "intermediate_size": 512,
        "out_hidden_size": 512,
        "deepstack_visual_indexes": [0],
    }
    patching = {
        "patch_size": tiny_base.patching.patch_px,
        "spatial_merge_size": tiny_base.patching.merge,
    }
    ids = {
        key: value
        for key, value in tiny_base.config.items()
        if key.endswith("_token_id") and key != "eos_token_id"
    }
    quieten()
    torch.manual_seed(0)
    model = Qwen3VLForConditionalGeneration(
        Qwen3VLConfig(
            text_config=text, vision_config={**vision, **patching}, tie_word_embeddings=True, **ids
        )
    )
    model.save_pretrained(folder)
    tiny_base.tokenizer.save_pretrained(folder)
    shutil.copy(tiny_base.folder / "preprocessor_config.json", folder)


def draw_pages(base: Base, folder: Path) -> None:
    """PNG files with their text in x.gt.txt.

    Words of the embedded data set in lines, as many as 64 to 256 tokens have room for.
    """
    words, draw = Dataset.open("odia_words", "train"), generator("benchmarks/vlm.py")
    for split, count in (("train", PAGES), ("validation", 4)):
        (folder / split).mkdir(parents=True)
        for number in range(count):
            order, most = (
                draw.permutation(len(words)).tolist(),
                int(draw.integers(LEAST_TOKENS, MOST_TOKENS)),
            )
            fits = partial(fits_tokens, base, most)
            page, text = pasted_page(words, order, (WIDTH_PX, HEIGHT_PX), fits)
            page.save(folder / split / f"{number:03}.png")
            (folder / split / f"{number:03}.gt.txt").write_text(text, encoding="utf-8")


def fits_tokens(base: Base, most: int, text: str) -> bool:
    """Whether the text has at most so many tokens."""
    return len(base.tokenizer.encode(text, add_special_tokens=False)) <= most


def interpreter(who: str, envs: Path) -> str:
    """The Python that has this trainer.

    Ours, or one that adds TRL to our packages, made where it is missing or of another version.
    """
    if who != "TRL SFTTrainer":
        return sys.executable
    python, stamp = envs / "trl" / "bin" / "python", envs / "trl" / "installed"
    ours = output_of(
        sys.executable, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"
    ).strip()
    wanted = f"{TRL} beside {ours}"
    if not stamp.is_file() or stamp.read_text() != wanted:
        print(f"installing {TRL} into {envs / 'trl'}", file=sys.stderr, flush=True)
        output_of(sys.executable, "-m", "venv", "--clear", str(envs / "trl"))
        theirs = output_of(
            str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"
        ).strip()
        Path(theirs, "lipi.pth").write_text(f"{ours}\n", encoding="utf-8")
        output_of(
            str(python), "-m", "pip", "install", "--quiet", "--no-deps", TRL
        )  # what it needs, we have
        stamp.write_text(wanted)
    return str(python)


class Runner:
    """One trainer in a process of its own, with one thread.

    It stops itself before training and after every step.
    """

    def __init__(self, who: str, python: str, model: Model, steps: int, folder: Path) -> None:
        self.who, self._folder = who, folder / MODULES[who]
        self._folder.mkdir()
        overrides = [f"{key}={value}" for key, value in {**RUN, **model.overrides}.items()]
        options = {"config": str(CONFIG), "overrides": overrides, "steps": steps}
        asked = json.dumps(asdict(Request("", str(self._folder / "runs"), 0, None, 0, options)))
        (self._folder / "request.json").write_text(asked, encoding="utf-8")
        command = [
            python,
            str(PEERS / "run.py"),
            MODULES[who],
            str(self._folder / "request.json"),
            str(self._folder / "result.json"),
        ]
        with open(self._folder / "complaints", "w", encoding="utf-8") as complaints:
            self._process = subprocess.Popen(
                command,
                cwd=PROJECT,
                env={**os.environ, **ALONE},
                stdout=subprocess.DEVNULL,
                stderr=complaints,
            )

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.returncode is None

    def take_turn(self) -> None:
        """Go on until it stops again, or ends."""
        self._process.send_signal(signal.SIGCONT)
        _, status = os.waitpid(self._process.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            self._process.returncode = os.waitstatus_to_exitcode(status)

    def outcome(self) -> Outcome:
        """What peers/vlm_meter.py's Trained holds, or in a line why there is none."""
        if self._process.returncode:
            return failed(self.who, (self._folder / "complaints").read_text(encoding="utf-8"))
        result = dict(json.loads((self._folder / "result.json").read_text(encoding="utf-8")))
        told = (
            f"{result['rate']:.2f} a CPU second, {result['cpu_seconds']:.1f} CPU seconds, "
            f"{result['peak_bytes'] / 2**20:,.0f} MiB"
        )
        print(f"{self.who}: {told}", file=sys.stderr, flush=True)
        return result

    def end(self) -> None:
        """Whatever it is doing."""
        if self.is_running:
            self._process.kill()
            self._process.wait()


def in_turn(model: Model, everyone: Sequence[str], steps: int, envs: Path) -> dict[str, Outcome]:
    """A round: all trainers at once, a step of each by turns; a failing peer stops nobody else."""
    outcomes: dict[str, Outcome] = dict.fromkeys(everyone, "")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as runners:
        running = list[Runner]()
        for who in everyone:
            try:
                python = interpreter(who, envs)
            except subprocess.CalledProcessError as problem:
                outcomes[who] = failed(who, problem.stderr)
                continue
            print(f"{model.name}: starting {who}", file=sys.stderr, flush=True)
            running.append(Runner(who, python, model, steps, Path(folder)))
            runners.callback(running[-1].end)
            running[-1].take_turn()
        while any(runner.is_running for runner in running):
            for runner in running:
                if runner.is_running:
                    runner.take_turn()
        return {**outcomes, **{runner.who: runner.outcome() for runner in running}}


def failed(who: str, complaints: str) -> str:
    """In a line."""
    print(f"{who}: {complaints}", file=sys.stderr, flush=True)
    return f"failed: {last_line(complaints or 'no message')}"


def show(model: Model, steps: int, outcomes: dict[str, list[Outcome]]) -> None:
    """The table in Markdown, then the ratios with the targets."""
    example = next(
        (found for results in outcomes.values() for found in results if isinstance(found, dict)),
        None,
    )
    title = f"### {model.name}"
    if example:
        trained, answers = example["trained_parameters"], example["answer_tokens"]
        title += f": {example['parameters']:,} parameters, of which {trained:,} are trained"
        title += f"; {example['tokens']:.0f} tokens a sample, of which {answers:.0f} are answers"
        title += f"; {steps} steps"
    print(
        f"\n{title}\n\n| | samples per CPU-s | CPU s | peak MiB above the weights | loss of step "
        f"1 | of step {steps - 1} |\n|---|---:|---:|---:|---:|---:|"
    )
    for who, results in outcomes.items():
        good = [found for found in results if isinstance(found, dict)]
        if not good:
            print(f"| {who} | {results[-1]} |")
            continue
        rate, cpu_seconds, peak_bytes = (
            statistics.median(found[name] for found in good)
            for name in ("rate", "cpu_seconds", "peak_bytes")
        )
        losses = good[-1]["losses"]
        print(
            f"| {who} | {rate:,.2f} | {cpu_seconds:.1f} | {peak_bytes / 2**20:,.0f} | "
            f"{losses[0]:.6f} | {losses[steps - 2]:.6f} |"
        )
    print()
    for who, results in outcomes.items():
        rounds = [
            (mine, theirs)
            for mine, theirs in zip(outcomes.get(OURS, []), results, strict=False)
            if isinstance(mine, dict) and isinstance(theirs, dict)
        ]
        if who != OURS and rounds:
            print(f"- {OURS} / {who}: {compared(rounds, model.has_targets)}")


def compared(rounds: Sequence[tuple[dict[str, Any], dict[str, Any]]], has_targets: bool) -> str:
    """Ours with a peer: ratios of speed and memory, medians over the rounds, and the largest
    difference of a loss.
    """
    speed, memory = (
        statistics.median(mine[name] / theirs[name] for mine, theirs in rounds)
        for name in ("rate", "peak_bytes")
    )
    pairs = [
        pair
        for mine, theirs in rounds
        for pair in list(zip(mine["losses"], theirs["losses"], strict=False))[:COMPARED_LOSSES]
    ]
    differs = max(abs(mine - theirs) for mine, theirs in pairs)
    targets = [
        f" (target ≥ {SPEED_TARGET:g}: {verdict(speed >= SPEED_TARGET)})",
        f" (target ≤ {MEMORY_TARGET:g}: {verdict(memory <= MEMORY_TARGET)})",
    ]
    fast, small = targets if has_targets else ("", "")
    same = (
        f"losses of the first {len(pairs) // len(rounds)} steps differ by at most "
        f"{differs:.1e} (target ≤ {LOSS_TARGET:g}: {verdict(differs <= LOSS_TARGET)})"
    )
    return f"{speed:.2f} times as fast{fast}; {memory:.2f} of its memory{small}; {same}"


def verdict(is_met: bool) -> str:
    """In a word."""
    return "met" if is_met else "missed"


def versions() -> str:
    """What ran and on which processor, for the log."""
    cores = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    libraries = ", ".join(
        f"{library} {importlib.metadata.version(library)}"
        for library in ("torch", "transformers", "peft", "accelerate")
    )
    return f"{libraries}, {TRL}, {cores[1] if cores else 'unknown processor'}"


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--steps",
        type=int,
        help=(
            f"optimizer steps, the first {WARM_UP_STEPS} apart; default: 60 of the tiny model, "
            "12 of the other"
        ),
    )
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--models", nargs="+", choices=["tiny", "mid"], default=["tiny", "mid"])
    parser.add_argument("--only", nargs="+", choices=list(MODULES), default=list(MODULES))
    parser.add_argument("--envs", type=Path, default=Path.home() / ".cache" / "lipi" / "peers")
    arguments = parser.parse_args()
    if arguments.steps is not None and arguments.steps <= WARM_UP_STEPS:
        parser.error(f"--steps: the first {WARM_UP_STEPS} are not measured; more are needed")
    envs = arguments.envs.absolute()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # the same core for everyone
    print(f"one thread, rounds: {arguments.rounds}; {versions()}")
    print("everyone makes its batches by our code, within the measured time")
    for model in [tiny() if name == "tiny" else mid(envs) for name in arguments.models]:
        steps = arguments.steps or model.steps
        rounds = [in_turn(model, arguments.only, steps, envs) for _ in range(arguments.rounds)]
        show(model, steps, {who: [outcomes[who] for outcomes in rounds] for who in arguments.only})


if __name__ == "__main__":
    main()

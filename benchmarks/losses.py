"""What the Bangla system's loss is worth: cross entropy, focal, confusion-weighted and both, on
rendered Bangla; focal CTC on Bangla handwriting.

  python benchmarks/losses.py [--data ../shared/data] [--seeds 3] [--only rendered|handwriting]

Rendered: the tiny vision-language base, taught 80 or so Bangla words, learns 30 others by its
adapter from few, disturbed images of each; CER of generated text on other images of those words.
Handwriting: corrections of one page, the other page read, from the base that ships (corrections.py,
without replay). The seed draws the adapter, the order, the augmentation, and which page is which.
Needs the word lists and handwriting beside the checkout and the package fonts-beng-extra. Each run
is in this process, without Ray, on one thread.
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from corrections import FOLDERS, interval, lines_of, split, write_corrections
from corrections import read as read_lines

from ocr.dataset.build import build
from ocr.dataset.config import PrepareConfig
from ocr.recognizers.factory import load
from ocr.settings import load_settings, parse_settings
from trainers.config import TrainConfig
from trainers.loop.loop import fit
from trainers.loop.run_state import RunContext
from trainers.runs.identity import environment
from trainers.runs.job import Data, Job
from trainers.runs.launch import launch

PROJECT = Path(__file__).resolve().parent.parent
LOSSES: dict[str, list[str]] = {
    "cross entropy": [],
    "focal (α 0.25, γ 2)": ["loss.focal_alpha=0.25", "loss.focal_gamma=2.0"],
    "confusion-weighted (λ 2)": ["loss.confusion_weight=2.0"],
    "both": ["loss.focal_alpha=0.25", "loss.focal_gamma=2.0", "loss.confusion_weight=2.0"],
}
CTC_LOSSES: dict[str, list[str]] = {
    "CTC": [],
    "focal CTC (γ 1)": ["loss.focal_gamma=1.0"],
    "focal CTC (γ 2)": ["loss.focal_gamma=2.0"],
}
STEPS = 120


def here(job: Job) -> None:
    """Train in this process."""
    place = RunContext(
        job.run_dir, job.run_id, job.attempt, environment(job.config, 1, "cpu", "fp32")
    )
    fit(job.config, Data.open(job.config).task(job.config, "cpu"), place)


def words(
    data: Path, output: Path, low: float, high: float, train: int, seed: int, hard: bool
) -> str:
    """A data set of rendered Bangla words, `train` images to learn from and a third as many to
    judge by.
    """
    common: dict[str, Any] = {
        "format": "synthetic",
        "script": "Bengali",
        "texts": [str(data / "text" / "ben" / "langdata_lstm.ben.wordlist")],
    }
    common |= {
        "word_hash_range": [low, high],
        "length": [3, 6],
        "height_px": [32, 32],
        "line_box": [1.0, 1.0],
        "inverted_share": 0.0,
    }
    common |= {
        "fonts": ["Lohit Bengali", "Noto Sans Bengali"] if hard else ["Noto Sans Bengali"],
        "paper_grey": [240, 255],
        "texture": [0, 0],
    }
    common |= (
        {"rotation_degrees": [-3, 3], "blur_px": [0, 0.8], "noise": [0, 8], "contrast": [0.7, 1.0]}
        if hard
        else {"noise": [0, 2], "contrast": [0.9, 1.0]}
    )
    sources = [
        common | {"split": "train", "count": train, "seed": seed},
        common | {"split": "validation", "count": train // 3, "seed": seed + 1},
    ]
    build(
        parse_settings(
            PrepareConfig, {"output": str(output), "sources": sources}, "losses benchmark"
        )
    )
    return str(output)


def rendered(data: Path, folder: Path, seeds: int) -> None:
    """A row a loss."""
    base = words(data, folder / "base", 0.0, 0.0045, 1500, 61, False)
    learnt = words(data, folder / "learnt", 0.5, 0.5025, 300, 71, True)
    print(
        "\n### Rendered Bangla, the tiny vision-language model\n\n| loss | CER | exact | seeds "
        "|\n|---|---|---|---|"
    )
    for name, loss in LOSSES.items():
        reports = []
        for seed in range(seeds):
            with tempfile.TemporaryDirectory() as storage:
                given = [
                    f"storage_path={storage}",
                    f"data.train={learnt}",
                    f"model.base_data={base}",
                    f"train.seed={seed}",
                    f"train.max_steps={STEPS}",
                ]
                given += [
                    f"train.eval_steps={STEPS}",
                    f"train.save_steps={STEPS}",
                    "train.eval_on_start=false",
                    "lora.dropout=0.05",
                    "kornia.strength=0.5",
                ]
                config = load_settings(
                    TrainConfig,
                    PROJECT / "configs" / "tiny_vlm.yaml",
                    [*given, "skip_preflight=true", *loss],
                )
                reports.append(launch(config, here, "losses benchmark").report)
        rates, exact = (
            [report[key] for report in reports] for key in ("eval_cer", "eval_exact_match")
        )
        print(
            f"| {name} | {interval(rates)} | {statistics.mean(exact):.1%} | "
            f"{' '.join(f'{rate:.1%}' for rate in rates)} |",
            flush=True,
        )


def handwriting(data: Path, seeds: int) -> None:
    """A row a loss."""
    lines = lines_of(data / FOLDERS["bangla"])
    print(
        "\n### Bangla handwriting, CTC from the base that ships\n\n| loss | CER | seeds "
        "|\n|---|---|---|"
    )
    for name, loss in CTC_LOSSES.items():
        rates = []
        for seed in range(seeds):
            pool, tested = split(lines, seed, by_text=False)
            with tempfile.TemporaryDirectory() as storage:
                write_corrections(pool, Path(storage) / "samples")
                given = [
                    f"data.train.0.path={storage}/samples",
                    f"storage_path={storage}",
                    "list_samples=false",
                    "train.init_from=bangla",
                    f"train.seed={seed}",
                ]
                given += [
                    "model.kind=compact",
                    "model.size=small",
                    "model.height_px=32",
                    "model.dropout=0.0",
                    "augment.strength=0.5",
                    "train.max_steps=150",
                ]
                given += [
                    "train.num_epochs=null",
                    "train.eval_epochs=null",
                    "train.eval_steps=50",
                    "train.save_epochs=null",
                    "optimizer.name=adamw",
                ]
                config = load_settings(
                    TrainConfig, PROJECT / "configs" / "corrections.yaml", [*given, *loss]
                )
                rates.append(
                    read_lines(
                        load(launch(config, here, "losses benchmark").run_dir / "bundle"), tested
                    ).cer
                )
        print(
            f"| {name} | {interval(rates)} | {' '.join(f'{rate:.1%}' for rate in rates)} |",
            flush=True,
        )


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=PROJECT.parent / "shared" / "data")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", choices=["rendered", "handwriting"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.only != "handwriting":
        with tempfile.TemporaryDirectory() as folder:
            rendered(options.data.resolve(), Path(folder), options.seeds)
    if options.only != "rendered":
        handwriting(options.data.resolve(), options.seeds)


if __name__ == "__main__":
    main()

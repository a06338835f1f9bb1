"""What 12, 50 and 100 real corrected lines are worth: fine-tuned from a base with replay, without
replay, and from nothing.

  python benchmarks/corrections.py [--data ../shared/data] [--seeds 5] [--sizes 12 50 100] [--steps
  150] [--sets thai bangla]
                                          [--ways "base, replay" "base, no replay" "from nothing"]

Thai print is split by document and by text: test lines share neither with what is corrected. Bangla
handwriting has two pages of one writer, 43 lines: one page is corrected (21 or 22 lines at most),
the other tested. Each run is `configs/corrections.yaml` with overrides, in this process without
Ray, on one thread; the bundle as it would be served is what is tested.
"""

import argparse
import json
import random
import re
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from ocr.bundle import open_bundle
from ocr.images import open_image
from ocr.recognizers.factory import load
from ocr.recognizers.recognizer import Recognizer
from ocr.replay import replay_of
from ocr.scoring import Counts, score_all
from ocr.settings import load_settings
from ocr.text import normalise
from trainers.config import TrainConfig
from trainers.loop.loop import fit
from trainers.loop.run_state import RunContext
from trainers.runs.identity import environment
from trainers.runs.job import Data, Job
from trainers.runs.launch import launch

PROJECT = Path(__file__).resolve().parent.parent
FOLDERS = {"thai": "thai_print_lines", "bangla": "bangla_handwriting_lines"}
WAYS = ("base, replay", "base, no replay", "from nothing")
MOST_TESTED = 150
ALL = 0  # of a set that has fewer lines than asked for
T_95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 8: 2.36, 10: 2.26}


@dataclass(frozen=True)
class Line:
    """One real line: its image, its text and the page or document it is from."""

    image: Path
    text: str
    document: str


def lines_of(folder: Path) -> list[Line]:
    """Every pair x.png + x.gt.txt."""
    paths = sorted(folder.glob("*.png"))
    return [
        Line(
            path,
            normalise(path.with_suffix(".gt.txt").read_text(encoding="utf-8").strip()),
            re.split(r"_[yl]\d", path.stem)[0],
        )
        for path in paths
    ]


def split(lines: list[Line], seed: int, by_text: bool) -> tuple[list[Line], list[Line]]:
    """Lines that may be corrected and lines to test on.

    No document in both, and where `by_text`, no text.
    """
    draw = random.Random(seed)
    documents, texts = (
        sorted({line.document for line in lines}),
        sorted({line.text for line in lines}),
    )
    tested = set(draw.sample(documents, max(1, len(documents) // (3 if by_text else 2))))
    unseen = set(draw.sample(texts, len(texts) // 3)) if by_text else set(texts)
    corrected = [
        line
        for line in lines
        if line.document not in tested and not (by_text and line.text in unseen)
    ]
    left = [line for line in lines if line.document in tested and line.text in unseen]
    draw.shuffle(corrected)
    return corrected, draw.sample(left, min(MOST_TESTED, len(left)))


def write_corrections(lines: list[Line], folder: Path) -> None:
    """The lines as the Corrections system stores them."""
    folder.mkdir(parents=True)
    for number, line in enumerate(lines):
        shutil.copy(line.image, folder / f"{number:03}.png")
        (folder / f"{number:03}.json").write_text(
            json.dumps({"corrected_text": line.text}, ensure_ascii=False), encoding="utf-8"
        )


def read(recognizer: Recognizer, lines: list[Line]) -> Counts:
    """The errors on these lines."""
    readings = recognizer.read([open_image(line.image, recognizer.image_mode) for line in lines])
    return score_all(
        (line.text, reading.text) for line, reading in zip(lines, readings, strict=True)
    )


def here(job: Job) -> None:
    """Train in this process on one thread."""
    torch.set_num_threads(1)
    fit(
        job.config,
        Data.open(job.config).task(job.config, "cpu"),
        RunContext(job.run_dir, job.run_id, job.attempt, environment(job.config, 1, "cpu", "fp32")),
    )


def fine_tuned(
    base: str, replay: str | None, samples: Path, way: str, steps: int, storage: Path, seed: int
) -> tuple[Recognizer, float]:
    """The recogniser that came of it, and the CPU seconds of its training."""
    network = [
        f"model.{key}={value}"
        for key, value in open_bundle(Path(base)).model.items()
        if key in ("kind", "size", "height_px")
    ]
    words = [
        f"data.train.0.path={samples}",
        f"storage_path={storage}",
        "list_samples=false",
        *network,
        f"train.seed={seed}",
        f"train.max_steps={steps}",
    ]
    words += [
        "train.num_epochs=null",
        "train.eval_epochs=null",
        f"train.eval_steps={steps // 3}",
        "train.save_epochs=null",
        "augment.strength=0.5",
    ]
    words += [
        "model.dropout=0.0",
        "optimizer.name=adamw",
        "optimizer.lr_scheduler_type=cosine",
        "optimizer.warmup_steps=10",
    ]
    words += (
        ["optimizer.learning_rate=0.003"] if way == "from nothing" else [f"train.init_from={base}"]
    )
    words += [f"data.replay={replay}"] if way == "base, replay" and replay else []
    config = load_settings(TrainConfig, PROJECT / "configs" / "corrections.yaml", words)
    began = time.process_time()
    outcome = launch(config, here, "corrections benchmark")
    return load(outcome.run_dir / "bundle"), time.process_time() - began


def interval(values: list[float]) -> str:
    """Mean and the half width of its 95 % interval (Student's t)."""
    half = (
        T_95.get(len(values), 2.0) * statistics.stdev(values) / len(values) ** 0.5
        if len(values) > 1
        else float("nan")
    )
    return f"{100 * statistics.mean(values):.1f} ± {100 * half:.1f} %"


def main() -> None:
    """Print a table a set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=PROJECT.parent / "shared" / "data")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[12, 50, 100])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--sets", nargs="+", default=list(FOLDERS), choices=FOLDERS)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument(
        "--bases", default="", help="folder of bundles by set; default: the bases that ship"
    )
    options = parser.parse_args()
    for name in options.sets:
        base, lines = (
            (f"{options.bases}/{name}" if options.bases else name),
            lines_of(options.data / FOLDERS[name]),
        )
        replay = replay_of(open_bundle(Path(base)), None)
        found: dict[tuple[int, str], list[tuple[Counts, float]]] = {}
        before = []
        for seed in range(options.seeds):
            pool, tested = split(lines, seed, by_text=name == "thai")
            before.append(read(load(Path(base)), tested))
            for size in [
                *(size for size in options.sizes if size < len(pool)),
                *([ALL] if max(options.sizes) >= len(pool) else []),
            ]:
                for way in options.ways:
                    with tempfile.TemporaryDirectory() as folder:
                        write_corrections(pool[: size or None], Path(folder) / "samples")
                        recognizer, seconds = fine_tuned(
                            base,
                            replay,
                            Path(folder) / "samples",
                            way,
                            options.steps,
                            Path(folder),
                            seed,
                        )
                        found.setdefault((size, way), []).append(
                            (read(recognizer, tested), seconds)
                        )
                    print(
                        name, seed, size, way, f"CER {found[size, way][-1][0].cer:.1%}", flush=True
                    )
        print(
            f"\n{name}: {len(tested)} lines tested, {options.seeds} seeds, {options.steps} steps "
            "of 16\n\n| corrected | how | CER | exact | CPU s |\n|---|---|---|---|---|"
        )
        print(
            f"| 0 | the base as it ships | {interval([counts.cer for counts in before])} | "
            f"{interval([counts.exact_match for counts in before])} | – |"
        )
        for (size, way), results in found.items():
            rates, exact = (
                [counts.cer for counts, _ in results],
                [counts.exact_match for counts, _ in results],
            )
            print(
                f"| {size or 'all there are'} | {way} | {interval(rates)} | {interval(exact)} | "
                f"{statistics.median(seconds for _, seconds in results):.0f} |"
            )


if __name__ == "__main__":
    main()

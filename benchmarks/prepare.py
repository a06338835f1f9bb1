"""A merge at the Odia system's size: 145,781 samples of three sources → one data set.

python benchmarks/prepare.py [--samples 145781] [--folder /tmp/lipi-prepare]

Draws the three sources once (a parquet data set, PaddleOCR labels, pairs), then merges them with
one worker, with two Ray workers, and with one that is killed half-way and started again; prints
samples per second, the peak memory of the whole tree of processes, and whether the bytes are equal;
then how fast training opens the result and reads any sample.
"""

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import yaml

PROJECT = Path(__file__).parent.parent
FILES = ("train.parquet", "validation.parquet", "dataset.json", "skipped.jsonl", "README.md")
TEXTS = [
    f"../shared/data/text/ori/{name}"
    for name in ("langdata_lstm.ori.wordlist", "mannkibaat.lines.txt")
]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=145_781)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/lipi-prepare"))
    options = parser.parse_args()
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    _sources(folder, options.samples)
    results = {
        name: _merge(folder, name, words) for name, words in (("one", []), ("two", ["workers=2"]))
    }
    results["killed"] = _merge_killed(folder, options.samples // 2_000)
    print(f"{'':28}{'seconds':>9}{'samples/s':>11}{'peak MiB':>10}")
    for name, (seconds, peak) in results.items():
        print(
            f"{LABELS[name]:28}{seconds:9.1f}{options.samples / seconds:11.0f}{peak / 2**20:10.0f}"
        )
    for name in ("two", "killed"):
        equal = all(
            (folder / name / "set" / file).read_bytes()
            == (folder / "one" / "set" / file).read_bytes()
            for file in FILES
        )
        print(f"{LABELS[name]}: {'byte-identical' if equal else 'NOT equal'} to one worker's")
    print(
        subprocess.run(
            [sys.executable, __file__, "--read", str(folder / "one" / "set")],
            check=True,
            capture_output=True,
            text=True,
            cwd=PROJECT,
        ).stdout,
        end="",
    )


LABELS = {"one": "1 worker", "two": "2 Ray workers", "killed": "1 worker, killed half-way"}


def _sources(folder: Path, samples: int) -> None:
    """145,717 drawn words as parquet less 10,000 as PaddleOCR labels, and 64 pairs.

    The shares of the Odia system's three sets.
    """
    if (folder / "merge.yaml").is_file():
        return
    drawn = {
        "format": "synthetic",
        "script": "Oriya",
        "texts": TEXTS,
        "fonts": ["Noto Sans Oriya", "Lohit Odia", "ori1Uni"],
        "split": "train",
    }
    shares = {"words": samples - 10_064, "labels": 10_000, "pairs": 64}
    for seed, (name, count) in enumerate(shares.items()):
        level = {"level": "line", "length": [10, 30]} if name == "pairs" else {}
        config = {
            "output": str(folder / f"drawn_{name}"),
            "sources": [{**drawn, **level, "count": count, "seed": seed}],
            "max_skipped": 0.5,
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
        began = time.monotonic()
        subprocess.run(
            _command(folder / f"{name}.yaml", "workers=2"),
            check=True,
            capture_output=True,
            cwd=PROJECT,
        )
        print(
            f"drew {count:,} for {name}: {count / (time.monotonic() - began):.0f} images/s with "
            "2 Ray workers",
            flush=True,
        )
    _unpack(folder)
    sources = [
        {
            "format": "huggingface",
            "path": str(folder / "drawn_words"),
            "dataset_split": "train",
            "level": "word",
        },
        {"format": "paddle", "path": str(folder / "labels" / "rec_gt_train.txt"), "level": "word"},
        {"format": "pairs", "path": str(folder / "pairs")},
    ]
    (folder / "merge.yaml").write_text(
        yaml.safe_dump(
            {
                "output": "given",
                "sources": sources,
                "max_skipped": 0.5,
                "split": {"on_leak": "drop_from_train"},
            }
        )
    )


def _unpack(folder: Path) -> None:
    from ocr.dataset.read import Dataset

    for name in ("labels", "pairs"):
        data, target = Dataset.open(folder / f"drawn_{name}", "train"), folder / name
        target.mkdir(exist_ok=True)
        for index, text in enumerate(data.texts):
            (target / f"{index}.webp").write_bytes(data.image_bytes(index))
            if name == "pairs":
                (target / f"{index}.gt.txt").write_text(text, encoding="utf-8")
        if name == "labels":
            (target / "rec_gt_train.txt").write_text(
                "".join(f"{index}.webp\t{text}\n" for index, text in enumerate(data.texts)),
                encoding="utf-8",
            )


def _command(config: Path, *words: str) -> list[str]:
    return [sys.executable, "ray_jobs/prepare.py", str(config), *words]


def _merge(folder: Path, name: str, words: list[str]) -> tuple[float, int]:
    began = time.monotonic()
    process = subprocess.Popen(
        _command(folder / "merge.yaml", f"output={folder / name / 'set'}", *words),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=PROJECT,
    )
    peak = _watched(process)
    if process.returncode:
        raise SystemExit(f"{name}: exit status {process.returncode}")
    return time.monotonic() - began, peak


def _merge_killed(folder: Path, units: int) -> tuple[float, int]:
    began = time.monotonic()
    process = subprocess.Popen(
        _command(folder / "merge.yaml", f"output={folder / 'killed' / 'set'}"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=PROJECT,
    )
    while len(list((folder / "killed").glob(".set.*.parts/*.arrow"))) < units:
        if process.poll() is not None:
            raise SystemExit("ended before it could be killed")
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    first = time.monotonic() - began
    seconds, peak = _merge(folder, "killed", [])
    return first + seconds, peak


def _watched(process: "subprocess.Popen[bytes]") -> int:
    """The largest sum of the tree's proportional set sizes, in bytes, until it ends."""
    peak = 0
    reading = threading.Thread(target=lambda: process.stdout and process.stdout.read())
    reading.start()
    while process.poll() is None:
        total = 0
        for one in [
            psutil.Process(process.pid),
            *psutil.Process(process.pid).children(recursive=True),
        ]:
            try:
                total += one.memory_full_info().pss
            except psutil.Error:
                continue
        peak = max(peak, total)
        time.sleep(0.5)
    reading.join()
    return peak


def _read(folder: str) -> None:
    """Opening and ordering from the Arrow cache, and any sample's bytes."""
    from ocr.dataset.read import Dataset

    Dataset.open(folder, "train")
    began = time.monotonic()
    data = Dataset.open(folder, "train")
    order = sorted(range(len(data)), key=lambda index: data.ids[index])
    opened = time.monotonic() - began
    random.Random(1).shuffle(order)
    times = []
    for index in order[:20_000]:
        start = time.perf_counter()
        data.image_bytes(index), data.texts[index]
        times.append(time.perf_counter() - start)
    kept = json.loads((Path(folder) / "dataset.json").read_text())["kept"]
    print(
        f"kept {kept}; open and order {opened:.2f} s (target ≤ 3); a random sample "
        f"{statistics.median(times) * 1e3:.3f} ms median (target ≤ 0.2)"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--read"]:
        _read(sys.argv[2])
    else:
        main()

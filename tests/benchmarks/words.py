"""Words in an unseen face: what ten CPU minutes of training reach in each script, by best path and with the language model, beside Tesseract.

  make faces && python tests/benchmarks/words.py [odia bangla thai all]

Runs `ray_jobs/train.py configs/words/NAME.yaml` where runs/words-NAME is not finished and adds up the CPU seconds of its processes
while it trains (drawing and Ray included; preparing and exporting left out), then reads the validation images with Tesseract too.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import tesseract

from ocr.bundle import open_bundle
from ocr.dataset.read import Dataset
from ocr.files import read_json, write_json
from ocr.images import encode_image, open_image
from ocr.scoring import score_all
from ocr.text import normalise

PROJECT = Path(__file__).resolve().parent.parent.parent
LANGUAGES = {"odia": "ori", "bangla": "ben", "thai": "tha", "all": "ori+ben+tha"}


def train(name: str) -> Path:
    """Train to the end; the CPU seconds go into cpu.json of the run."""
    run_dir = PROJECT / "runs" / f"words-{name}"
    if (run_dir / "report.json").is_file() and (run_dir / "cpu.json").is_file():
        return run_dir
    process = subprocess.Popen([sys.executable, "ray_jobs/train.py", f"configs/words/{name}.yaml"], cwd=PROJECT)
    spent, steps, began = dict[int, float](), 0, dict[int, float]()
    while process.poll() is None:
        now = _cpu_seconds(process.pid)
        trained = _steps(run_dir)
        if trained and not steps:
            began = now
            first = trained
        if trained > steps:
            steps, spent = trained, {**spent, **now}
        time.sleep(1)
    if process.returncode:
        raise SystemExit(f"configs/words/{name}.yaml: training ended with status {process.returncode}")
    seconds = sum(spent.values()) - sum(began.values())
    write_json(run_dir / "cpu.json", {"cpu_seconds": seconds * steps / max(1, steps - first), "steps": steps})
    return run_dir


def _cpu_seconds(pid: int) -> dict[int, float]:
    found = {}
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        found[process.pid] = times.user + times.system
    return found


def _steps(run_dir: Path) -> int:
    path = run_dir / "timings.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return max((line.get("step", 0) for line in lines), default=0)


def by_tesseract(data: Dataset, languages: str) -> tuple[float, float]:
    """CER and images per CPU second, the images as words."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{index:06}.png" for index in range(len(data))]
        for index, path in enumerate(paths):
            path.write_bytes(encode_image(open_image(data.image_bytes(index))))
        seconds, readings = tesseract.read(paths, languages, 8)
    counts = score_all((reference, normalise(reading)) for reference, reading in zip(data.texts, readings, strict=True))
    return counts.cer, len(data) / seconds


def main() -> None:
    """Print a line a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["odia", "bangla", "thai", "all"], choices=LANGUAGES)
    rows = []
    for name in parser.parse_args().names:
        run_dir = train(name)
        report, spent = read_json(run_dir / "report.json"), read_json(run_dir / "cpu.json")
        bundle = open_bundle(run_dir / "bundle")
        cer, rate = by_tesseract(Dataset.open(str(bundle.card["data"]), "validation"), LANGUAGES[name])
        rows.append(
            f"| {name} | {spent['cpu_seconds'] / 60:.1f} | {report['samples_seen']:,} | {report['greedy_cer']:.2%} | {report['eval_cer']:.2%} | "
            f"{report['eval_exact_match']:.1%} | {bundle.backends['torch']:.2%} / {bundle.backends['onnx-int8']:.2%} | {cer:.2%} ({rate:.0f}/s) |"
        )
    print("| words | CPU minutes | images seen | CER, best path | with language model | exact | torch / int8 | Tesseract |\n|---|---|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()

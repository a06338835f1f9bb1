"""Training as a user runs it, with the CPU seconds that it takes."""

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil

from ocr.files import write_json

PROJECT = Path(__file__).resolve().parent.parent


def trained(config: str, run_dir: Path) -> Path:
    """Run `ray_jobs/train.py CONFIG` to its end where the run is not finished; the CPU seconds of
    its processes while it trains (drawing and Ray included; preparing and exporting left out) go
    into cpu.json of the run.
    """
    if (run_dir / "report.json").is_file() and (run_dir / "cpu.json").is_file():
        return run_dir
    process = subprocess.Popen([sys.executable, "ray_jobs/train.py", config], cwd=PROJECT)
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
        raise SystemExit(f"{config}: training ended with status {process.returncode}")
    seconds = sum(spent.values()) - sum(began.values())
    write_json(
        run_dir / "cpu.json",
        {"cpu_seconds": seconds * steps / max(1, steps - first), "steps": steps},
    )
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

"""Files per CPU hour of read.py: one process, workers, Tesseract; and memory over time.

python benchmarks/bulk.py 20000 workers=2          # words of the embedded data set, each many times
python benchmarks/bulk.py 200 workers=2 --pages    # A4 pages of running Odia at 200 dpi, rendered
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from benchmarks import tesseract  # noqa: E402
from ocr.dataset.read import Dataset  # noqa: E402
from ocr.images import encode_image  # noqa: E402
from tests.support.rendered_pages import rendered_page  # noqa: E402

_PARTS = ("command", "readers", "Ray")
_EVERY_S, _MIB = 1.0, 2**20


@dataclass
class Watched:
    """CPU seconds and memory of a command and all that it starts, from samples."""

    process: "subprocess.Popen[bytes]"
    cpu: dict[tuple[int, float], float] = field(default_factory=dict)
    mib: list[dict[str, float]] = field(default_factory=list)

    def watch(self) -> None:
        """Sample until it ends. Memory is PSS: pages that processes share count once."""
        while self.process.poll() is None:
            now = dict.fromkeys(_PARTS, 0.0)
            try:
                root = psutil.Process(self.process.pid)
                tree = [root, *root.children(recursive=True)]
            except psutil.NoSuchProcess:
                break
            for process in tree:
                try:
                    times = process.cpu_times()
                    self.cpu[process.pid, process.create_time()] = times.user + times.system
                    part = "command" if process.pid == root.pid else _part(process)
                    now[part] += process.memory_full_info().pss / _MIB
                except psutil.Error:
                    continue
            self.mib.append(now)
            time.sleep(_EVERY_S)


def _part(process: psutil.Process) -> str:
    return "readers" if "MapWorker" in " ".join(process.cmdline()) else "Ray"


def measure(name: str, folder: Path, count: int, what: str, *words: str) -> None:
    """Read the folder, each process with one thread, and print a row."""
    with tempfile.TemporaryDirectory() as output:
        command = [sys.executable, "ray_jobs/read.py", "odia", str(folder), f"output={output}"]
        began = time.monotonic()
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}
        process = subprocess.Popen(
            [*command, *words], cwd=PROJECT, stdout=subprocess.DEVNULL, env=env
        )
        watched = Watched(process)
        thread = threading.Thread(target=watched.watch)
        thread.start()
        assert process.wait() == 0
        seconds = time.monotonic() - began
        thread.join()
    cpu, mib = sum(watched.cpu.values()), watched.mib
    print(
        f"{name}: {count:,} {what}, {seconds:.0f} s, {cpu:.0f} CPU s, "
        f"{count / cpu * 3600:,.0f} {what} a CPU hour"
    )
    fifths = [mib[len(mib) * i // 5 : len(mib) * (i + 1) // 5 or 1] for i in range(5)]
    for part in _PARTS:
        most = " ".join(f"{max(each[part] for each in fifth):,.0f}" for fifth in fifths)
        print(f"  most MiB of {part} by fifth of the time: {most}", flush=True)


def write_words(folder: Path, count: int) -> list[Path]:
    """Write the words, and return their files."""
    data = Dataset.open("odia_words", "validation")
    files = [folder / f"{index:06d}.webp" for index in range(count)]
    for index, file in enumerate(files):
        file.write_bytes(data.image_bytes(index % len(data.texts)))
    return files


def write_pages(folder: Path, count: int) -> list[Path]:
    """Write the pages, each another, and return their files."""
    files = [folder / f"{index:06d}.png" for index in range(count)]
    for index, file in enumerate(files):
        file.write_bytes(encode_image(rendered_page("odia", seed=index)[0]))
    return files


def main() -> None:
    """Write the images, then measure one process, the workers, and Tesseract on some of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("count", type=int)
    parser.add_argument("settings", nargs="+", help="of the second run, such as workers=2")
    parser.add_argument("--pages", action="store_true")
    asked = parser.parse_args()
    what, write, mode, most = "lines", write_words, 8, 1000
    if asked.pages:
        what, write, mode, most = "pages", write_pages, 3, 50
    with tempfile.TemporaryDirectory() as folder:
        files = write(Path(folder), asked.count)[:most]
        measure("one process", Path(folder), asked.count, what)
        measure(" ".join(asked.settings), Path(folder), asked.count, what, *asked.settings)
        cpu, _ = tesseract.read(files, "ori", mode)
        rate = len(files) / cpu * 3600
        print(f"Tesseract: {len(files):,} {what}, {cpu:.0f} CPU s, {rate:,.0f} {what} a CPU hour")


if __name__ == "__main__":
    main()

"""All that only a GPU can show, in one command of nine minutes.

    python tests/gpu/check.py --minutes 9      on a machine with a GPU (`make gpu`)
    python tests/gpu/check.py --minutes 4      the most important phases alone
    python tests/gpu/check.py --only odia zero these alone
    python tests/gpu/check.py --rehearse     the same with small sizes on a CPU (`make faults`)

Each phase is a process with a time limit of its own, so a crash or a hang costs only itself. Rows
appear as they are measured, and stand in `$OUT/gpu.json` (`runs/gpu/gpu.json` without OUT) with the
chip, driver, versions and commit. Exit status: 0 all good, 1 a row is red, 2 the command is wrong.

On a machine that has torch but not the project's other packages, in this order:

    here    ../shared/hooks/device/pack.sh     writes .device/1.tar.xz (Ray) and .device/2.tar.xz
            split -n 2 .device/2.tar.xz .device/2.tar.xz. && rm .device/2.tar.xz
    call 1  carry .device/1.tar.xz
            mkdir -p /tmp/site && tar -xJf .device/1.tar.xz -C /tmp/site
    call 2  carry .device/2.tar.xz.aa, right after call 1 (the machine stays for 30 s)
            cp .device/2.tar.xz.aa /tmp/
    call 3  carry .device/2.tar.xz.ab, right after call 2, limit 600 s
            cat /tmp/2.tar.xz.aa .device/2.tar.xz.ab | tar -xJ -C /tmp/site &&
            export PYTHONPATH=$PWD:/tmp/site LIPI_CACHE=/tmp/lipi PYTHONUNBUFFERED=1 &&
            python3 tests/gpu/check.py --minutes 9
    a rerun, while the machine is warm: the same without tar, `--only NAME` for what was red

Project and archive travel together, at most 64 MiB a call: `--travels` prints the sizes and refuses
more than 66 MB, and every run does so where there is a .device folder.

Estimated seconds on an H100, 8 s of imports in each phase included (no figure is measured yet):

    preflight  15  one bf16 product of 8192³ is 1.4 ms at 800 TFLOP/s; the rest is imports
    resume     70  7 runs of 12 tiny steps, each twice; steps are launch-bound (50 ms), ZeRO starts
                   3×5 s
    user       85  the tiny base learns on one CPU core (25 s), Ray starts twice, 60 steps, report
    odia       60  3 B × 1,000 tokens × 4 samples × 6 operations: 0.2 s a step at 40 % of the peak;
                   15 steps, twice; base made on the GPU in 5 s; one evaluation of 2 × 48 tokens
    bangla     45  two runs of 8 steps of 16 word images, rank 256; two bases of 2 B
    chandra    60  8 B made and quantised in 20 s; 8 steps of 8 × 1,900 tokens, half the rate: 2.5 s
    zero       60  DeepSpeed starts twice, 8 steps each; ZeRO-3 moves the base by the CPU (10 s)
    ctc        25  5 s of training on the GPU, 5 s on one CPU core, 512 lines pasted in 2 s
    endpoint   70  Ray Serve starts twice (25 s each), 200 requests each take a few seconds
"""

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil

PROJECT = Path(__file__).parent.parent.parent
ARCHIVES = PROJECT / ".device"
MOST_TRAVELLING_BYTES = 66_000_000  # of 64 MiB, for one call
LIBRARIES = ("torch", "transformers", "peft", "ray", "deepspeed", "bitsandbytes", "kornia")
TRACEBACK_LINES = 25
OF_LAUNCHERS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
KILL_SECONDS = 10  # kept of the limit, to end a phase that hangs


@dataclass(frozen=True, slots=True)
class Phase:
    """One process: a module with `rows(setup)`, its estimate and its time limit in seconds."""

    name: str
    module: str
    seconds: int
    limit_s: int


PHASES = (
    Phase("preflight", "tests.gpu.preflight", 15, 60),
    Phase("resume", "tests.gpu.resume", 70, 150),
    Phase("user", "tests.gpu.user", 85, 170),
    Phase("odia", "tests.gpu.vlm:odia", 60, 120),
    Phase("bangla", "tests.gpu.vlm:bangla", 45, 100),
    Phase("chandra", "tests.gpu.vlm:chandra", 60, 120),
    Phase("zero", "tests.gpu.vlm:zero", 60, 120),
    Phase("ctc", "tests.gpu.ctc", 25, 60),
    Phase("endpoint", "tests.gpu.endpoint", 70, 150),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; `trace` is the end of what a red phase printed."""

    phase: str
    what: str
    figures: str
    seconds: float
    good: bool
    trace: str = ""

    def __str__(self) -> str:
        state = "ok" if self.good else "**RED**"
        return f"| {self.phase} | {self.what} | {self.figures} | {self.seconds:.0f} | {state} |"


HEAD = "| phase | what | figures | s | |\n|---|---|---|---:|---|"


class Table:
    """Rows on the screen and in gpu.json, both complete after every row."""

    def __init__(self, out: Path, about: dict[str, Any]) -> None:
        self.rows, self._out, self._about = list[Row](), out, about
        self._lock = threading.Lock()
        out.mkdir(parents=True, exist_ok=True)
        print(HEAD, flush=True)

    def add(self, row: Row) -> None:
        """Show and store a row."""
        with self._lock:
            self.rows.append(row)
            print(row, flush=True)
            part = self._out / "gpu.json.part"
            content = {**self._about, "rows": [asdict(each) for each in self.rows]}
            part.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
            part.replace(self._out / "gpu.json")

    @property
    def red(self) -> list[Row]:
        """The rows that are not good."""
        return [row for row in self.rows if not row.good]


def check(
    phases: Iterable[Phase], seconds: float, table: Table, words: Sequence[str], at_once: int = 1
) -> None:
    """Run the phases in order, until they or the seconds end; a GPU bears one at once."""
    deadline = time.monotonic() + seconds

    def one(phase: Phase) -> None:
        left = deadline - time.monotonic()
        if left < phase.seconds / 2:
            why = f"not started: {max(0, left):.0f} s left of its {phase.seconds}"
            table.add(Row(phase.name, "time", why, 0, False))
            return
        for row in run(phase, min(phase.limit_s, left), words):
            table.add(row)

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(one, phases))


def run(phase: Phase, limit_s: float, words: Sequence[str]) -> Iterator[Row]:
    """The rows of one phase as its process prints them; a red one if it dies or hangs."""
    began = since = time.monotonic()
    command = [sys.executable, "-m", "tests.gpu.phase", phase.module, *words]
    more = {"OMP_NUM_THREADS": "1"} if "--rehearse" in words else {}
    path = os.pathsep.join([str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])])
    # a shell that a launcher started says it is one process of several; a phase is alone
    alone = {key: value for key, value in os.environ.items() if key not in OF_LAUNCHERS}
    process = subprocess.Popen(
        command,
        cwd=PROJECT,
        env={**alone, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    overtime = threading.Event()
    limit_s = max(1.0, limit_s - KILL_SECONDS)
    timer = threading.Timer(limit_s, _end, (process.pid, overtime))
    timer.start()
    lines = list[str]()
    assert process.stdout
    with process.stdout:
        for line in process.stdout:
            if row := _row(line):
                now = time.monotonic()
                yield Row(phase.name, row["what"], row["figures"], now - since, row["good"])
                since = now
            else:
                lines.append(line)
    status = process.wait()
    timer.cancel()
    if status or overtime.is_set():
        why = (
            f"hung: killed after {limit_s:.0f} s" if overtime.is_set() else f"died: status {status}"
        )
        trace = "".join(lines[-TRACEBACK_LINES:])
        yield Row(phase.name, "end", why, time.monotonic() - began, False, trace)


def _end(pid: int, overtime: threading.Event) -> None:
    """SIGKILL a process and all below it, Ray's included."""
    overtime.set()
    try:
        parent = psutil.Process(pid)
        family = [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue


def _row(line: str) -> dict[str, Any] | None:
    """A row that a phase printed; None for any other output."""
    if not line.startswith('{"what":'):
        return None
    return dict(json.loads(line))


def chosen(minutes: float, only: Sequence[str]) -> list[Phase]:
    """The phases named, or those, in order of worth, whose estimates fit into the minutes."""
    if only:
        return [phase for phase in PHASES if phase.name in only]
    left, fitting = minutes * 60, list[Phase]()
    for phase in PHASES:
        if phase.seconds <= left:
            fitting.append(phase)
            left -= phase.seconds
    return fitting


def sizes() -> tuple[int, dict[str, int]]:
    """Bytes that travel with every call, and of each archive that one call carries besides."""
    listed = _git("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    files = {PROJECT / name for name in listed.split("\0") if name}
    tracked = sum(file.lstat().st_size for file in files if file.is_file())
    archives = sorted(ARCHIVES.glob("*.tar.xz*"))
    return tracked, {archive.name: archive.stat().st_size for archive in archives}


def travelling(tracked: int, archives: dict[str, int]) -> tuple[str, bool]:
    """What travels, in a line for each call, and whether all of it fits."""
    carried = archives or {"nothing else": 0}
    totals = {name: tracked + size for name, size in carried.items()}
    lines = [
        f"travels: {tracked / 1e6:.1f} MB of project + {carried[name] / 1e6:.1f} MB ({name}) = "
        f"{total / 1e6:.1f} MB of {MOST_TRAVELLING_BYTES / 1e6:.0f}"
        for name, total in totals.items()
    ]
    return "\n".join(lines), max(totals.values()) <= MOST_TRAVELLING_BYTES


def _git(*words: str) -> str:
    """What git prints; empty where there is no repository."""
    done = subprocess.run(["git", *words], cwd=PROJECT, capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else ""


def about(rehearsal: bool) -> dict[str, Any]:
    """What gpu.json says of this run besides its rows."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        gpu = subprocess.run(query, capture_output=True, text=True).stdout.strip() or "none"
    except FileNotFoundError:
        gpu = "none"
    versions = {name: _version(name) for name in LIBRARIES}
    commit = _git("rev-parse", "HEAD").strip() or "unknown"
    return {"rehearsal": rehearsal, "gpu": gpu, "commit": commit, "versions": versions}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def parsed() -> argparse.Namespace:
    """The command line."""
    names = [phase.name for phase in PHASES]
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=shape)
    parser.add_argument("--minutes", type=float, default=9.0, help="of time in all")
    parser.add_argument("--only", nargs="+", choices=names, default=[], help="phases to run")
    parser.add_argument("--rehearse", action="store_true", help="small sizes, on the CPU")
    parser.add_argument("--travels", action="store_true", help="print what a call carries, and end")
    return parser.parse_args()


def main() -> int:
    """Run the phases, show the table, say what was red."""
    options = parsed()
    if ARCHIVES.is_dir() or options.travels:
        text, fits = travelling(*sizes())
        print(text, flush=True)
        if not fits:
            print("error: more than one call may carry; make the project or the archives smaller")
            return 2
    if options.travels:
        return 0
    out = Path(os.environ.get("OUT", PROJECT / "runs" / "gpu"))
    table = Table(out, about(options.rehearse))
    phases = chosen(options.minutes, options.only)
    if options.rehearse:  # two cores may be slow: what counts is that it works
        slow = [replace(phase, limit_s=4 * phase.limit_s) for phase in phases]
        slow.sort(key=lambda phase: -phase.limit_s)
        check(slow, 4 * options.minutes * 60, table, ["--rehearse"], at_once=2)
    else:
        check(phases, options.minutes * 60, table, [])
    for row in table.red:
        print(f"\nRED: {row.phase}, {row.what}: {row.figures}\n{row.trace}", flush=True)
    print(f"\n{len(table.rows)} rows, {len(table.red)} red; {out / 'gpu.json'}", flush=True)
    return 1 if table.red else 0


if __name__ == "__main__":
    sys.exit(main())

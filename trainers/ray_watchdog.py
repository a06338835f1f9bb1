"""Ends the workers of a run that hangs, so that Ray restarts them from the last checkpoint.

Before that, the stacks of all workers are written into the run's folder. A hang is no step for
`hang_minutes` while no worker does what may take any time (trainers/loop/doing.py), or a worker
without a pulse for as long whose process is still there.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ocr.files import shown, write_atomically
from trainers.config import TrainConfig
from trainers.loop.doing import STEPS
from trainers.ray_pulse import Beat, beats_of

_ANSWER_S = 60.0  # most that a node may take to write stacks, or to end processes
_DUMP_S, _SETTLED_S = 10.0, 0.3


class Watchdog:
    """The driver's side; `check` is called again and again while the workers train."""

    def __init__(self, config: TrainConfig, run: str, run_dir: Path) -> None:
        self._run, self._run_dir, self._workers = run, run_dir, config.worker_count
        self._limit_s = None if config.hang_minutes is None else 60 * config.hang_minutes
        self._look_s = min(10.0, (self._limit_s or 0.0) / 10)
        self._looked_at = time.monotonic()
        self._before: dict[int, Beat] = {}
        self._stepless_s = 0.0
        self._still_s: dict[int, float] = {}  # by rank: seconds with one and the same pulse

    def check(self) -> None:
        """Look at every pulse now and then; end the workers of a run that hangs."""
        now = time.monotonic()
        if self._limit_s is None or now - self._looked_at < self._look_s:
            return
        # a driver that was stopped itself has not looked: that time counts against nobody
        passed, self._looked_at = min(now - self._looked_at, 2 * self._look_s), now
        beats = beats_of(self._run, self._workers)
        self._count(beats, passed)
        self._before = beats
        frozen = [rank for rank in beats if self._still_s[rank] >= self._limit_s]
        if not frozen and self._stepless_s < self._limit_s:
            return
        if all(_is_alive(beat.actor) for beat in beats.values()):  # else Ray restarts them already
            self._end(beats)
        self._stepless_s, self._before, self._still_s = 0.0, {}, {}

    def _count(self, beats: Mapping[int, Beat], passed: float) -> None:
        stands = {rank: (beat.actor, beat.steps) for rank, beat in beats.items()}
        before = {rank: (beat.actor, beat.steps) for rank, beat in self._before.items()}
        is_still = stands == before and all(beat.doing == STEPS for beat in beats.values())
        self._stepless_s = self._stepless_s + passed if beats and is_still else 0.0
        self._still_s = {
            rank: self._still_s.get(rank, 0.0) + passed if beat == self._before.get(rank) else 0.0
            for rank, beat in beats.items()
        }

    def _end(self, beats: Mapping[int, Beat]) -> None:
        """Write all stacks, then end all workers: the first that ends would change the others'."""
        assert self._limit_s
        frozen = [rank for rank in beats if self._still_s[rank] >= self._limit_s / 2]
        why = f"no step for {self._stepless_s:.0f} s"
        if frozen:
            ranks = ", ".join(map(str, frozen))
            why = f"no sign of life for {self._still_s[frozen[0]]:.0f} s from worker {ranks}"
        written = _on_each_node(_written_stacks, beats)
        parts = [
            f"worker {rank}, process {beat.pid}, {beat.doing}, {beat.steps} steps taken\n"
            + written.get(rank, "no answer from its node\n")
            for rank, beat in sorted(beats.items())
        ]
        number = len(list(self._run_dir.glob("stacks_*.txt"))) + 1
        file = self._run_dir / f"stacks_{number:03}.txt"
        write_atomically(file, "\n".join(parts).encode())
        print(
            f"{why}: the workers are ended, and the run resumes from the last checkpoint; "
            f"their stacks are in {shown(file)}",
            flush=True,
        )
        _on_each_node(_ended, beats)


def _is_alive(actor: str) -> bool:
    return bool(ray._private.state.actors(actor).get("State") == "ALIVE")


def _on_each_node(work: Callable[[Any], Any], beats: Mapping[int, Beat]) -> dict[int, str]:
    """Return what `work` returns for the workers of each node that answers in time."""
    tasks: list[Any] = []
    for node in {beat.node for beat in beats.values()}:
        here = {rank: beat for rank, beat in beats.items() if beat.node == node}
        place = NodeAffinitySchedulingStrategy(node, soft=False)
        remote = ray.remote(work).options(num_cpus=0, max_retries=0, scheduling_strategy=place)
        tasks.append(remote.remote(here))
    found: dict[int, str] = {}
    for task in ray.wait(tasks, num_returns=len(tasks), timeout=_ANSWER_S)[0]:
        with contextlib.suppress(Exception):  # its node has gone: Ray restarts the workers
            found |= ray.get(task)
    return found


def _written_stacks(beats: Mapping[int, Beat]) -> dict[int, str]:
    """Return the stacks of this node's workers; a stopped process must go on to write them."""
    for beat in beats.values():
        with contextlib.suppress(ProcessLookupError):
            os.kill(beat.pid, signal.SIGUSR1)
            os.kill(beat.pid, signal.SIGCONT)
    return {rank: _settled(Path(beat.stacks)) for rank, beat in beats.items()}


def _settled(file: Path) -> str:
    """Return what a file holds once it grows no more."""
    until, text = time.monotonic() + _DUMP_S, ""
    while time.monotonic() < until:
        time.sleep(_SETTLED_S)
        with contextlib.suppress(FileNotFoundError):
            before, text = text, file.read_text(encoding="utf-8", errors="replace")
            if text and text == before:
                return text
    return text or "no stacks: the process does not answer signals\n"


def _ended(beats: Mapping[int, Beat]) -> dict[int, str]:
    """End this node's workers."""
    for beat in beats.values():
        with contextlib.suppress(ProcessLookupError):
            os.kill(beat.pid, signal.SIGKILL)
    return {}

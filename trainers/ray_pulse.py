"""The pulse of every worker of a run on Ray, in Ray's key-value store, and its stacks on request.

A frozen process, or one whose interpreter never gets to its threads, has no pulse.
"""

import contextlib
import faulthandler
import json
import os
import signal
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray
from ray.experimental import internal_kv

from trainers.loop.doing import Doing

_BEAT_S = 0.5


@dataclass(frozen=True, slots=True)
class Beat:
    """One sign of life. `stacks`: the file, on the worker's node, that SIGUSR1 fills."""

    actor: str
    node: str
    pid: int
    stacks: str
    doing: str
    steps: int
    at: int  # the worker's own clock, in seconds
    world: int  # workers of its group


def pulse_of(run: str, rank: int = 0) -> bytes:
    """Return the last sign of life of a worker; empty before the first and after its end."""
    return internal_kv._internal_kv_get(_key(run, rank)) or b""


def beats_of(run: str, workers: int) -> dict[int, Beat]:
    """Return the last sign of life of each worker that has given one, by rank.

    Of a larger group before, ranks that the first worker's group does not have are left out.
    """
    pulses = {rank: pulse_of(run, rank) for rank in range(workers)}
    beats = {rank: Beat(**json.loads(pulse)) for rank, pulse in pulses.items() if pulse}
    world = beats[0].world if 0 in beats else workers
    return {rank: beat for rank, beat in beats.items() if rank < world}


def _key(run: str, rank: int) -> bytes:
    return f"lipi/{run}/pulse/{rank}".encode()


class Pulse:
    """A worker's side: within the block it beats, and SIGUSR1 writes the stacks of all threads."""

    def __init__(self, run: str, rank: int, world: int = 1) -> None:
        self._key, self._world = _key(run, rank), world
        self._doing = Doing()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lipi-pulse", daemon=True)

    def __enter__(self) -> Doing:
        # among Ray's own logs: what a killed worker leaves elsewhere stays for ever
        node: Any = ray._private.worker._global_node
        file = Path(node.get_logs_dir_path(), f"lipi-stacks-{os.getpid()}.txt")
        self._stacks = file.open("w+b")
        faulthandler.register(signal.SIGUSR1, file=self._stacks.fileno(), all_threads=True)
        context = ray.get_runtime_context()
        self._actor, self._node = context.get_actor_id() or "", context.get_node_id()
        self._thread.start()
        return self._doing

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(Exception):  # the word of a worker that is gone is not believed
            internal_kv._internal_kv_del(self._key)
        faulthandler.unregister(signal.SIGUSR1)
        self._stacks.close()

    def _beat(self) -> None:
        while True:
            with contextlib.suppress(Exception):  # of a head that starts again: the next one counts
                internal_kv._internal_kv_put(self._key, self._now(), overwrite=True)
            if self._ended.wait(_BEAT_S):
                return

    def _now(self) -> bytes:
        doing, stacks = self._doing, str(self._stacks.name)
        at, pid = int(time.monotonic()), os.getpid()
        where = (self._actor, self._node, pid, stacks)
        beat = Beat(*where, doing.what, doing.steps, at, self._world)
        return json.dumps(asdict(beat)).encode()

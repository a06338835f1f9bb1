"""Notices of a run on Ray: the driver is asked to end, or a node with workers is about to go.

The driver leaves its word in Ray's key-value store. Nodes that are drained, and when they go, are
known to Ray: from the cloud's notice of a spot machine, an autoscaler, or `ray drain-node`.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

import ray
from ray.experimental import internal_kv

from ocr.errors import Terminated
from trainers.loop.notices import HALT, NOTHING, SAVE, Notices
from trainers.ray_pulse import pulse_of

_POLL_S = 0.25
_MARGIN_S = 3.0  # before a node goes: for the step at hand and its checkpoint
_AFTER_S = 60.0  # a node that was to go and is still there: training goes on
_SAVING_S = 25.0  # most that an ending driver waits for the checkpoint


def _key(run: str, word: str) -> bytes:
    return f"lipi/{run}/{word}".encode()


class RayNotices(Notices):
    """The first worker's ear. `run`: a name for this run's words; `nodes`: where its workers are.

    A node without a time to go gets one checkpoint at its notice; one with a time gets another
    `_MARGIN_S` before it goes, and no step is taken after that one.
    """

    def __init__(self, run: str, nodes: set[str]) -> None:
        self._run, self._nodes = run, nodes
        self._notice, self._until = NOTHING, 0.0
        self._known: set[str] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="lipi-notices", daemon=True)

    def __enter__(self) -> "RayNotices":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def asked(self) -> float:
        """Return the notice that is there, and forget it."""
        with self._lock:
            notice, self._notice = self._notice, NOTHING
            return notice

    def saved(self, step: int) -> None:
        """Tell a driver that waits."""
        internal_kv._internal_kv_put(_key(self._run, "saved"), str(step).encode(), overwrite=True)

    def seconds_to_halt(self) -> float:
        """Return the seconds until the end that was announced, and a minute."""
        return max(0.0, self._until - time.time()) + _AFTER_S

    def _listen(self) -> None:
        while not self._stopped.wait(_POLL_S):
            with contextlib.suppress(Exception):  # of a head that starts again: asked once more
                self._ask()

    def _ask(self) -> None:
        if internal_kv._internal_kv_get(_key(self._run, "end")) and "driver" not in self._known:
            self._known.add("driver")
            self._halt_at(time.time())
        leaving = ray._private.state.state.get_draining_nodes()
        for node in self._nodes & set(leaving):
            self._node_leaves(node, leaving[node] / 1000)

    def _node_leaves(self, node: str, at: float) -> None:
        """Ask for a checkpoint, once; and once more shortly before `at`, seconds since 1970."""
        if node not in self._known:
            self._known.add(node)
            with self._lock:
                self._notice = max(self._notice, SAVE)
        if at and time.time() > at - _MARGIN_S and f"{node} halts" not in self._known:
            self._known.add(f"{node} halts")
            self._halt_at(at)

    def _halt_at(self, until: float) -> None:
        with self._lock:
            self._until, self._notice = max(self._until, until), HALT


class Ending:
    """The driver's side: SIGINT and SIGTERM end the run after a checkpoint of the step at hand.

    Within the block and in the main thread alone. The second signal ends it at once. `check` raises
    KeyboardInterrupt or Terminated when the checkpoint is on the disk, or `_SAVING_S` are over; at
    once where no worker has started.
    """

    def __init__(self, run: str) -> None:
        self._run, self._signal, self._asked_at = run, 0, 0.0
        self._before: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> "Ending":
        for word in ("end", "saved"):
            internal_kv._internal_kv_del(_key(self._run, word))
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._heard)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Pass the word on, and end when it is done."""
        if not self._signal:
            return
        if not pulse_of(self._run):  # no worker yet, so nothing to save
            self._end()
        if not self._asked_at:
            self._asked_at = time.monotonic()
            internal_kv._internal_kv_put(_key(self._run, "end"), b"1", overwrite=True)
            print("ending: saving a checkpoint of this step (again: end at once)", flush=True)
        step = internal_kv._internal_kv_get(_key(self._run, "saved"))
        if step:
            print(f"checkpoint of step {int(step):,} is saved", flush=True)
        if step or time.monotonic() > self._asked_at + _SAVING_S:
            self._end()

    def _heard(self, number: int, _: FrameType | None) -> None:
        if self._signal:
            self._end()
        self._signal = number

    def _end(self) -> None:
        raise Terminated if self._signal == signal.SIGTERM else KeyboardInterrupt

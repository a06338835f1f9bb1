"""The memory of a run's driver."""

import threading
from contextlib import closing, suppress
from pathlib import Path

import psutil

from ocr.json_lines import LineFile

_POLL_SECONDS = 5.0


class MemoryWatch:
    """Writes the peak memory of this process and its children, Ray included, to memory.jsonl.

    Memory is PSS, so shared pages count once. timings.jsonl is the first worker's, perhaps of
    another host.
    """

    def __init__(self, run_dir: Path) -> None:
        self._path, self._peak, self._stopped = run_dir / "memory.jsonl", 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, name="lipi-memory", daemon=True)

    def __enter__(self) -> "MemoryWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopped.wait(_POLL_SECONDS):
            processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
            used = sum(map(_pss, processes))
            if used > self._peak * 1.02:
                self._peak = used
                with suppress(OSError), closing(LineFile(self._path)) as file:  # a full disk
                    file.write({"step": 0, "memory_mib": round(used / 2**20)})


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except (psutil.Error, AttributeError):  # gone meanwhile, or not Linux
        return 0

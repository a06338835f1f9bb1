"""The memory of a run: its peak, and what to do where there is too little."""

import threading
from contextlib import closing, suppress
from pathlib import Path

import psutil

from ocr.errors import UserError, first_line
from ocr.json_lines import LineFile
from ocr.place import Place
from ocr.system_errors import is_out_of_memory
from trainers.config import TrainConfig
from trainers.runs.job import Job

_POLL_SECONDS = 5.0


def too_large(job: Job, problem: BaseException, place: Place, marker: str) -> UserError | None:
    """Return the message where memory ran out twice without a checkpoint between; else None.

    The first time another process may have had it; `marker`, a file of the run, remembers that.
    """
    if not is_out_of_memory(problem):
        return None
    saved = job.saved_steps()[-1:]
    if (place.json(marker) or {}).get("saved") != saved:
        place.write_json(marker, {"saved": saved})
        return None
    after = f" after step {saved[-1]}" if saved else ""
    return UserError(
        f"{job.config.shown_address}: out of memory{after}, twice ({first_line(problem)}); "
        f"{less_memory(job.config)}"
    )


def less_memory(config: TrainConfig) -> str:
    """Return the settings of a new run that needs less, from this one's weights."""
    train, model = config.train, config.model
    settings = list[str]()
    if train.micro_batch_size > 1:
        settings.append(f"train.micro_batch_size={train.micro_batch_size // 2}")
    if getattr(model, "gradient_checkpointing", True) is False:
        settings.append("model.gradient_checkpointing=true")
    if getattr(model, "load_in_4bit", True) is False:
        settings.append("model.load_in_4bit=true")
    needed = " ".join(settings) or "a machine with more memory, or smaller images"
    kept = f"train.init_from={config.shown_address} keeps its weights"
    return f"train with {needed} (a new run_name; {kept})"


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

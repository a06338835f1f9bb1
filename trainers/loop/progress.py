"""The progress of a run, read from its log files, as a progress bar or as plain lines."""

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ocr.json_lines import lines_of, skipped
from trainers.config import TrainConfig
from trainers.loop.bucket import RunInBucket

_POLL_SECONDS, _FETCH_SECONDS = 0.5, 5.0


class Progress:
    """Follows metrics.jsonl and timings.jsonl of a run while the `with` block runs.

    `max_steps` is None until it is known. Torn lines are skipped and counted. `fetch`: brings both
    files up to date, where they are written on another machine.
    """

    def __init__(
        self, run_dir: Path, max_steps: int | None, fetch: Callable[[], object] | None = None
    ) -> None:
        self._fetch, self._fetched_at = fetch, time.monotonic()
        self._metrics = _Tail(run_dir / "metrics.jsonl")
        self._timings = _Tail(run_dir / "timings.jsonl")
        self._shown_step = max((_step_of(line) for line in self._metrics.new()), default=-1)
        self._speed = 0.0
        self._timings.new()
        self._bar = tqdm(
            total=max_steps,
            initial=max(0, self._shown_step),
            unit=" steps",
            disable=None,
            dynamic_ncols=True,
        )
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="lipi-progress", daemon=True)

    def __enter__(self) -> "Progress":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        self._show()
        self._bar.close()

    def _follow(self) -> None:
        while not self._stopped.wait(_POLL_SECONDS):
            self._show()

    def _show(self) -> None:
        is_last = self._stopped.is_set()
        if self._fetch and (is_last or time.monotonic() > self._fetched_at + _FETCH_SECONDS):
            self._fetch()
            self._fetched_at = time.monotonic()
        timings, metrics = self._timings.new(), self._metrics.new()
        for tail in (self._timings, self._metrics):
            if notice := tail.notice():
                self._say(notice)
        for line in timings:
            self._speed = line.get("samples_per_second", self._speed)
            if "text" in line:
                self._say(line["text"])
        for line in metrics:
            if _step_of(line) > self._shown_step:
                self._bar.update(line["step"] - max(0, self._shown_step))
                self._shown_step = line["step"]
                self._say_step(line)

    def _say_step(self, line: dict[str, Any]) -> None:
        loss = f"{line['loss']:.3f}" if line.get("loss") is not None else "–"
        epoch = f"epoch {line['epoch']:.2f}  " if "epoch" in line else ""
        text = f"step {line['step']:>6,}  {epoch}loss {loss}  {self._speed:,.0f} samples/s"
        if "train_cer_teacher_forced" in line:
            text += f"  training CER {line['train_cer_teacher_forced']:.2%} (teacher-forced)"
        if "eval_cer" in line:
            self._say(
                f"{text}  validation loss {line['eval_loss']:.3f}  CER {line['eval_cer']:.2%}  "
                f"exact {line['eval_exact_match']:.1%}"
            )
        elif self._bar.disable:
            self._say(text)
        else:
            self._bar.set_postfix_str(f"loss {loss}, {self._speed:,.0f} samples/s")

    def _say(self, text: str) -> None:
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()


def progress_of(config: TrainConfig) -> Progress:
    """Return the progress of a run; of one in a bucket, a few seconds late."""
    bucket, steps = RunInBucket.of(config), config.train.max_steps
    if bucket is None:
        return Progress(config.local_run_dir, steps)
    return Progress(bucket.fetch_logs(), steps, bucket.fetch_logs)


def _step_of(line: dict[str, Any]) -> int:
    return int(line.get("step", -1))


class _Tail:
    """New whole lines of a JSON-lines file that may be replaced by another one at any time."""

    def __init__(self, path: Path) -> None:
        self._path, self._inode, self._offset, self._unreadable = path, 0, 0, 0

    def new(self) -> tuple[dict[str, Any], ...]:
        """Return the lines since the last call; all of them after a replacement."""
        if not self._path.is_file():
            return ()
        with open(self._path, "rb") as file:
            found = os.fstat(file.fileno())
            if found.st_ino != self._inode or found.st_size < self._offset:
                self._inode, self._offset = found.st_ino, 0
            file.seek(self._offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        lines = lines_of(whole)
        self._unreadable += lines.unreadable
        return lines.values

    def notice(self) -> str:
        """Return a notice about the unreadable lines since the last call, if any."""
        count, self._unreadable = self._unreadable, 0
        return skipped(self._path.name, count) if count else ""

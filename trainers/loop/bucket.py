"""A run that lives in a bucket: its checkpoints, logs and results, and their copies on machines.

Everything is written on the machine as ever, and then uploaded. The bucket is the truth: a machine
that begins, or begins again, takes what is there. A checkpoint's manifest is uploaded last, after
its files were read back, so that whoever finds it finds a whole checkpoint.
"""

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ocr.bundle import MANIFEST as BUNDLE_MANIFEST
from ocr.errors import UserError
from ocr.files import read_json
from ocr.mirror import Mirror, copy_of, is_shared
from ocr.place import Place, Unreachable
from trainers.config import TrainConfig
from trainers.loop.checkpoint import (
    MANIFEST,
    Checkpoint,
    DamagedCheckpoint,
    directory_of,
    evaluation_of,
    steps_of,
    verify_hashes,
)
from trainers.loop.lease import Writer

_LOGS = ("metrics.jsonl", "timings.jsonl", "samples.jsonl")
_REPORTS = ("config.yaml", "run.json", "memory.jsonl", "report.json", "report.html")
_SECONDS = 10.0  # between two looks at the logs


class RunInBucket:
    """A run's folder in a bucket, and its copy on this machine."""

    def __init__(self, address: str) -> None:
        self._mirror = Mirror(Place(address), copy_of(address))
        self.place, self.run_dir = self._mirror.place, self._mirror.folder
        self._logs = dict[str, tuple[int, int]]()  # as they were uploaded last

    @classmethod
    def of(cls, config: TrainConfig) -> "RunInBucket | None":
        """Return the run of a config; None where it lives in a folder."""
        return cls(config.address) if config.in_bucket else None

    def fetch(self, exactly: bool = False) -> None:
        """Fetch the run: whole checkpoints, logs, reports and the bundle.

        With `exactly` the copy loses what the bucket does not have, such as the checkpoints of an
        earlier attempt of this machine.
        """
        ours = ("checkpoint_", "bundle/", *_LOGS, *_REPORTS)
        self._fetch(self._whole(), ours if exactly else ())

    def fetch_checkpoints(self) -> None:
        """Fetch what a worker resumes from: whole checkpoints, their evaluations, and the logs."""
        whole = self._whole()
        parts = ("checkpoint_", *_LOGS, "run.json", "config.yaml")
        self._fetch(lambda name: name.startswith(parts) and whole(name), ("checkpoint_",))

    def _fetch(self, wanted: Callable[[str], bool], exactly: tuple[str, ...]) -> None:
        """Fetch, and fetch again the checkpoints that are damaged in this machine's copy."""
        self._mirror.fetch(wanted, exactly)
        damaged = False
        for step in steps_of(self.run_dir):
            try:
                verify_hashes(directory_of(self.run_dir, step))
            except DamagedCheckpoint:
                shutil.rmtree(directory_of(self.run_dir, step), ignore_errors=True)
                damaged = True
        if damaged:
            self._mirror.fetch(wanted, exactly)

    def publish(self, checkpoint: Checkpoint, writer: Writer) -> None:
        """Upload a checkpoint, and the logs that it counts on before it.

        UserError where a file does not read back as it was written; LostLease where another process
        has taken the run over.
        """
        folder = checkpoint.path.name
        self.push_logs()
        hashes: dict[str, str] = read_json(checkpoint.path / MANIFEST)["files"]
        self._mirror.push(f"{folder}/{name}" for name in hashes)
        for name, expected in hashes.items():
            if self.place.sha256(f"{folder}/{name}") != expected:
                raise Unreachable(f"{self.place}/{folder}/{name}: reads back otherwise")
        writer.require()
        self._mirror.push([f"{folder}/{MANIFEST}", "run.json"])

    def prune(self) -> None:
        """Delete the checkpoints that the copy does not have any more, and what a kill left."""
        kept = {directory_of(self.run_dir, step).name for step in steps_of(self.run_dir)}
        folders = {name.partition("/")[0] for name in self.place.names() if "/" in name}
        for folder in folders:
            if folder.startswith("checkpoint_") and folder not in kept:
                self._mirror.delete_folder(folder, MANIFEST)

    def push_logs(self) -> None:
        """Upload the logs as they are now, where they have changed."""
        now = {name: stamp for name, stamp in self._mirror.stamps().items() if name in _LOGS}
        self._mirror.push(name for name, stamp in now.items() if self._logs.get(name) != stamp)
        self._logs = now

    def push_evaluation(self, step: int) -> None:
        """Upload the evaluation of a step."""
        self._mirror.push([evaluation_of(self.run_dir, step).name])

    def push_settings(self) -> None:
        """Upload config.yaml and run.json."""
        self._mirror.push(_REPORTS[:2])

    def push_results(self) -> None:
        """Upload the bundle, evaluations made afterwards, and last the report."""
        self._mirror.push_folder("bundle", BUNDLE_MANIFEST)
        later = (self.run_dir / "evaluations").rglob("*.json")
        self._mirror.push(file.relative_to(self.run_dir).as_posix() for file in later)
        self._mirror.push(_REPORTS)

    def steps(self) -> list[int]:
        """Return the steps of the whole checkpoints in the bucket, in order."""
        return sorted(
            int(name.split("/")[0].removeprefix("checkpoint_")) for name in self._manifests()
        )

    @contextlib.contextmanager
    def logs_pushed(self) -> Iterator[None]:
        """Upload the logs every few seconds while the block runs; its end is the loop's."""
        stopped = threading.Event()

        def push() -> None:
            while not stopped.wait(_SECONDS):
                # it is tried again soon, and the end tells
                with contextlib.suppress(OSError, UserError):
                    self.push_logs()

        thread = threading.Thread(target=push, name="lipi-logs", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()

    def fetch_logs(self) -> Path:
        """Fetch the logs of workers that may be on other machines; return the folder of them."""
        followed = Mirror(self.place, self.run_dir / ".followed")
        with contextlib.suppress(OSError, UserError):  # shown once the bucket answers again
            followed.fetch(lambda name: name in _LOGS)
        return followed.folder

    def _manifests(self) -> Iterable[str]:
        names = self.place.names()
        return (
            name
            for name in names
            if name.startswith("checkpoint_") and name.endswith(f"/{MANIFEST}")
        )

    def _whole(self) -> Callable[[str], bool]:
        whole = {name.partition("/")[0] for name in self._manifests()}

        def wanted(name: str) -> bool:
            folder, _, file = name.partition("/")
            is_checkpoint = folder.startswith("checkpoint_") and file
            return folder in whole if is_checkpoint else is_shared(name)

        return wanted


def place_of(config: TrainConfig) -> Place:
    """Return where a run lives: its folder, or its address in a bucket."""
    return Place(config.address if config.in_bucket else config.local_run_dir)

"""Where a sweep lives: a folder, or a bucket with a copy on the machine that runs the sweep.

Everything is written into the folder or the copy, and then uploaded. The bucket is the truth: a
machine that begins, or begins again, takes what is there.
"""

from pathlib import Path

from ocr.bundle import MANIFEST
from ocr.mirror import Mirror
from ocr.place import Place
from trainers.sweep.settings import SweepConfig

SETTINGS, BASE, LEDGER = "sweep_config.yaml", "base.yaml", "ledger.jsonl"
_STATE = (SETTINGS, BASE, LEDGER)


class StoredSweep:
    """A sweep's files. Methods raise what `ocr.place.Place` raises, and OSError for the disk."""

    def __init__(self, sweep: SweepConfig) -> None:
        self.place, self.folder = Place(sweep.address), sweep.local_dir
        self._mirror = Mirror(self.place, self.folder) if sweep.in_bucket else None

    def path(self, name: str) -> Path:
        """Return a file of the folder, or of the copy."""
        return self.folder / name

    def fetch(self) -> None:
        """Have what a killed sweep resumes from."""
        if self._mirror:
            self._mirror.fetch(lambda name: name in _STATE, _STATE)

    def push(self, *names: str) -> None:
        """Upload files as they are now."""
        if self._mirror:
            self._mirror.push(names)

    def push_bundle(self) -> None:
        """Upload the best trial's bundle."""
        if self._mirror:
            self._mirror.push_folder("bundle", MANIFEST)

    def push_ledger(self) -> None:
        """Upload the ledger as it is now; it calls this after each of its lines."""
        self.push(LEDGER)

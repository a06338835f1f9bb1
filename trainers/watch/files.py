"""The files of a run, by name: all that watching reads.

`RunFiles` is the only place that knows how a run is stored.
"""

import fnmatch
import json
from pathlib import Path
from typing import Any

import yaml

from ocr.errors import UserError
from ocr.place import Place
from trainers.report.records import Records, records_of

_MARKS = ("config.yaml", "metrics.jsonl")  # the first file of a run, and the first one of its loop


class RunFiles:
    """The files of one run; a file that is missing, or half written, reads as empty."""

    def __init__(self, run: str | Path) -> None:
        """Raise UserError where the folder is missing, or is not a run's."""
        self.place = Place(run)
        if self.place.is_local and not Path(self.place.path).is_dir():
            raise UserError(f"{run}: no such folder; expected a run, such as runs/odia-ctc")
        if not any(self.place.has(name) for name in _MARKS):
            raise UserError(
                f"{run}: not a run (neither {' nor '.join(_MARKS)} in it); "
                "expected a folder that train.py writes, such as runs/odia-ctc"
            )

    def content(self, name: str) -> bytes:
        """Return the bytes of a file; empty where it is missing."""
        try:
            return self.place.read(name)
        except OSError:  # missing, or pruned meanwhile
            return b""

    def named(self, pattern: str) -> list[str]:
        """Return the sorted names of the run's files that match."""
        return fnmatch.filter(self.place.names(), pattern)

    def records(self, name: str) -> Records:
        """Return the lines of a JSON-lines file."""
        return records_of(name, self.content(name))

    def json(self, name: str) -> dict[str, Any]:
        """Return a JSON object."""
        try:
            value = json.loads(self.content(name) or b"{}")
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    def yaml(self, name: str) -> dict[str, Any]:
        """Return a YAML mapping."""
        try:
            value = yaml.safe_load(self.content(name))
        except (yaml.YAMLError, UnicodeDecodeError):
            return {}
        return value if isinstance(value, dict) else {}

"""Files that outlive the endpoint and that all replicas share, on a disk or in a bucket.

Each is whole or not there at all. One that a broken disk has damaged is left out, with a word.
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import stat
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs

from ocr.dataset.arrow_cache import filesystem
from ocr.errors import UserError
from ocr.files import locked, write_atomically

_FULL = (errno.ENOSPC, errno.EDQUOT)
_log = logging.getLogger("ray.serve")


def stamp(now_ns: int) -> str:
    """Return a time in UTC, to the millisecond, as ISO 8601."""
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now_ns / 1e9))
    return f"{seconds}.{now_ns // 1_000_000 % 1000:03d}Z"


class StorageError(UserError):
    """A file that could not be stored; the request may be right, and sent again."""


class StorageFull(StorageError):
    """A file for which the storage has no room."""


def keep_private(location: str) -> None:
    """Make a storage folder for this user alone, and so what this process writes into it.

    A folder that is there keeps its rights, and one that others may enter this process's umask.
    """
    if "://" in location:
        return
    folder = Path(location)
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    if is_private(folder):
        os.umask(0o077)


def is_private(folder: Path) -> bool:
    """Return whether a folder is its owner's alone."""
    return not stat.S_IMODE(folder.stat().st_mode) & 0o077


class Store:
    """A folder (a path, or s3://bucket/folder) of small files.

    Raises UserError where it cannot be reached.
    """

    def __init__(self, location: str) -> None:
        self.location = location if "://" in location else str(Path(location).resolve())
        self.files, self.root = filesystem(self.location)
        self.is_local = isinstance(self.files, pyarrow.fs.LocalFileSystem)
        self._told = set[str]()  # damaged files

    @property
    def digest(self) -> str:
        """A hash that tells storages apart without giving their location away."""
        return hashlib.sha256(self.location.encode()).hexdigest()[:16]

    def put(self, name: str, content: bytes) -> None:
        """Write one file; a reader sees the old content or the new. StorageError where it fails."""
        path = f"{self.root}/{name}"
        try:
            if self.is_local:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                write_atomically(Path(path), content)
            else:
                with self.files.open_output_stream(path, compression=None) as stream:
                    stream.write(content)
        except (pa.ArrowException, OSError) as problem:
            raise self._unwritten(name, problem) from None

    def remove(self, name: str) -> bool:
        """Remove a file; return whether it was there. StorageError where it stays."""
        try:
            self.files.delete_file(f"{self.root}/{name}")
        except FileNotFoundError:
            return False
        except (pa.ArrowException, OSError) as problem:
            raise self._unwritten(name, problem) from None
        return True

    def _unwritten(self, name: str, problem: Exception) -> StorageError:
        is_full = isinstance(problem, OSError) and problem.errno in _FULL
        kind = StorageFull if is_full else StorageError
        return kind(f"{self.location}/{name}: cannot be written: {problem}")

    def get(self, name: str) -> bytes | None:
        """Return a file's bytes; None where it is missing."""
        try:
            with self.files.open_input_stream(f"{self.root}/{name}", compression=None) as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None

    def object(self, name: str) -> dict[str, Any] | None:
        """Return the JSON object in a file; None where it is missing, or damaged, which is told."""
        content = self.get(name)
        if content is None:
            return None
        try:
            value = json.loads(content)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            return value
        if name not in self._told:
            self._told.add(name)
            _log.warning(
                "%s/%s: damaged (%d bytes), left out; %d such files since this process started",
                *(self.location, name, len(content), len(self._told)),
            )
        return None

    def names(self, folder: str) -> list[str]:
        """Return the sorted names of a folder's files, without those being written."""
        return sorted(info.base_name for info in self._listed(folder, pyarrow.fs.FileType.File))

    def stamps(self, folder: str) -> dict[str, int]:
        """Return a folder's file names with their time of writing in nanoseconds."""
        return {
            info.base_name: info.mtime_ns for info in self._listed(folder, pyarrow.fs.FileType.File)
        }

    def bytes_in(self, folder: str) -> int:
        """Return the size of a folder's files together, in bytes."""
        return sum(info.size for info in self._listed(folder, pyarrow.fs.FileType.File))

    def folders(self, folder: str) -> list[str]:
        """Return the sorted names of a folder's folders."""
        return sorted(
            info.base_name for info in self._listed(folder, pyarrow.fs.FileType.Directory)
        )

    def _listed(self, folder: str, kind: Any) -> list[Any]:
        found = self.files.get_file_info(
            pyarrow.fs.FileSelector(f"{self.root}/{folder}", allow_not_found=True)
        )
        return [info for info in found if info.type == kind and not info.base_name.startswith(".")]

    def append(self, journal: str, entry: dict[str, Any]) -> str:
        """Add an entry to a journal; return its name, which sorts after every earlier one.

        Names are numbers: clocks of several hosts disagree. Earlier versions numbered by the
        clock's nanoseconds, from which the numbers go on. A bucket has no lock, so entries of the
        same moment are in any order there.
        """
        with self._numbering(journal):
            used = (name.partition("-")[0] for name in self.names(journal))
            number = 1 + max((int(digits) for digits in used if digits.isdecimal()), default=0)
            name = f"{number:020d}-{uuid.uuid4().hex[:8]}"
            self.put(
                f"{journal}/{name}.json",
                json.dumps({"at": stamp(time.time_ns()), **entry}, ensure_ascii=False).encode(),
            )
        return name

    @contextlib.contextmanager
    def _numbering(self, journal: str) -> Iterator[None]:
        if not self.is_local:
            yield
            return
        folder = Path(f"{self.root}/{journal}")
        with contextlib.ExitStack() as held:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(locked(folder / ".lock"))
            except OSError as problem:
                raise self._unwritten(journal, problem) from None
            yield

    def entries(self, journal: str) -> list[dict[str, Any]]:
        """Return a journal's entries, the oldest first, each with its `id`."""
        found = [(name, self.object(f"{journal}/{name}")) for name in self.names(journal)]
        return [
            {"id": name.removesuffix(".json"), **entry}
            for name, entry in found
            if entry is not None
        ]

"""Files that outlive the endpoint and that all replicas share, on a disk or in a bucket.

Each is whole or not there at all.
"""

import hashlib
import json
import time
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs

from ocr.dataset.arrow_cache import filesystem
from ocr.errors import UserError
from ocr.files import write_atomically


def stamp(now_ns: int) -> str:
    """Return a time in UTC, to the millisecond, as ISO 8601."""
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now_ns / 1e9))
    return f"{seconds}.{now_ns // 1_000_000 % 1000:03d}Z"


class Store:
    """A folder (a path, or s3://bucket/folder) of small files.

    Raises UserError where it cannot be reached.
    """

    def __init__(self, location: str) -> None:
        self.location = location if "://" in location else str(Path(location).resolve())
        self.files, self.root = filesystem(self.location)
        self.is_local = isinstance(self.files, pyarrow.fs.LocalFileSystem)

    @property
    def digest(self) -> str:
        """A hash that tells storages apart without giving their location away."""
        return hashlib.sha256(self.location.encode()).hexdigest()[:16]

    def put(self, name: str, content: bytes) -> None:
        """Write one file; a reader sees the old content or the new."""
        path = f"{self.root}/{name}"
        try:
            if self.is_local:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                write_atomically(Path(path), content)
            else:
                with self.files.open_output_stream(path, compression=None) as stream:
                    stream.write(content)
        except (pa.ArrowException, OSError) as problem:
            raise UserError(f"{self.location}/{name}: cannot be written: {problem}") from None

    def get(self, name: str) -> bytes | None:
        """Return a file's bytes; None where it is missing."""
        try:
            with self.files.open_input_stream(f"{self.root}/{name}", compression=None) as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None

    def names(self, folder: str) -> list[str]:
        """Return the sorted names of a folder's files, without those being written."""
        return sorted(info.base_name for info in self._listed(folder, pyarrow.fs.FileType.File))

    def stamps(self, folder: str) -> dict[str, int]:
        """Return a folder's file names with their time of writing in nanoseconds."""
        return {
            info.base_name: info.mtime_ns for info in self._listed(folder, pyarrow.fs.FileType.File)
        }

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
        """Add an entry to a journal; return its name, which sorts by time."""
        now = time.time_ns()
        name = f"{now:020d}-{uuid.uuid4().hex[:8]}"
        self.put(
            f"{journal}/{name}.json",
            json.dumps({"at": stamp(now), **entry}, ensure_ascii=False).encode(),
        )
        return name

    def entries(self, journal: str) -> list[dict[str, Any]]:
        """Return a journal's entries, the oldest first, each with its `id`."""
        found = [(name, self.get(f"{journal}/{name}")) for name in self.names(journal)]
        return [
            {"id": name.removesuffix(".json"), **json.loads(content)}
            for name, content in found
            if content is not None
        ]

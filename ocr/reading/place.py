"""A folder or a bucket that results lie in: each file whole or not there."""

import os
from pathlib import Path
from typing import Any

from ocr.files import write_atomically
from ocr.settings import with_home


class Place:
    """A folder, or an s3:// or gs:// address; names of files are relative to it."""

    def __init__(self, output: str) -> None:
        self.path = output.rstrip("/") if "://" in output else with_home(output)
        self.is_local = "://" not in self.path
        self._files, self._root = (None, self.path)
        if not self.is_local:
            from ocr.dataset.arrow_cache import filesystem

            self._files, self._root = filesystem(self.path)

    def has(self, name: str) -> bool:
        """Return whether a file is there."""
        if self._files is None:
            return Path(self._root, name).is_file()
        info: Any = self._files.get_file_info(f"{self._root}/{name}")
        return bool(info.is_file)

    def names(self, folder: str = "") -> list[str]:
        """Return the names of all files below a folder, sorted; in a bucket by one listing."""
        root = Path(self._root, folder)
        if self._files is None:
            found = (Path(at, file) for at, _, files in os.walk(root) for file in files)
            return sorted(file.relative_to(self._root).as_posix() for file in found)
        import pyarrow.fs

        selector = pyarrow.fs.FileSelector(str(root), recursive=True, allow_not_found=True)
        infos = self._files.get_file_info(selector)
        return sorted(info.path[len(self._root) + 1 :] for info in infos if info.is_file)

    def read(self, name: str) -> bytes:
        """Return a file's bytes; OSError where it cannot be read."""
        if self._files is None:
            return Path(self._root, name).read_bytes()
        with self._files.open_input_stream(f"{self._root}/{name}", compression=None) as stream:
            return bytes(stream.read())

    def write(self, name: str, content: bytes) -> None:
        """Write a file, with the folders above it."""
        if self._files is None:
            path = Path(self._root, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)
            return
        with self._files.open_output_stream(f"{self._root}/{name}", compression=None) as stream:
            stream.write(content)

    def delete(self, name: str) -> None:
        """Delete a file."""
        if self._files is None:
            Path(self._root, name).unlink(missing_ok=True)
            return
        self._files.delete_file(f"{self._root}/{name}")

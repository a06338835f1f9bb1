"""A folder or a bucket that files lie in: each whole or not there.

A bucket that answers with an error of its own, or not at all, is asked again for half a minute, or
for a minute where each try times out.
"""

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from ocr.errors import UserError, first_line
from ocr.files import locked, sync, write_atomically
from ocr.lock_files import TIMES, Times, Unchanged
from ocr.settings import with_home

_random = random.SystemRandom()  # a seed that was set must not make processes wait in step
T = TypeVar("T")
_WAITS = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # seconds, between tries
_TOLD_AT = 2.0
_PART = 8 << 20  # bytes
_MISTAKES = re.compile(
    r"ACCESS_DENIED|NO_SUCH_BUCKET|INVALID_ACCESS_KEY|SIGNATURE_DOES_NOT_MATCH|AccessDenied|"
    r"InvalidAccessKeyId|SignatureDoesNotMatch|NoSuchBucket|Bucket .* does not exist",
    re.IGNORECASE,
)


class Unreachable(ConnectionError):
    """A bucket that did not answer for so long; to be tried again later."""


class Place:
    """A folder, or an s3:// or gs:// address; names of files are relative to it.

    On a bucket every method raises Unreachable where it does not answer, UserError where it refuses
    the credentials or does not exist.
    """

    def __init__(self, address: str | Path) -> None:
        text = str(address)
        self.path = text.rstrip("/") if "://" in text else with_home(text)
        self.is_local = "://" not in self.path
        self._files, self._root = (None, self.path)
        if not self.is_local:
            from ocr.dataset.arrow_cache import filesystem

            self._files, self._root = filesystem(self.path, tries=1)

    def __str__(self) -> str:
        return self.path

    def __truediv__(self, name: str) -> str:
        return f"{self.path}/{name}"

    def has(self, name: str) -> bool:
        """Return whether a file is there."""
        if self._files is None:
            return Path(self._root, name).is_file()
        files: Any = self._files
        info = self._tried(lambda: files.get_file_info(f"{self._root}/{name}"))
        return bool(info.is_file)

    def names(self, folder: str = "") -> list[str]:
        """Return the names of all files below a folder, sorted; in a bucket by one listing."""
        return sorted(self.stamps(folder))

    def stamps(self, folder: str = "") -> dict[str, tuple[int, int]]:
        """Return names of all files below a folder with size in bytes and time in nanoseconds."""
        root = Path(self._root, folder)
        if self._files is None:
            found = [Path(at, file) for at, _, files in os.walk(root) for file in files]
            stamps = {file.relative_to(self._root).as_posix(): _stamp(file) for file in found}
            return {name: stamp for name, stamp in stamps.items() if stamp}
        import pyarrow.fs

        files: Any = self._files
        selector = pyarrow.fs.FileSelector(str(root), recursive=True, allow_not_found=True)
        infos = self._tried(lambda: files.get_file_info(selector))
        cut = len(self._root) + 1
        return {info.path[cut:]: (info.size, info.mtime_ns) for info in infos if info.is_file}

    def read(self, name: str) -> bytes:
        """Return a file's bytes; OSError where it cannot be read."""

        def read() -> bytes:
            with self._source(name) as stream:
                return bytes(stream.read())

        return self._tried(read)

    def json(self, name: str) -> dict[str, Any] | None:
        """Return the object in a JSON file; None where it is missing, empty or damaged."""
        try:
            value = json.loads(self.read(name))
        except (FileNotFoundError, ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None

    def write(self, name: str, content: bytes) -> None:
        """Write a file, with the folders above it."""
        if self._files is None:
            path = Path(self._root, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)
            return

        def write() -> None:
            with self._sink(name) as stream:
                stream.write(content)

        self._tried(write)

    def write_json(self, name: str, value: Any) -> None:
        """Write a value as readable JSON."""
        self.write(name, (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode())

    def upload(self, name: str, file: Path) -> None:
        """Write a file of this machine, in parts: it may be larger than the memory."""
        if self.is_local:
            self.write(name, file.read_bytes())
            return

        def upload() -> None:
            with open(file, "rb") as source, self._sink(name) as sink:
                shutil.copyfileobj(source, sink, _PART)

        self._tried(upload)

    def download(self, name: str, file: Path) -> None:
        """Read a file into one of this machine, which is whole or missing, in parts."""
        temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex}.tmp")

        def download() -> None:
            with self._source(name) as source, open(temporary, "wb") as sink:
                shutil.copyfileobj(source, sink, _PART)

        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._tried(download)
            sync(temporary)
            os.replace(temporary, file)
        finally:
            temporary.unlink(missing_ok=True)

    def sha256(self, name: str) -> str:
        """Return the SHA-256 of a file's bytes as they are read back, in hex."""

        def hashed() -> str:
            found = hashlib.sha256()
            with self._source(name) as source:
                while part := source.read(_PART):
                    found.update(part)
            return found.hexdigest()

        return self._tried(hashed)

    def _source(self, name: str) -> Any:
        files: Any = self._files
        if files is None:
            return open(Path(self._root, name), "rb")
        return files.open_input_stream(f"{self._root}/{name}", compression=None)

    def _sink(self, name: str) -> Any:
        files: Any = self._files
        return files.open_output_stream(f"{self._root}/{name}", compression=None)

    def delete(self, name: str) -> None:
        """Delete a file, where it is there."""
        if self._files is None:
            Path(self._root, name).unlink(missing_ok=True)
            return
        files: Any = self._files
        with contextlib.suppress(FileNotFoundError):
            self._tried(lambda: files.delete_file(f"{self._root}/{name}"))

    def delete_folder(self, name: str) -> None:
        """Delete a folder with all its files, where it is there."""
        if self._files is None:
            shutil.rmtree(Path(self._root, name), ignore_errors=True)
            return
        files: Any = self._files
        with contextlib.suppress(FileNotFoundError):
            self._tried(lambda: files.delete_dir(f"{self._root}/{name}"))

    @contextlib.contextmanager
    def locked(self, name: str, times: Times = TIMES) -> Iterator[None]:
        """Hold a lock of this name while the block runs; in a bucket it is a folder of claims.

        Whoever writes a claim and then sees no other one holds the lock; who sees one withdraws and
        tries again later. Listings of S3 and GCS show every write that came before, so that of two
        claims at least one sees the other. A claim that has not changed for a minute of this
        process's own clock was left by a process that died.
        """
        if self._files is None:
            with locked(Path(self._root, name)):
                yield
            return
        claim, others = f"{name}/{uuid.uuid4().hex}", dict[str, Unchanged]()
        while not self._claimed(name, claim, others, times):
            time.sleep(_random.uniform(0.05, 0.5) * min(1.0, times.poll))
        try:
            yield
        finally:
            self.delete(claim)

    def _claimed(self, name: str, claim: str, others: dict[str, Unchanged], times: Times) -> bool:
        if self._has_others(name, claim, others, times):
            return False
        self.write(claim, b"{}")
        if not self._has_others(name, claim, others, times):
            return True
        self.delete(claim)
        return False

    def _has_others(self, name: str, mine: str, others: dict[str, Unchanged], times: Times) -> bool:
        found = self.stamps(name)
        found.pop(mine, None)
        live = False
        for claim, stamp in found.items():
            if others.setdefault(claim, Unchanged()).seconds(stamp) >= times.stale:
                self.delete(claim)
            else:
                live = True
        return live

    def _tried(self, ask: Callable[[], T]) -> T:
        """Return what the bucket answers, asked again where it has trouble of its own."""
        if self._files is None:
            return ask()
        import pyarrow as pa

        for wait in (*_WAITS, None):
            try:
                return ask()
            except FileNotFoundError as problem:
                if not _MISTAKES.search(str(problem)):
                    raise
                raise self._refused(problem) from None
            except (pa.ArrowException, OSError) as problem:
                if _MISTAKES.search(str(problem)):
                    raise self._refused(problem) from None
                if wait is None:
                    raise Unreachable(f"{self.path}: no answer: {problem}") from None
                if wait == _TOLD_AT:
                    print(f"{self.path}: no answer ({first_line(problem)}); again", flush=True)
                time.sleep(wait * _random.uniform(0.5, 1.0))
        raise AssertionError  # the last try returns or raises

    def _refused(self, problem: Exception) -> UserError:
        return UserError(
            f"{self.path}: {problem}; expected a bucket that the credentials of the environment "
            "may read and write (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, "
            "AWS_ENDPOINT_URL)"
        )


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:  # deleted meanwhile
        return None
    return found.st_size, found.st_mtime_ns

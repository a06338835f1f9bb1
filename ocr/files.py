"""Files and folders that are either whole or missing, the hashes that prove it, and locks."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ocr.lock_files import lock_file

# NFS and Lustre that are mounted without locks, and folders of NFS, which cannot be opened to write
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EBADF)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Push a file's bytes, or a directory's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by `data`; a reader or a crash sees the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        temporary.write_bytes(data)
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as readable UTF-8 JSON, atomically."""
    write_atomically(path, (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode())


def read_json(path: Path) -> Any:
    """Return the value in a JSON file; ValueError or OSError where it is damaged or missing."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_object(path: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file; None where it is missing, empty or damaged.

    OSError where the disk or the network fails, which says nothing about the file.
    """
    try:
        value = read_json(path)
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `path` when the block ends without an error.

    A reader or a crash sees the old folder or the new one; an error leaves the old one.
    """
    making = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    old = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.old")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    try:
        yield making
        sync(making)
        if path.exists():
            path.rename(old)
        making.rename(path)
        sync(path.parent)
    finally:
        shutil.rmtree(making, ignore_errors=True)
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
        elif old.exists():
            old.rename(path)


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold the operating system's lock on a file (made where missing) or a folder.

    The lock ends with the process. With `wait=False` BlockingIOError where another holds it. Where
    the file system has no locks, a file beside it is the lock.
    """
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if _flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB)):
            yield
        else:
            with lock_file(path.with_name(f"{path.name}.held"), wait):
                yield
    finally:
        os.close(descriptor)


def _flock(descriptor: int, how: int) -> bool:
    """Lock, and return whether the file system can."""
    try:
        fcntl.flock(descriptor, how)
    except OSError as problem:
        if problem.errno in _NO_LOCKS:
            return False
        raise
    return True


def cache_dir() -> Path:
    """Return the folder for what can be made again: LIPI_CACHE, else ~/.cache/lipi."""
    return Path(os.environ.get("LIPI_CACHE") or "~/.cache/lipi").expanduser()


def shown(path: Path) -> str:
    """Return the path as a user at this prompt would write it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)

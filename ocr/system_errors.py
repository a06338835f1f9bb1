"""Errors of the operating system at a path that the user named: one message, exit status 2."""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ocr.errors import UserError
from ocr.files import cache_dir

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_OF_THE_USER = (
    *_NO_ROOM,
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR),
    *(errno.EEXIST, errno.ELOOP, errno.EFBIG),
)
# of libraries that write by themselves: safetensors, Arrow, Ray, torch
_SAYS_NO_ROOM = re.compile(
    r"No space left on device|Disk quota exceeded|os error (?:28|122)\b|errno (?:28|122)\b"
    r"|enforce fail at inline_container\.cc.*(?:unexpected pos|PytorchStreamWriter|write failed)",
    re.IGNORECASE | re.DOTALL,
)
# of torch on a CPU and on a GPU, NumPy, Ray's monitor of a node
_SAYS_NO_MEMORY = re.compile(
    r"CUDA out of memory|can't allocate memory|Unable to allocate .* for an array"
    r"|CUBLAS_STATUS_ALLOC_FAILED|running low on memory",
    re.IGNORECASE,
)
_LITTLE = 64_000_000
_FILE, _OTHER = "a file is where a folder is meant", "name another path"
_CACHE = "set LIPI_CACHE to a folder that you may write, with room"


@contextmanager
def reported(path: Path | str, advice: str, needed: str = "") -> Iterator[None]:
    """Turn an error of the operating system inside the block into a UserError.

    `path` is named where the error itself names none, `advice` says what to set, and `needed` what
    there must be room for. Other errors pass.
    """
    try:
        yield
    except Exception as problem:
        mistake = mistake_of(problem, path, advice, needed)
        if mistake is None:
            raise
        raise mistake from problem


def mistake_of(
    problem: BaseException, path: Path | str | None, advice: str, needed: str = ""
) -> UserError | None:
    """Return the message of an error at a path that the user named; None for any other error."""
    if isinstance(problem, UserError):
        return None
    number = problem.errno if isinstance(problem, OSError) else None
    named = problem.filename if isinstance(problem, OSError) else None
    is_named = isinstance(named, (str, bytes))
    found = os.fsdecode(named) if isinstance(named, (str, bytes)) else path
    where = Path(found) if found is not None else None
    if where is not None and where.is_relative_to(cache_dir()):
        advice = _CACHE
    elif where is not None and path is not None and not _belongs(where, Path(path)):
        advice = _OTHER
    if is_full_disk(problem):
        reason = os.strerror(number if number in _NO_ROOM else errno.ENOSPC)
        if where is None:
            return UserError(f"a disk: {reason}; make room, or {advice}")
        where = where if is_named or needed else _full_one(where)
        room = (
            f"{_free_bytes(where):,} bytes are free{'; ' if needed else ''}{needed}"
            if where is not None
            else needed
        )
        return UserError(f"{where}: {reason}: {room}; make room, or {advice}")
    is_users = number in _OF_THE_USER or (number == errno.ENOENT and _made_a_folder(problem))
    if not is_users or not is_named:
        return None
    reason = _FILE if number in (errno.EEXIST, errno.ENOTDIR) else os.strerror(number or 0)
    return UserError(f"{where}: {reason}; {advice}")


def is_full_disk(problem: BaseException) -> bool:
    """Tell whether an error, or one of its causes, is that a disk or a quota is full."""
    return any(
        (isinstance(cause, OSError) and cause.errno in _NO_ROOM)
        or (not isinstance(cause, UserError) and _SAYS_NO_ROOM.search(str(cause)))
        for cause in _causes(problem)
    )


def is_out_of_memory(problem: BaseException) -> bool:
    """Tell whether an error, or one of its causes, is that memory ran out."""
    return any(
        isinstance(cause, MemoryError)
        or (not isinstance(cause, UserError) and _SAYS_NO_MEMORY.search(str(cause)))
        for cause in _causes(problem)
    )


def _made_a_folder(problem: BaseException) -> bool:
    """Tell whether an error comes from making a folder, which /proc and the like do not allow."""
    last = problem.__traceback__
    while last and last.tb_next:
        last = last.tb_next
    return last is not None and last.tb_frame.f_code.co_name in ("mkdir", "makedirs")


def _causes(problem: BaseException) -> list[BaseException]:
    """Return an error and what it was raised from."""
    seen = list[BaseException]()
    cause: BaseException | None = problem
    while cause is not None and cause not in seen:  # Ray raises an error from itself
        seen.append(cause)
        cause = cause.__cause__
    return seen


def _belongs(where: Path, path: Path) -> bool:
    """Tell whether a path is in, above or right beside another one."""
    where, path = where.absolute(), path.absolute()
    return where.is_relative_to(path.parent) or path.is_relative_to(where)


def _full_one(path: Path) -> Path:
    """Return the path, or the temporary folder or the cache where one of these is full instead."""
    others = [Path(tempfile.gettempdir()), cache_dir()]
    if _free_bytes(path) < _LITTLE:
        return path
    return next((other for other in others if _free_bytes(other) < _LITTLE), path)


def _free_bytes(path: Path) -> int:
    """Return the free bytes of the disk of a path, which need not exist."""
    for folder in (path, *path.absolute().parents):
        try:
            return shutil.disk_usage(folder).free
        except OSError:
            continue
    return 0

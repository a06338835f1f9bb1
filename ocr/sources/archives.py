"""Zip files of an export, unpacked once into LIPI_CACHE and read like the folder in them."""

import contextlib
import errno
import hashlib
import shutil
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TypeVar

from ocr.errors import UserError
from ocr.files import cache_dir, locked, replaced_folder
from ocr.sample import Sample, Skip
from ocr.sources.files import MAX_FILE_BYTES
from ocr.sources.named_files import is_file
from ocr.sources.settings import SourceSettings
from ocr.system_errors import reported
from ocr.unpacking import DAMAGED

_UTF8_NAME, _ENCRYPTED = 0x800, 0x1
_FOLDERS = ("path", "images")
# pages of XML take a twentieth of their size, images all of it; Deflate packs at most to 1/1032
_USUAL_BYTES, _USUAL_RATIO = 1_000_000_000, 50
SettingsT = TypeVar("SettingsT", bound=SourceSettings)


def unzipped(settings: SettingsT) -> SettingsT:
    """Return the settings with the folder of each zip file that they name in its place."""
    zips = {
        key: str(unpacked(Path(value)))
        for key in _FOLDERS
        if isinstance(value := getattr(settings, key, None), str) and _is_zip(value)
    }
    return settings.model_copy(update=zips) if zips else settings


def as_named(
    items: Iterator[Sample | Skip], read: SourceSettings, given: SourceSettings
) -> Iterator[Sample | Skip]:
    """Yield what was read from an unpacked zip file under the name of the zip file."""
    names = [
        (str(getattr(read, key)), str(getattr(given, key)))
        for key in _FOLDERS
        if getattr(read, key, None) != getattr(given, key, None)
    ]

    def named(text: str) -> str:
        for folder, zip_file in names:
            text = text.replace(folder, zip_file)
        return text

    for item in items:
        if isinstance(item, Sample):
            yield replace(item, source=named(item.source))
        else:
            yield replace(item, where=named(item.where), detail=named(item.detail))


def _is_zip(path: str) -> bool:
    return path.lower().endswith(".zip") and is_file(Path(path))


def unpacked(path: Path) -> Path:
    """Return the folder with the files of a zip file; UserError where it cannot be unpacked.

    Links, and names that lead out of the folder, are refused.
    """
    status = path.stat()
    stamp = f"{path.resolve()}\x1f{status.st_size}\x1f{status.st_mtime_ns}"
    folder = cache_dir() / "zips" / hashlib.sha256(stamp.encode()).hexdigest()[:32]
    if folder.is_dir():
        return folder
    with reported(folder, "unpack it by hand"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_suffix(".lock")):
            if not folder.is_dir():
                _unpack(path, folder)
    return folder


def _unpack(path: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive, replaced_folder(folder) as making:
            _require_room(path, archive, making)
            for entry in archive.infolist():
                if entry.is_dir():
                    continue
                target = making / _name_of(path, entry)
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as source, open(target, "wb") as file:
                    shutil.copyfileobj(source, file)
    except UserError:
        raise
    except OSError as problem:
        if problem.errno not in (None, errno.EINVAL):  # of the disk, not of the zip file
            raise
        raise _unreadable(path, problem) from None
    except DAMAGED as problem:
        raise _unreadable(path, problem) from None


def _unreadable(path: Path, problem: Exception) -> UserError:
    why = str(problem) or type(problem).__name__
    return UserError(f"{path}: not a readable zip file: {why}; export it again")


def _require_room(path: Path, archive: zipfile.ZipFile, folder: Path) -> None:
    entries = archive.infolist()
    if any(entry.flag_bits & _ENCRYPTED for entry in entries):
        raise UserError(f"{path}: it has a password; unpack it by hand and name the folder")
    large = next((entry for entry in entries if entry.file_size > MAX_FILE_BYTES), None)
    if large:
        raise UserError(
            f"{path}: {large.filename} is {large.file_size:,} bytes; the limit is "
            f"{MAX_FILE_BYTES:,} a file"
        )
    needed, free = sum(entry.file_size for entry in entries), shutil.disk_usage(folder).free
    packed = path.stat().st_size
    if needed > max(_USUAL_BYTES, _USUAL_RATIO * packed):
        raise UserError(
            f"{path}: {needed:,} bytes in {packed:,}, as no export has; if it is right, unpack it "
            "by hand and name the folder"
        )
    if needed > free:
        raise UserError(
            f"{path}: {needed:,} bytes unpacked, {free:,} are free in {folder.parent}; "
            "make room, or set LIPI_CACHE to a larger disk"
        )


def _name_of(path: Path, entry: zipfile.ZipInfo) -> PurePosixPath:
    """Return the name of a file in a zip file, which many programs write as UTF-8 unmarked."""
    name = entry.filename
    if not entry.flag_bits & _UTF8_NAME:
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    inside = PurePosixPath(name.replace("\\", "/"))
    if inside.is_absolute() or ".." in inside.parts or stat.S_ISLNK(entry.external_attr >> 16):
        raise UserError(f"{path}: {name} leads out of the zip file; export it again")
    return inside

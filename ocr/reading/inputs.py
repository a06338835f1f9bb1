"""What a command names → the files to read: of folders, globs, buckets, standard input."""

import fnmatch
import glob
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ocr.bundle import shipped_names
from ocr.errors import UserError
from ocr.limits import SUFFIXES
from ocr.settings import with_home

READABLE = (*SUFFIXES, ".pdf")
STANDARD_INPUT = "-"
_WILD = "*?["


@dataclass(frozen=True, slots=True)
class Input:
    """One file: its path or address, and the path of its results below the output, no suffix."""

    name: str
    target: str

    @property
    def is_local(self) -> bool:
        """Whether it is a file of this machine."""
        return "://" not in self.name and self.name != STANDARD_INPUT

    def read(self) -> bytes:
        """Return the file's bytes; OSError where it cannot be read."""
        if self.name == STANDARD_INPUT:
            return sys.stdin.buffer.read()
        if self.is_local:
            return Path(self.name).read_bytes()
        from ocr.dataset.arrow_cache import filesystem

        files, path = filesystem(self.name)
        with files.open_input_stream(path, compression=None) as stream:
            return bytes(stream.read())


def find_inputs(words: Sequence[str]) -> tuple[list[Input], list[str]]:
    """Return the files that `words` name, and a line for each folder that holds others too.

    UserError where a word names nothing, or two files would have one result.
    """
    found, warnings = list[tuple[str, str]](), list[str]()
    folders = [word for word in words if _is_folder(word)]
    for word in words:
        prefix = f"{PurePosixPath(word.rstrip('/')).name}/" if len(folders) > 1 else ""
        if word == STANDARD_INPUT:
            found.append((word, "stdin"))
        elif "://" in word:
            found += _in_bucket(word)
        elif _is_folder(word):
            found += [(name, prefix + target) for name, target in _in_folder(Path(word))]
            warnings += _unread(Path(word))
        else:
            found += [(name, PurePosixPath(name).name) for name in _files(word)]
    return _with_targets(dict(found)), warnings


def _is_folder(word: str) -> bool:
    return "://" not in word and os.path.isdir(with_home(word))


def _files(word: str) -> list[str]:
    path = with_home(word)
    if os.path.lexists(path):
        return [path]
    matching = sorted(glob.glob(path, recursive=True)) if any(c in word for c in _WILD) else []
    files = [name for name in matching if os.path.isfile(name)]
    if not files:
        what = "the recogniser comes first, then" if word in shipped_names() else "name"
        raise UserError(f"{word}: no such file or folder; {what} images, PDF files, or folders")
    return files


def _in_folder(folder: Path) -> list[tuple[str, str]]:
    folder = Path(with_home(str(folder)))
    names = [name for name in _below(folder) if name.lower().endswith(READABLE)]
    if not names:
        raise UserError(f"{folder}: no image and no PDF in this folder ({', '.join(READABLE)})")
    return [(str(folder / name), name) for name in sorted(names)]


def _below(folder: Path) -> Iterator[str]:
    """Yield the paths of all files below a folder; hidden ones and links to folders left out."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if not name.startswith("."):
                yield (Path(parent) / name).relative_to(folder).as_posix()


def _unread(folder: Path) -> Iterator[str]:
    kinds = Counter(
        PurePosixPath(name).suffix.lower() or "nameless"
        for name in _below(Path(with_home(str(folder))))
        if not name.lower().endswith(READABLE)
    )
    if kinds:
        listed = ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items()))
        yield f"warning: not read in {folder}: {listed}"


def _in_bucket(address: str) -> list[tuple[str, str]]:
    """Return the files at an address: one, all below a folder, or those of a glob."""
    import pyarrow.fs

    from ocr.dataset.arrow_cache import filesystem

    scheme = address.partition("://")[0]
    wild = min((address.find(c) for c in _WILD if c in address), default=-1)
    base = address if wild < 0 else address[: address.rfind("/", 0, wild)]
    if not base.removeprefix(f"{scheme}:").strip("/"):
        raise UserError(f"{address}: name the bucket; * and ? may stand below it")
    files, root = filesystem(base)
    info = files.get_file_info(root)
    if info.type == pyarrow.fs.FileType.File:
        return [(address, PurePosixPath(root).name)]
    selector = pyarrow.fs.FileSelector(root, recursive=True, allow_not_found=True)
    paths = [one.path for one in files.get_file_info(selector) if one.is_file]
    if wild >= 0:
        pattern = root + address[len(base) :]
        paths = [path for path in paths if fnmatch.fnmatch(path, pattern)]
    paths = sorted(path for path in paths if path.lower().endswith(READABLE))
    if not paths:
        raise UserError(f"{address}: no image and no PDF there ({', '.join(READABLE)})")
    return [(f"{scheme}://{path}", path.removeprefix(root).lstrip("/")) for path in paths]


def _with_targets(found: dict[str, str]) -> list[Input]:
    """Take the suffix off each result's path, unless two files differ by it alone."""
    short = {name: str(PurePosixPath(target).with_suffix("")) for name, target in found.items()}
    often = _repeated(short.values())
    targets = {name: found[name] if short[name] in often else short[name] for name in found}
    for double in _repeated(targets.values()):
        first, second = [name for name, target in targets.items() if target == double][:2]
        raise UserError(
            f"{first} and {second}: both would be written to {double}; name the folder that both "
            "lie in, or read them with two commands"
        )
    return [Input(name, target) for name, target in targets.items()]


def _repeated(values: Iterable[str]) -> set[str]:
    return {value for value, count in Counter(values).items() if count > 1}

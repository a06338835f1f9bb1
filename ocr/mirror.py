"""A folder of this machine that follows, or is followed by, a folder in a bucket."""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ocr.files import cache_dir, locked, read_object, write_atomically
from ocr.place import Place

_INDEX = ".mirror.json"  # names with the bucket's size and time of what was fetched
_AT_ONCE = 4
_NOT_SHARED = ("abandoned/", "ray/", "merged/", "gguf/", "lease.json", "writer.json")
MANIFEST = "manifest.json"
_OF_RUNS = ("checkpoint_", "bundle/")


def copy_of(address: str, use: str = "runs") -> Path:
    """Return the folder in the cache that is this machine's copy of an address in a bucket.

    Its parent names the address, so that runs of one name in two buckets stay apart. `use` keeps
    the copy that a run is trained in from the one that is only read.
    """
    parent, _, name = address.rstrip("/").rpartition("/")
    return cache_dir() / "buckets" / use / parent.replace("://", "-").replace("/", "-") / name


def is_shared(name: str) -> bool:
    """Return whether a file of a run or a bundle is fetched by those who read it."""
    parts = name.split("/")
    return not name.startswith(_NOT_SHARED) and not any(part.startswith(".") for part in parts)


@contextlib.contextmanager
def copied(path: str | Path) -> Iterator[Path]:
    """Yield a folder to read and write in: the path, or this machine's copy of an address.

    At the end what was changed in the copy is written into the bucket.
    """
    if "://" not in str(path):
        yield Path(path)
        return
    mirror = Mirror.for_reading(str(path))
    mirror.fetch(is_shared, _OF_RUNS)
    before = mirror.stamps()
    yield mirror.folder
    mirror.push_changes(before)


def fetched(path: str | Path, exactly: tuple[str, ...] = _OF_RUNS) -> Path:
    """Return the path, or for an address in a bucket this machine's copy, up to date.

    `exactly`: as in `Mirror.fetch`.
    """
    if "://" not in str(path):
        return Path(path)
    mirror = Mirror.for_reading(str(path))
    mirror.fetch(is_shared, exactly)
    return mirror.folder


def local_folder(address: str) -> Path:
    """Return the folder to write in: the path, or this machine's copy of an address in a bucket."""
    return copy_of(address) if "://" in address else Path(address)


class Mirror:
    """A folder in a bucket and its copy on this machine.

    Methods raise what `ocr.place.Place` raises, and OSError for the disk.
    """

    def __init__(self, place: Place, folder: Path) -> None:
        self.place, self.folder = place, folder

    @classmethod
    def for_reading(cls, address: str) -> "Mirror":
        """Return the mirror of an address, with a copy in the cache that no training writes to."""
        return cls(Place(address), copy_of(address, "read"))

    def fetch(
        self, wanted: Callable[[str], bool] = lambda _: True, exactly: tuple[str, ...] = ()
    ) -> None:
        """Bring the copy up to date with the bucket, in what is wanted of it.

        A file that was fetched before and has not changed is not fetched again. Files of the copy
        whose names begin as `exactly` says are deleted where the bucket does not have them.
        Processes of this machine take turns.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / ".mirror.lock"):
            stamps = {name: at for name, at in self.place.stamps().items() if wanted(name)}
            index = read_object(self.folder / _INDEX) or {}
            missing = [
                name
                for name, stamp in stamps.items()
                if index.get(name) != list(stamp) or not (self.folder / name).is_file()
            ]
            if exactly:
                self._delete_others(set(stamps), exactly)
            missing = self._not_here(missing, stamps)
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                list(pool.map(self._fetch_one, missing))
            index |= {name: list(stamp) for name, stamp in stamps.items()}
            write_atomically(self.folder / _INDEX, json.dumps(index).encode())

    def push(self, names: Iterable[str]) -> None:
        """Write files of the copy into the bucket, several at once; those that are gone are not."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(self._push_one, names))

    def push_changes(self, before: dict[str, tuple[int, int]]) -> None:
        """Bring the bucket up to date with the copy, whose files looked like `before` once.

        A folder's manifest comes after its other files.
        """
        now = self.stamps()
        changed = [name for name, stamp in now.items() if before.get(name) != stamp]
        closing = [name for name in changed if name.endswith(MANIFEST)]
        for name in (*closing, *(set(before) - set(now))):
            self.place.delete(name)
        self.push(name for name in changed if name not in closing)
        self.push(closing)

    def stamps(self) -> dict[str, tuple[int, int]]:
        """Return the copy's files with size and time, but those that are this machine's alone."""
        stamps = Place(self.folder).stamps()
        return {name: stamp for name, stamp in stamps.items() if is_shared(name)}

    def push_whole(self, last: str) -> None:
        """Replace what the bucket has by the copy, the file `last` after all others.

        Whoever finds `last` finds the folder whole.
        """
        if not (self.folder / last).is_file():
            return
        mine = [
            file.relative_to(self.folder).as_posix()
            for file in self.folder.rglob("*")
            if file.is_file() and not file.name.startswith(".")
        ]
        self.place.delete(last)
        self.push(name for name in mine if name != last)
        for old in set(self.place.names()) - set(mine):
            self.place.delete(old)
        self.push([last])

    def push_folder(self, name: str, last: str) -> None:
        """Replace a folder in the bucket by the copy's, likewise."""
        Mirror(Place(self.place / name), self.folder / name).push_whole(last)

    def delete_folder(self, name: str, first: str) -> None:
        """Delete a folder of the bucket, the file `first` before all others."""
        self.place.delete(f"{name}/{first}")
        self.place.delete_folder(name)

    def _not_here(self, names: list[str], stamps: dict[str, tuple[int, int]]) -> list[str]:
        """Return the names without those of folders that this machine has itself uploaded.

        Such a folder has the bucket's manifest, and files of the same sizes.
        """

        def is_equal(manifest: str) -> bool:
            with contextlib.suppress(FileNotFoundError):  # of either, or deleted meanwhile
                return (self.folder / manifest).read_bytes() == self.place.read(manifest)
            return False

        manifests = [name for name in names if name.endswith(f"/{MANIFEST}")]
        same = {name.removesuffix(MANIFEST) for name in manifests if is_equal(name)}

        def is_here(name: str) -> bool:
            file = self.folder / name
            is_same = any(name.startswith(folder) for folder in same)
            return is_same and file.is_file() and file.stat().st_size == stamps[name][0]

        return [name for name in names if not is_here(name)]

    def _push_one(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.place.upload(name, self.folder / name)

    def _fetch_one(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
            self.place.download(name, self.folder / name)

    def _delete_others(self, kept: set[str], beginnings: tuple[str, ...]) -> None:
        for file in list(self.folder.rglob("*")):
            name = file.relative_to(self.folder).as_posix()
            is_ours = name.startswith(beginnings) and is_shared(name)
            if is_ours and name not in kept and file.is_file():
                file.unlink(missing_ok=True)
        for folder in self.folder.iterdir():
            if folder.is_dir() and not any(each.is_file() for each in folder.rglob("*")):
                shutil.rmtree(folder, ignore_errors=True)

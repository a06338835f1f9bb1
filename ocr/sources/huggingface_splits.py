"""The opened splits of a Hugging Face data set, on the hub or in a local folder of any known form.

No code of a data set is executed.
"""

import csv
import difflib
import functools
import hashlib
import json
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from ocr.errors import UserError, first_line
from ocr.sources.files import names_below
from ocr.sources.settings import HuggingFaceSettings

_SHOWN = 20
_SPLIT_FOLDERS = {
    "train": "train",
    "test": "test",
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
}
_HUB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9._-]+")
_OTHER_FORMS = ("dataset_dict.json", "state.json")
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_FORMS = (
    "a save_to_disk folder, .parquet or .arrow files, or images with a metadata.csv or .jsonl "
    "(columns file_name and text)"
)


def load(settings: HuggingFaceSettings) -> dict[str, Any]:
    """Return split → Dataset or IterableDataset, in the data set's order."""
    import datasets

    path = Path(settings.path)
    local = os.path.exists(path)
    if not local and not _HUB_NAME.fullmatch(settings.path):
        raise UserError(
            f"{settings.path}: no such folder or file; `path` names one, or a data set of the "
            "hub as owner/name"
        )
    try:
        with _quiet():
            loaded = (
                _load_local(settings, path)
                if local
                else datasets.load_dataset(
                    settings.path, settings.subset, streaming=settings.streaming
                )
            )
    except UserError:
        raise
    except Exception as problem:  # noqa: BLE001  the library raises anything from ConnectionError to pandas' own
        line = first_line(problem.__cause__ or problem)
        if local:
            raise UserError(f"{settings.path}: `datasets` cannot open it: {line}") from None
        advice = "check the name, the network, and HF_TOKEN if the set is gated or private"
        raise UserError(
            f"{settings.path}: no such folder, and the download from the hub failed: {line}; "
            f"{advice}"
        ) from None
    splits = loaded if isinstance(loaded, dict) else {loaded.split or "train": loaded}
    return {str(name): data.with_format(None) for name, data in splits.items()}


def _load_local(settings: HuggingFaceSettings, path: Path) -> Any:
    import datasets

    load = functools.partial(datasets.load_dataset, streaming=settings.streaming)
    if path.is_file():
        if path.suffix not in (".parquet", ".arrow"):
            raise UserError(f"{path}: expected {_FORMS}, got a {path.suffix or 'nameless'} file")
        return load(path.suffix[1:], data_files=str(path))
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return datasets.load_from_disk(str(path))  # mapped from the folder: nothing to stream
    if settings.subset is not None or _has_configurations(path / "README.md"):
        return load(str(path), settings.subset, cache_dir=str(_cache_of(path)))
    files = [path / name for name in names_below(path, [""])]
    if metadata := [file for file in files if file.name in METADATA]:
        return _load_imagefolder(path, metadata)
    suffix = next(
        (
            suffix
            for suffix in (".parquet", ".arrow")
            if any(file.suffix == suffix for file in files)
        ),
        None,
    )
    if suffix is None:
        held = Counter(file.suffix or "nameless" for file in files).most_common(5)
        raise UserError(
            f"{path}: expected {_FORMS}, got "
            f"{', '.join(f'{count} {suffix}' for suffix, count in held) or 'no files'}"
        )
    # splits by the names of files and folders
    patterns = datasets.data_files.get_data_patterns(str(path))
    named = datasets.data_files.DataFilesDict.from_patterns(
        patterns, base_path=str(path), allowed_extensions=[suffix]
    )
    by_split = {split: list(names) for split, names in named.items() if names}
    return load(
        suffix[1:], data_files=by_split or [str(file) for file in files if file.suffix == suffix]
    )


def is_imagefolder(path: Path) -> bool:
    """Tell whether this is a local folder of images that a metadata file names."""
    if not os.path.isdir(path) or any((path / name).is_file() for name in _OTHER_FORMS):
        return False
    if _has_configurations(path / "README.md"):
        return False
    return any(PurePosixPath(name).name in METADATA for name in names_below(path, METADATA))


def _load_imagefolder(path: Path, metadata: list[Path]) -> Any:
    """Read an image folder in the order of its files.

    `datasets` would read 007 as 7 and NA as nothing, and refuse the set for one path that leaves
    it.
    """
    import datasets

    splits: dict[str, list[dict[str, Any]]] = {}
    for file in metadata:
        folder = file.parent.relative_to(path)
        rows = splits.setdefault(
            next(
                (_SPLIT_FOLDERS[part] for part in folder.parts if part in _SPLIT_FOLDERS), "train"
            ),
            [],
        )
        for row in _metadata_rows(file):
            require_known("file_name", list(row), f"{file}: no column")
            name = row.pop("file_name")
            rows.append({**row, "image": str(folder / str(name)) if name else None})
    names = dict.fromkeys(name for rows in splits.values() for row in rows for name in row)
    return {
        split: datasets.Dataset.from_dict({name: [row.get(name) for row in rows] for name in names})
        for split, rows in splits.items()
    }


def _metadata_rows(file: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet

    if file.suffix == ".parquet":
        yield from pyarrow.parquet.read_table(file).to_pylist()
        return
    with open(file, encoding="utf-8-sig", newline="") as lines:
        yield from (
            csv.DictReader(lines, restkey="") if file.suffix == ".csv" else _json_rows(file, lines)
        )


def _json_rows(file: Path, lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line) if line.strip() else None
        except ValueError as problem:
            raise UserError(f"{file}:{number}: not valid JSON: {problem}") from None
        if row is not None and not isinstance(row, dict):
            raise UserError(f"{file}:{number}: expected a JSON object, got {type(row).__name__}")
        if row:
            yield row


def _cache_of(path: Path) -> Path:
    """Return a cache folder for this data set as it is.

    With `configs:` in the card, `datasets` 5.2 takes another folder of the same name, or older
    files, for this one.
    """
    import datasets

    stamps = [
        (name, status.st_size, status.st_mtime_ns)
        for name in names_below(path, [""])
        if (status := (path / name).stat())
    ]
    digest = hashlib.sha256(json.dumps([str(path.resolve()), stamps]).encode()).hexdigest()
    return Path(datasets.config.HF_DATASETS_CACHE) / f"lipi-{digest[:16]}"


def _has_configurations(readme: Path) -> bool:
    return (
        readme.is_file()
        and re.search(
            r"^configs:", readme.read_text(encoding="utf-8", errors="replace"), re.MULTILINE
        )
        is not None
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence bars and warnings of `datasets` inside the block."""
    import datasets

    bars_were_off, verbosity = (
        datasets.are_progress_bars_disabled(),
        datasets.logging.get_verbosity(),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        datasets.disable_progress_bars()
        datasets.logging.set_verbosity_error()
        try:
            yield
        finally:
            datasets.logging.set_verbosity(verbosity)
            if not bars_were_off:
                datasets.enable_progress_bars()


def require_known(wanted: str, known: list[str], what: str) -> None:
    """Raise UserError that lists the existing names and the nearest one."""
    if wanted not in known:
        close = difflib.get_close_matches(wanted, known, n=1)
        more = f" … ({len(known)} in all)" if len(known) > _SHOWN else ""
        raise UserError(
            f"{what} {wanted!r}; known: {', '.join(known[:_SHOWN])}{more}"
            + (f"; did you mean {close[0]!r}?" if close else "")
        )

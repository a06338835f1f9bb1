"""A built data set: texts and ids in memory, images read from the mapped Arrow file when needed."""

import bisect
import json
import re
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs

from ocr.dataset.arrow_cache import COLUMNS, cached, filesystem
from ocr.errors import UserError

EMBEDDED = {
    name: Path(__file__).parent.parent / "assets" / "datasets" / name
    for name in ("odia_words", "odia_few_words", "odia_few_words_base")
}
_ON_HUB = r"[\w.-]+/[\w.-]+"  # OWNER/NAME
_OF_HUGGING_FACE = re.compile(
    r"dataset_dict\.json|dataset_info\.json|state\.json|metadata\.(?:csv|jsonl)|data"
    r"|.*\.arrow|(?:train|validation|test)-.*\.parquet"
)


def _as_source(path: str) -> str:
    """Return how to name a Hugging Face data set in a config, as the end of a message."""
    source = f"[{{format: huggingface, path: {path}}}]"
    return f"; is it a Hugging Face data set? That is a source: 'data.train={source}'"


class Dataset:
    """One split of a data set; samples are numbered from 0 in the order of the file."""

    def __init__(self, location: str) -> None:
        self.location = location
        # SHA-256 of the content: equal content elsewhere has the same one
        self._file, self.fingerprint = cached(location)
        with pa.memory_map(str(self._file)) as mapped:
            reader = pa.ipc.open_file(mapped)
            self._batches = [reader.get_batch(index) for index in range(reader.num_record_batches)]
        self._starts = [0]
        for batch in self._batches:
            self._starts.append(self._starts[-1] + batch.num_rows)

    @classmethod
    def open(cls, path: str | Path, split: str) -> "Dataset":
        """Open the split of a data set folder (a path, or s3://…), or of an embedded data set.

        An embedded data set goes by its name. UserError when the split is missing, foreign or
        empty.
        """
        folder = str(EMBEDDED.get(str(path), path)).rstrip("/")
        files, inner = filesystem(folder)
        try:
            infos = files.get_file_info(pyarrow.fs.FileSelector(inner, allow_not_found=True))
        except OSError as problem:
            raise UserError(f"{folder}: cannot be listed: {problem}") from None
        names = sorted(info.base_name for info in infos)
        if not names:
            on_hub = _as_source(folder) if re.fullmatch(_ON_HUB, folder) else ""
            raise UserError(
                f"{folder}: no such data set; make it with ray_jobs/prepare.py, or use an "
                f"embedded one: {', '.join(EMBEDDED)}{on_hub}"
            )
        if f"{split}.parquet" not in names:
            parquet = ", ".join(name for name in names if name.endswith(".parquet"))
            has = parquet or "no parquet file; make a data set of it with ray_jobs/prepare.py"
            other = (
                f"; name a data set that has one in data.{split}, or prepare this one again"
                if {"train.parquet", "validation.parquet"} & set(names)
                else ""
            )
            foreign = _as_source(folder) if any(map(_OF_HUGGING_FACE.fullmatch, names)) else other
            raise UserError(
                f"{folder}/{split}.parquet: missing or empty; the folder has {has}{foreign}"
            )
        return cls(f"{folder}/{split}.parquet")

    @property
    def folder(self) -> str:
        """The data set of this split, as `open` takes it."""
        folder = self.location.rpartition("/")[0]
        return next((name for name, path in EMBEDDED.items() if str(path) == folder), folder)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Dataset, (self.location,))

    def __len__(self) -> int:
        return self._starts[-1]

    @cached_property
    def ids(self) -> list[str]:
        """The ids in order."""
        return self._column("id")

    @cached_property
    def texts(self) -> list[str]:
        """The normalised texts in order."""
        return self._column("text")

    def group(self, index: int) -> dict[str, str]:
        """Return the groups of a sample (face, font, page, writer …)."""
        return dict(json.loads(self._value("group", index) or "{}"))

    def image_bytes(self, index: int) -> bytes:
        """Return the encoded image file of one sample."""
        return bytes(self._value("image", index))

    def row(self, index: int) -> dict[str, Any]:
        """Return one sample as the columns of the file."""
        return {name: self._value(name, index) for name in COLUMNS}

    def description(self) -> dict[str, Any]:
        """Return the content of dataset.json beside the file; empty where there is none."""
        files, path = filesystem(f"{self.location.rpartition('/')[0]}/dataset.json")
        if files.get_file_info(path).type != pyarrow.fs.FileType.File:
            return {}
        with files.open_input_stream(path) as stream:
            content = bytes(stream.read())
        try:
            return dict(json.loads(content))
        except (ValueError, TypeError):
            raise UserError(
                f"{path}: damaged ({len(content):,} bytes that are no JSON object); "
                "make the data set again with ray_jobs/prepare.py"
            ) from None

    def _value(self, column: str, index: int) -> Any:
        number = bisect.bisect_right(self._starts, index) - 1
        return self._batches[number].column(column)[index - self._starts[number]].as_py()

    def _column(self, name: str) -> list[Any]:
        return [value for batch in self._batches for value in batch.column(name).to_pylist()]

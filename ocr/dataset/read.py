"""A built data set: texts and ids in memory, images read when they are asked for."""

import hashlib
import json
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ocr.errors import UserError
from ocr.sample import Sample

COLUMNS = ("id", "image", "text", "level", "group", "source")
EMBEDDED = {"odia_words": Path(__file__).parent / "odia_words"}
_ROW_GROUPS_IN_MEMORY = 64  # of at most 16 MB each, as build writes them


class Fingerprint:
    """SHA-256 over (id, text, SHA-256 of the image) of every sample, in order."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, id: str, text: str, image: bytes) -> None:
        """Count one more sample in."""
        self._digest.update(json.dumps([id, text, hashlib.sha256(image).hexdigest()]).encode() + b"\n")

    def hexdigest(self) -> str:
        """The fingerprint of all samples so far."""
        return self._digest.hexdigest()


class Dataset:
    """One split of a data set; samples are numbered from 0 in the order of the file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._parquet = _open_parquet(file)
        light = self._parquet.read(columns=["id", "text", "level", "group", "source"])
        self._light: dict[str, list[Any]] = {name: light[name].to_pylist() for name in light.column_names}
        sizes = [self._parquet.metadata.row_group(index).num_rows for index in range(self._parquet.num_row_groups)]
        self._starts = [sum(sizes[:index]) for index in range(len(sizes))]
        self._row_group_of = [index for index, size in enumerate(sizes) for _ in range(size)]
        self._images = lru_cache(maxsize=_ROW_GROUPS_IN_MEMORY)(self._read_images)

    @classmethod
    def open(cls, path: str | Path, split: str) -> "Dataset":
        """The split of a data set folder, or of an embedded data set by its name; UserError when it is missing, foreign or empty."""
        folder = EMBEDDED.get(str(path), Path(path))
        file = folder / f"{split}.parquet"
        if not folder.is_dir():
            raise UserError(f"{folder}: no such data set; make it with ray_jobs/prepare.py, or use an embedded one: {', '.join(EMBEDDED)}")
        if not file.is_file():
            there = ", ".join(sorted(found.name for found in folder.glob("*.parquet"))) or "no parquet file"
            raise UserError(f"{file}: missing; the folder holds {there}")
        return cls(file)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Dataset, (self.file,))

    def __len__(self) -> int:
        return len(self._row_group_of)

    @property
    def ids(self) -> list[str]:
        """Ids in order."""
        return self._light["id"]

    @property
    def texts(self) -> list[str]:
        """Normalised texts in order."""
        return self._light["text"]

    def group(self, index: int) -> dict[str, str]:
        """What the sample belongs to (face, font, page, writer …)."""
        return dict(json.loads(self._light["group"][index] or "{}"))

    def source(self, index: int) -> str:
        """Where the sample came from."""
        return str(self._light["source"][index])

    def image_bytes(self, index: int) -> bytes:
        """The encoded image file of one sample."""
        row_group = self._row_group_of[index]
        return self._images(row_group)[index - self._starts[row_group]].as_py()  # type: ignore[no-any-return]

    def sample(self, index: int) -> Sample:
        """One sample as a whole."""
        light = self._light
        return Sample(
            light["id"][index], self.image_bytes(index), light["text"][index], light["level"][index], tuple(self.group(index).items()), self.source(index)
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the split's content, computed by reading it; equal content in another file has the same one."""
        fingerprint = Fingerprint()
        for index, (id, text) in enumerate(zip(self.ids, self.texts, strict=True)):
            fingerprint.add(id, text, self.image_bytes(index))
        return fingerprint.hexdigest()

    def _read_images(self, row_group: int) -> pa.ChunkedArray:
        table = self._parquet.read_row_group(row_group, columns=["image.bytes"])
        return pa.chunked_array([chunk.field("bytes") for chunk in table["image"].chunks], pa.binary())


def _open_parquet(file: Path) -> pq.ParquetFile:
    try:
        parquet = pq.ParquetFile(file, memory_map=True)
    except (OSError, pa.ArrowException) as problem:
        raise UserError(f"{file}: cannot be read as parquet: {problem}; make it again with ray_jobs/prepare.py") from None
    there = parquet.schema_arrow.names
    missing = [name for name in COLUMNS if name not in there]
    if missing:
        raise UserError(f"{file}: columns missing: {', '.join(missing)}; the file has {', '.join(there)}")
    if parquet.metadata.num_rows == 0:
        raise UserError(f"{file}: the data set is empty; see dataset.json beside it for what was skipped")
    return parquet

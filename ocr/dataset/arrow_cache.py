"""One parquet split → one Arrow file in LIPI_CACHE that every process of the node maps into memory.

It is made once, whole or not at all.
"""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from ocr.dataset.fingerprint import Fingerprint
from ocr.errors import UserError
from ocr.files import cache_dir, locked, read_object, sync, write_json
from ocr.system_errors import mistake_of, reported

COLUMNS = ("id", "image", "text", "level", "group", "source")
_FINEVISION = ("id", "images", "texts", "level", "group", "source")
_ROWS = 1_000
_SPARE_BYTES = 64_000_000
_SCHEMA = pa.schema(
    [(name, pa.large_binary() if name == "image" else pa.large_string()) for name in COLUMNS]
)


def cached(location: str) -> tuple[Path, str]:
    """Return the Arrow file of a parquet file (a path, or s3://…) and its content's fingerprint.

    UserError when it cannot be read or the disk is too full.
    """
    files, path = filesystem(location)
    info = files.get_file_info(path)
    if info.type != pyarrow.fs.FileType.File:
        raise UserError(f"{location}: missing")
    name = location if "://" in location else Path(path).resolve()
    stamp = f"{name}\x1f{info.size}\x1f{info.mtime_ns}"
    target = cache_dir() / "arrow" / f"{hashlib.sha256(stamp.encode()).hexdigest()[:32]}.arrow"
    with reported(target, "make the data set again"):
        if not _fingerprint(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with locked(target.with_suffix(".lock")):  # other processes of this node wait
                if not _fingerprint(target):
                    _make(files, path, location, target)
    return target, _fingerprint(target)


def _fingerprint(target: Path) -> str:
    """Return the fingerprint beside an Arrow file; empty where one of the two is not whole."""
    values = read_object(target.with_suffix(".json")) if target.exists() else None
    return str((values or {}).get("fingerprint", ""))


def filesystem(location: str, tries: int = 3) -> tuple[Any, str]:
    """Return Arrow's file system and the path in it.

    s3:// takes AWS_ENDPOINT_URL, AWS_REGION and the usual credentials from the environment.
    `tries`: how often a request is sent to a server at AWS_ENDPOINT_URL that does not answer.
    """
    if "://" not in location:
        return pyarrow.fs.LocalFileSystem(), location
    try:
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        if location.startswith("s3://") and endpoint:
            retries = pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts=tries)
            files = pyarrow.fs.S3FileSystem(endpoint_override=endpoint, retry_strategy=retries)
            return files, location.removeprefix("s3://")
        files, path = pyarrow.fs.FileSystem.from_uri(location)
        return files, str(path)
    except (pa.ArrowException, OSError) as problem:
        raise UserError(
            f"{location}: cannot be opened: {problem}; expected a folder, s3://bucket/folder "
            "or gs://bucket/folder"
        ) from None


def _make(files: pyarrow.fs.FileSystem, path: str, location: str, target: Path) -> None:
    fingerprint, temporary = Fingerprint(), target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with (
            files.open_input_file(path) as source,
            pq.ParquetFile(source, pre_buffer=False) as parquet,
        ):
            read = _reader(parquet, location)
            _need_room(parquet, target.parent, location)
            with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
                for batch in (
                    batch
                    for group in range(parquet.num_row_groups)
                    for batch in parquet.iter_batches(_ROWS, [group])
                ):
                    rows = [read(row) for row in batch.to_pylist()]
                    for row in rows:
                        fingerprint.add(row["id"], row["text"], row["image"])
                    writer.write_batch(pa.RecordBatch.from_pylist(rows, _SCHEMA))
        sync(temporary)
        write_json(
            target.with_suffix(".json"), {"fingerprint": fingerprint.hexdigest(), "from": location}
        )
        os.replace(temporary, target)
        sync(target.parent)
    except (OSError, pa.ArrowException) as problem:
        if mistake := mistake_of(problem, temporary, "make the data set again"):
            raise mistake from None
        raise UserError(
            f"{location}: cannot be read as parquet: {problem}; make it again with "
            "ray_jobs/prepare.py"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def _reader(parquet: pq.ParquetFile, location: str) -> Any:
    """Return the function that gives a row our columns; UserError lists the missing columns."""
    names = parquet.schema_arrow.names
    if parquet.metadata.num_rows == 0:
        raise UserError(
            f"{location}: the data set is empty; see dataset.json beside it for what was skipped"
        )
    fine = "images" in names and "image" not in names
    missing = [name for name in (_FINEVISION if fine else COLUMNS) if name not in names]
    if missing:
        raise UserError(
            f"{location}: expected the columns {', '.join(missing)}, got {', '.join(names)}; "
            "import it with ray_jobs/prepare.py"
        )
    return _from_finevision if fine else _from_simple


def _from_simple(row: dict[str, Any]) -> dict[str, Any]:
    return {**{name: row[name] for name in COLUMNS}, "image": row["image"]["bytes"]}


def _from_finevision(row: dict[str, Any]) -> dict[str, Any]:
    return {
        **{name: row.get(name) for name in COLUMNS},
        "image": row["images"][0]["bytes"],
        "text": row["texts"][0]["assistant"],
    }


def _need_room(parquet: pq.ParquetFile, folder: Path, location: str) -> None:
    metadata = parquet.metadata
    needed = (
        sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups))
        + _SPARE_BYTES
    )
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder}: {free / 1e9:.1f} GB are free, the Arrow cache of {location} takes "
            f"{needed / 1e9:.1f} GB; make room, or set LIPI_CACHE to a larger disk"
        )

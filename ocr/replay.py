"""Samples that keep a recogniser from forgetting, in its bundle or beside it.

A part of the samples it was trained on, and of those it was evaluated on:
train.parquet        in a bundle: at most 2,000 samples to mix in when it is trained further
validation.parquet   in a bundle: at most 1,500 samples on which it must not get worse
`python -m trainers.retrain.add_replay BUNDLE DATA` puts them there.
"""

import io
import shutil
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ocr.bundle import DESCRIPTION, Bundle, open_bundle, write_bundle
from ocr.dataset.arrow_cache import COLUMNS
from ocr.dataset.read import EMBEDDED, Dataset
from ocr.errors import UserError
from ocr.keyed import fixed_generator

TRAIN, VALIDATION = "train.parquet", "validation.parquet"
MOST = {TRAIN: 2000, VALIDATION: 1500}
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_SCHEMA = pa.schema([(name, _IMAGE if name == "image" else pa.string()) for name in COLUMNS])
_KEY = 7


def replay_of(bundle: Bundle, given: str | None = None) -> str:
    """Return the data set to replay: a folder, or the name of an embedded one.

    Its training split is replayed, its validation split evaluates. In this order: the one given,
    the bundle's own, the one that the bundle was trained on where it still exists; else UserError.
    """
    if given is not None:
        return given
    if (bundle.path / TRAIN).is_file() and (bundle.path / VALIDATION).is_file():
        return str(bundle.path)
    trained_on = str(bundle.card.get("data", ""))
    if trained_on in EMBEDDED or all(
        (Path(trained_on) / name).is_file() for name in (TRAIN, VALIDATION)
    ):
        return trained_on
    raise UserError(
        f"{bundle.path}: no samples to replay: the bundle has none, and its training data "
        f"({trained_on or 'not named'}) is not on this machine; "
        "set replay=FOLDER of a prepared data set (ray_jobs/prepare.py), or put samples into "
        "the bundle: python -m trainers.retrain.add_replay BUNDLE FOLDER"
    )


def replay_files(data: str) -> dict[str, bytes]:
    """Return both files for a bundle, of each split as many samples as allowed, by a fixed key."""
    return {
        name: few(Dataset.open(data, name.removesuffix(".parquet")), most)
        for name, most in MOST.items()
    }


def few(dataset: Dataset, most: int, without: Collection[str] = ()) -> bytes:
    """Return at most `most` samples as a parquet file, in their order, none `without` texts."""
    chosen = np.array([index for index, text in enumerate(dataset.texts) if text not in without])
    if len(chosen) > most:
        chosen = np.sort(chosen[fixed_generator(_KEY).permutation(len(chosen))[:most]])
    return rows_file(dataset, chosen.tolist())


def rows_file(dataset: Dataset, chosen: Sequence[int]) -> bytes:
    """Return these samples as a parquet file that `Dataset` and `datasets` open."""
    rows = [dataset.row(index) for index in chosen]
    buffer = io.BytesIO()
    pq.write_table(
        pa.Table.from_pylist(
            [{**row, "image": {"bytes": row["image"], "path": None}} for row in rows], _SCHEMA
        ),
        buffer,
        compression="zstd",
    )
    return buffer.getvalue()


def with_replay(bundle: Bundle, path: Path, files: dict[str, bytes]) -> Bundle:
    """Write the bundle again, at `path`, with these samples in it.

    Its own files are copied, not held in memory: a merged model has gigabytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as scratch:
        prepared = Path(scratch) / "bundle"
        prepared.mkdir()
        for name in bundle.names():
            if name not in (*files, *MOST, DESCRIPTION):
                shutil.copyfile(bundle.path / name, prepared / name)
        write_bundle(replace(bundle, path=path), files, prepared)
    return open_bundle(path)

"""Sources → a data set folder: train.parquet, validation.parquet and dataset.json, complete or not there at all."""

import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from ocr.dataset.config import PrepareConfig, SplitSettings
from ocr.dataset.read import COLUMNS, Fingerprint
from ocr.errors import UserError
from ocr.images import ImageLimits, ImageRefused, open_image
from ocr.sample import Sample, Skip
from ocr.settings import resolved
from ocr.sources import read_source
from ocr.text import normalise

SPLITS = ("train", "validation")
_ROWS_PER_GROUP, _BYTES_PER_GROUP = 1_000, 16_000_000
_FEATURES = {name: {"dtype": "string", "_type": "Value"} for name in COLUMNS} | {"image": {"_type": "Image"}}
_SCHEMA = pa.schema(
    [(name, pa.struct([("bytes", pa.binary()), ("path", pa.string())]) if name == "image" else pa.string()) for name in COLUMNS],
    metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})},  # what `datasets` reads, so the column shows as images
)


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of the sources: `kept` per split, `skipped` per reason, and the folder."""

    output: Path
    kept: dict[str, int]
    skipped: dict[str, int]

    def __str__(self) -> str:
        kept = ", ".join(f"{count:,} {split}" for split, count in self.kept.items())
        skipped = "; ".join(f"{count:,} {reason}" for reason, count in self.skipped.items())
        return f"{self.output}: kept {kept}; skipped {skipped or 'none'}"


def build(config: PrepareConfig) -> Summary:
    """Read every source, keep what is good, write the folder; UserError when too much is skipped or nothing is kept."""
    output = Path(config.output)
    _refuse_foreign_folder(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        tally = _write_splits(config, temporary)
        _check(tally, config.max_skipped)
        _write_json(temporary / "dataset.json", _described(config, tally))
        temporary.chmod(0o755)
        _replace(output, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Summary(output, dict(tally.kept), dict(tally.skipped.most_common()))


@dataclass
class _Split:
    """What one split has gathered so far."""

    characters: Counter[str] = field(default_factory=Counter)
    texts: set[str] = field(default_factory=set)
    faces: set[str] = field(default_factory=set)
    fingerprint: Fingerprint = field(default_factory=Fingerprint)


@dataclass
class _Tally:
    """Counts over all sources, and what is needed to find duplicates."""

    kept: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(SPLITS, 0)))
    skipped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    splits: dict[str, _Split] = field(default_factory=lambda: {split: _Split() for split in SPLITS})
    ids: set[str] = field(default_factory=set)
    contents: set[bytes] = field(default_factory=set)

    def skip(self, skip: Skip) -> None:
        """Count a skip; the first of each reason is kept as the example."""
        self.skipped[skip.reason] += 1
        self.examples.setdefault(skip.reason, f"{skip.where}: {skip.detail}" if skip.detail else skip.where)

    def keep(self, sample: Sample, split: str) -> None:
        """Count a sample into its split."""
        gathered = self.splits[split]
        self.kept[split] += 1
        gathered.characters.update(sample.text)
        gathered.texts.add(sample.text)
        gathered.faces.update(value for key, value in sample.group if key == "face")
        gathered.fingerprint.add(sample.id, sample.text, sample.image)


class _Writer:
    """One parquet file with row groups small enough to read alone; equal rows give equal bytes."""

    def __init__(self, file: Path) -> None:
        compression = {"image.bytes": "NONE", "image.path": "ZSTD"} | {name: "ZSTD" for name in COLUMNS if name != "image"}
        self._writer = pq.ParquetWriter(file, _SCHEMA, compression=compression, use_dictionary=["level", "group", "source"], write_statistics=False)
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0

    def write(self, sample: Sample) -> None:
        """Append one sample."""
        group = json.dumps(dict(sample.group), ensure_ascii=False)
        values = (sample.id, {"bytes": sample.image, "path": None}, sample.text, sample.level, group, sample.source)
        self._rows.append(dict(zip(COLUMNS, values, strict=True)))
        self._bytes += len(sample.image)
        if len(self._rows) >= _ROWS_PER_GROUP or self._bytes >= _BYTES_PER_GROUP:
            self._flush()

    def close(self) -> None:
        """Write what is left and the footer."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, _SCHEMA))
        self._rows, self._bytes = [], 0


def _write_splits(config: PrepareConfig, folder: Path) -> _Tally:
    tally = _Tally()
    limits = ImageLimits(config.images.max_pixels, config.images.max_side_px, config.images.min_side_px)
    writers = {split: _Writer(folder / f"{split}.parquet") for split in SPLITS}
    try:
        for item, split in tqdm(_read_all(config), unit=" samples", desc="prepare", mininterval=1.0, disable=None):
            checked = _checked(item, tally, limits)
            if isinstance(checked, Skip):
                tally.skip(checked)
                continue
            split = split_of(checked.text, config.split) if split == "auto" else split
            tally.keep(checked, split)
            writers[split].write(checked)
    finally:
        for writer in writers.values():
            writer.close()
    return tally


def split_of(text: str, settings: SplitSettings) -> str:
    """`validation` or `train` by a hash of the text alone: more samples never move one to the other split."""
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=f"split {settings.seed}".encode()).digest()
    return "validation" if int.from_bytes(digest, "big") / 2**64 < settings.validation_ratio else "train"


def _read_all(config: PrepareConfig) -> Iterator[tuple[Sample | Skip, str]]:
    for source in config.sources:
        for item in read_source(source):
            yield item, source.split


def _checked(item: Sample | Skip, tally: _Tally, limits: ImageLimits) -> Sample | Skip:
    """The sample with its text normalised, or why it is left out."""
    if isinstance(item, Skip):
        return item
    text = normalise(item.text)
    if not text:
        return Skip(item.id, "empty text")
    if item.id in tally.ids:
        return Skip(item.id, "duplicate id", "an earlier sample has it")
    try:
        open_image(item.image, "L", limits, item.id)
    except ImageRefused as refused:
        return Skip(item.id, refused.reason, refused.detail)
    content = hashlib.sha256(hashlib.sha256(item.image).digest() + text.encode()).digest()
    if content in tally.contents:
        return Skip(item.id, "duplicate sample", f"an earlier one has the same image and the text {text[:40]!r}")
    tally.ids.add(item.id)
    tally.contents.add(content)
    return Sample(item.id, item.image, text, item.level, item.group, item.source)


def _check(tally: _Tally, max_skipped: float) -> None:
    skipped, kept = tally.skipped.total(), tally.kept.total()
    reasons = "".join(f"\n  {count:,} {reason}, such as {tally.examples[reason]}" for reason, count in tally.skipped.most_common(5))
    if not kept:
        raise UserError(f"no sample was kept of {skipped:,}; nothing was written{reasons}")
    if skipped > max_skipped * (skipped + kept):
        share = skipped / (skipped + kept)
        raise UserError(
            f"{skipped:,} of {skipped + kept:,} samples ({share:.1%}) would be skipped, more than max_skipped={max_skipped:g}; mend them or raise max_skipped; nothing was written{reasons}"
        )


def _described(config: PrepareConfig, tally: _Tally) -> dict[str, Any]:
    train, validation = (tally.splits[split] for split in SPLITS)
    unseen = {character: count for character, count in sorted(validation.characters.items()) if character not in train.characters}
    held_out = {
        "faces": sorted(validation.faces - train.faces),
        "texts_also_in_train": len(validation.texts & train.texts),
        "texts_sha256": hashlib.sha256("\n".join(sorted(validation.texts)).encode()).hexdigest(),
    }
    return {
        "kept": dict(tally.kept),
        "skipped": dict(tally.skipped.most_common()),
        "sources": resolved(config)["sources"],
        "split": resolved(config.split),
        "faces": {split: sorted(tally.splits[split].faces) for split in SPLITS},
        "characters": dict(sorted(train.characters.items())),
        "characters_only_in_validation": unseen,
        "held_out": held_out,
        "fingerprint": {split: tally.splits[split].fingerprint.hexdigest() for split in SPLITS},
    }


def _write_json(file: Path, value: dict[str, Any]) -> None:
    file.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _refuse_foreign_folder(output: Path) -> None:
    if output.exists() and not (output / "dataset.json").is_file() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output}: exists and is no data set, so it is not replaced; choose another output or move it away")


def _replace(output: Path, temporary: Path) -> None:
    """Put the finished folder in place; an older data set steps aside first and is removed last."""
    for file in temporary.iterdir():
        _sync(file)
    older = output.with_name(f".{output.name}.older")
    shutil.rmtree(older, ignore_errors=True)
    if output.exists():
        os.rename(output, older)
    os.rename(temporary, output)
    shutil.rmtree(older, ignore_errors=True)


def _sync(file: Path) -> None:
    with open(file, "rb") as opened:
        os.fsync(opened.fileno())

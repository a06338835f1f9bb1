"""The kept samples, written as parquet that `datasets` opens, skipped.jsonl, and all counts."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from ocr.dataset.arrow_cache import COLUMNS
from ocr.dataset.config import PrepareConfig
from ocr.dataset.fingerprint import Fingerprint
from ocr.dataset.merge import DUPLICATE_ID, KEPT, LEAK, Decisions, Table, rows
from ocr.dataset.parts import LEFT_OUT, Work, storable
from ocr.files import read_json
from ocr.sources.files import NOT_READ
from ocr.text import graphemes

_AGAIN = "duplicate sample"
SPLITS = ("train", "validation")
FILES = ("train.parquet", "validation.parquet", "dataset.json", "skipped.jsonl", "README.md")
EXPECTED = (  # left out without a fault of the data, or by request: not counted against max_skipped
    _AGAIN,
    "marked unreadable",
    "region without text",
    "characters outside the dictionary",
    "text too long",
    "text not sure enough",
    "page without such pieces",
    "task without annotation",
    "not PAGE",
    "not ALTO",
)
SHARED = " also in validation"
_ROWS_PER_GROUP, _BYTES_PER_GROUP = 1_000, 16_000_000
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_TURN = pa.struct([("user", pa.string()), ("assistant", pa.string())])


@dataclass
class SplitCounts:
    """The content of one split, counted."""

    characters: Counter[str] = field(default_factory=Counter)
    graphemes: Counter[str] = field(default_factory=Counter)
    faces: set[str] = field(default_factory=set)
    fingerprint: Fingerprint = field(default_factory=Fingerprint)
    levels: Counter[str] = field(default_factory=Counter)

    def add(self, row: dict[str, Any]) -> None:
        """Count one row of a part."""
        self.characters.update(row["text"])
        self.graphemes.update(graphemes(row["text"]))
        self.levels[row["level"]] += 1
        face = json.loads(row["group"]).get("face")
        if face is not None:
            self.faces.add(face)
        self.fingerprint.add(row["id"], row["text"], row["image"])


@dataclass
class Tally:
    """Counts by source, and of everything."""

    kept: Counter[tuple[int, str]] = field(default_factory=Counter)  # (source, split)
    skipped: Counter[tuple[int, str]] = field(default_factory=Counter)  # (source, reason)
    examples: dict[str, str] = field(default_factory=dict)
    lint: Counter[str] = field(default_factory=Counter)
    lint_examples: dict[str, list[str]] = field(default_factory=dict)
    splits: dict[str, SplitCounts] = field(
        default_factory=lambda: {split: SplitCounts() for split in SPLITS}
    )

    @property
    def kept_by_split(self) -> dict[str, int]:
        """The number of samples in each split."""
        return {
            split: sum(count for (_, into), count in self.kept.items() if into == split)
            for split in SPLITS
        }

    @property
    def reasons(self) -> Counter[str]:
        """The number of samples left out, by reason."""
        counted: Counter[str] = Counter()
        for (_, reason), count in self.skipped.items():
            counted[reason] += count
        return counted

    @property
    def faults(self) -> int:
        """The number of samples left out for a fault."""
        return sum(count for (_, reason), count in self.skipped.items() if is_fault(reason))

    def lost_of(self, source: int) -> Counter[str]:
        """Return by reason what one source lost, but for what another sample shows as well."""
        return Counter(
            {
                reason: count
                for (where, reason), count in self.skipped.items()
                if where == source and reason != _AGAIN and not reason.endswith(SHARED)
            }
        )

    def kept_of(self, source: int) -> int:
        """Return the number of samples of one source that stay."""
        return sum(count for (where, _), count in self.kept.items() if where == source)


def is_fault(reason: str) -> bool:
    """Tell whether what is left out for this reason counts against `max_skipped`."""
    return (
        reason not in EXPECTED
        and not reason.endswith(SHARED)
        and not reason.startswith((LEFT_OUT, NOT_READ))
    )


def write_splits(
    config: PrepareConfig,
    folder: Path,
    staging: Path,
    works: list[Work],
    table: Table,
    decisions: Decisions,
) -> Tally:
    """Stream the parts in their order into one parquet file a split and skipped.jsonl.

    The same parts give the same bytes.
    """
    tally, earlier = Tally(), table.id_and_text(decisions.first_of.values())
    writers = {split: _Writer(folder / f"{split}.parquet", config) for split in SPLITS}
    try:
        with open(folder / "skipped.jsonl", "w", encoding="utf-8") as skips:
            for number, work in enumerate(works):
                _note(read_json(work.file(staging).with_suffix(".json")), work.source, tally, skips)
                for index, row in enumerate(rows(work.file(staging)), start=table.starts[number]):
                    reason = _reason(index, decisions, earlier)
                    if reason:
                        _skip(tally, skips, work.source, row["id"], *reason)
                        continue
                    if index in decisions.renamed:
                        row["id"] = f"{row['id']}@{work.source + 1}"
                    _keep(tally, writers, work.source, row)
    finally:
        for writer in writers.values():
            writer.close()
    for split, count in tally.kept_by_split.items():
        if not count:
            (folder / f"{split}.parquet").unlink()  # `datasets` cannot open a split without rows
    return tally


def _keep(tally: Tally, writers: dict[str, "_Writer"], source: int, row: dict[str, Any]) -> None:
    tally.kept[source, row["split"]] += 1
    tally.splits[row["split"]].add(row)
    writers[row["split"]].write(row)


def _reason(
    index: int, decisions: Decisions, earlier: dict[int, tuple[str, str]]
) -> tuple[str, str] | None:
    """Return why the second step leaves a sample out; None when it stays."""
    decision = decisions.left_out[index]
    if decision == KEPT:
        return None
    if decision == LEAK:
        return decisions.leaks[index] + SHARED, "split.on_leak is drop_from_train"
    id, text = earlier[decisions.first_of[index]]
    return (
        ("duplicate id", f"a sample with the text {text[:40]!r} has it")
        if decision == DUPLICATE_ID
        else ("duplicate sample", f"same image and text as {id}")
    )


def _note(counts: dict[str, Any], source: int, tally: Tally, skips: TextIO) -> None:
    """Add the first step's notes on a part to the tally."""
    for where, reason, detail in counts["skips"]:
        _skip(tally, skips, source, where, reason, detail)
    tally.lint.update(counts["lint"])
    for kind, examples in counts["lint_examples"].items():
        tally.lint_examples[kind] = (tally.lint_examples.get(kind, []) + examples)[:3]


def _skip(tally: Tally, skips: TextIO, source: int, where: str, reason: str, detail: str) -> None:
    tally.skipped[source, reason] += 1
    tally.examples.setdefault(reason, f"{where}: {detail}" if detail else where)
    skips.write(
        storable(
            json.dumps({"where": where, "reason": reason, "detail": detail}, ensure_ascii=False)
        )
        + "\n"
    )


class _Writer:
    """One parquet file with small row groups; equal rows give equal bytes."""

    def __init__(self, file: Path, config: PrepareConfig) -> None:
        self._fine = config.output_format == "finevision"
        self._instruction = config.instruction
        self._schema = _schema(config.output_format)
        bytes_column, path_column = (
            ("images.list.element.bytes", "images.list.element.path")
            if self._fine
            else ("image.bytes", "image.path")
        )
        light = (
            {"texts.list.element.user": "ZSTD", "texts.list.element.assistant": "ZSTD"}
            if self._fine
            else {"text": "ZSTD"}
        )
        compression = {bytes_column: "NONE", path_column: "ZSTD", **light} | {
            name: "ZSTD" for name in COLUMNS if name not in ("image", "text")
        }
        self._writer = pq.ParquetWriter(
            file,
            self._schema,
            compression=compression,
            use_dictionary=["level", "group", "source"],
            write_statistics=False,
        )
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0

    def write(self, row: dict[str, Any]) -> None:
        """Append one sample, a row of a part."""
        image = {"bytes": row["image"], "path": None}
        shown = (
            {"images": [image], "texts": [{"user": self._instruction, "assistant": row["text"]}]}
            if self._fine
            else {"image": image, "text": row["text"]}
        )
        self._rows.append(
            {
                "id": row["id"],
                **shown,
                "level": row["level"],
                "group": row["group"],
                "source": row["source"],
            }
        )
        self._bytes += len(row["image"])
        if len(self._rows) >= _ROWS_PER_GROUP or self._bytes >= _BYTES_PER_GROUP:
            self._flush()

    def close(self) -> None:
        """Write the last rows and the footer."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, self._schema))
        self._rows, self._bytes = [], 0


def _schema(output_format: str) -> pa.Schema:
    text = {"dtype": "string", "_type": "Value"}
    if output_format == "finevision":
        shown = [("images", pa.list_(_IMAGE)), ("texts", pa.list_(_TURN))]
        features: dict[str, Any] = {"images": {"feature": {"_type": "Image"}, "_type": "List"}}
        features["texts"] = {"feature": {"user": text, "assistant": text}, "_type": "List"}
    else:
        shown = [("image", _IMAGE), ("text", pa.string())]
        features = {"image": {"_type": "Image"}, "text": text}
    names = [
        ("id", pa.string()),
        *shown,
        *((name, pa.string()) for name in ("level", "group", "source")),
    ]
    features = {name: features.get(name, text) for name, _ in names}
    # read by `datasets`, so that images show as images
    return pa.schema(names, metadata={"huggingface": json.dumps({"info": {"features": features}})})


def described_pairs(pairs: list[tuple[int, int]], table: Table) -> Iterator[dict[str, Any]]:
    """Yield pairs of samples by id and text."""
    known = table.id_and_text([index for pair in pairs for index in pair])
    for one, other in pairs:
        yield {"ids": [known[one][0], known[other][0]], "texts": [known[one][1], known[other][1]]}

"""The first step: one unit of a source → one part on disk, its samples checked and measured.

A part appears whole, by rename, or not at all.
"""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from ocr import sources
from ocr.dataset.config import ImageSettings, PrepareConfig, SplitSettings
from ocr.dataset.division import is_held_out
from ocr.dataset.fingerprint import look_of
from ocr.degrade import degraded
from ocr.files import read_json, read_object, sync, write_json
from ocr.images import ImageRefused, Pixels, encode_image, open_image, scale_to_fit
from ocr.keyed import digest_of
from ocr.limits import ImageLimits
from ocr.linting import KINDS, fix, lint
from ocr.pixels import contrast
from ocr.sample import Sample, Skip
from ocr.sources.settings import SourceSettings
from ocr.sources.unit import Unit
from ocr.text import in_one_line, normalise

KEY_BYTES = 16
LEFT_OUT = "left out: "
_BATCH_BYTES = 16_000_000
_EXAMPLES = 3
_LONGEST_TEXT = 20_000  # a dense page; the linter's time grows with a hostile label
_KEY = pa.binary(KEY_BYTES)


def schema(config: PrepareConfig) -> pa.Schema:
    """Return a part's columns: the sample, then the keys and measures that the second step uses."""
    texts = [(name, pa.string()) for name in ("id", "text", "level", "group", "source", "split")]
    keys = [(name, _KEY) for name in ("id_key", "content_key", "image_key", "text_key", "look")]
    groups = [(f"by_{index}", _KEY) for index in range(len(config.split.by))]
    return pa.schema(
        [
            *texts,
            *keys,
            *groups,
            ("is_copy", pa.bool_()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("image", pa.binary()),
        ]
    )


@dataclass(frozen=True, slots=True)
class Work:
    """A unit to be read; picklable, for any process of any node that sees the files."""

    number: int
    source: int
    unit: Unit

    def file(self, folder: Path) -> Path:
        """Return the path of the unit's part; its counts and skips are beside it, in JSON."""
        return folder / f"{self.number:08d}.arrow"


def make_part(config: PrepareConfig, folder: Path, work: Work) -> int:
    """Read one unit and write its part, unless it exists; return the count of samples and skips."""
    file = work.file(folder)
    if not file.exists() or read_object(file.with_suffix(".json")) is None:
        notes = _Notes()
        temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
        try:
            _write(temporary, schema(config), _rows(config, work, notes))
            write_json(file.with_suffix(".json"), notes.plain())
            os.replace(temporary, file)
            sync(folder)
        finally:
            temporary.unlink(missing_ok=True)
    counts = read_json(file.with_suffix(".json"))
    return int(counts["kept"]) + len(counts["skips"])


@dataclass
class _Notes:
    """The content of a part's JSON: skips one by one, and the linter's findings by kind."""

    kept: int = 0
    skips: list[Skip] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    facts: set[str] = field(default_factory=set)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """Return the notes as plain JSON values."""
        skips = [
            [storable(words) for words in (skip.where, skip.reason, skip.detail)]
            for skip in self.skips
        ]
        return {
            "kept": self.kept,
            "skips": skips,
            "lint": dict(self.faults),
            "lint_examples": self.examples,
            "facts": sorted(self.facts),
        }

    def note(self, kind: str, example: str) -> None:
        """Count a finding; the first few of a kind are kept."""
        self.faults[kind] += 1
        if len(self.examples.setdefault(kind, [])) < _EXAMPLES:
            self.examples[kind].append(example)


def _write(file: Path, kinds: pa.Schema, rows: Iterator[dict[str, Any]]) -> None:
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, kinds) as writer:
        batch: list[dict[str, Any]] = []
        size = 0
        for row in rows:
            batch.append(row)
            size += len(row["image"])
            if size >= _BATCH_BYTES:
                writer.write_batch(pa.RecordBatch.from_pylist(batch, kinds))
                batch, size = [], 0
        if batch:
            writer.write_batch(pa.RecordBatch.from_pylist(batch, kinds))
    sync(file)


def _rows(config: PrepareConfig, work: Work, notes: _Notes) -> Iterator[dict[str, Any]]:
    source = config.sources[work.source]
    names_pages = "page" in (re.compile(source.group_pattern or "").groupindex)
    for item in sources.read(source, work.unit):
        checked = item if isinstance(item, Skip) else _checked(item, config, source, notes)
        if isinstance(checked, Skip):
            notes.skips.append(checked)
            continue
        sample, pixels = checked
        split = (
            source.split
            if source.split != "auto"
            else work.unit.split or split_of(sample, config.split)
        )
        for kind, detail in sample.findings:
            notes.note(kind, storable(detail))
        for copy in (sample, *_copies(sample, pixels, source, split)):
            notes.kept += 1
            notes.facts |= set(dict(copy.group))
            yield _row(copy, pixels, split, config.split.by, names_pages)


def _checked(
    sample: Sample, config: PrepareConfig, source: SourceSettings, notes: _Notes
) -> tuple[Sample, Pixels] | Skip:
    """Return the sample with normalised text, and its decoded image; or why it is left out."""
    text = sample.text
    if len(text) > _LONGEST_TEXT:
        return Skip(
            sample.id, "label too long", f"{len(text):,} characters; the limit is {_LONGEST_TEXT:,}"
        )
    findings = lint(text)
    for finding in findings:
        notes.note(finding.kind, f"{sample.id}: {finding.detail} in “{storable(text[:40])}”")
    if config.lint.fix and findings:
        text = fix(text)
    for finding in lint(text) if findings else []:
        if finding.kind in config.lint.leave_out:
            return Skip(sample.id, f"{LEFT_OUT}{finding.kind}", finding.detail)
        if KINDS[finding.kind].severity == "fatal":
            return Skip(sample.id, f"label: {finding.kind}", finding.detail)
    text = normalise(text)
    text = text if sample.level in ("paragraph", "page") else in_one_line(text)
    if not text:
        return Skip(sample.id, "empty text")
    try:
        image, pixels = _fitting(sample, config.images)
    except ImageRefused as refused:
        return Skip(sample.id, refused.reason, refused.detail)
    return Sample(
        storable(sample.id),
        image,
        text,
        sample.level,
        _grouped(sample, source),
        storable(sample.source),
        (*sample.findings, *_blank(sample, pixels)),
    ), pixels


def _blank(sample: Sample, pixels: Pixels) -> tuple[tuple[str, str], ...]:
    return () if contrast(pixels) else (("image without contrast", sample.id),)


def _fitting(sample: Sample, settings: ImageSettings) -> tuple[bytes, Pixels]:
    limits = ImageLimits(settings.max_pixels, settings.max_side_px, settings.min_side_px)
    if settings.max_image_edge is None:
        return sample.image, open_image(sample.image, "as it is", limits, sample.id)
    pixels = open_image(
        sample.image,
        "as it is",
        ImageLimits(5 * settings.max_pixels, 65_535, settings.min_side_px),
        sample.id,
    )
    fitted = scale_to_fit(pixels, settings.max_image_edge)
    return (sample.image, pixels) if fitted is pixels else (encode_image(fitted), fitted)


def _grouped(sample: Sample, source: SourceSettings) -> tuple[tuple[str, str], ...]:
    match = re.search(source.group_pattern, sample.id) if source.group_pattern else None
    named = (
        {key: value for key, value in match.groupdict().items() if value is not None}
        if match
        else {}
    )
    return tuple((key, storable(value)) for key, value in {**dict(sample.group), **named}.items())


def _copies(sample: Sample, pixels: Pixels, source: SourceSettings, split: str) -> Iterator[Sample]:
    for number in range(1, source.aug_copies + 1 if split == "train" else 0):
        id = f"{sample.id}~{number}"
        yield Sample(
            id,
            encode_image(degraded(pixels, id)),
            sample.text,
            sample.level,
            (*sample.group, ("copy_of", sample.id)),
            sample.source,
        )


def split_of(sample: Sample, settings: SplitSettings) -> str:
    """Return `validation` or `train` by a hash, so that more samples never move one.

    The hash is of the first fact of `by` that the sample has, else of its text (a single letter:
    its id).
    """
    facts = _facts(sample)
    # letters are few: split by text, validation would have some that training lacks
    otherwise = "id" if sample.level == "character" else "text"
    name = next((name for name in settings.by if name in facts), otherwise)
    held_out = is_held_out(name, facts[name], settings.seed, settings.validation_ratio)
    return "validation" if held_out else "train"


def _facts(sample: Sample) -> dict[str, str]:
    return {**dict(sample.group), "id": sample.id, "text": sample.text, "source": sample.source}


def _row(
    sample: Sample, pixels: Pixels, split: str, by: tuple[str, ...], names_pages: bool
) -> dict[str, Any]:
    """Return the row of a sample.

    `names_pages`: a person named the pages, so equal names mean one page in all sources; else two
    folders may each have an f10.xml.
    """
    facts, image = _facts(sample), hashlib.sha256(sample.image).digest()
    named = (
        {"page": f"{sample.source}\x1f{facts['page']}"}
        if "page" in facts and not names_pages
        else {}
    )
    groups = {
        f"by_{index}": digest_of(name, named.get(name, facts[name]))
        if name in facts
        else bytes(KEY_BYTES)
        for index, name in enumerate(by)
    }
    return {
        "id": sample.id,
        "text": sample.text,
        "level": sample.level,
        "group": json.dumps(dict(sample.group), ensure_ascii=False),
        "source": sample.source,
        "split": split,
        "id_key": digest_of("id", sample.id),
        "content_key": digest_of("content", image.hex(), sample.text),
        "image_key": image[:KEY_BYTES],
        "text_key": digest_of("text", sample.text),
        "look": look_of(pixels),
        **groups,
        "is_copy": "copy_of" in dict(sample.group),
        "width": pixels.shape[1],
        "height": pixels.shape[0],
        "image": sample.image,
    }


def storable(text: str) -> str:
    """Return a text that UTF-8 can hold: lone surrogates as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()

"""Sources → a data set folder: parquet files, dataset.json, skipped.jsonl and a card, or nothing.

The work is cut into fixed units. Each unit's part is written beside the output by rename, so a
killed job resumes where it was. Duplicates, splits and files are a second step over the parts in
their order, so the bytes do not depend on who did which unit.
"""

import contextlib
import difflib
import hashlib
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from ocr import sources
from ocr.dataset.config import PrepareConfig
from ocr.dataset.describe import card, described, table_of
from ocr.dataset.division import empty_split
from ocr.dataset.merge import Table, decide_duplicates
from ocr.dataset.parts import Work, make_part
from ocr.dataset.write import FILES, Tally, is_fault, write_splits
from ocr.errors import UserError
from ocr.files import locked, read_json, replaced_folder, sync
from ocr.sources.settings import SourceSettings

MapUnits = Callable[[Callable[[Work], int], Sequence[Work]], Iterator[int]]
_WORTH_PROCESSES = 6  # units: a process takes seconds to start
_TOLD_SECONDS = 30
_DIVIDED = 10_000  # samples that are looked at for another division
_VERSION = 2  # version of a part's content; another one makes parts again


@dataclass(frozen=True, slots=True)
class Summary:
    """The outcome of a build, as `prepare.py` prints it.

    `empty_split` says what to do about a split without samples.
    """

    output: Path | str
    kept: dict[str, int]
    skipped: dict[str, int]
    table: str
    empty_split: str

    def __str__(self) -> str:
        kept = ", ".join(f"{count:,} {split}" for split, count in self.kept.items())
        skipped = "; ".join(f"{count:,} {reason}" for reason, count in self.skipped.items())
        notice = f"{self.empty_split}\n" if self.empty_split else ""
        return f"{self.table}\n{notice}{self.output}: kept {kept}; skipped {skipped or 'none'}"


def in_this_process(work: Callable[[Work], int], works: Sequence[Work]) -> Iterator[int]:
    """Yield the results of the units, one after another."""
    yield from map(work, works)


def in_processes(work: Callable[[Work], int], works: Sequence[Work]) -> Iterator[int]:
    """Yield the results of the units, done by a process on each core; few units by this one."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    if cores == 1 or len(works) < _WORTH_PROCESSES:
        yield from in_this_process(work, works)
        return
    with ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from (done.result() for done in as_completed([pool.submit(work, w) for w in works]))


def build(config: PrepareConfig, map_units: MapUnits = in_this_process) -> Summary:
    """Read every source, keep the good samples, write the folder.

    UserError when too much is skipped or nothing is kept. `map_units` calls a function on every
    unit, in any order and anywhere that sees the files, and yields its results.
    """
    output = Path(config.output).absolute()
    _refuse_sources_inside(config, output)
    _refuse_foreign_folder(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    works = _planned(config)
    with _staging(config, output) as staging:
        work = partial(make_part, config, staging)
        _follow(map_units(work, works))
        summary = _written(config, output, staging, works)
        shutil.rmtree(staging)
    return summary


def _follow(counts: Iterator[int]) -> None:
    """Show how many samples are done: a bar on a terminal, else a line every half minute."""
    done, told = 0, time.monotonic()
    with tqdm(unit=" samples", desc="prepare", mininterval=1.0, disable=None) as progress:
        for count in counts:
            progress.update(count)
            done += count
            if progress.disable and time.monotonic() - told > _TOLD_SECONDS:
                told = time.monotonic()
                print(f"prepare: {done:,} samples", flush=True)


def signature(config: PrepareConfig) -> str:
    """Hash the settings that shape the parts, and size and time of every file of the sources."""
    shaping = config.model_dump(mode="json", include={"sources", "images", "lint"}) | {
        "split": config.split.model_dump(mode="json", exclude={"on_leak"})
    }
    stamps = [sorted(_stamps(source)) for source in config.sources]
    return hashlib.sha256(
        json.dumps([_VERSION, shaping, stamps], sort_keys=True).encode()
    ).hexdigest()


def _planned(config: PrepareConfig) -> list[Work]:
    units = [
        (index, unit)
        for index, source in enumerate(config.sources)
        for unit in sources.plan(source)
    ]
    return [Work(number, index, unit) for number, (index, unit) in enumerate(units)]


def _stamps(source: SourceSettings) -> Iterator[tuple[str, int, int]]:
    """Yield (path, bytes, time) of the files behind a source."""
    for file in sources.files_of(source):
        with contextlib.suppress(OSError, ValueError):  # its samples will be counted by a reason
            status = file.stat()
            yield str(file), status.st_size, status.st_mtime_ns


@contextlib.contextmanager
def _staging(config: PrepareConfig, output: Path) -> Iterator[Path]:
    """Yield the folder of parts for exactly these sources, locked against a second job.

    It stays after a failure, for the next try. Folders of other settings are removed. The lock is
    the operating system's and ends with the process.
    """
    staging = output.with_name(f".{output.name}.{signature(config)[:16]}.parts")
    staging.mkdir(exist_ok=True)
    with _held(staging, output):
        for other in output.parent.glob(f".{output.name}.*.parts"):
            if other != staging:
                with _held(other, output):
                    shutil.rmtree(other)
        yield staging


@contextlib.contextmanager
def _held(folder: Path, output: Path) -> Iterator[None]:
    try:
        with locked(folder, wait=False):
            yield
    except BlockingIOError:
        raise UserError(
            f"{output}: another job is preparing it now; wait for it, or choose another output"
        ) from None


def _written(config: PrepareConfig, output: Path, staging: Path, works: list[Work]) -> Summary:
    with replaced_folder(output) as making:
        table = Table(
            [work.file(staging) for work in works], [work.source for work in works], config.split.by
        )
        _check_facts(config, works, staging, table)
        decisions = decide_duplicates(table, config.split)
        tally = write_splits(config, making, staging, works, table, decisions)
        _check(config, tally)
        value = described(config, tally, table, decisions)
        (making / "dataset.json").write_text(
            json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
        )
        (making / "README.md").write_text(card(config, value), encoding="utf-8")
        for file in making.iterdir():
            sync(file)
    notice = ""
    if not all(value["kept"].values()):
        samples = table.id_and_text(decisions.kept[~table.copies[decisions.kept]][:_DIVIDED])
        notice = empty_split(config, value["kept"], list(samples.values()))
    return Summary(Path(config.output), value["kept"], value["skipped"], table_of(value), notice)


def _check_facts(config: PrepareConfig, works: Sequence[Work], staging: Path, table: Table) -> None:
    """Raise UserError for a fact of `split.by`, as given by hand, that no sample has."""
    missing = [
        name
        for index, name in enumerate(config.split.by)
        if "by" in config.split.model_fields_set and not table.has(f"by_{index}")
    ]
    if missing and len(table):
        known = sorted(
            {
                fact
                for work in works
                for fact in read_json(work.file(staging).with_suffix(".json"))["facts"]
            }
            | {"id", "text", "source"}
        )
        close = difflib.get_close_matches(missing[0], known, n=1)
        hint = (
            f"; did you mean {close[0]!r}?"
            if close
            else "; group_pattern and group_columns name others"
        )
        raise UserError(
            f"split.by: no sample has {', '.join(missing)}; the known facts are "
            f"{', '.join(known)}{hint}"
        )


def _check(config: PrepareConfig, tally: Tally) -> None:
    max_skipped = config.max_skipped
    for index, source in enumerate(config.sources):
        if not tally.kept_of(index) and (lost := tally.lost_of(index)):
            count = sum(lost[reason] for reason in lost if is_fault(reason)) or lost.total()
            worst = min(lost, key=lambda reason: (not is_fault(reason), -lost[reason]))
            raise UserError(
                f"source {index + 1} ({source.format}): no sample was kept of {count:,}; "
                f"{worst}, such as {tally.examples[worst]}; no data set was written"
            )
    kept, reasons, faults = sum(tally.kept_by_split.values()), tally.reasons, tally.faults
    listed = "".join(
        f"\n  {count:,} {reason}, such as {tally.examples[reason]}"
        for reason, count in reasons.most_common(5)
    )
    if not kept:
        raise UserError(f"no sample was kept of {reasons.total():,}; nothing was written{listed}")
    if faults > max_skipped * (faults + kept):
        raise UserError(
            f"{faults:,} of {faults + kept:,} samples ({faults / (faults + kept):.1%}) would "
            f"be skipped, more than max_skipped={max_skipped:g}; "
            "fix them, or raise max_skipped; no data set was written, and what was read is "
            f"kept for the next try{listed}"
        )


def _refuse_foreign_folder(output: Path) -> None:
    """Raise UserError unless the folder is empty, or one of our data sets and nothing else."""
    if not output.exists():
        return
    if not output.is_dir():
        raise UserError(f"{output}: is a file; choose another output")
    others = sorted(entry.name for entry in output.iterdir() if entry.name not in FILES)
    if others or (any(output.iterdir()) and not _is_ours(output)):
        reason = (
            f"it holds {', '.join(others[:3])}" if others else "its dataset.json is not one of ours"
        )
        raise UserError(
            f"{output}: expected a data set to replace, but {reason}; choose another output "
            "or move it away"
        )


def _is_ours(folder: Path) -> bool:
    try:
        value = read_json(folder / "dataset.json")
    except (OSError, ValueError):
        return False
    return isinstance(value, dict) and {"kept", "skipped", "sources", "fingerprint"} <= set(value)


def _refuse_sources_inside(config: PrepareConfig, output: Path) -> None:
    """Raise UserError where a source lies inside the output, which is replaced."""
    for index, source in enumerate(config.sources, start=1):
        for path in sources.paths_of(source):
            if path.resolve().is_relative_to(output.resolve()):
                raise UserError(
                    f"{output}: source {index} reads {path}, which lies in it and would be "
                    "replaced; choose another output"
                )

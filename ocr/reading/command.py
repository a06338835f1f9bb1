"""`read.py` itself: what it prints, what it warns of, and its exit status."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

from ocr.errors import UserError
from ocr.reading.config import ReadConfig
from ocr.reading.inputs import STANDARD_INPUT, Input, find_inputs
from ocr.reading.outputs import Results
from ocr.reading.run import (
    DOUBTFUL,
    Counts,
    Outcome,
    Read,
    Refused,
    read_each,
    write_all,
    write_each,
)
from ocr.recognizers.factory import load_all
from ocr.settings import with_home
from ocr.writers.formats import FORMATS

Write = Callable[[Sequence[Input]], Iterable[Outcome]]


def read_and_print(bundle: str, words: Sequence[str], config: ReadConfig) -> int:
    """Print what is read: one file's result, or of several `path TAB text` or their results."""
    items, warnings = find_inputs(words)
    format = FORMATS[config.format]
    if not format.is_text or (len(items) > 1 and config.format not in ("text", "json")):
        raise UserError(
            f"format={config.format} of {len(items)} file{'s' * (len(items) > 1)} needs a folder: "
            "set output=FOLDER"
        )
    counts, alone = Counts(), len(words) == len(items) == 1
    alone = alone and items[0].name == with_home(words[0])
    recognizer = load_all(bundle, config.backend, config.device)
    for read in read_each(recognizer, items, config):
        if isinstance(read, Refused):
            counts.refused += 1
            _say(f"error: {read}")
            continue
        counts.add(Outcome.of(read))
        print(_printed(read, config, alone), end="", flush=True)
    return _end(counts, warnings, config)


def read_and_write(
    bundle: str, words: Sequence[str], config: ReadConfig, on_workers: Write | None = None
) -> int:
    """Write a result for every file, and print how many.

    `on_workers` reads and writes them elsewhere; what became of each file is a row then, in the
    parquet file read.parquet of the output.
    """
    items, warnings = find_inputs(words)
    assert config.output is not None
    results = Results(config.output, FORMATS[config.format], config.pages)
    if on_workers:
        counts = _on_workers(items, config, results, on_workers)
    else:
        recognizer = load_all(bundle, config.backend, config.device)
        counts = write_all(
            items, config, results, lambda all: write_each(recognizer, all, config, results), _say
        )
    done = len(items) - counts.refused - counts.kept
    kept = f", {counts.kept:,} kept (overwrite=true makes them again)" if counts.kept else ""
    refused = f", {counts.refused:,} refused" if counts.refused else ""
    print(
        f"{config.output}: {done:,} of {len(items):,} files as {config.format}, "
        f"{counts.pages:,} pages, {counts.lines:,} lines{kept}{refused}"
    )
    return _end(counts, warnings, config)


def _on_workers(
    items: Sequence[Input], config: ReadConfig, results: Results, on_workers: Write
) -> Counts:
    from ocr.reading.table import Table  # pyarrow

    if any(item.name == STANDARD_INPUT for item in items):
        raise UserError("workers read files; - (standard input) is read without workers=")
    table = Table(results.place)

    def write(wanted: Sequence[Input]) -> Iterator[Outcome]:
        table.begin([item.name for item in items], {item.name for item in wanted})
        try:
            for one in on_workers(wanted) if wanted else ():
                table.add(one)
                yield one
        finally:
            table.end()

    return write_all(items, config, results, write, _say)


def _printed(read: Read, config: ReadConfig, alone: bool) -> str:
    if config.format != "text" or alone:
        content = FORMATS[config.format].write(read.document, {}, read.data)
        return content.decode()
    text = read.document.text
    if read.level == "line":
        return f"{read.item.name}\t{text}\n"
    return f"==> {read.item.name} <==\n{text}\n\n"


def _end(counts: Counts, warnings: Sequence[str], config: ReadConfig) -> int:
    for warning in warnings:
        _say(warning)
    if config.level == "auto" and len(counts.levels) > 1:
        each = ", ".join(f"{count:,} as {level}s" for level, count in sorted(counts.levels.items()))
        _say(f"level=auto: {each}, by kind and shape; level=line or level=page reads all alike")
    if counts.doubtful:
        confidence, source = counts.least
        _say(
            f"warning: {counts.doubtful:,} of the texts hardly right (confidence under "
            f"{DOUBTFUL:g}; least {confidence:.2f}: {source}); an image of handwriting, another "
            "script, or no text?"
        )
    return 2 if counts.refused else 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

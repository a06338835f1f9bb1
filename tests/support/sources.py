"""A source read as a whole."""

from collections.abc import Iterator

from ocr.sample import Sample, Skip
from ocr.sources import plan, read
from ocr.sources.settings import SourceSettings


def read_source(settings: SourceSettings) -> Iterator[Sample | Skip]:
    """Everything that a source holds, one unit after another."""
    for unit in plan(settings):
        yield from read(settings, unit)

"""Sources of samples: each yields Samples, or Skips that say why there is none."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ocr.sample import Sample, Skip

if TYPE_CHECKING:
    from ocr.sources.settings import SourceSettings


def read_source(settings: "SourceSettings") -> Iterator[Sample | Skip]:
    """All samples of one source in a fixed order; UserError when the source itself is wrong (a missing file or font)."""
    from ocr.sources.settings import PaddleSettings, SyntheticSettings

    if isinstance(settings, PaddleSettings):
        from ocr.sources.paddle import read_paddle

        yield from read_paddle(settings)
    elif isinstance(settings, SyntheticSettings):
        from ocr.sources.synthetic import read_synthetic

        yield from read_synthetic(settings)
    else:
        raise TypeError(f"no reader for {type(settings).__name__}")

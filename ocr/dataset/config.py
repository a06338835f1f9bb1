"""Settings of `ray_jobs/prepare.py`: sources → data set."""

from typing import Annotated

from pydantic import Field

from ocr.settings import Setting, Settings
from ocr.sources.settings import Source


class SplitSettings(Settings):
    """How samples of `split: auto` sources are divided: by a hash of the text, so one text is never in both splits."""

    validation_ratio: float = Setting(0.1, on_resume="refuse", description="share of the texts that go to validation", ge=0, lt=1)
    seed: int = Setting(0, on_resume="refuse", description="another seed, another split", ge=0)


class LimitSettings(Settings):
    """Images beyond these are skipped before a pixel is decoded."""

    max_pixels: int = Setting(20_000_000, on_resume="refuse", description="width × height", ge=1)
    max_side_px: int = Setting(10_000, on_resume="refuse", description="longer side", ge=1)
    min_side_px: int = Setting(4, on_resume="refuse", description="shorter side", ge=1)


class PrepareConfig(Settings):
    """One data set: where it goes, what it is made of, and how much may be skipped."""

    output: str = Setting(on_resume="refuse", description="folder of the data set; replaced as a whole when it is a data set already")
    sources: tuple[Annotated[Source, Field()], ...] = Setting(on_resume="refuse", description="where samples come from", min_length=1)
    split: SplitSettings = Setting(SplitSettings(), on_resume="refuse", description="division of `split: auto` sources")
    images: LimitSettings = Setting(LimitSettings(), on_resume="refuse", description="limits on images")
    max_skipped: float = Setting(0.01, on_resume="free", description="largest share of samples that may be skipped", ge=0, le=1)

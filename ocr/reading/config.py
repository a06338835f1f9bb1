"""Settings of `ray_jobs/read.py`."""

import re
from typing import Literal

import pydantic

from ocr.settings import PathText, Setting, Settings

FORMAT = Literal["text", "tsv", "json", "alto", "page", "hocr", "pdf"]
LEVEL = Literal["auto", "line", "page"]
DETECTOR = Literal["auto", "detector", "classical"]
_PAGES = re.compile(r"\d+(-\d*)?(,\d+(-\d*)?)*")


class ReadConfig(Settings):
    """How documents are read and where their texts go."""

    level: LEVEL = Setting(
        "auto",
        on_resume="free",
        description="Whether a file is one line of text or a page. auto: PDF and files of several "
        "pages are pages, and so are images that are 200 pixels high and less than 2.5 times as "
        "wide as high",
    )
    detector: DETECTOR = Setting(
        "auto",
        on_resume="free",
        description="What finds the lines of a page: detector, the network that ships; classical, "
        "by rules and without a network; auto, the detector where it can run",
    )
    format: FORMAT = Setting(
        "text",
        on_resume="free",
        description="text, tsv (Tesseract's table of words), json, alto (ALTO 4), page (PAGE-XML "
        "2019), hocr, or pdf (the pages with an invisible layer of their text)",
    )
    output: PathText | None = Setting(
        None,
        on_resume="free",
        description="Folder, or s3:// or gs:// address, of the results, named after the files that "
        "were read; null: standard output",
    )
    overwrite: bool = Setting(
        False,
        on_resume="free",
        description="Whether results that are there are made again; else they are kept",
    )
    workers: int | None = Setting(
        None,
        on_resume="free",
        ge=1,
        description="Processes that read at once, by Ray Data, here or on the cluster of "
        "RAY_ADDRESS; needs output. null: in a Ray job as many as the cluster has CPUs (for "
        "vision-language bundles GPUs), else this process alone",
    )
    pages: str | None = Setting(
        None, on_resume="free", description="Pages of each document, such as 1-3,7 or 5-; null: all"
    )
    backend: str | None = Setting(
        None,
        on_resume="free",
        min_length=1,
        description="Backend of the bundle; vllm: of a vision-language bundle, where it is "
        "installed (make vllm); null: its own choice",
    )
    device: str | None = Setting(
        None,
        on_resume="free",
        min_length=1,
        description="cpu, cuda or cuda:N; null: a GPU where one is of use",
    )

    @pydantic.field_validator("pages", mode="before")
    @classmethod
    def _ranges(cls, value: object) -> object:
        text = str(value).replace(" ", "") if value is not None else None
        if text is not None and not _PAGES.fullmatch(text):
            raise ValueError("expected pages such as 1-3,7 or 5-")
        return text

    @property
    def first_page(self) -> int:
        """The lowest number that `pages` names."""
        numbers = [part.partition("-")[0] for part in (self.pages or "1").split(",")]
        return min(map(int, numbers))

    def takes(self, page: int) -> bool:
        """Return whether a page, counted from 1, is to be read."""
        if self.pages is None:
            return True
        for part in self.pages.split(","):
            first, dash, last = part.partition("-")
            if int(first) <= page <= (int(last) if last else page if dash else int(first)):
                return True
        return False

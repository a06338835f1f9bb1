"""Settings of `ray_jobs/prepare.py`: sources → data set."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ocr.limits import ImageLimits
from ocr.settings import PathText, Setting, Settings
from ocr.sources.settings import Source


class SplitSettings(Settings):
    """The division of `split: auto` sources by hashes, and facts that the splits must not share.

    Added data never moves a sample to the other split.
    """

    validation_ratio: float = Setting(
        0.1, on_resume="refuse", description="Share of the groups that go to validation", ge=0, lt=1
    )
    by: tuple[str, ...] = Setting(
        ("page",),
        on_resume="refuse",
        description=(
            "Facts that decide the split, coarsest first, such as [writer, page, text]: the "
            "first one that a sample has, else its text (a single letter: its id). None of "
            "them may be in both splits. page, writer … come from the source; every sample "
            "has id, text and source"
        ),
    )
    on_leak: Literal["fail", "drop_from_train"] = Setting(
        "fail",
        on_resume="refuse",
        description=(
            "What to do when both splits have the same image, or the same value of a fact of `by`"
        ),
    )
    seed: int = Setting(
        0,
        on_resume="refuse",
        description="Seed of the division; another seed gives another split",
        ge=0,
    )


class DivisionSettings(Settings):
    """The division of sources of `data.train` with split=auto, by the config of a run."""

    by: tuple[str, ...] = Setting(
        SplitSettings().by,
        min_length=1,
        on_resume="refuse",
        description="Facts that decide the split, coarsest first, such as [writer, page, text]; "
        "none of them may be in both splits",
    )
    on_leak: Literal["fail", "drop_from_train"] = Setting(
        SplitSettings().on_leak,
        on_resume="refuse",
        description="What to do when both splits have the same image, or the same value of a fact "
        "of `by`",
    )
    seed: int = Setting(
        SplitSettings().seed,
        ge=0,
        on_resume="refuse",
        description="First seed of the division; of few samples the next nine are tried too",
    )


class ImageSettings(Settings):
    """Limits on images, checked before a pixel is decoded; images beyond them are skipped."""

    max_pixels: int = Setting(
        ImageLimits().max_pixels,
        on_resume="refuse",
        description="Largest area of an image, width × height in pixels",
        ge=1,
    )
    max_side_px: int = Setting(
        ImageLimits().max_side_px,
        on_resume="refuse",
        description="Longest side of an image, in pixels",
        ge=1,
    )
    min_side_px: int = Setting(
        ImageLimits().min_side_px,
        on_resume="refuse",
        description="Shortest side of an image, in pixels",
        ge=1,
    )
    max_image_edge: int | None = Setting(
        None,
        on_resume="refuse",
        description="Longest side in pixels, to which images are scaled down; null: no scaling",
        ge=8,
    )


class LintSettings(Settings):
    """Treatment of labels with faults (ocr/linting.py), which are counted in any case."""

    fix: bool = Setting(False, on_resume="refuse", description="Fix the faults that a rule can fix")
    leave_out: tuple[str, ...] = Setting(
        (), on_resume="refuse", description="Kinds of fault whose samples are left out"
    )

    @model_validator(mode="after")
    def _known_kinds(self) -> "LintSettings":
        if not self.leave_out:
            return self
        from ocr.linting import KINDS

        unknown = [kind for kind in self.leave_out if kind not in KINDS]
        if unknown:
            raise ValueError(
                f"leave_out: no such kind: {', '.join(unknown)}; known: {', '.join(KINDS)}"
            )
        return self


class PrepareConfig(Settings):
    """One data set: its folder, its sources, and the share that may be skipped."""

    output: PathText = Setting(
        on_resume="refuse",
        description="Folder of the data set; an existing data set there is replaced as a whole",
    )
    sources: tuple[Annotated[Source, Field()], ...] = Setting(
        on_resume="refuse", description="Sources of the samples", min_length=1
    )
    split: SplitSettings = Setting(
        SplitSettings(), on_resume="refuse", description="Division of `split: auto` sources"
    )
    images: ImageSettings = Setting(
        ImageSettings(), on_resume="refuse", description="Limits on images"
    )
    lint: LintSettings = Setting(
        LintSettings(), on_resume="refuse", description="Settings of the label linter"
    )
    max_skipped: float = Setting(
        0.01,
        on_resume="free",
        description="Largest share of samples that may be skipped as faulty",
        ge=0,
        le=1,
    )
    output_format: Literal["simple", "finevision"] = Setting(
        "simple",
        on_resume="refuse",
        description=(
            "Columns of the rows: image and text, or FineVision's images and texts (user, "
            "assistant)"
        ),
    )
    instruction: str = Setting(
        "", on_resume="refuse", description="Text of the user in FineVision rows"
    )
    scan_dataset_dimensions: bool = Setting(
        True, on_resume="free", description="Measure the images' sizes and print their distribution"
    )
    dimension_scan_samples: int | None = Setting(
        None, on_resume="free", description="Number of first images to measure; null: all", ge=1
    )
    padding_buffer: float = Setting(
        1.1,
        on_resume="free",
        description="Factor of the largest side that the suggested canvas has",
        ge=1,
    )
    workers: int = Setting(
        1,
        on_resume="free",
        description=(
            "Parallel workers; 1: this process; more: Ray tasks, on the cluster of "
            "RAY_ADDRESS or on this machine"
        ),
        ge=1,
    )
    format: Literal["folder", "hub"] = Setting(
        "folder",
        on_resume="free",
        description=(
            "Destination; hub: push it to the hub too, with the token of HF_TOKEN or `hf auth "
            "login`"
        ),
    )
    hub_repo: str | None = Setting(
        None,
        on_resume="free",
        pattern=r"^[\w.-]+/[\w.-]+$",
        description="Repository on the Hugging Face hub, as owner/name",
    )
    hub_private: bool = Setting(
        True, on_resume="free", description="Create the hub repository as a private one"
    )

    @model_validator(mode="after")
    def _hub_needs_a_name(self) -> "PrepareConfig":
        if self.format == "hub" and self.hub_repo is None:
            raise ValueError("format=hub needs hub_repo=owner/name")
        return self

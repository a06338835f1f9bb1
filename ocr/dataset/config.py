"""Settings of `ray_jobs/prepare.py`: sources → data set."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ocr.limits import ImageLimits
from ocr.settings import Setting, Settings
from ocr.sources.settings import Source


class SplitSettings(Settings):
    """How samples of `split: auto` sources are divided, by hashes, so that added data never moves a sample; and what the splits may not share."""

    validation_ratio: float = Setting(
        0.1, on_resume="refuse", description="share of the groups that go to validation", ge=0, lt=1
    )
    by: tuple[str, ...] = Setting(
        ("page",),
        on_resume="refuse",
        description="coarsest first, such as [writer, page, text]: the first that a sample has decides its split, else its text (a single letter: its id); "
        "none of them may stand in both splits. page, writer … come from the source; id, text and source every sample has",
    )
    on_leak: Literal["fail", "drop_from_train"] = Setting(
        "fail",
        on_resume="refuse",
        description="when the same image, or the same of `by`, stands in both splits",
    )
    seed: int = Setting(0, on_resume="refuse", description="another seed, another split", ge=0)


class ImageSettings(Settings):
    """Images beyond these are skipped before a pixel is decoded."""

    max_pixels: int = Setting(
        ImageLimits().max_pixels, on_resume="refuse", description="width × height", ge=1
    )
    max_side_px: int = Setting(
        ImageLimits().max_side_px, on_resume="refuse", description="longer side", ge=1
    )
    min_side_px: int = Setting(
        ImageLimits().min_side_px, on_resume="refuse", description="shorter side", ge=1
    )
    max_image_edge: int | None = Setting(
        None,
        on_resume="refuse",
        description="longer images are scaled down to this side; null: kept as they are",
        ge=8,
    )


class LintSettings(Settings):
    """What happens to labels that the linter finds fault with (ocr/linting.py); it counts them in any case."""

    fix: bool = Setting(
        False, on_resume="refuse", description="mend what can be mended without a person"
    )
    leave_out: tuple[str, ...] = Setting(
        (), on_resume="refuse", description="kinds of fault whose samples are left out"
    )

    @model_validator(mode="after")
    def _known_kinds(self) -> "LintSettings":
        if not self.leave_out:
            return self
        from ocr.linting import KINDS

        unknown = [kind for kind in self.leave_out if kind not in KINDS]
        if unknown:
            raise ValueError(
                f"leave_out: no such kind: {', '.join(unknown)}; there are {', '.join(KINDS)}"
            )
        return self


class PrepareConfig(Settings):
    """One data set: where it goes, what it is made of, and how much may be skipped."""

    output: str = Setting(
        on_resume="refuse",
        description="folder of the data set; replaced as a whole when it is a data set already",
    )
    sources: tuple[Annotated[Source, Field()], ...] = Setting(
        on_resume="refuse", description="where samples come from", min_length=1
    )
    split: SplitSettings = Setting(
        SplitSettings(), on_resume="refuse", description="division of `split: auto` sources"
    )
    images: ImageSettings = Setting(
        ImageSettings(), on_resume="refuse", description="limits on images"
    )
    lint: LintSettings = Setting(LintSettings(), on_resume="refuse", description="the label linter")
    max_skipped: float = Setting(
        0.01,
        on_resume="free",
        description="largest share of samples that may be skipped as faulty",
        ge=0,
        le=1,
    )
    output_format: Literal["simple", "finevision"] = Setting(
        "simple",
        on_resume="refuse",
        description="rows with image and text, or FineVision's images and texts (user, assistant)",
    )
    instruction: str = Setting(
        "", on_resume="refuse", description="what the user says in FineVision rows"
    )
    scan_dataset_dimensions: bool = Setting(
        True, on_resume="free", description="measure the images' sizes and print their distribution"
    )
    dimension_scan_samples: int | None = Setting(
        None, on_resume="free", description="measure only the first so many; null: all", ge=1
    )
    padding_buffer: float = Setting(
        1.1,
        on_resume="free",
        description="the canvas suggested by the scan is the largest side times this",
        ge=1,
    )
    workers: int = Setting(
        1,
        on_resume="free",
        description="1: in this process; more: Ray tasks, on the cluster that RAY_ADDRESS names or on this machine",
        ge=1,
    )
    format: Literal["folder", "hub"] = Setting(
        "folder",
        on_resume="free",
        description="hub: push it too, with the token of HF_TOKEN or `hf auth login`",
    )
    hub_repo: str | None = Setting(
        None,
        on_resume="free",
        pattern=r"^[\w.-]+/[\w.-]+$",
        description="owner/name on the Hugging Face hub",
    )
    hub_private: bool = Setting(
        True, on_resume="free", description="create the hub repository as a private one"
    )

    @model_validator(mode="after")
    def _hub_needs_a_name(self) -> "PrepareConfig":
        if self.format == "hub" and self.hub_repo is None:
            raise ValueError("format=hub needs hub_repo=owner/name")
        return self

"""Settings of every source of samples; light, so that a config is checked in under a second."""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from ocr.settings import Setting, Settings

SplitName = Literal["train", "validation", "auto"]
Range = tuple[float, float]


class SourceSettings(Settings):
    """What every source says: where its samples go, and what ties them together."""

    format: str
    split: SplitName = Setting(
        "auto",
        on_resume="refuse",
        description="the split its samples go to; auto: as the source says, else by split.by",
    )
    group_pattern: str | None = Setting(
        None,
        on_resume="refuse",
        description="regular expression searched in a sample's id; its named groups (page, writer …) become what split.by may hold together",
    )
    aug_copies: int = Setting(
        0,
        on_resume="refuse",
        description="degraded copies of every training sample, besides itself",
        ge=0,
        le=100,
    )

    @field_validator("group_pattern")
    @classmethod
    def _has_named_groups(cls, pattern: str | None) -> str | None:
        try:
            if pattern is not None and not re.compile(pattern).groupindex:
                raise ValueError("the expression has no named group, such as (?P<page>[^_]+)_")
        except re.error as problem:
            raise ValueError(f"not a regular expression: {problem}") from None
        return pattern


class LayoutSettings(SourceSettings):
    """Page descriptions in XML: which pieces of a page become samples."""

    path: str = Setting(
        on_resume="refuse", description="folder of XML files, searched through, or one XML file"
    )
    images: str | None = Setting(
        None,
        on_resume="refuse",
        description="folder of the page images; default: beside the XML or up to `path`",
    )
    levels: tuple[Literal["word", "line", "paragraph", "page"], ...] = Setting(
        ("line",),
        on_resume="refuse",
        description="pieces cut out: words, lines, paragraphs (text regions), whole pages",
        min_length=1,
    )
    min_confidence: float = Setting(
        0.0,
        on_resume="refuse",
        description="pieces whose text is less sure than this are left out",
        ge=0,
        le=1,
    )
    deskew_degrees: float = Setting(
        3.0,
        on_resume="refuse",
        description="lines that lean more than this are turned upright",
        ge=0,
    )
    max_page_pixels: int = Setting(
        100_000_000, on_resume="refuse", description="larger page images are not opened", ge=1
    )


class PageSettings(LayoutSettings):
    """PAGE-XML, 2010 to 2019."""

    format: Literal["page"] = Setting("page", on_resume="refuse", description="PAGE-XML")


class AltoSettings(LayoutSettings):
    """ALTO, versions 1 to 4."""

    format: Literal["alto"] = Setting("alto", on_resume="refuse", description="ALTO XML")


class PaddleSettings(SourceSettings):
    """PaddleOCR label files, UTF-8: `path<delimiter>text` a line, or `path<TAB>[{"transcription": …, "points": …}, …]` for detection."""

    format: Literal["paddle"] = Setting(
        "paddle", on_resume="refuse", description="PaddleOCR label file"
    )
    path: str = Setting(on_resume="refuse", description="the label file")
    labels: Literal["recognition", "detection"] = Setting(
        "recognition",
        on_resume="refuse",
        description="one text an image, or boxes with texts, which are cut out",
    )
    images: str | None = Setting(
        None,
        on_resume="refuse",
        description="folder that image paths are relative to; default: the label file's",
    )
    delimiter: str = Setting(
        "\t", on_resume="refuse", description="between path and text", min_length=1
    )
    level: Literal["character", "word", "line"] = Setting(
        "line", on_resume="refuse", description="what one image shows"
    )
    deskew_degrees: float = Setting(
        3.0,
        on_resume="refuse",
        description="detection boxes that lean more than this are turned upright",
        ge=0,
    )
    max_page_pixels: int = Setting(
        100_000_000,
        on_resume="refuse",
        description="larger images of detection labels are not opened",
        ge=1,
    )
    character_dict_path: str | None = Setting(
        None,
        on_resume="refuse",
        description="dictionary, one entry a line; labels it cannot spell are left out and counted",
    )
    use_space_char: bool = Setting(
        False, on_resume="refuse", description="the space is an entry of the dictionary"
    )
    max_text_length: int | None = Setting(
        None,
        on_resume="refuse",
        description="longest label, in dictionary entries (characters without one)",
        ge=1,
    )


class PairsSettings(SourceSettings):
    """Images with their text beside them, as kraken takes them: `x.png` and `x.gt.txt`."""

    format: Literal["pairs"] = Setting(
        "pairs", on_resume="refuse", description="x.png with x.gt.txt"
    )
    path: str = Setting(on_resume="refuse", description="folder, searched through")
    suffix: str = Setting(
        ".gt.txt", on_resume="refuse", description="ending of the text files", min_length=1
    )
    level: Literal["character", "word", "line", "paragraph", "page"] = Setting(
        "line", on_resume="refuse", description="what one image shows"
    )


class CorrectionsSettings(SourceSettings):
    """What people corrected: a PNG and a JSON file each (docs/formats.md)."""

    format: Literal["corrections"] = Setting(
        "corrections", on_resume="refuse", description="PNG + JSON a sample"
    )
    path: str = Setting(on_resume="refuse", description="folder, searched through")
    level: Literal["character", "word", "line", "paragraph", "page"] = Setting(
        "line", on_resume="refuse", description="what one image shows"
    )


class HuggingFaceSettings(SourceSettings):
    """A data set of the hub or of a local folder (save_to_disk, parquet, arrow, imagefolder), opened with `datasets`."""

    format: Literal["huggingface"] = Setting(
        "huggingface", on_resume="refuse", description="a Hugging Face data set"
    )
    path: str = Setting(on_resume="refuse", description="hub name, or local folder or file")
    subset: str | None = Setting(
        None, on_resume="refuse", description="the hub data set's configuration"
    )
    dataset_split: str | None = Setting(
        None,
        on_resume="refuse",
        description="its split; null: all, with validation, val, dev and test going to validation",
    )
    streaming: bool = Setting(
        False,
        on_resume="refuse",
        description="read from the hub as it goes, without a copy on this disk",
    )
    image_column: str = Setting(
        "image",
        on_resume="refuse",
        description="column of the image (rows with `images` are FineVision's)",
    )
    text_column: str = Setting(
        "text",
        on_resume="refuse",
        description="column of the text (rows with `texts` or `messages` are conversations)",
    )
    group_columns: dict[str, str] = Setting(
        {},
        on_resume="refuse",
        description="what split.by may hold together → its column, such as writer: writer_id",
    )
    class_column: str = Setting(
        "class",
        on_resume="refuse",
        description="column that dataset_classes and samples_per_class look at",
    )
    dataset_classes: tuple[str, ...] = Setting(
        (), on_resume="refuse", description="keep rows of these classes; empty: all"
    )
    samples_per_class: Annotated[int, Field(ge=1)] | Literal["all"] = Setting(
        "all",
        on_resume="refuse",
        description="keep the first so many rows of each class in each split",
    )
    level: Literal["character", "word", "line", "paragraph", "page"] = Setting(
        "line", on_resume="refuse", description="what one image shows"
    )

    @field_validator("dataset_classes", mode="before")
    @classmethod
    def _one_class_is_a_list_of_one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _a_stream_is_not_counted(self) -> "HuggingFaceSettings":
        if self.streaming and self.samples_per_class != "all":
            raise ValueError(
                "samples_per_class needs streaming=false: a unit of a stream does not know what the units before it hold"
            )
        return self


class SyntheticSettings(SourceSettings):
    """Texts drawn with installed fonts: image i is a function of (seed, text, i), of the fonts and, for what a share puts around it, of the other texts."""

    format: Literal["synthetic"] = Setting(
        "synthetic", on_resume="refuse", description="words rendered with fonts"
    )
    texts: tuple[str, ...] = Setting(
        (), on_resume="refuse", description="word lists or running text, UTF-8; cut at white space"
    )
    dictionary: str | None = Setting(
        None,
        on_resume="refuse",
        description="PaddleOCR dictionary whose entries are drawn in turn; with level: character",
    )
    script: str = Setting(
        on_resume="refuse",
        pattern=r"^[A-Z][A-Za-z_]+$",
        description="Unicode's name of the script that a text must be written in",
    )
    level: Literal["character", "word", "line", "paragraph"] = Setting(
        "word", on_resume="refuse", description="what one image shows"
    )
    length: tuple[int, int] = Setting(
        (1, 20), on_resume="refuse", description="shortest and longest word, or line, code points"
    )
    lines: tuple[int, int] = Setting((2, 5), on_resume="refuse", description="of a paragraph")
    word_hash_range: Range = Setting(
        (0.0, 1.0),
        on_resume="refuse",
        description="keep words whose hash in [0, 1) falls in here; disjoint ranges share no word",
    )
    leave_out: tuple[str, ...] = Setting(
        (),
        on_resume="refuse",
        description="words holding one of these are left out, such as a spelling that looks like another",
    )
    least_per_letter: int = Setting(
        0,
        on_resume="refuse",
        description="words with a letter rarer than this are repeated until it has so many images",
        ge=0,
    )
    number_share: float = Setting(
        0.0,
        on_resume="refuse",
        description="share of images that show a number in the script's digits",
        ge=0,
        le=1,
    )
    danda_share: float = Setting(
        0.0, on_resume="refuse", description="share of words with a danda after them", ge=0, le=1
    )
    fonts: tuple[str, ...] = Setting(
        (),
        on_resume="refuse",
        description="families, font files or folders; empty: all installed for the script",
    )
    exclude_fonts: tuple[str, ...] = Setting(
        (), on_resume="refuse", description="families or file stems not to use"
    )
    count: int = Setting(
        on_resume="refuse", description="images to draw; words repeat when there are fewer", ge=1
    )
    seed: int = Setting(0, on_resume="refuse", description="another seed, other images", ge=0)
    on_the_fly: bool = Setting(
        False,
        on_resume="refuse",
        description="training draws fresh images of the texts in every pass after the first, in a process of its own",
    )
    height_px: tuple[int, int] = Setting(
        (36, 40), on_resume="refuse", description="image height, of one line"
    )
    margin: Range = Setting(
        (0.04, 0.16), on_resume="refuse", description="paper around the ink, shares of the height"
    )
    line_box: Range = Setting(
        (0.3, 1.0),
        on_resume="refuse",
        description="height of the crop: 0 the word's own ink, 1 the face's whole line",
    )
    rotation_degrees: Range = Setting(
        (-1.5, 1.5), on_resume="refuse", description="turn of the word"
    )
    shear: Range = Setting((-0.08, 0.08), on_resume="refuse", description="slant: x shift per y")
    stretch: Range = Setting((0.9, 1.12), on_resume="refuse", description="width against height")
    blur_px: Range = Setting(
        (0.0, 0.6), on_resume="refuse", description="standard deviation of the blur"
    )
    noise: Range = Setting(
        (0.0, 4.0),
        on_resume="refuse",
        description="standard deviation of pixel noise, grey levels of 255",
    )
    texture: Range = Setting(
        (0.0, 6.0),
        on_resume="refuse",
        description="standard deviation of slow shading of the paper, grey levels",
    )
    paper_grey: Range = Setting(
        (200, 255), on_resume="refuse", description="grey level of the paper"
    )
    contrast: Range = Setting(
        (0.55, 1.0), on_resume="refuse", description="ink against paper: 1 is black on this paper"
    )
    inverted_share: float = Setting(
        0.05,
        on_resume="refuse",
        description="share of images with light ink on dark paper",
        ge=0,
        le=1,
    )
    neighbour_share: float = Setting(
        0.0,
        on_resume="refuse",
        description="share of images into which the lines above or below reach",
        ge=0,
        le=1,
    )
    rule_share: float = Setting(
        0.0,
        on_resume="refuse",
        description="share of images with a line ruled under the text, or sides of a table cell",
        ge=0,
        le=1,
    )
    stamp_share: float = Setting(
        0.0,
        on_resume="refuse",
        description="share of images with the outline of a stamp or seal across the text",
        ge=0,
        le=1,
    )
    show_through_share: float = Setting(
        0.0,
        on_resume="refuse",
        description="share of images with faint mirrored text from the back of the page",
        ge=0,
        le=1,
    )
    image_format: Literal["webp", "png"] = Setting(
        "webp", on_resume="refuse", description="encoding of the images"
    )
    quality: int = Setting(40, on_resume="refuse", description="of WebP", ge=1, le=100)

    @model_validator(mode="after")
    def _ranges_rise(self) -> "SyntheticSettings":
        ranges = {
            name: value
            for name in type(self).model_fields
            if isinstance(value := getattr(self, name), tuple)
            and len(value) == 2
            and not isinstance(value[0], str)
        }
        falling = [
            f"{name}: {low:g} is above {high:g}"
            for name, (low, high) in ranges.items()
            if low > high
        ]
        if falling:
            raise ValueError("; ".join(falling))
        if (self.dictionary is not None) != (self.level == "character") or bool(self.texts) == (
            self.level == "character"
        ):
            raise ValueError(
                "level: character draws the entries of a `dictionary` and no `texts`; the other levels draw `texts` and no `dictionary`"
            )
        if self.length[0] < 1 or self.lines[0] < 1 or self.height_px[0] < 8:
            raise ValueError("length and lines start at 1 or more, height_px at 8 or more")
        return self


Source = Annotated[
    PageSettings
    | AltoSettings
    | PaddleSettings
    | CorrectionsSettings
    | HuggingFaceSettings
    | PairsSettings
    | SyntheticSettings,
    Field(discriminator="format"),
]

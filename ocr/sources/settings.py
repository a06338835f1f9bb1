"""Settings of every source of samples; light, so that a config is checked in under a second.

Over 300 lines: one class of settings a source, and nothing else.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from ocr.settings import PathText, Setting, Settings

SplitName = Literal["train", "validation", "auto"]
Range = tuple[float, float]


class SourceSettings(Settings):
    """The settings of every source: the split of its samples, and their groups."""

    format: str
    split: SplitName = Setting(
        "auto",
        on_resume="refuse",
        description="Split that the samples go to; auto: the source's own, else by split.by",
    )
    group_pattern: str | None = Setting(
        None,
        on_resume="refuse",
        description=(
            "Regular expression searched in a sample's id; its named groups (page, writer …) "
            "become facts for split.by"
        ),
    )
    aug_copies: int = Setting(
        0,
        on_resume="refuse",
        description="Number of degraded copies of every training sample, besides itself",
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
    """Page descriptions in XML, and the pieces of a page that become samples."""

    path: PathText = Setting(
        on_resume="refuse",
        description="Folder of XML files, searched with its subfolders, or one XML file",
    )
    images: PathText | None = Setting(
        None,
        on_resume="refuse",
        description=(
            "Folder of the page images; null: beside the XML or in a folder above it up to `path`"
        ),
    )
    levels: tuple[Literal["word", "line", "paragraph", "page"], ...] = Setting(
        ("line",),
        on_resume="refuse",
        description="Pieces that are cut out: words, lines, paragraphs (text regions), whole pages",
        min_length=1,
    )
    min_confidence: float = Setting(
        0.0,
        on_resume="refuse",
        description="Least confidence of a piece's text; less sure pieces are left out",
        ge=0,
        le=1,
    )
    deskew_degrees: float = Setting(
        3.0,
        on_resume="refuse",
        description="Lines that lean by more degrees than this are rotated upright",
        ge=0,
    )
    max_page_pixels: int = Setting(
        100_000_000,
        on_resume="refuse",
        description="Largest area of a page image in pixels; larger images are not opened",
        ge=1,
    )


class PageSettings(LayoutSettings):
    """PAGE-XML, 2010 to 2019."""

    format: Literal["page"] = Setting(
        "page", on_resume="refuse", description="Format of the source: PAGE-XML"
    )


class AltoSettings(LayoutSettings):
    """ALTO, versions 1 to 4."""

    format: Literal["alto"] = Setting(
        "alto", on_resume="refuse", description="Format of the source: ALTO XML"
    )


class PaddleSettings(SourceSettings):
    """PaddleOCR label files in UTF-8.

    A line is `path<delimiter>text`, or for detection `path<TAB>[{"transcription": …, "points": …},
    …]`.
    """

    format: Literal["paddle"] = Setting(
        "paddle", on_resume="refuse", description="Format of the source: PaddleOCR label file"
    )
    path: PathText = Setting(on_resume="refuse", description="Label file")
    labels: Literal["recognition", "detection"] = Setting(
        "recognition",
        on_resume="refuse",
        description="Kind of labels: one text an image, or boxes with texts, which are cut out",
    )
    images: PathText | None = Setting(
        None,
        on_resume="refuse",
        description="Folder that image paths are relative to; null: the label file's",
    )
    delimiter: str = Setting(
        "\t", on_resume="refuse", description="Delimiter between path and text", min_length=1
    )
    level: Literal["character", "word", "line"] = Setting(
        "line", on_resume="refuse", description="Level of the text in one image"
    )
    deskew_degrees: float = Setting(
        3.0,
        on_resume="refuse",
        description="Detection boxes that lean by more degrees than this are rotated upright",
        ge=0,
    )
    max_page_pixels: int = Setting(
        100_000_000,
        on_resume="refuse",
        description=(
            "Largest area in pixels of an image with detection labels; larger images are not opened"
        ),
        ge=1,
    )
    character_dict_path: PathText | None = Setting(
        None,
        on_resume="refuse",
        description=(
            "PaddleOCR dictionary file, one entry a line; labels that it cannot spell are "
            "left out and counted"
        ),
    )
    use_space_char: bool = Setting(
        False, on_resume="refuse", description="The space is an entry of the dictionary"
    )
    max_text_length: int | None = Setting(
        None,
        on_resume="refuse",
        description="Longest label, in dictionary entries (in characters without a dictionary)",
        ge=1,
    )


class PairsSettings(SourceSettings):
    """Images with their text beside them, as for kraken: `x.png` and `x.gt.txt`."""

    format: Literal["pairs"] = Setting(
        "pairs", on_resume="refuse", description="Format of the source: x.png with x.gt.txt"
    )
    path: PathText = Setting(on_resume="refuse", description="Folder, searched with its subfolders")
    suffix: str = Setting(
        ".gt.txt",
        on_resume="refuse",
        description="Ending of the names of the text files",
        min_length=1,
    )
    level: Literal["character", "word", "line", "paragraph", "page"] = Setting(
        "line", on_resume="refuse", description="Level of the text in one image"
    )


class TableSettings(SourceSettings):
    """A table with an image file and its text in each row: CSV, TSV or XLSX."""

    format: Literal["table"] = Setting(
        "table", on_resume="refuse", description="Format of the source: CSV, TSV or XLSX"
    )
    path: PathText = Setting(on_resume="refuse", description="Table: .csv, .tsv or .xlsx")
    images: PathText | None = Setting(
        None,
        on_resume="refuse",
        description="Folder that image paths are relative to; null: the table's",
    )
    file_column: str | None = Setting(
        None,
        on_resume="refuse",
        description="Column of the image file; null: by its usual names, such as file_name",
    )
    text_column: str | None = Setting(
        None,
        on_resume="refuse",
        description="Column of the text; null: by its usual names, such as text",
    )
    group_columns: dict[str, str] = Setting(
        {},
        on_resume="refuse",
        description="Facts for split.by and their columns, such as writer: writer_id",
    )
    level: Literal["character", "word", "line", "paragraph", "page"] = Setting(
        "line", on_resume="refuse", description="Level of the text in one image"
    )


class LabelStudioSettings(SourceSettings):
    """Label Studio's export in JSON or JSON-MIN."""

    format: Literal["label_studio"] = Setting(
        "label_studio", on_resume="refuse", description="Format of the source: Label Studio's JSON"
    )
    path: PathText = Setting(on_resume="refuse", description="Exported file, JSON or JSON-MIN")
    images: PathText | None = Setting(
        None,
        on_resume="refuse",
        description="Folder of the images, searched by the names in the export; null: the export's",
    )
    level: Literal["character", "word", "line", "paragraph"] = Setting(
        "line", on_resume="refuse", description="Level of the text in one region"
    )
    deskew_degrees: float = Setting(
        3.0,
        on_resume="refuse",
        description="Regions that lean by more degrees than this are rotated upright",
        ge=0,
    )
    max_page_pixels: int = Setting(
        100_000_000,
        on_resume="refuse",
        description="Largest area of an image in pixels; larger images are not opened",
        ge=1,
    )


class CorrectionsSettings(SourceSettings):
    """Corrections by people: a PNG and a JSON file each (docs/formats.md)."""

    format: Literal["corrections"] = Setting(
        "corrections",
        on_resume="refuse",
        description="Format of the source: a PNG and a JSON file for each sample",
    )
    path: PathText = Setting(on_resume="refuse", description="Folder, searched with its subfolders")
    level: Literal["character", "word", "line", "paragraph", "page"] = Setting(
        "line", on_resume="refuse", description="Level of the text in one image"
    )


class HuggingFaceSettings(SourceSettings):
    """A data set of the hub or of a local folder, opened with `datasets`.

    Local forms: save_to_disk, parquet, arrow, imagefolder.
    """

    format: Literal["huggingface"] = Setting(
        "huggingface",
        on_resume="refuse",
        description="Format of the source: a Hugging Face data set",
    )
    path: PathText = Setting(
        on_resume="refuse", description="Name on the hub, or local folder or file"
    )
    subset: str | None = Setting(
        None, on_resume="refuse", description="Configuration of the hub's data set"
    )
    dataset_split: str | None = Setting(
        None,
        on_resume="refuse",
        description=(
            "Split of the data set; null: all, with validation, val, dev and test going to "
            "validation"
        ),
    )
    streaming: bool = Setting(
        False,
        on_resume="refuse",
        description="Stream the data set from the hub, without a copy on this disk",
    )
    image_column: str = Setting(
        "image",
        on_resume="refuse",
        description="Column of the image (rows with `images` are FineVision's)",
    )
    text_column: str = Setting(
        "text",
        on_resume="refuse",
        description="Column of the text (rows with `texts` or `messages` are conversations)",
    )
    group_columns: dict[str, str] = Setting(
        {},
        on_resume="refuse",
        description="Facts for split.by and their columns, such as writer: writer_id",
    )
    class_column: str = Setting(
        "class",
        on_resume="refuse",
        description="Column of the class for dataset_classes and samples_per_class",
    )
    dataset_classes: tuple[str, ...] = Setting(
        (), on_resume="refuse", description="Classes of the rows to keep; empty: all"
    )
    samples_per_class: Annotated[int, Field(ge=1)] | Literal["all"] = Setting(
        "all",
        on_resume="refuse",
        description="Number of first rows to keep of each class in each split",
    )
    level: Literal["character", "word", "line", "paragraph", "page"] = Setting(
        "line", on_resume="refuse", description="Level of the text in one image"
    )

    @field_validator("dataset_classes", mode="before")
    @classmethod
    def _one_class_is_a_list_of_one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _a_stream_is_not_counted(self) -> "HuggingFaceSettings":
        if self.streaming and self.samples_per_class != "all":
            raise ValueError(
                "samples_per_class needs streaming=false: a unit of a stream does not know "
                "the units before it"
            )
        return self


class SyntheticSettings(SourceSettings):
    """Texts rendered with installed fonts.

    Image i is a function of (seed, text, i) and of the fonts; with clutter also of the other texts.
    """

    format: Literal["synthetic"] = Setting(
        "synthetic",
        on_resume="refuse",
        description="Format of the source: texts rendered with fonts",
    )
    texts: tuple[PathText, ...] = Setting(
        (),
        on_resume="refuse",
        description=(
            "Word lists or running text in UTF-8, cut at white space; may be compressed "
            "(.xz, .gz); shipped:NAME: a file of ocr/assets/texts"
        ),
    )
    dictionary: PathText | None = Setting(
        None,
        on_resume="refuse",
        description=(
            "PaddleOCR dictionary file whose entries are rendered in turn; with level: character"
        ),
    )
    script: str = Setting(
        on_resume="refuse",
        pattern=r"^[A-Z][A-Za-z_]+$",
        description="Unicode's name of the script that a text must be written in",
    )
    level: Literal["character", "word", "line", "paragraph"] = Setting(
        "word", on_resume="refuse", description="Level of the text in one image"
    )
    length: tuple[int, int] = Setting(
        (1, 20),
        on_resume="refuse",
        description="Shortest and longest word, or line, in code points",
    )
    lines: tuple[int, int] = Setting(
        (2, 5), on_resume="refuse", description="Fewest and most lines of a paragraph"
    )
    word_hash_range: Range = Setting(
        (0.0, 1.0),
        on_resume="refuse",
        description="Range in [0, 1) of the hashes of words to keep; disjoint ranges share no word",
    )
    leave_out: tuple[str, ...] = Setting(
        (),
        on_resume="refuse",
        description="Fragments whose words are left out, such as a look-alike spelling",
    )
    least_per_letter: int = Setting(
        0,
        on_resume="refuse",
        description="Images of each letter at least; words with rarer letters are repeated",
        ge=0,
    )
    number_share: float = Setting(
        0.0,
        on_resume="refuse",
        description="Share of images that show a number in the script's digits",
        ge=0,
        le=1,
    )
    form_share: float = Setting(
        0.0,
        on_resume="refuse",
        description=(
            "Share of lines as forms have them: list numbers, dates, sums, telephone numbers "
            "and Latin words between phrases of the texts"
        ),
        ge=0,
        le=1,
    )
    word_share: float = Setting(
        0.0,
        on_resume="refuse",
        description="Share of lines that are one to three words of the texts",
        ge=0,
        le=1,
    )
    latin_share: float = Setting(
        0.0,
        on_resume="refuse",
        description="Most Latin letters that a line may have, of its letters; 0: none",
        ge=0,
        le=1,
    )
    danda_share: float = Setting(
        0.0, on_resume="refuse", description="Share of words with a danda after them", ge=0, le=1
    )
    fonts: tuple[PathText, ...] = Setting(
        (),
        on_resume="refuse",
        description="Font families, font files or folders; empty: all installed for the script",
    )
    exclude_fonts: tuple[str, ...] = Setting(
        (), on_resume="refuse", description="Font families or file stems that are not used"
    )
    count: int = Setting(
        on_resume="refuse", description="Number of images; words repeat when there are fewer", ge=1
    )
    seed: int = Setting(
        0,
        on_resume="refuse",
        description="Seed of the images; another seed gives other images",
        ge=0,
    )
    on_the_fly: bool = Setting(
        False,
        on_resume="refuse",
        description=(
            "Render the texts again in every epoch of training after the first, in a process "
            "of its own"
        ),
    )
    height_px: tuple[int, int] = Setting(
        (36, 40), on_resume="refuse", description="Height of an image of one line, in pixels"
    )
    margin: Range = Setting(
        (0.04, 0.16),
        on_resume="refuse",
        description="Paper around the ink, as shares of the height",
    )
    line_box: Range = Setting(
        (0.3, 1.0),
        on_resume="refuse",
        description="Height of the crop: 0 is the word's own ink, 1 the font's whole line",
    )
    rotation_degrees: Range = Setting(
        (-1.5, 1.5), on_resume="refuse", description="Rotation of the word, in degrees"
    )
    shear: Range = Setting((-0.08, 0.08), on_resume="refuse", description="Slant: x shift per y")
    stretch: Range = Setting((0.9, 1.12), on_resume="refuse", description="Width against height")
    blur_px: Range = Setting(
        (0.0, 0.6), on_resume="refuse", description="Standard deviation of the blur, in pixels"
    )
    noise: Range = Setting(
        (0.0, 4.0),
        on_resume="refuse",
        description="Standard deviation of pixel noise, in grey levels of 255",
    )
    texture: Range = Setting(
        (0.0, 6.0),
        on_resume="refuse",
        description="Standard deviation of slow shading of the paper, in grey levels of 255",
    )
    paper_grey: Range = Setting(
        (200, 255), on_resume="refuse", description="Grey level of the paper, of 255"
    )
    contrast: Range = Setting(
        (0.55, 1.0),
        on_resume="refuse",
        description="Contrast of ink against paper: 1 is black on this paper",
    )
    inverted_share: float = Setting(
        0.05,
        on_resume="refuse",
        description="Share of images with light ink on dark paper",
        ge=0,
        le=1,
    )
    neighbour_share: float = Setting(
        0.0,
        on_resume="refuse",
        description="Share of images into which the lines above or below reach",
        ge=0,
        le=1,
    )
    neighbour_room: Range = Setting(
        (0.04, 0.26),
        on_resume="refuse",
        description="Room for a line above or below, as shares of the height",
    )
    rule_share: float = Setting(
        0.0,
        on_resume="refuse",
        description="Share of images with a line ruled under the text, or sides of a table cell",
        ge=0,
        le=1,
    )
    stamp_share: float = Setting(
        0.0,
        on_resume="refuse",
        description="Share of images with the outline of a stamp or seal across the text",
        ge=0,
        le=1,
    )
    show_through_share: float = Setting(
        0.0,
        on_resume="refuse",
        description="Share of images with faint mirrored text from the back of the page",
        ge=0,
        le=1,
    )
    gap_share: float = Setting(
        0.0,
        on_resume="refuse",
        description="Share of lines with a wide gap or dotted leaders in place of a space",
        ge=0,
        le=1,
    )
    clean_share: float = Setting(
        0.0,
        on_resume="refuse",
        description="Share of images without blur, noise, shading, rotation or slant",
        ge=0,
        le=1,
    )
    bilevel_share: float = Setting(
        0.0,
        on_resume="refuse",
        description="Share of images thresholded to black and white, strokes broken or filled",
        ge=0,
        le=1,
    )
    fade_share: float = Setting(
        0.0,
        on_resume="refuse",
        description="Share of images with paler stretches along the line",
        ge=0,
        le=1,
    )
    jpeg_share: float = Setting(
        0.0,
        on_resume="refuse",
        description="Share of images with the traces of JPEG, quality 30 to 80",
        ge=0,
        le=1,
    )
    pattern_share: float = Setting(
        0.0,
        on_resume="refuse",
        description="Share of images with soft shapes behind the text",
        ge=0,
        le=1,
    )
    pen_share: float = Setting(
        0.0,
        on_resume="refuse",
        description=(
            "Share of images as if written: strokes of a pen, no headline, letters that sway"
        ),
        ge=0,
        le=1,
    )
    image_format: Literal["webp", "png"] = Setting(
        "webp", on_resume="refuse", description="Encoding of the images"
    )
    quality: int = Setting(
        40, on_resume="refuse", description="Quality of WebP images, 1 to 100", ge=1, le=100
    )

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
                "level: character needs a `dictionary` and no `texts`; the other levels need "
                "`texts` and no `dictionary`"
            )
        if self.length[0] < 1 or self.lines[0] < 1 or self.height_px[0] < 8:
            raise ValueError("length and lines start at 1 or more, height_px at 8 or more")
        return self


Source = Annotated[
    PageSettings
    | AltoSettings
    | PaddleSettings
    | TableSettings
    | LabelStudioSettings
    | CorrectionsSettings
    | HuggingFaceSettings
    | PairsSettings
    | SyntheticSettings,
    Field(discriminator="format"),
]

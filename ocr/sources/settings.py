"""Settings of every source of samples; light, so that a config is checked in under a second."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ocr.settings import Setting, Settings
from ocr.sources.scripts import ScriptName

SplitName = Literal["train", "validation", "auto"]
Range = tuple[float, float]


class SourceSettings(Settings):
    """What every source says: where its samples go."""

    split: SplitName = Setting("auto", on_resume="refuse", description="the split its samples go to; auto: by a hash of the text")


class PaddleSettings(SourceSettings):
    """PaddleOCR recognition labels: one `path<delimiter>text` a line, UTF-8."""

    format: Literal["paddle"] = Setting("paddle", on_resume="refuse", description="PaddleOCR label file")
    path: str = Setting(on_resume="refuse", description="the label file")
    images: str | None = Setting(None, on_resume="refuse", description="folder that image paths are relative to; default: the label file's")
    delimiter: str = Setting("\t", on_resume="refuse", description="between path and text", min_length=1)
    level: Literal["character", "word", "line"] = Setting("line", on_resume="refuse", description="what one image shows")


class SyntheticSettings(SourceSettings):
    """Words drawn with installed fonts: image i is a function of (seed, word, i) and of the fonts alone."""

    format: Literal["synthetic"] = Setting("synthetic", on_resume="refuse", description="words rendered with fonts")
    texts: tuple[str, ...] = Setting(on_resume="refuse", description="word lists or running text, UTF-8; cut at white space", min_length=1)
    script: ScriptName = Setting(on_resume="refuse", description="Unicode block that a word must be written in")
    length: tuple[int, int] = Setting((1, 20), on_resume="refuse", description="shortest and longest word, code points")
    word_hash_range: Range = Setting((0.0, 1.0), on_resume="refuse", description="keep words whose hash in [0, 1) falls in here; disjoint ranges share no word")
    leave_out: tuple[str, ...] = Setting(
        (), on_resume="refuse", description="words holding one of these are left out, such as a spelling that looks like another"
    )
    least_per_letter: int = Setting(0, on_resume="refuse", description="words with a letter rarer than this are repeated until it has so many images", ge=0)
    number_share: float = Setting(0.0, on_resume="refuse", description="share of images that show a number in the script's digits", ge=0, le=1)
    danda_share: float = Setting(0.0, on_resume="refuse", description="share of words with a danda after them", ge=0, le=1)
    fonts: tuple[str, ...] = Setting((), on_resume="refuse", description="families, font files or folders; empty: all installed for the script")
    exclude_fonts: tuple[str, ...] = Setting((), on_resume="refuse", description="families or file stems not to use")
    count: int = Setting(on_resume="refuse", description="images to draw; words repeat when there are fewer", ge=1)
    seed: int = Setting(0, on_resume="refuse", description="another seed, other images", ge=0)
    height_px: tuple[int, int] = Setting((36, 40), on_resume="refuse", description="image height")
    margin: Range = Setting((0.04, 0.16), on_resume="refuse", description="paper around the ink, shares of the height")
    line_box: Range = Setting((0.3, 1.0), on_resume="refuse", description="height of the crop: 0 the word's own ink, 1 the face's whole line")
    rotation_degrees: Range = Setting((-1.5, 1.5), on_resume="refuse", description="turn of the word")
    shear: Range = Setting((-0.08, 0.08), on_resume="refuse", description="slant: x shift per y")
    stretch: Range = Setting((0.9, 1.12), on_resume="refuse", description="width against height")
    blur_px: Range = Setting((0.0, 0.6), on_resume="refuse", description="standard deviation of the blur")
    noise: Range = Setting((0.0, 4.0), on_resume="refuse", description="standard deviation of pixel noise, grey levels of 255")
    texture: Range = Setting((0.0, 6.0), on_resume="refuse", description="standard deviation of slow shading of the paper, grey levels")
    paper_grey: Range = Setting((200, 255), on_resume="refuse", description="grey level of the paper")
    contrast: Range = Setting((0.55, 1.0), on_resume="refuse", description="ink against paper: 1 is black on this paper")
    inverted_share: float = Setting(0.05, on_resume="refuse", description="share of images with light ink on dark paper", ge=0, le=1)
    image_format: Literal["webp", "png"] = Setting("webp", on_resume="refuse", description="encoding of the images")
    quality: int = Setting(40, on_resume="refuse", description="of WebP", ge=1, le=100)

    @model_validator(mode="after")
    def _ranges_rise(self) -> "SyntheticSettings":
        ranges = {
            name: value
            for name in type(self).model_fields
            if isinstance(value := getattr(self, name), tuple) and len(value) == 2 and not isinstance(value[0], str)
        }
        falling = [f"{name}: {low:g} is above {high:g}" for name, (low, high) in ranges.items() if low > high]
        if falling:
            raise ValueError("; ".join(falling))
        if self.length[0] < 1 or self.height_px[0] < 8:
            raise ValueError("length starts at 1 or more, height_px at 8 or more")
        return self


Source = Annotated[PaddleSettings | SyntheticSettings, Field(discriminator="format")]

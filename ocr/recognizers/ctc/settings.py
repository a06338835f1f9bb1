"""Settings of the CTC networks; without torch, so that a config is checked at once."""

from typing import ClassVar, Literal, get_args

import pydantic

from ocr.settings import PathText, Setting, Settings


class WritingSettings(Settings):
    """The alphabet of a network, and the lines that it takes."""

    network: ClassVar[str]  # module:class, imported when it is built: settings never load torch
    channels: ClassVar[int]
    columns_per_output: ClassVar[int]

    alphabet: str | None = Setting(
        None,
        on_resume="refuse",
        description=(
            "Characters that the network can write; null: those of the dictionary, else of "
            "the training split"
        ),
    )
    character_dict_path: PathText | None = Setting(
        None,
        on_resume="refuse",
        description=(
            "PaddleOCR dictionary file: its entries' code points are the alphabet, and it "
            "must spell every training label"
        ),
    )
    use_space_char: bool = Setting(
        False, on_resume="refuse", description="The space is an entry of the dictionary"
    )
    crop: Literal["ink", "line"] = Setting(
        "ink",
        on_resume="refuse",
        description="Rows that fill the input's height. ink: all with ink; line: those of the "
        "text, without slivers of neighbouring lines",
    )
    stretch: float = Setting(
        1.0,
        ge=0.5,
        le=3,
        on_resume="refuse",
        description="Factor on a line's width; more than 1 gives more outputs per character",
    )

    @property
    def fixed_width_px(self) -> int | None:
        """The one width in columns that the network takes; None: any, outputs in proportion."""
        return None

    def outputs(self, columns: int) -> int:
        """Return the number of outputs for an input of so many columns."""
        return columns // self.columns_per_output


class CompactSettings(WritingSettings):
    """The fast network: grey, a stride-2 stem, one output every 4 pixels."""

    network: ClassVar[str] = "ocr.recognizers.ctc.compact:CompactNetwork"
    channels: ClassVar[int] = 1
    columns_per_output: ClassVar[int] = 4

    kind: Literal["compact"] = Setting("compact", on_resume="refuse", description="Kind of network")
    size: Literal["small", "base", "large"] = Setting(
        "base",
        on_resume="refuse",
        description="Size of the network: 0.4, 0.8 or 2.6 million parameters",
    )
    height_px: Literal[32, 48] = Setting(
        32, on_resume="refuse", description="Height that every image is scaled to, in pixels"
    )
    dropout: float = Setting(
        0.1,
        ge=0,
        lt=1,
        on_resume="refuse",
        description="Dropout before the LSTM and before the classes, as a share",
    )


class CrnnSettings(WritingSettings):
    """The CNN + BiLSTM of the Corrections system: RGB, one output every 8 pixels."""

    network: ClassVar[str] = "ocr.recognizers.ctc.crnn:CrnnNetwork"
    channels: ClassVar[int] = 3
    columns_per_output: ClassVar[int] = 8

    kind: Literal["crnn"] = Setting("crnn", on_resume="refuse", description="Kind of network")
    height_px: Literal[32] = Setting(
        32, on_resume="refuse", description="Height that every image is scaled to, in pixels"
    )
    hidden_size: int = Setting(
        256,
        ge=1,
        le=2048,
        on_resume="refuse",
        description="Hidden units of each direction of each BiLSTM layer",
    )
    num_layers: int = Setting(
        2, ge=1, le=8, on_resume="refuse", description="Number of BiLSTM layers"
    )
    dropout: float = Setting(
        0.3,
        ge=0,
        lt=1,
        on_resume="refuse",
        description="Dropout after each convolution and between the LSTM layers, as a share",
    )


class MobileNetSettings(WritingSettings):
    """PaddleOCR's CRNN on MobileNetV3 large, the Thai system's network.

    RGB, one output every 4 pixels, two BiLSTM layers.
    """

    network: ClassVar[str] = "ocr.recognizers.ctc.mobilenet:MobileNetNetwork"
    channels: ClassVar[int] = 3
    columns_per_output: ClassVar[int] = 4

    kind: Literal["mobilenet_v3_crnn"] = Setting(
        "mobilenet_v3_crnn", on_resume="refuse", description="Kind of network"
    )
    scale: float = Setting(
        0.5,
        gt=0,
        le=2,
        on_resume="refuse",
        description="Width of every layer, as a multiple of MobileNetV3's",
    )
    hidden_size: int = Setting(
        96,
        ge=1,
        on_resume="refuse",
        description="Hidden units of each direction of each BiLSTM layer",
    )
    height_px: Literal[32] = Setting(
        32, on_resume="refuse", description="Height that every image is scaled to, in pixels"
    )
    dropout: float = Setting(
        0.0, ge=0, lt=1, on_resume="refuse", description="Dropout before the classes, as a share"
    )


class SvtrSettings(WritingSettings):
    """PaddleOCR's SVTRNet with the Thai system's settings: attention over patches.

    RGB lines of one fixed size, the same number of outputs for every line.
    """

    network: ClassVar[str] = "ocr.recognizers.ctc.svtr:SvtrNetwork"
    channels: ClassVar[int] = 3
    columns_per_output: ClassVar[int] = (
        4  # columns of a patch; patches are pooled into the outputs, so each output has more
    )

    kind: Literal["svtr"] = Setting("svtr", on_resume="refuse", description="Kind of network")
    height_px: Literal[64] = Setting(
        64, on_resume="refuse", description="Height that every image is scaled to, in pixels"
    )
    width_px: int = Setting(
        256,
        ge=32,
        le=1024,
        multiple_of=4,
        on_resume="refuse",
        description=(
            "Width of every input in pixels: wider lines are squeezed to it, background fills "
            "the rest"
        ),
    )
    out_channels: int = Setting(
        192, ge=1, le=1024, on_resume="refuse", description="Features of each output"
    )
    out_char_num: int = Setting(
        25,
        ge=1,
        le=256,
        on_resume="refuse",
        description=(
            "Outputs of every line: the most characters, and blanks between equal ones, that "
            "it can have"
        ),
    )
    dropout: float = Setting(
        0.1, ge=0, lt=1, on_resume="refuse", description="Dropout before the classes, as a share"
    )

    @pydantic.model_validator(mode="after")
    def _an_output_for_a_patch(self) -> "SvtrSettings":
        patches = self.width_px // self.columns_per_output
        if self.out_char_num > patches:
            raise ValueError(
                f"out_char_num={self.out_char_num} outputs, but width_px={self.width_px} has "
                f"{patches} patches in a row"
            )
        return self

    @property
    def fixed_width_px(self) -> int:
        """The fixed width of the input."""
        return self.width_px

    def outputs(self, columns: int) -> int:  # noqa: ARG002  (as many for every input)
        """Return the same number of outputs for every input."""
        return self.out_char_num


class DecodingSettings(Settings):
    """Decoding of the columns' probabilities; sealed in the bundle."""

    method: Literal["greedy", "beam", "closed"] = Setting(
        "greedy",
        on_resume="free",
        description=(
            "Decoding: the best class per column, a prefix beam search, or the likeliest "
            "entry of model.character_dict_path"
        ),
    )
    beam_width: int = Setting(
        8,
        ge=1,
        le=256,
        on_resume="free",
        description="Prefixes kept after each column of a beam search",
    )
    lm_order: int = Setting(
        5,
        ge=0,
        le=9,
        on_resume="free",
        description=(
            "Characters in the n-grams of the language model of the training texts; 0: no "
            "language model"
        ),
    )
    lm_weight: float = Setting(
        0.4,
        ge=0,
        le=5,
        on_resume="free",
        description="Weight of the language model's log probability",
    )
    lm_least_count: int = Setting(
        1,
        ge=1,
        on_resume="free",
        description="Least occurrences of n-grams of three and more characters in the model",
    )
    length_bonus: float = Setting(
        0.6,
        ge=-5,
        le=5,
        on_resume="free",
        description=(
            "Score added for each character, against the language model's preference for "
            "short texts"
        ),
    )
    lexicon: bool = Setting(
        False,
        on_resume="free",
        description=(
            "Replace an unknown word by the only word of the training texts that is a single "
            "edit away"
        ),
    )

    @property
    def uses_language_model(self) -> bool:
        """Whether the beam search uses a language model."""
        return self.method == "beam" and self.lm_order > 0 and self.lm_weight > 0


# The one table of CTC networks. A new one takes a settings class, a network class (named by
# `network` of the settings) and a member here; everything else derives from this union.
NetworkSettings = CompactSettings | CrnnSettings | MobileNetSettings | SvtrSettings
NETWORK_SETTINGS: dict[str, type[NetworkSettings]] = {
    settings.model_fields["kind"].default: settings for settings in get_args(NetworkSettings)
}

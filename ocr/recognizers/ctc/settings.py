"""Settings of the CTC networks; no torch here, so a config is checked in an instant."""

from typing import Annotated, Literal

import pydantic

from ocr.settings import Setting, Settings


class CompactSettings(Settings):
    """The fast network: grey, a stride-2 stem, one output every 4 pixels."""

    kind: Literal["compact"] = Setting("compact", on_resume="refuse", description="which network")
    size: Literal["small", "base", "large"] = Setting("base", on_resume="refuse", description="0.4, 0.8 or 2.6 million parameters")
    height_px: Literal[32, 48] = Setting(32, on_resume="refuse", description="height that every image is scaled to")
    dropout: float = Setting(0.1, ge=0, lt=1, on_resume="refuse", description="before the LSTM and before the classes")
    alphabet: str | None = Setting(None, on_resume="refuse", description="characters it can write; null: those of the training split")


class CrnnSettings(Settings):
    """The CNN + BiLSTM of the Corrections system: RGB, three convolutions, one output every 8 pixels."""

    kind: Literal["crnn"] = Setting("crnn", on_resume="refuse", description="which network")
    height_px: Literal[32] = Setting(32, on_resume="refuse", description="height that every image is scaled to")
    dropout: float = Setting(0.3, ge=0, lt=1, on_resume="refuse", description="after each convolution and between the LSTM layers")
    alphabet: str | None = Setting(None, on_resume="refuse", description="characters it can write; null: those of the training split")


class MobileNetSettings(Settings):
    """PaddleOCR's CRNN on MobileNetV3 large, the Thai system's network: RGB, one output every 4 pixels, two BiLSTM layers."""

    kind: Literal["mobilenet_v3_crnn"] = Setting("mobilenet_v3_crnn", on_resume="refuse", description="which network")
    scale: float = Setting(0.5, gt=0, le=2, on_resume="refuse", description="width of every layer against MobileNetV3's")
    hidden_size: int = Setting(96, ge=1, on_resume="refuse", description="of each direction of each BiLSTM layer")
    height_px: Literal[32] = Setting(32, on_resume="refuse", description="height that every image is scaled to")
    dropout: float = Setting(0.0, ge=0, lt=1, on_resume="refuse", description="before the classes")
    alphabet: str | None = Setting(None, on_resume="refuse", description="characters it can write; null: those of the training split")


CtcSettings = Annotated[CompactSettings | CrnnSettings | MobileNetSettings, pydantic.Field(discriminator="kind")]

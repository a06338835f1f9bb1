"""Settings of the vision-language models; no torch here, so a config is checked in an instant."""

from typing import Literal

import pydantic

from ocr.settings import Setting, Settings

INSTRUCTION = "Transcribe the text in this image exactly as it is written. Give the text alone."
Dtype = Literal["float32", "bfloat16", "float16"]


class BaseModelSettings(Settings):
    """What every vision-language base shares."""

    load_in_4bit: bool = Setting(
        False,
        on_resume="refuse",
        description="the base's matrices as NF4 with double quantisation (bitsandbytes), as QLoRA does",
    )
    load_in_8bit: bool = Setting(
        False, on_resume="refuse", description="the base's matrices as LLM.int8 (bitsandbytes)"
    )
    dtype: Dtype | Literal["auto"] = Setting(
        "auto",
        on_resume="refuse",
        description="of the frozen base; auto: bfloat16 or float16 where precision says so",
    )
    attn_implementation: Literal["auto", "flash_attention_2", "sdpa", "eager"] = Setting(
        "auto",
        on_resume="rounding",
        description="auto: flash_attention_2 where that package is installed and there is a GPU, else sdpa",
    )
    gradient_checkpointing: bool = Setting(
        False,
        on_resume="rounding",
        description="compute activations again in the backward pass, for less memory",
    )
    device_map: Literal["auto"] | None = Setting(
        None,
        on_resume="rounding",
        description="auto: layers spread over all GPUs of one machine; with one worker only",
    )
    instruction: str = Setting(
        INSTRUCTION,
        min_length=1,
        on_resume="refuse",
        description="what the model is asked with each image",
    )
    instruction_first: bool = Setting(
        False,
        on_resume="refuse",
        description="the instruction before the image, as the Chandra system has it",
    )
    max_length: int = Setting(
        2048,
        ge=16,
        on_resume="refuse",
        description="tokens of image, instruction and answer together; longer samples get a smaller image",
    )

    @pydantic.model_validator(mode="after")
    def _one_quantisation(self) -> "BaseModelSettings":
        if self.load_in_4bit and self.load_in_8bit:
            raise ValueError("load_in_4bit and load_in_8bit exclude each other")
        return self

    @property
    def quantised(self) -> bool:
        """Whether bitsandbytes holds the base's matrices."""
        return self.load_in_4bit or self.load_in_8bit


class VlmSettings(BaseModelSettings):
    """A Qwen2.5-VL or Qwen3-VL (Chandra is one) from the hub or from a folder."""

    kind: Literal["vlm"] = Setting("vlm", on_resume="refuse", description="which network")
    name_or_path: str = Setting(
        min_length=1,
        on_resume="refuse",
        description="hub name, such as Qwen/Qwen2.5-VL-3B-Instruct, or local folder",
    )
    revision: str | None = Setting(
        None, on_resume="refuse", description="the hub's branch, tag or commit; null: main"
    )


class TinyVlmSettings(BaseModelSettings):
    """A base of 1.6 million parameters, built and taught the words of a data set on the spot: for tests and to see a run on any machine."""

    kind: Literal["tiny_vlm"] = Setting("tiny_vlm", on_resume="refuse", description="which network")
    architecture: Literal["qwen3_vl", "qwen2_5_vl"] = Setting(
        "qwen3_vl", on_resume="refuse", description="of which family it is"
    )
    base_data: str = Setting(
        "odia_few_words_base",
        on_resume="refuse",
        description="data set whose training split the base learns to read",
    )
    base_steps: int = Setting(
        450,
        ge=0,
        on_resume="refuse",
        description="optimizer steps of 16 images that it learns; 0: it stays as it is drawn",
    )


class ImageSettings(Settings):
    """The size at which images go into a vision-language model; each image token stands for (patch size × merge size)² pixels."""

    max_side_px: int = Setting(
        2048,
        ge=28,
        le=10_000,
        on_resume="refuse",
        description="longer images are scaled so that the longer side fits",
    )
    min_pixels: int = Setting(
        3136,
        ge=1,
        on_resume="refuse",
        description="smaller areas, width × height, are scaled up to this one",
    )
    max_pixels: int = Setting(
        1_003_520,
        ge=1,
        on_resume="refuse",
        description="larger areas, width × height, are scaled down to this one",
    )

    @pydantic.model_validator(mode="after")
    def _areas_rise(self) -> "ImageSettings":
        if self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels={self.min_pixels} is above max_pixels={self.max_pixels}")
        return self


class LoraSettings(Settings):
    """The adapter (Hu et al. 2021), as PEFT makes it."""

    rank: int = Setting(
        16,
        ge=1,
        le=1024,
        on_resume="refuse",
        description="of the two matrices beside each of the base's",
    )
    alpha: float = Setting(
        32, gt=0, on_resume="refuse", description="the adapter's output is scaled by alpha / rank"
    )
    dropout: float = Setting(
        0.0, ge=0, lt=1, on_resume="refuse", description="on the adapter's input, in training"
    )
    parts: tuple[Literal["language", "vision", "merger"], ...] = Setting(
        ("language",),
        min_length=1,
        on_resume="refuse",
        description="which linear layers: those of the language model, of the image encoder, of what joins them",
    )
    use_rslora: bool = Setting(
        False, on_resume="refuse", description="scale by alpha / √rank (Kalajdzievski 2023)"
    )
    use_dora: bool = Setting(
        False,
        on_resume="refuse",
        description="direction and length of each matrix apart (Liu et al. 2024)",
    )


class GenerationSettings(Settings):
    """How text is generated; sealed in the bundle, so that serving reads as evaluation did."""

    max_new_tokens: int = Setting(
        512, ge=1, on_resume="free", description="longest reading, in tokens"
    )
    temperature: float = Setting(
        0.0,
        ge=0,
        le=2,
        on_resume="free",
        description="0: the likeliest token each time; else sampled, by a key of the image",
    )
    batch_size: int = Setting(8, ge=1, on_resume="free", description="images read at once, at most")
    batch_tokens: int = Setting(
        16384,
        ge=1,
        on_resume="free",
        description="image tokens read at once, at most; a single image may have more",
    )
    stop_on_repetition: bool = Setting(
        True, on_resume="free", description="end a reading that repeats itself over and over"
    )
    max_eval_samples: int | None = Setting(
        200,
        ge=1,
        on_resume="refuse",
        description="evaluations in training generate text for so many validation samples, always the same; null: all",
    )

"""Settings of the vision-language models; without torch, so that a config is checked at once."""

from typing import Literal

import pydantic

from ocr.recognizers.vlm.architectures import ARCHITECTURES, unknown
from ocr.settings import PathText, Setting, Settings

INSTRUCTION = "Transcribe the text in this image exactly as it is written. Give the text alone."
Dtype = Literal["float32", "bfloat16", "float16"]


class BaseModelSettings(Settings):
    """The settings that all vision-language base models share."""

    load_in_4bit: bool = Setting(
        False,
        on_resume="refuse",
        description=(
            "Store the base model's matrices as NF4 with double quantisation (bitsandbytes), "
            "as QLoRA does"
        ),
    )
    load_in_8bit: bool = Setting(
        False,
        on_resume="refuse",
        description="Store the base model's matrices as LLM.int8 (bitsandbytes)",
    )
    dtype: Dtype | Literal["auto"] = Setting(
        "auto",
        on_resume="refuse",
        description=(
            "Dtype of the frozen base model; auto: bfloat16, or float16 where precision says so"
        ),
    )
    attn_implementation: Literal["auto", "flash_attention_2", "sdpa", "eager"] = Setting(
        "auto",
        on_resume="rounding",
        description=(
            "Attention implementation; auto: flash_attention_2 where that package is "
            "installed and there is a GPU, else sdpa"
        ),
    )
    gradient_checkpointing: bool = Setting(
        False,
        on_resume="rounding",
        description="Compute activations again in the backward pass, to save memory",
    )
    device_map: Literal["auto"] | None = Setting(
        None,
        on_resume="rounding",
        description=(
            "Device map of the base model; auto: layers spread over all GPUs of one machine, "
            "with one worker only"
        ),
    )
    instruction: str = Setting(
        INSTRUCTION,
        on_resume="refuse",
        description="Instruction given to the model with each image; empty: none",
    )
    instruction_first: bool = Setting(
        False,
        on_resume="refuse",
        description="Put the instruction before the image, as the Chandra system does",
    )
    max_length: int = Setting(
        2048,
        ge=16,
        on_resume="refuse",
        description=(
            "Most tokens of image, instruction and answer together; longer samples get a "
            "smaller image"
        ),
    )

    @pydantic.model_validator(mode="after")
    def _one_quantisation(self) -> "BaseModelSettings":
        if self.load_in_4bit and self.load_in_8bit:
            raise ValueError("load_in_4bit and load_in_8bit exclude each other")
        return self

    @property
    def quantised(self) -> bool:
        """Whether bitsandbytes holds the base model's matrices."""
        return self.load_in_4bit or self.load_in_8bit


class VlmSettings(BaseModelSettings):
    """A vision-language model of a known architecture (Chandra is a Qwen3-VL), by its name."""

    kind: Literal["vlm"] = Setting("vlm", on_resume="refuse", description="Kind of network")
    name_or_path: PathText = Setting(
        min_length=1,
        on_resume="refuse",
        description=(
            "Name on the hub, such as Qwen/Qwen2.5-VL-3B-Instruct, or folder, also in a bucket; "
            f"known architectures: {', '.join(ARCHITECTURES)}"
        ),
    )
    revision: str | None = Setting(
        None, on_resume="refuse", description="Branch, tag or commit on the hub; null: main"
    )
    subfolder: str | None = Setting(
        None,
        min_length=1,
        on_resume="refuse",
        description="Folder of the model inside that folder or repository; null: the whole of it",
    )


class TinyVlmSettings(BaseModelSettings):
    """A base model of 1.6 million parameters, built and trained on a data set's words on the spot.

    It is for tests, and shows a run on any machine.
    """

    kind: Literal["tiny_vlm"] = Setting(
        "tiny_vlm", on_resume="refuse", description="Kind of network"
    )
    architecture: str = Setting(
        "qwen3_vl",
        on_resume="refuse",
        description=f"Architecture of the tiny model: {', '.join(ARCHITECTURES)}",
    )
    base_data: PathText = Setting(
        "odia_few_words_base",
        on_resume="refuse",
        description="Data set whose training split the tiny model learns to read",
    )
    base_steps: int = Setting(
        450,
        ge=0,
        on_resume="refuse",
        description=(
            "Optimizer steps, of 16 images, that the tiny model is trained for; 0: it keeps "
            "its random weights"
        ),
    )

    @pydantic.field_validator("architecture")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in ARCHITECTURES:
            raise ValueError(unknown(name))
        return name


class ImageSettings(Settings):
    """The size of images for a vision-language model.

    An image token is (patch size × merge size)² pixels.
    """

    max_side_px: int = Setting(
        2048,
        ge=28,
        le=10_000,
        on_resume="refuse",
        description="Longest side of an image in pixels; larger images are scaled down",
    )
    min_pixels: int = Setting(
        3136,
        ge=1,
        on_resume="refuse",
        description="Smallest area of an image, width × height in pixels; others are scaled up",
    )
    max_pixels: int = Setting(
        1_003_520,
        ge=1,
        on_resume="refuse",
        description="Largest area of an image, width × height in pixels; others are scaled down",
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
        description="Rank of the adapter: of the two matrices beside each of the base model's",
    )
    alpha: float = Setting(
        32,
        gt=0,
        on_resume="refuse",
        description="Scale of the adapter: its output is multiplied by alpha / rank",
    )
    dropout: float = Setting(
        0.0,
        ge=0,
        lt=1,
        on_resume="refuse",
        description="Dropout on the adapter's input in training, as a share",
    )
    parts: tuple[Literal["language", "vision", "merger"], ...] = Setting(
        ("language",),
        min_length=1,
        on_resume="refuse",
        description=(
            "Linear layers that get an adapter: of the language model, of the image encoder, "
            "of the merger between them"
        ),
    )
    target_modules: tuple[str, ...] | None = Setting(
        None,
        min_length=1,
        on_resume="refuse",
        description=(
            "Names of the linear layers in `parts` that get an adapter, such as "
            "[q_proj, v_proj]; null: all of them"
        ),
    )
    use_rslora: bool = Setting(
        False, on_resume="refuse", description="Scale by alpha / √rank (Kalajdzievski 2023)"
    )
    use_dora: bool = Setting(
        False,
        on_resume="refuse",
        description="Train direction and length of each matrix separately (Liu et al. 2024)",
    )


class GenerationSettings(Settings):
    """Generation of text; sealed in the bundle, so that serving reads as evaluation did."""

    max_new_tokens: int = Setting(
        512, ge=1, on_resume="free", description="Longest reading, in tokens"
    )
    temperature: float = Setting(
        0.0,
        ge=0,
        le=2,
        on_resume="free",
        description="Sampling temperature, keyed by the image; 0: the likeliest token each time",
    )
    batch_size: int = Setting(
        8, ge=1, on_resume="free", description="Most images read in one batch"
    )
    batch_tokens: int = Setting(
        16384,
        ge=1,
        on_resume="free",
        description="Most image tokens read in one batch; a single image may have more",
    )
    stop_on_repetition: bool = Setting(
        True, on_resume="free", description="End a reading that repeats itself over and over"
    )
    max_eval_samples: int | None = Setting(
        200,
        ge=1,
        on_resume="refuse",
        description=(
            "Validation samples whose text is generated in evaluations during training, "
            "always the same ones; null: all"
        ),
    )

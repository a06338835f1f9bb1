"""The frozen base model: folder, hash, tokenizer and weights, loaded by transformers.

Remote code never runs.
"""

import hashlib
import importlib
import importlib.util
import logging
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ocr.errors import UserError
from ocr.files import read_json, sha256_of
from ocr.recognizers.vlm.architectures import Architecture, architecture_of
from ocr.recognizers.vlm.inputs import Patching, Prompt
from ocr.recognizers.vlm.settings import BaseModelSettings, Dtype

_BLOB = re.compile(r"[0-9a-f]{64}")
DTYPES: dict[Dtype, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True)
class Base:
    """A base model on this disk, read lazily."""

    folder: Path
    name: str  # as the settings name it
    repository: Path | None = None  # where its card is, if the folder is inside it

    @cached_property
    def config(self) -> dict[str, Any]:
        """The content of config.json."""
        return dict(read_json(self.folder / "config.json"))

    @cached_property
    def architecture(self) -> Architecture:
        """The facts of its architecture; UserError where it is unknown."""
        return architecture_of(self.config.get("model_type"), self.name)

    @cached_property
    def preprocessor(self) -> dict[str, Any]:
        """The content of preprocessor_config.json, or the image part of processor_config.json."""
        for file, key in (
            ("preprocessor_config.json", None),
            ("processor_config.json", "image_processor"),
        ):
            if (self.folder / file).is_file():
                values = read_json(self.folder / file)
                if preprocessor := values.get(key) if key else values:
                    return dict(preprocessor)
        raise UserError(
            f"{self.name}: neither preprocessor_config.json nor processor_config.json in "
            f"{self.folder}; is this a vision-language model?"
        )

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer, as AutoTokenizer loads it."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self.folder, trust_remote_code=False)
        # older processors keep it there
        if tokenizer.chat_template is None and (self.folder / "chat_template.json").is_file():
            tokenizer.chat_template = read_json(self.folder / "chat_template.json")["chat_template"]
        return tokenizer

    @cached_property
    def patching(self) -> Patching:
        """The patches that the model expects of an image."""
        preprocessor, vision = self.preprocessor, self.config["vision_config"]
        mean, std = preprocessor.get("image_mean"), preprocessor.get("image_std")
        if not mean or not std:
            raise UserError(
                f"{self.name}: image_mean and image_std are missing from its "
                "preprocessor_config.json"
            )
        frames = preprocessor.get("temporal_patch_size", vision.get("temporal_patch_size", 2))
        return Patching(
            vision["patch_size"],
            self.merge,
            frames,
            tuple(mean),
            tuple(std),
            self.architecture.layout,
        )

    @property
    def merge(self) -> Any:
        """The patches along a token's side, as config.json says in one of two places; else None."""
        vision = self.config.get("vision_config", {})
        return vision.get("spatial_merge_size", self.config.get("spatial_merge_size"))

    def prompt(self, settings: BaseModelSettings) -> Prompt:
        """Return the prompt around each image."""
        return Prompt.of(
            self.tokenizer,
            self.architecture,
            settings.instruction,
            settings.instruction_first,
            self.config["image_token_id"],
        )

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of config and weights; the hub's cache already names files by theirs."""
        files = sorted([self.folder / "config.json", *self.folder.glob("*.safetensors")])
        if len(files) < 2:
            raise UserError(
                f"{self.name}: no *.safetensors in {self.folder}; download the model whole"
            )
        blobs = [file.resolve().name for file in files]
        hashes = [
            blob if _BLOB.fullmatch(blob) else sha256_of(file)
            for file, blob in zip(files, blobs, strict=True)
        ]
        return hashlib.sha256(" ".join(hashes).encode()).hexdigest()

    @property
    def stored_dtype(self) -> Dtype:
        """The dtype of the stored weights, as config.json says."""
        dtype = self.config.get("dtype") or self.config.get("torch_dtype")
        return dtype if dtype in DTYPES else "bfloat16"

    @property
    def license(self) -> str:
        """The licence, as the model card says; unknown without a card."""
        from huggingface_hub.repocard import metadata_load

        card = (self.repository or self.folder) / "README.md"
        about = (metadata_load(card) or {}) if card.is_file() else {}
        license = str(about.get("license", "unknown"))
        return str(about.get("license_name", license)) if license == "other" else license

    def load(self, settings: BaseModelSettings, dtype: torch.dtype, device: str) -> nn.Module:
        """Return the model with frozen weights on the device; UserError if it cannot be loaded."""
        from transformers import AutoModelForImageTextToText

        quieten()
        device_map: Any = settings.device_map or (device if settings.quantised else None)
        try:
            model = AutoModelForImageTextToText.from_pretrained(
                self.folder,
                dtype=dtype,
                attn_implementation=_attention(settings, device),
                quantization_config=_quantisation(settings, dtype),
                device_map=device_map,
                trust_remote_code=False,
            )
        except (OSError, ValueError, ImportError) as problem:
            raise UserError(
                f"{self.name}: cannot be loaded: {_torchvision_trouble() or problem}"
            ) from None
        placed: nn.Module = model if device_map else nn.Module.to(model, device)
        for module in placed.modules():
            # bitsandbytes would repack 4-bit weights when evaluating: no gradient passes them
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
        return placed.requires_grad_(False)


def quieten() -> None:
    """Silence progress bars and kernel downloads: a run prints its own lines only."""
    import transformers

    if not torch.cuda.is_available():
        # peft imports DeepSpeed where it is installed, which else warns of no accelerator
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def _torchvision_trouble() -> str | None:
    """Return the fault of an installed torchvision; None where it works or is not installed.

    transformers checks only whether it is installed, and then fails with another message.
    """
    if importlib.util.find_spec("torchvision") is None:
        return None
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError, OSError) as problem:
        return (
            f"the installed torchvision does not fit torch {torch.__version__} ({problem}); "
            "uninstall it, nothing here needs it, or install the one that fits"
        )
    return None


def dtype_for(precision: str) -> Dtype:
    """Return the dtype of the frozen base model when model.dtype is auto."""
    return {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}[precision]  # type: ignore[return-value]


def _attention(settings: BaseModelSettings, device: str) -> str:
    if settings.attn_implementation != "auto":
        return settings.attn_implementation
    return (
        "flash_attention_2"
        if device != "cpu" and importlib.util.find_spec("flash_attn")
        else "sdpa"
    )


def _quantisation(settings: BaseModelSettings, dtype: torch.dtype) -> Any:
    if not settings.quantised:
        return None
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            "model.load_in_4bit and load_in_8bit need the package bitsandbytes; install it, "
            "or set both to false"
        )
    from transformers import BitsAndBytesConfig

    if settings.load_in_8bit:
        return BitsAndBytesConfig(load_in_8bit=True)  # type: ignore[no-untyped-call]
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )  # type: ignore[no-untyped-call]

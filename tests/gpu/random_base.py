"""Vision-language bases with random weights, made on the device: speed does not depend on values.

A folder holds the config, a small tokenizer and the processor's config, and no weights; where a
`random_weights` block loads it, every tensor is initialised on the device in the model's own dtype.
What is asked for in 4 bits is quantised layer by layer.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import save_file
from torch import nn

from ocr.recognizers.vlm.base_model import Base
from ocr.recognizers.vlm.find import find_base
from ocr.recognizers.vlm.settings import TinyVlmSettings

VOCABULARY = 151_936
QWEN25_3B: dict[str, Any] = {
    "text": {
        "hidden_size": 2048,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "intermediate_size": 11008,
        "tie_word_embeddings": True,
    },
    "vision": {
        "depth": 32,
        "hidden_size": 1280,
        "num_heads": 16,
        "intermediate_size": 3420,
        "out_hidden_size": 2048,
        "fullatt_block_indexes": [7, 15, 23, 31],
    },
    "mrope": [16, 24, 24],
}
QWEN3_2B: dict[str, Any] = {
    "text": {
        "hidden_size": 2048,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "intermediate_size": 6144,
        "head_dim": 128,
        "tie_word_embeddings": True,
    },
    "vision": {
        "depth": 24,
        "hidden_size": 1024,
        "num_heads": 16,
        "intermediate_size": 4096,
        "out_hidden_size": 2048,
        "deepstack_visual_indexes": [5, 11, 17],
    },
    "mrope": [24, 20, 20],
}
QWEN3_8B: dict[str, Any] = {
    "text": {
        "hidden_size": 4096,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 12288,
        "head_dim": 128,
        "tie_word_embeddings": False,
    },
    "vision": {
        "depth": 27,
        "hidden_size": 1152,
        "num_heads": 16,
        "intermediate_size": 4304,
        "out_hidden_size": 4096,
        "deepstack_visual_indexes": [8, 16, 24],
    },
    "mrope": [24, 20, 20],
}
SMALL: dict[str, Any] = {"num_hidden_layers": 2, "intermediate_size": 256, "vocab_size": 1024}
SMALL_VISION: dict[str, Any] = {"depth": 2, "intermediate_size": 192}


def make_folder(sizes: dict[str, Any], folder: Path, small: bool) -> Path:
    """A base's folder without weights; `small` keeps the shape and cuts layers and widths."""
    import transformers

    is_qwen3 = "deepstack_visual_indexes" in sizes["vision"]
    architecture = "qwen3_vl" if is_qwen3 else "qwen2_5_vl"
    tiny = find_base(TinyVlmSettings(architecture=architecture, base_steps=0))
    kind = transformers.Qwen3VLConfig if is_qwen3 else transformers.Qwen2_5_VLConfig
    text, vision = _parts(sizes, is_qwen3, small)
    ids = {
        key: value
        for key, value in tiny.config.items()
        if key.endswith("_token_id") and key != "eos_token_id"
    }
    tied = text["tie_word_embeddings"]
    config = kind(text_config=text, vision_config=vision, tie_word_embeddings=tied, **ids)
    config.architectures, config.dtype = tiny.config["architectures"], torch.bfloat16
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    tiny.tokenizer.save_pretrained(folder)
    for name in ("preprocessor_config.json", "generation_config.json"):
        shutil.copy(tiny.folder / name, folder)
    # the hash of a base needs a file of weights: these are made when it is loaded
    save_file({"random": torch.zeros(1)}, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _parts(sizes: dict[str, Any], is_qwen3: bool, small: bool) -> tuple[dict[str, Any], ...]:
    """The configs of the language model and of the image encoder."""
    text = {**sizes["text"], "vocab_size": VOCABULARY, "max_position_embeddings": 32_768}
    vision = {**sizes["vision"], "spatial_merge_size": 2}
    vision |= {"patch_size": 16} if is_qwen3 else {"patch_size": 14, "window_size": 112}
    rope = {"rope_type": "default", "mrope_section": sizes["mrope"]}
    if small:
        heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "hidden_size": 256}
        text |= SMALL | heads | {"head_dim": 128}
        vision |= SMALL_VISION | {"hidden_size": 128, "num_heads": 4, "out_hidden_size": 256}
        vision |= {"deepstack_visual_indexes": [0]} if is_qwen3 else {"fullatt_block_indexes": [1]}
    if is_qwen3:
        rope["mrope_interleaved"] = True
    return {**text, "rope_scaling": rope}, vision


@contextmanager
def random_weights(device: str) -> Iterator[None]:
    """Within it transformers makes a base's weights on the device and reads none."""
    from transformers import AutoModelForImageTextToText

    def made(folder: Path, **options: Any) -> nn.Module:
        return _made(folder, device, **options)

    with mock.patch.object(AutoModelForImageTextToText, "from_pretrained", made):
        yield


def _made(folder: Path, device: str, **options: Any) -> nn.Module:
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(
            config,
            dtype=options["dtype"],
            attn_implementation=options["attn_implementation"],
        )
    if options["quantization_config"] is not None:
        quantise(model, options["quantization_config"], device)
    return model


def quantise(model: Any, settings: Any, device: str) -> None:
    """Replace every linear layer but the head by its 4-bit form, one after another."""
    import bitsandbytes

    for path, layer in list(model.named_modules()):
        if not isinstance(layer, nn.Linear) or path.endswith("lm_head"):
            continue
        parent, _, name = path.rpartition(".")
        four_bit = bitsandbytes.nn.Linear4bit(
            layer.in_features,
            layer.out_features,
            layer.bias is not None,
            compute_dtype=settings.bnb_4bit_compute_dtype,
            compress_statistics=settings.bnb_4bit_use_double_quant,
            quant_type=settings.bnb_4bit_quant_type,
            device="meta",
        )
        four_bit.weight = bitsandbytes.nn.Params4bit(
            layer.weight.detach(),
            requires_grad=False,
            compress_statistics=settings.bnb_4bit_use_double_quant,
            quant_type=settings.bnb_4bit_quant_type,
        ).to(device)
        four_bit.bias = layer.bias
        setattr(model.get_submodule(parent), name, four_bit)
    model.is_loaded_in_4bit = model.is_quantized = True
    model.config.quantization_config = settings


def base_at(folder: Path) -> Base:
    """The base in a folder of `make_folder`."""
    return Base(folder, "random")

"""A vision-language base model of 1.6 million parameters, made on the spot, for tests and demos.

Its tokenizer is trained on the words of a data set, and its weights learn to read images of them.
That takes half a minute of one core. It reads the words it was trained on, no more. The folder is
written as `save_pretrained` does, so everything loads it like a large model.
"""

import hashlib
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from ocr.dataset.read import Dataset
from ocr.files import cache_dir, write_json
from ocr.images import open_image
from ocr.keyed import fixed_generator
from ocr.recognizers.vlm.base_model import quieten
from ocr.recognizers.vlm.inputs import Patching, Prompt, fitted_size, padded, resized, vision_inputs
from ocr.recognizers.vlm.settings import ImageSettings, TinyVlmSettings
from ocr.system_errors import reported

VERSION = 4  # version of this recipe: another one gives another model
IMAGES = ImageSettings(max_side_px=160, min_pixels=1024, max_pixels=8192)
_SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% if message.content is "
    "string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}{% if part.type == 'image' "
    "%}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt "
    "%}<|im_start|>assistant\n{% endif %}"
)
_ORDER_KEY, _VOCABULARY, _BATCH, _WARMUP, _RATE, _SPREAD = 2, 587, 16, 30, 2e-3, 0.06
_PATCH = {"qwen3_vl": 16, "qwen2_5_vl": 14}


def built(settings: TinyVlmSettings) -> Path:
    """Return the folder of the model; it is built where it is missing."""
    data = Dataset.open(settings.base_data, "train")
    recipe = [
        VERSION,
        settings.architecture,
        settings.base_steps,
        data.fingerprint,
        torch.__version__,
    ]
    folder = (
        cache_dir()
        / "tiny_vlm"
        / f"{settings.architecture}-{hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:12]}"
    )
    with reported(folder, "name another base"):
        _build_once(settings, data, folder)
    return folder


def _build_once(settings: TinyVlmSettings, data: Dataset, folder: Path) -> None:
    if not (folder / "config.json").is_file():
        # By hand, not by replaced_folder: of processes that build it at once the first one stays,
        # and none waits for another.
        making = folder.with_name(f".{folder.name}.{os.getpid()}")
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        quieten()
        print(
            f"building a tiny {settings.architecture} that reads the {len(set(data.texts))} "
            f"words of {data.folder}",
            flush=True,
        )
        _build(settings, data, making)
        try:
            making.rename(folder)
        except OSError:
            shutil.rmtree(making)
            if not (folder / "config.json").is_file():
                raise


def _build(settings: TinyVlmSettings, data: Dataset, folder: Path) -> None:
    tokenizer = _tokenizer(data.texts)
    tokenizer.save_pretrained(folder)
    # by this mean and deviation paper is 0
    patching = Patching(_PATCH[settings.architecture], 2, 2, (1.0, 1.0, 1.0), (0.3, 0.3, 0.3))
    write_json(folder / "preprocessor_config.json", _preprocessor(settings.architecture, patching))
    threads = torch.get_num_threads()
    # one thread everywhere: another number gives other last bits, and so another model
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _initialised(settings.architecture, tokenizer, patching)
        _train(model, data, tokenizer, patching, settings.base_steps)
    torch.set_num_threads(threads)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = (
        tokenizer.eos_token_id,
        tokenizer.pad_token_id,
    )
    model.config.architectures, model.config.dtype = [type(model).__name__], torch.float32
    # the model's own save_pretrained writes in the first process of a group alone
    for config in (model.config, model.generation_config):
        config.save_pretrained(folder)
    save_file(
        {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )


def _preprocessor(architecture: str, patching: Patching) -> dict[str, Any]:
    """Return the content of preprocessor_config.json."""
    processors = {"qwen3_vl": "Qwen3VLProcessor", "qwen2_5_vl": "Qwen2_5_VLProcessor"}
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": processors[architecture],
        "patch_size": patching.patch_px,
        "merge_size": patching.merge,
        "temporal_patch_size": patching.frames,
        "image_mean": list(patching.mean),
        "image_std": list(patching.std),
        "size": {"shortest_edge": IMAGES.min_pixels, "longest_edge": IMAGES.max_pixels},
    }


def _tokenizer(texts: list[str]) -> Any:
    """Train byte-level BPE on the words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(
        sorted(set(texts)),
        trainers.BpeTrainer(
            vocab_size=_VOCABULARY,
            special_tokens=_SPECIAL,
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    ends = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, **ends)  # type: ignore[no-untyped-call]
    tokenizer.chat_template = _TEMPLATE
    return tokenizer


def _initialised(architecture: str, tokenizer: Any, patching: Patching) -> Any:
    """Return the model with random weights."""
    ids = {
        name: tokenizer.convert_tokens_to_ids(f"<|{token}|>")
        for name, token in (
            ("image_token_id", "image_pad"),
            ("video_token_id", "video_pad"),
            ("vision_start_token_id", "vision_start"),
            ("vision_end_token_id", "vision_end"),
        )
    }
    text, vision = _text_sizes(len(tokenizer)), _vision_sizes(patching)
    if architecture == "qwen3_vl":
        from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

        vision |= {"deepstack_visual_indexes": [0], "num_position_embeddings": 256}
        text["rope_scaling"] |= {"mrope_interleaved": True}
        return Qwen3VLForConditionalGeneration(
            Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **ids)
        )
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    vision |= {"fullatt_block_indexes": [0, 1], "window_size": 112}
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **ids)
    )


def _text_sizes(vocabulary: int) -> dict[str, Any]:
    return {
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 384,
        "vocab_size": vocabulary,
        "max_position_embeddings": 2048,
        "initializer_range": _SPREAD,
        "head_dim": 32,
        "rope_scaling": {"rope_type": "default", "mrope_section": [4, 6, 6]},
        "tie_word_embeddings": True,
    }


def _vision_sizes(patching: Patching) -> dict[str, Any]:
    return {
        "depth": 2,
        "num_heads": 4,
        "intermediate_size": 192,
        "patch_size": patching.patch_px,
        "spatial_merge_size": 2,
        "out_hidden_size": 128,
        "hidden_size": 128,
        "initializer_range": _SPREAD,
    }


def _train(model: nn.Module, data: Dataset, tokenizer: Any, patching: Patching, steps: int) -> None:
    """Train every weight to read the images: AdamW, 30 warm-up steps, cosine to a twentieth."""
    images = [open_image(data.image_bytes(index), "RGB") for index in range(len(data))]
    prepared = [
        resized(image, fitted_size(image.shape[1], image.shape[0], IMAGES, patching))
        for image in images
    ]
    prompt = Prompt.of(tokenizer, "OCR", False, tokenizer.convert_tokens_to_ids("<|image_pad|>"))
    answers = [
        [*tokenizer.encode(text, add_special_tokens=False), prompt.end_token] for text in data.texts
    ]
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=_RATE, betas=(0.9, 0.98), weight_decay=0.01
    )
    draw = fixed_generator(_ORDER_KEY)
    model.train()
    for step in range(steps):
        chosen = draw.integers(0, len(data), _BATCH).tolist()
        loss = _loss(
            model, [prepared[i] for i in chosen], [answers[i] for i in chosen], prompt, patching
        )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        after = max(0.0, (step - _WARMUP) / max(1, steps - _WARMUP))
        for group in optimizer.param_groups:
            group["lr"] = _RATE * min(
                (step + 1) / _WARMUP, 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * after))
            )
        optimizer.step()
    model.eval()


def _loss(
    model: nn.Module,
    images: list[torch.Tensor],
    answers: list[list[int]],
    prompt: Prompt,
    patching: Patching,
) -> torch.Tensor:
    prompts = [prompt.ids(patching.tokens(image.shape[2], image.shape[1])) for image in images]
    ids_BT = padded(
        [[*ids, *answer] for ids, answer in zip(prompts, answers, strict=True)],
        prompt.padding_token,
        left=False,
    )
    labels_BT = padded(
        [[-100] * len(ids) + answer for ids, answer in zip(prompts, answers, strict=True)],
        -100,
        left=False,
    )
    types_BT = (ids_BT == prompt.image_token).int()
    logits_BTK = model(
        input_ids=ids_BT, mm_token_type_ids=types_BT, **vision_inputs(images, patching)
    ).logits
    return F.cross_entropy(
        logits_BTK[:, :-1].flatten(0, 1).float(), labels_BT[:, 1:].flatten(), ignore_index=-100
    )

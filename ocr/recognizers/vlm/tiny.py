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
from copy import deepcopy
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
from ocr.recognizers.vlm.architectures import ARCHITECTURES, Architecture
from ocr.recognizers.vlm.base_model import quieten
from ocr.recognizers.vlm.inputs import Patching, Prompt, fitted_size, model_inputs, padded, resized
from ocr.recognizers.vlm.settings import ImageSettings, TinyVlmSettings
from ocr.system_errors import reported

VERSION = 4  # version of this recipe: another one gives another model
IMAGES = ImageSettings(max_side_px=160, min_pixels=1024, max_pixels=8192)
_ORDER_KEY, _VOCABULARY, _BATCH, _WARMUP, _RATE, _SPREAD = 2, 587, 16, 30, 2e-3, 0.06


def built(settings: TinyVlmSettings) -> Path:
    """Return the folder of the model; it is built where it is missing."""
    data = Dataset.open(settings.base_data, "train")
    recipe = [
        VERSION,
        repr(ARCHITECTURES[settings.architecture]),
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
    architecture = ARCHITECTURES[settings.architecture]
    tokenizer = _tokenizer(data.texts, architecture)
    tokenizer.save_pretrained(folder)
    tiny, std = architecture.tiny, (0.3, 0.3, 0.3)
    patching = Patching(tiny.patch_px, 2, 2, (tiny.mean,) * 3, std, architecture.layout)
    write_json(folder / "preprocessor_config.json", _preprocessor(architecture, patching))
    threads = torch.get_num_threads()
    # one thread everywhere: another number gives other last bits, and so another model
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _initialised(architecture, tokenizer, patching)
        prompt = Prompt.of(tokenizer, architecture, "OCR", False, model.config.image_token_id)
        _train(model, data, tokenizer, prompt, patching, settings.base_steps)
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


def _preprocessor(architecture: Architecture, patching: Patching) -> dict[str, Any]:
    """Return the content of preprocessor_config.json."""
    shared = {
        "image_processor_type": architecture.image_processor,
        "processor_class": architecture.processors[0],
        "image_mean": list(patching.mean),
        "image_std": list(patching.std),
    }
    if patching.layout == "whole":
        side = {"height": patching.patch_px, "width": patching.patch_px}
        return {**shared, "patch_size": side, "size": {"longest_edge": IMAGES.max_side_px}}
    return {
        **shared,
        "patch_size": patching.patch_px,
        "merge_size": patching.merge,
        "temporal_patch_size": patching.frames,
        "size": {"shortest_edge": IMAGES.min_pixels, "longest_edge": IMAGES.max_pixels},
    }


def _tokenizer(texts: list[str], architecture: Architecture) -> Any:
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
            special_tokens=list(architecture.tiny.tokens),
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    ends = {"eos_token": architecture.end_of_answer, "pad_token": architecture.tiny.padding}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, **ends)  # type: ignore[no-untyped-call]
    tokenizer.chat_template = architecture.tiny.template
    return tokenizer


def _initialised(architecture: Architecture, tokenizer: Any, patching: Patching) -> Any:
    """Return the model with random weights."""
    import transformers

    tiny = architecture.tiny
    ids = {
        key: tokenizer.convert_tokens_to_ids(token)
        for key, token in {**architecture.special_tokens, **tiny.token_ids}.items()
    }
    config = getattr(transformers, tiny.config_class)(
        text_config=deepcopy({**_text_sizes(len(tokenizer)), **tiny.text}),
        vision_config=deepcopy({**_vision_sizes(patching), **tiny.vision}),
        tie_word_embeddings=True,
        **ids,
    )
    model = getattr(transformers, architecture.model_class)(config)
    for name, parameter in model.named_parameters():
        for end, value in tiny.start.items():
            if name.endswith(end):
                nn.init.constant_(parameter, value)
    return model


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


def _train(
    model: nn.Module,
    data: Dataset,
    tokenizer: Any,
    prompt: Prompt,
    patching: Patching,
    steps: int,
) -> None:
    """Train every weight to read the images: AdamW, 30 warm-up steps, cosine to a twentieth."""
    images = [open_image(data.image_bytes(index), "RGB") for index in range(len(data))]
    prepared = [
        resized(image, fitted_size(image.shape[1], image.shape[0], IMAGES, patching))
        for image in images
    ]
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
    logits_BTK = model(**model_inputs(ids_BT, images, prompt.image_token, patching)).logits
    return F.cross_entropy(
        logits_BTK[:, :-1].flatten(0, 1).float(), labels_BT[:, 1:].flatten(), ignore_index=-100
    )

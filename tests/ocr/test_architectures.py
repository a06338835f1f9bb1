"""The facts of each architecture, against transformers' own classes, on tiny random models."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from transformers import AutoImageProcessor

from ocr.dataset.read import Dataset
from ocr.errors import UserError
from ocr.images import open_image
from ocr.recognizers.vlm.architectures import ARCHITECTURES
from ocr.recognizers.vlm.base_model import Base
from ocr.recognizers.vlm.find import find_base
from ocr.recognizers.vlm.inputs import Prompt, fitted_size, model_inputs, padded, resized
from ocr.recognizers.vlm.reading import VlmRecognizer
from ocr.recognizers.vlm.settings import (
    GenerationSettings,
    ImageSettings,
    TinyVlmSettings,
    VlmSettings,
)
from ocr.recognizers.vlm.tiny import built
from ocr.settings import parse_settings

IMAGES = ImageSettings(max_side_px=160, min_pixels=1024, max_pixels=8192)


def settings_of(architecture: str) -> TinyVlmSettings:
    return TinyVlmSettings(architecture=architecture, base_steps=0, instruction="OCR")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def base(request: pytest.FixtureRequest) -> Base:
    torch.set_num_threads(1)
    return find_base(settings_of(request.param))


@pytest.fixture(scope="module")
def model(base: Base) -> Any:
    return base.load(settings_of(base.config["model_type"]), torch.float32, "cpu").eval()


def test_every_linear_layer_belongs_to_one_part_and_nothing_else_does(
    base: Base, model: nn.Module
) -> None:
    targets = base.architecture.targets
    found = {
        name: [part for part, pattern in targets.items() if re.fullmatch(pattern, name)]
        for name, _ in model.named_modules()
    }
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    assert {name for name, parts in found.items() if parts} == linear - {"lm_head"}
    assert {len(parts) for parts in found.values()} == {0, 1}
    assert {parts[0] for parts in found.values() if parts} == set(targets)


@pytest.mark.parametrize("sizes", [[(640, 480)], [(31, 500)], [(57, 57)], [(640, 480), (31, 500)]])
def test_images_become_what_transformers_own_processor_makes_of_them(
    base: Base, sizes: list[tuple[int, int]]
) -> None:
    limits = ImageSettings(max_side_px=10_000, min_pixels=56 * 56, max_pixels=200_000)
    numbers, images = np.random.default_rng(3), []
    for wide, high in sizes:
        pixels = numbers.integers(0, 256, (high, wide, 3)).astype(np.uint8)
        images.append(resized(pixels, fitted_size(wide, high, limits, base.patching)))
    theirs = AutoImageProcessor.from_pretrained(base.folder, backend="pil")
    fitted = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    expected = theirs(fitted, do_resize=False, return_tensors="pt")
    image_token = base.config["image_token_id"]
    given = model_inputs(torch.tensor([[image_token]]), images, image_token, base.patching)
    for name, values in expected.items():
        assert torch.allclose(given[name].float(), values.float(), atol=2e-5), name


def test_an_image_has_as_many_tokens_as_the_model_makes_of_it(base: Base, model: Any) -> None:
    image = torch.zeros(3, base.patching.factor * 2, base.patching.factor * 3, dtype=torch.uint8)
    prompt = base.prompt(settings_of("qwen3_vl"))
    ids_BT = torch.tensor([prompt.ids(base.patching.tokens(image.shape[2], image.shape[1]))])
    with torch.no_grad():
        logits = model(**model_inputs(ids_BT, [image], prompt.image_token, base.patching)).logits
    assert logits.shape[:2] == ids_BT.shape
    assert base.patching.tokens(image.shape[2], image.shape[1]) == 6


def test_padding_and_neighbours_change_neither_losses_nor_readings(base: Base, model: Any) -> None:
    """In training rows are filled up on the right and nothing is masked; in reading on the left."""
    words = Dataset.open("odia_few_words_base", "validation")
    pixels = [open_image(words.image_bytes(index), "RGB") for index in range(6)]
    pixels = [image[:, : image.shape[1] // (1 + index % 3)] for index, image in enumerate(pixels)]
    reader = VlmRecognizer(
        model,
        base,
        settings_of(base.config["model_type"]),
        IMAGES,
        GenerationSettings(max_new_tokens=6),
    )
    prepared = [reader.prepared(image) for image in pixels]
    patching, prompt = base.patching, reader.prompt
    rows = [prompt.ids(patching.tokens(image.shape[2], image.shape[1])) for image in prepared]
    assert len(set(map(len, rows))) > 1
    with torch.no_grad():
        ids_BT = padded(rows, prompt.padding_token, left=False)
        together = model(**model_inputs(ids_BT, prepared, prompt.image_token, patching)).logits
        for index, row in enumerate(rows):
            one = model_inputs(
                torch.tensor([row]), prepared[index : index + 1], prompt.image_token, patching
            )
            assert torch.allclose(together[index, : len(row)], model(**one).logits[0], atol=2e-5)
    read, alone = reader.read(pixels), [reader.read([image])[0] for image in pixels]
    assert [reading.text for reading in read] == [reading.text for reading in alone]
    confidences = [[reading.confidence for reading in readings] for readings in (read, alone)]
    assert np.allclose(*confidences, rtol=1e-4)


def test_config_and_tokenizer_agree_on_the_special_tokens(base: Base) -> None:
    for key, token in base.architecture.special_tokens.items():
        assert base.config[key] == base.tokenizer.convert_tokens_to_ids(token), key
    prompt = base.prompt(settings_of("qwen3_vl"))
    assert base.tokenizer.convert_ids_to_tokens(prompt.end_token) == base.architecture.end_of_answer
    assert prompt.padding_token != prompt.end_token


def test_another_entry_gives_another_tiny_model(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = ARCHITECTURES["qwen3_5"]
    before = built(settings_of("qwen3_5"))
    changed = replace(facts.tiny, text={**facts.tiny.text, "intermediate_size": 64})
    monkeypatch.setitem(ARCHITECTURES, "qwen3_5", replace(facts, tiny=changed))  # type: ignore[arg-type]
    after = built(settings_of("qwen3_5"))
    assert after != before
    assert json.loads((after / "config.json").read_text())["text_config"]["intermediate_size"] == 64


def test_a_qwen3_5_answers_without_thinking() -> None:
    base = find_base(settings_of("qwen3_5"))
    tokenizer = base.tokenizer
    tokenizer.chat_template += (
        "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n"
        "{% else %}<think>\n{% endif %}"
    )
    prompt = Prompt.of(tokenizer, base.architecture, "OCR", False, base.config["image_token_id"])
    assert tokenizer.decode(prompt.ids(1)).endswith("assistant\n<think>\n\n</think>\n\n")


def test_a_tokenizer_without_the_usual_end_has_its_own(base: Base) -> None:
    facts = replace(base.architecture, end_of_answer="<|no such token|>")
    prompt = Prompt.of(base.tokenizer, facts, "OCR", False, base.config["image_token_id"])
    assert prompt.end_token == base.tokenizer.eos_token_id


def test_an_unknown_architecture_is_refused_with_the_list_and_the_page(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava"}))
    told = r"unknown architecture 'llava'; known: qwen3_vl, .*docs/new_architecture\.md"
    with pytest.raises(UserError, match=rf"model\.name_or_path: {tmp_path}: {told}"):
        find_base(VlmSettings(name_or_path=str(tmp_path)))
    with pytest.raises(UserError, match=rf"architecture.*{told}"):
        parse_settings(TinyVlmSettings, {"architecture": "llava"}, "test")
    assert (Path(__file__).parents[2] / "docs" / "new_architecture.md").is_file()

"""The input and output of a vision-language model; adapters that do not fit are refused.

Over 300 lines: its tests share one tiny base model and one bundle.
"""

import importlib.util
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from ocr.dataset.read import Dataset
from ocr.errors import UserError
from ocr.images import open_image
from ocr.recognizers.factory import load
from ocr.recognizers.vlm.adapter import ADAPTER, adapted, read_adapter
from ocr.recognizers.vlm.base_model import Base
from ocr.recognizers.vlm.find import find_base
from ocr.recognizers.vlm.inputs import Patching, Prompt, fitted_size, grid, patches, resized
from ocr.recognizers.vlm.reading import VlmRecognizer, _Loop
from ocr.recognizers.vlm.settings import (
    GenerationSettings,
    ImageSettings,
    LoraSettings,
    TinyVlmSettings,
    VlmSettings,
)

IMAGES = ImageSettings(max_side_px=160, min_pixels=1024, max_pixels=8192)
TAUGHT = TinyVlmSettings(instruction="OCR")
QWEN3, QWEN2_5 = (
    Patching(patch, 2, 2, (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)) for patch in (16, 14)
)


@pytest.fixture(scope="module")
def base() -> Base:
    return find_base(TAUGHT)


@pytest.fixture(scope="module")
def reader(base: Base) -> VlmRecognizer:
    torch.set_num_threads(1)
    return VlmRecognizer(
        base.load(TAUGHT, torch.float32, "cpu").eval(),
        base,
        TAUGHT,
        IMAGES,
        GenerationSettings(max_new_tokens=24),
    )


@pytest.fixture(scope="module")
def words() -> Dataset:
    return Dataset.open("odia_few_words_base", "validation")


def pictures(words: Dataset, count: int) -> list[np.ndarray]:
    return [open_image(words.image_bytes(index), "RGB") for index in range(count)]


@pytest.mark.parametrize("patching", [QWEN3, QWEN2_5], ids=["qwen3", "qwen2.5"])
@pytest.mark.parametrize("size", [(640, 480), (31, 500), (3000, 90), (57, 57), (1280, 960)])
def test_images_become_the_patches_of_transformers_own_processor(
    patching: Patching, size: tuple[int, int]
) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    limits = ImageSettings(max_side_px=10_000, min_pixels=56 * 56, max_pixels=200_000)
    theirs = Qwen2VLImageProcessorPil(
        patch_size=patching.patch_px, image_mean=patching.mean, image_std=patching.std
    )
    expected = theirs(
        Image.fromarray(pixels),
        size={"shortest_edge": limits.min_pixels, "longest_edge": limits.max_pixels},
        return_tensors="pt",
    )
    image = resized(pixels, fitted_size(*size, limits, patching))
    assert [grid(image, patching)] == expected["image_grid_thw"].tolist()
    assert torch.allclose(patches(image, patching), expected["pixel_values"], atol=2e-5)


def test_the_longer_side_and_the_area_are_different_limits() -> None:
    assert fitted_size(
        4000, 3000, ImageSettings(max_side_px=2048, max_pixels=10_000_000), QWEN3
    ) == (2048, 1536)
    wide, high = fitted_size(
        4000, 3000, ImageSettings(max_side_px=2048, max_pixels=1_000_000), QWEN3
    )
    assert 900_000 < wide * high <= 1_000_000


def test_the_prompt_is_the_chat_template_with_one_placeholder_for_each_token(base: Base) -> None:
    prompt = base.prompt(TAUGHT)
    prompt_text = base.tokenizer.decode(prompt.ids(3))
    assert (
        prompt_text
        == "<|im_start|>user\n<|vision_start|>"
        + "<|image_pad|>" * 3
        + "<|vision_end|>OCR<|im_end|>\n<|im_start|>assistant\n"
    )
    image_token = base.config["image_token_id"]
    first = Prompt.of(base.tokenizer, base.architecture, "OCR", True, image_token)
    assert base.tokenizer.decode(first.ids(1)).startswith("<|im_start|>user\nOCR<|vision_start|>")
    assert len(prompt.ids(3)) == prompt.length(3)
    assert "<|image_pad|>" not in base.tokenizer.decode(prompt.ids(0))


def test_the_taught_base_reads_its_words_and_says_how_sure_it_is(
    reader: VlmRecognizer, words: Dataset
) -> None:
    readings = reader.read(pictures(words, 93))
    right = [reading.text == text for reading, text in zip(readings, words.texts, strict=True)]
    assert np.mean(right) >= 0.85
    sure = [reading.confidence for reading in readings]
    assert all(0 <= p <= 1 for p in sure)
    assert np.mean([p for p, good in zip(sure, right, strict=True) if good]) > 0.8
    if not all(right):
        assert np.mean([p for p, good in zip(sure, right, strict=True) if not good]) < 0.8


def test_neighbours_in_a_batch_change_no_text(reader: VlmRecognizer, words: Dataset) -> None:
    images = pictures(words, 24)
    together = reader.read(images)
    alone = [reader.read([image])[0] for image in images]
    assert [reading.text for reading in together] == [reading.text for reading in alone]
    assert np.allclose(
        [reading.confidence for reading in together],
        [reading.confidence for reading in alone],
        atol=1e-4,
    )
    assert [reading.text for reading in reader.read(images[::-1])] == [
        reading.text for reading in together
    ][::-1]


def test_batches_hold_so_many_image_tokens_and_change_no_text(
    base: Base, reader: VlmRecognizer, words: Dataset
) -> None:
    images = [open_image(words.image_bytes(index), "RGB") for index in range(6)]
    few = VlmRecognizer(
        reader.model,
        base,
        reader.settings,
        reader.images,
        reader.generation.model_copy(update={"batch_tokens": 1}),
    )
    assert [len(batch) for batch in few._batches([9, 4, 6])] == [1, 1, 1]
    assert [reading.text for reading in few.read(images)] == [
        reading.text for reading in reader.read(images)
    ]


def test_sampled_text_is_a_function_of_the_image_and_leaves_the_generator_alone(
    base: Base, reader: VlmRecognizer, words: Dataset
) -> None:
    hot = VlmRecognizer(
        reader.model, base, TAUGHT, IMAGES, GenerationSettings(max_new_tokens=24, temperature=1.5)
    )
    images = pictures(words, 6)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = hot.read(images)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert hot.read(images[3:] + images[:3]) == first[3:] + first[:3]


def test_a_reading_that_repeats_itself_is_stopped() -> None:
    stop = _Loop()
    repeating = torch.tensor([[9, 8, 7] + [1, 2, 3] * 15, list(range(48))])
    assert stop(repeating, None).tolist() == [True, False]
    assert stop(torch.tensor([[4] * 24]), None).tolist() == [False]


def test_a_page_gives_way_to_max_length(base: Base, reader: VlmRecognizer) -> None:
    page = np.full((600, 800, 3), 255, np.uint8)
    small = VlmRecognizer(
        reader.model,
        base,
        TAUGHT.model_copy(update={"max_length": 64}),
        ImageSettings(),
        GenerationSettings(max_new_tokens=2),
    )
    image = small.prepared(page)
    assert base.patching.tokens(image.shape[2], image.shape[1]) + small.prompt.length(0) <= 64
    assert len(small.read([page])) == 1


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps with a drawn base."""
    from tests.support.tiny import tiny_vlm_config, train_here
    from trainers.runs.launch import launch

    config = tiny_vlm_config(tmp_path_factory.mktemp("vlm"), train={"max_steps": 4})
    return launch(config, train_here, "test").run_dir / "bundle"


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_a_bundle_is_an_adapter_that_peft_opens_by_itself(bundle: Path) -> None:
    from peft import PeftModel

    ours = load(bundle)
    assert isinstance(ours, VlmRecognizer)
    plain = PeftModel.from_pretrained(
        ours.base.load(ours.settings, torch.float32, "cpu"), str(bundle)
    ).eval()
    ids = torch.tensor([[1, 7, 8, 9]])
    with torch.no_grad():
        assert torch.equal(plain(input_ids=ids).logits, ours.model(input_ids=ids).logits)


def test_two_lines_are_the_originals_run_ocr(bundle: Path, tmp_path: Path) -> None:
    from ocr import recognizers

    page = tmp_path / "page.png"
    Image.new("RGB", (100, 40), "white").save(page)
    one, other = recognizers.load(str(bundle)).read([page, str(page)])
    assert one.text == other.text
    assert 0 <= one.confidence <= 1


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed here")
def test_vllm_is_asked_for_where_it_is_not_installed(bundle: Path) -> None:
    with pytest.raises(UserError, match=r"backend=vllm needs vLLM.* `make vllm` once, then \.venv"):
        load(bundle, "vllm")


def resealed(bundle: Path, target: Path, change: "callable") -> Path:
    """A copy whose manifest fits what `change` made of it."""
    from ocr.files import sha256_of, write_json

    shutil.copytree(bundle, target)
    change(target)
    write_json(
        target / "manifest.json",
        {
            name: sha256_of(target / name)
            for name in json.loads((target / "manifest.json").read_text())
        },
    )
    return target


def test_keys_of_an_older_layout_are_an_error_and_not_a_warning(
    bundle: Path, tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    def rename(folder: Path) -> None:
        save_file(
            {f"old.{name}": tensor for name, tensor in read_adapter(folder).items()},
            folder / ADAPTER,
        )

    with pytest.raises(UserError, match="an adapter of another shape"):
        load(resealed(bundle, tmp_path / "renamed", rename))


def adapted_layers(lora: LoraSettings) -> list[str]:
    """The names of the layers that get an adapter."""
    settings = TinyVlmSettings(base_steps=0)
    base = find_base(settings)
    model = adapted(base.load(settings, torch.float32, "cpu"), base, lora)
    return [name.removesuffix(".lora_A") for name, _ in model.named_modules() if ".lora_A" in name]


def test_layers_can_be_chosen_by_name() -> None:
    everything = {name.rpartition(".")[2] for name in adapted_layers(LoraSettings())}
    assert {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj"} < everything
    chosen = adapted_layers(LoraSettings(target_modules=("q_proj", "v_proj")))
    named = [name for name in chosen if not name.endswith(".default")]
    assert {name.rpartition(".")[2] for name in named} == {"q_proj", "v_proj"}
    assert len({name.rpartition(".self_attn")[0] for name in named}) * 2 == len(named)


@pytest.mark.parametrize(
    ("parts", "names", "message"),
    [
        (["language"], ["q_proj", "query"], r"lora\.target_modules: .* has no layer query in "),
        (["language", "vision"], ["q_proj"], r"lora\.parts: .* that belong to vision"),
    ],
)
def test_a_name_that_no_layer_has_is_refused(
    parts: list[str], names: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        adapted_layers(LoraSettings.model_validate({"parts": parts, "target_modules": names}))


def test_a_bundle_of_chosen_layers_opens_and_others_say_nothing_of_them(
    bundle: Path, tmp_path: Path
) -> None:
    from tests.support.tiny import tiny_vlm_config, train_here
    from trainers.runs.launch import launch

    lora = {"parts": ["language"], "target_modules": ["q_proj", "v_proj"]}
    config = tiny_vlm_config(tmp_path, train={"max_steps": 2}, lora=lora)
    chosen = launch(config, train_here, "test").run_dir / "bundle"
    assert all(".q_proj." in name or ".v_proj." in name for name in read_adapter(chosen))
    assert isinstance(load(chosen), VlmRecognizer)
    sealed = [json.loads((each / "bundle.json").read_text()) for each in (chosen, bundle)]
    assert sealed[0]["model"]["lora"]["target_modules"] == ["q_proj", "v_proj"]
    assert "target_modules" not in sealed[1]["model"]["lora"]


def test_another_base_is_refused(bundle: Path, tmp_path: Path) -> None:
    def rehash(folder: Path) -> None:
        values = json.loads((folder / "bundle.json").read_text())
        values["model"]["base_sha256"] = "0" * 64
        (folder / "bundle.json").write_text(json.dumps(values))

    with pytest.raises(UserError, match="trained on another base model than tiny_vlm qwen3_vl"):
        load(resealed(bundle, tmp_path / "other", rehash))


def test_one_damaged_byte_is_refused(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "damaged"
    shutil.copytree(bundle, copy)
    content = bytearray((copy / ADAPTER).read_bytes())
    content[-1] ^= 1
    (copy / ADAPTER).write_bytes(content)
    with pytest.raises(UserError, match=rf"{ADAPTER}: missing or not the file that was written"):
        load(copy)


@pytest.mark.parametrize(
    ("name", "message"),
    [("/no/such/folder", "no such folder"), ("nonsense", "no such folder, nor a name of the hub")],
)
def test_a_missing_base_model_is_named(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_base(VlmSettings(name_or_path=name))


def test_a_base_is_known_by_its_config_and_weights(base: Base, tmp_path: Path) -> None:
    copy = tmp_path / "base"
    shutil.copytree(base.folder, copy)
    assert Base(copy, "copy").sha256 == base.sha256
    (copy / "config.json").write_text((copy / "config.json").read_text() + " ")
    assert Base(copy, "copy").sha256 != base.sha256
    assert replace(base, name="renamed").sha256 == base.sha256


def test_a_torchvision_that_does_not_fit_torch_is_named(base: Base, tmp_path: Path) -> None:
    package, about = tmp_path / "torchvision", tmp_path / "torchvision-0.99.0.dist-info"
    package.mkdir()
    about.mkdir()
    (package / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.99.0\n")
    code = (
        "import torch; from ocr.recognizers.vlm.find import find_base\n"
        "from ocr.recognizers.vlm.settings import *\n"
        "s = TinyVlmSettings(instruction='OCR'); b = find_base(s)\n"
        "b.load(s, torch.float32, 'cpu')"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**__import__("os").environ, "PYTHONPATH": f"{tmp_path}:."},
    )
    assert "the installed torchvision does not fit torch" in ran.stderr

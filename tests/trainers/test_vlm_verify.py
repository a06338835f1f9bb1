"""What does not fit is told before training, all of it at once."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from ocr.errors import UserError
from ocr.recognizers.vlm.architectures import ARCHITECTURES
from ocr.recognizers.vlm.find import find_base
from ocr.recognizers.vlm.settings import TinyVlmSettings
from tests.support.tiny import tiny_vlm_config
from trainers.config import TrainConfig
from trainers.families.splits import Splits
from trainers.families.vlm.preflight import preflight


@pytest.fixture(scope="module")
def drawn() -> Path:
    return find_base(TinyVlmSettings(base_steps=0)).folder


def broken(drawn: Path, target: Path, file: str, **values: Any) -> Path:
    """A copy of the base whose JSON file says something else; dotted keys with __."""
    shutil.copytree(drawn, target)
    content = json.loads((target / file).read_text())
    for key, value in values.items():
        group = content
        *parents, last = key.split("__")
        for parent in parents:
            group = group[parent]
        group[last] = value
    (target / file).write_text(json.dumps(content))
    return target


def preflight_of(config: TrainConfig) -> str:
    return preflight(config, Splits(config))


def config(tmp_path: Path, folder: Path, **changes: Any) -> Any:
    return tiny_vlm_config(
        tmp_path,
        model={"kind": "vlm", "name_or_path": str(folder), "instruction": "OCR"}
        | changes.pop("model", {}),
        **changes,
    )


@pytest.fixture(autouse=True)
def _no_base_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support import tiny

    monkeypatch.setitem(tiny.TINY_VLM, "model", {})


def test_a_base_that_fits_has_a_table_of_what_was_found(drawn: Path, tmp_path: Path) -> None:
    table = preflight_of(config(tmp_path, drawn))
    assert "Qwen3VLForConditionalGeneration" in table
    assert "NOT" not in table
    assert "lora.parts: merger" in table
    assert "0 of 360 refused" in table


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_base_of_each_architecture_fits(architecture: str, tmp_path: Path) -> None:
    folder = find_base(TinyVlmSettings(architecture=architecture, base_steps=0)).folder
    table = preflight_of(config(tmp_path, folder))
    assert ARCHITECTURES[architecture].model_class in table
    assert "NOT" not in table


def test_other_patches_of_whole_images_are_named(tmp_path: Path) -> None:
    whole = find_base(TinyVlmSettings(architecture="lighton_ocr", base_steps=0)).folder
    for name, side in (("sides", {"height": 16, "width": 16}), ("number", 16)):
        folder = broken(whole, tmp_path / name, "preprocessor_config.json", patch_size=side)
        with pytest.raises(UserError, match=r"NOT  patch size +16 +\(expected: 14"):
            preflight_of(config(tmp_path, folder))


def test_a_layer_that_the_base_lacks_is_in_the_table(drawn: Path, tmp_path: Path) -> None:
    lora = {"parts": ["language"], "target_modules": ["q_proj", "v_proj"]}
    table = preflight_of(config(tmp_path, drawn, lora=lora))
    assert re.search(r"ok +lora\.target_modules +q_proj, v_proj", table), table
    with pytest.raises(UserError, match=r"NOT  lora\.target_modules +q_proj, v_projection"):
        preflight_of(
            config(tmp_path, drawn, lora=lora | {"target_modules": ["q_proj", "v_projection"]})
        )


@pytest.mark.parametrize(
    ("file", "values", "told"),
    [
        (
            "config.json",
            {"architectures": ["LlamaForCausalLM"]},
            r"NOT  architecture +LlamaForCausalLM",
        ),
        ("config.json", {"image_token_id": 2}, r"NOT  image_token_id +2 +\(expected: 5"),
        ("config.json", {"vision_start_token_id": 9}, r"NOT  vision_start_token_id +9"),
        ("preprocessor_config.json", {"patch_size": 14}, r"NOT  patch size +14 +\(expected: 16"),
        ("preprocessor_config.json", {"merge_size": 1}, r"NOT  spatial merge +1 +\(expected: 2"),
        ("config.json", {"vision_config__out_hidden_size": 64}, r"NOT  hidden size +64"),
        (
            "config.json",
            {"text_config__vocab_size": 100},
            r"NOT  vocabulary +100 +\(expected: at least the tokenizer's 398",
        ),
        (
            "preprocessor_config.json",
            {"image_processor_type": "CLIPImageProcessor"},
            r"NOT  image processor +CLIPImageProcessor",
        ),
        (
            "preprocessor_config.json",
            {"processor_class": "LlavaProcessor"},
            r"NOT  processor +LlavaProcessor",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_each_thing_that_does_not_fit_is_named(
    file: str, values: dict[str, Any], told: str, drawn: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=told):
        preflight_of(config(tmp_path, broken(drawn, tmp_path / "base", file, **values)))


def test_a_template_without_an_image_and_wrong_tokens_are_told_together(
    drawn: Path, tmp_path: Path
) -> None:
    folder = broken(
        drawn,
        tmp_path / "base",
        "config.json",
        vision_end_token_id=1,
        vision_config__spatial_merge_size=4,
    )
    (folder / "chat_template.jinja").write_text(
        "{% for message in messages %}{{ message.role }}{% endfor %}"
    )
    with pytest.raises(UserError, match=r"3 of \d+ checks failed") as found:
        preflight_of(config(tmp_path, folder))
    for part in (
        "its chat template writes 0 image placeholders",
        "vision_end_token_id",
        "spatial merge",
        "skip_preflight=true",
    ):
        assert part in str(found.value)


def test_pages_shrunk_to_stamps_and_texts_too_long_are_told(drawn: Path, tmp_path: Path) -> None:
    from PIL import Image

    from ocr.dataset.build import build
    from ocr.dataset.config import PrepareConfig
    from ocr.settings import parse_settings

    sources = []
    for split, count in (("train", 6), ("validation", 2)):
        pages = tmp_path / split
        pages.mkdir()
        for number in range(count):
            Image.new("L", (900, 700 + number + count), 255).save(pages / f"{split}{number}.png")
            (pages / f"{split}{number}.gt.txt").write_text("ଓଡ଼ିଆ " * 40 + f"{split} {number}")
        sources.append({"format": "pairs", "path": str(pages), "split": split})
    build(
        parse_settings(PrepareConfig, {"output": str(tmp_path / "set"), "sources": sources}, "test")
    )
    all_of_it = {"max_train_samples": None, "max_validation_samples": None}
    data = {"train": str(tmp_path / "set"), **all_of_it}
    with pytest.raises(UserError, match=r"NOT  image sizes .* 900 → 96 px"):
        preflight_of(
            config(
                tmp_path,
                drawn,
                data=data,
                images={"max_side_px": 2048, "min_pixels": 1024, "max_pixels": 8192},
            )
        )
    with pytest.raises(UserError, match=r"NOT  lengths .*[1-9] of \d refused"):
        preflight_of(
            config(
                tmp_path,
                drawn,
                data=data,
                model={"max_length": 100},
                images={"max_side_px": 2048, "max_pixels": 1_000_000},
            )
        )

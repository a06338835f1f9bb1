"""An adapter as PEFT saves it is taken only where the run would read as PEFT does."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from ocr.errors import UserError
from ocr.recognizers.vlm.adapter import adapted, fill, layers_of
from ocr.recognizers.vlm.adapter_config import ADAPTER_CONFIG
from ocr.recognizers.vlm.base_model import Base
from ocr.recognizers.vlm.find import find_base
from ocr.recognizers.vlm.settings import LoraSettings, TinyVlmSettings
from trainers.families.vlm.initial_adapter import initial_adapter

LORA = LoraSettings(rank=8, alpha=16)
SETTINGS = TinyVlmSettings(base_steps=0)


@pytest.fixture(scope="module")
def base() -> Base:
    torch.set_num_threads(1)
    return find_base(SETTINGS)


def saved(base: Base, folder: Path, **config: Any) -> torch.nn.Module:
    """An adapter that PEFT itself made and saved, its weights all random."""
    layers = "|".join(layers_of(LORA, base.architecture).values())
    values = {"r": 8, "lora_alpha": 16, "target_modules": layers}
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(
            base.load(SETTINGS, torch.float32, "cpu"),
            LoraConfig(**{**values, **config}),
        )
        for name, tensor in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(tensor, std=0.2)
        model.save_pretrained(str(folder))
    return model


def changed(folder: Path, **values: Any) -> None:
    config = json.loads((folder / ADAPTER_CONFIG).read_text())
    (folder / ADAPTER_CONFIG).write_text(json.dumps({**config, **values}))


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(1, 30)[None]).logits


def test_an_adapter_that_fits_reads_as_peft_reads_it(base: Base, tmp_path: Path) -> None:
    theirs = saved(base, tmp_path)
    changed(tmp_path, base_model_name_or_path=None)
    ours = adapted(base.load(SETTINGS, torch.float32, "cpu"), base, LORA)
    fill(ours, initial_adapter(tmp_path, base, LORA), "test")
    assert torch.equal(logits(ours), logits(theirs))


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"lora_alpha": 64}, "lora_alpha is 64 there; set lora.alpha=64, which is 16"),
        ({"use_rslora": True}, "use_rslora is True there; set lora.use_rslora=True"),
        ({"use_dora": True}, "use_dora is True there; set lora.use_dora=True"),
        ({"r": 4}, "r is 4 there; set lora.rank=4, which is 8"),
        ({"alpha_pattern": {"q_proj": 4}}, "alpha_pattern is {'q_proj': 4}"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern is {'q_proj': 4}"),
        ({"bias": "all"}, "bias is all; a run has none"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save is ['lm_head']"),
        ({"lora_bias": True}, "lora_bias is True"),
    ],
)
def test_another_adapter_is_refused_by_key_and_both_values(
    base: Base, tmp_path: Path, config: dict[str, Any], says: str
) -> None:
    saved(base, tmp_path, **config)
    with pytest.raises(UserError) as caught:
        initial_adapter(tmp_path, base, LORA)
    assert says in str(caught.value) and str(tmp_path / ADAPTER_CONFIG) in str(caught.value)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"base_model_name_or_path": "some/other-model"}, "is some/other-model, the run's base"),
        ({"init_lora_weights": "pissa_niter_16"}, "init_lora_weights is pissa_niter_16"),
        ({"peft_type": "LOHA"}, "peft_type is LOHA"),
        ({"a_key_of_tomorrow": 3}, "a_key_of_tomorrow is 3"),
    ],
)
def test_what_the_file_says_counts(
    base: Base, tmp_path: Path, values: dict[str, Any], says: str
) -> None:
    saved(base, tmp_path)
    changed(tmp_path, **{"base_model_name_or_path": None, **values})
    with pytest.raises(UserError) as caught:
        initial_adapter(tmp_path, base, LORA)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "Qwen/Qwen2.5-VL-3B-Instruct",
        "/data/models/Qwen2.5-VL-3B-Instruct/",
        "/c/hub/models--Qwen--Qwen2.5-VL-3B-Instruct/snapshots/0123abc",
        "unsloth/qwen2.5-vl-3b-instruct-unsloth-bnb-4bit",
        "D:\\models\\Qwen2.5-VL-3B-Instruct",
    ],
)
def test_one_model_has_many_names(base: Base, tmp_path: Path, name: str) -> None:
    saved(base, tmp_path)
    changed(tmp_path, base_model_name_or_path=name)
    named = Base(base.folder, "Qwen/Qwen2.5-VL-3B-Instruct")
    assert initial_adapter(tmp_path, named, LORA)
    with pytest.raises(UserError, match="base_model_name_or_path"):
        initial_adapter(tmp_path, Base(base.folder, "Qwen/Qwen2.5-VL-7B-Instruct"), LORA)


def test_a_missing_or_damaged_file_is_named(base: Base, tmp_path: Path) -> None:
    saved(base, tmp_path)
    (tmp_path / ADAPTER_CONFIG).write_text("{")
    with pytest.raises(UserError, match=r"adapter_config\.json: cannot be read"):
        initial_adapter(tmp_path, base, LORA)
    (tmp_path / ADAPTER_CONFIG).unlink()
    with pytest.raises(UserError, match="the scale of the adapter is unknown"):
        initial_adapter(tmp_path, base, LORA)

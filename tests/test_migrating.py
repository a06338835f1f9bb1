"""What the pages on migrating tell people to type exists: settings, scripts, configs, files."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocr.dataset.config import PrepareConfig
from ocr.recognizers.vlm.adapter import QUANTISED
from ocr.retraining import RetrainConfig
from ocr.settings import Settings, load_settings, walk_fields
from serve.config import ServeConfig
from trainers.config import TrainConfig
from trainers.config.export_request import ExportRequest
from trainers.config.metrics import LABELS

PROJECT = Path(__file__).parent.parent
INDEX = PROJECT / "docs" / "migrating.md"
PAGES = sorted((PROJECT / "docs" / "migrating").glob("*.md"))
KINDS: tuple[type[Settings], ...] = (
    TrainConfig,
    PrepareConfig,
    ServeConfig,
    RetrainConfig,
    ExportRequest,
)
KEYS = {key for kind in KINDS for key, _ in walk_fields(kind)}
# lower-case words in backticks that are no settings: values, functions, columns of reports
WORDS = """
    acc auto beam before_training best_val_accuracy char_acc compact confusions datasets dev
    epoch epochs eval_wer_teacher_forced exact final_train_loss final_val_accuracy
    final_val_loss finished gguf history_summary inference_check load merged merger messages
    model_path norm_edit_dis null paddle paddleocr read samples_per_second samples_used status
    success test timestamp train_cer_teacher_forced train_samples train_wer_teacher_forced val
    val_samples versions vocab_size
"""
# files of other systems that the text around the tables names
THEIRS = {"src/config.py", "convert-xml-chandra-hf.py"}
IN_RUN = re.compile(  # files that a run, a retraining or a checkpoint has, and not the checkout
    r"(?:metrics|timings)\.jsonl|report\.(?:json|html)|verdict\.json|dataset\.json|config\.yaml"
    r"|README\.md|(?:train|validation)\.parquet|adapter_(?:model\.safetensors|config\.json)|chandra_data\.yaml|document\.png"
)
DOTTED = re.compile(r"[a-z_]+(?:\.[a-z0-9_]+)+")


def page_id(file: Path) -> str:
    return file.stem


def cells(page: Path) -> Iterator[str]:
    """What is ours: the right side of the tables, and the text around tables and blocks."""
    in_block = False
    for line in page.read_text(encoding="utf-8").splitlines():
        in_block ^= line.startswith("```")
        if not in_block and not line.startswith("```"):
            yield line.split(" | ", 1)[-1] if line.startswith("|") else line


def codes(page: Path) -> list[str]:
    return [code for cell in cells(page) for code in re.findall(r"`([^`]+)`", cell)]


def settings_in(code: str) -> Iterator[str]:
    """The settings that a piece of code names: `group.name`, `name=value`, without list indices."""
    for word in code.split():
        key, equals, _ = word.strip("'").partition("=")
        if re.fullmatch(DOTTED, key) or (equals and re.fullmatch(r"[a-z_]+", key)):
            yield re.sub(r"\.\d+(?=\.|$)", "", key)


def is_file(name: str) -> bool:
    """Whether a dotted word is the name of a file rather than of a setting."""
    return bool(re.search(r"\.(?:py|md|jsonl?|ya?ml|txt|parquet|safetensors|html|png)$", name))


def commands(page: Path) -> Iterator[list[str]]:
    """The words after `python ray_jobs/` of every command, in blocks and in the text."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"python ray_jobs/((?:'[^'\n]*'|[^`\n&'])+)", text)
    yield from (shlex.split(command, comments=True) for command in found)


@pytest.mark.parametrize("page", [INDEX, *PAGES], ids=page_id)
def test_every_setting_that_a_page_names_exists(page: Path) -> None:
    named = {key for code in codes(page) for key in settings_in(code) if not is_file(key)}
    assert len(named) > 2
    known = KEYS | {"data", "key", "backend"}  # of evaluate.py, a placeholder, of load()
    assert sorted(named - known) == []


def test_a_single_word_is_a_setting_a_metric_or_known() -> None:
    named = [code for page in (INDEX, *PAGES) for code in codes(page)]
    words = {code for code in named if re.fullmatch(r"[a-z][a-z_]+", code)}
    leaves = {part for key in KEYS for part in key.split(".")}
    assert sorted(words - leaves - set(LABELS) - set(QUANTISED)) == sorted(WORDS.split())


@pytest.mark.parametrize("page", [INDEX, *PAGES], ids=page_id)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    files = {
        word.rstrip(",")
        for code in codes(page)
        for word in code.split()
        if (is_file(word) or re.fullmatch(r"[a-z_]+(?:/[\w.]+)*/", word)) and "=" not in word
    }
    missing = [
        name
        for name in files
        if not (PROJECT / name).exists()
        and not (PROJECT / "ray_jobs" / name).exists()
        and not IN_RUN.fullmatch(name)
        and name not in THEIRS | {"bundle/", "abandoned/"}
    ]
    assert sorted(missing) == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_command_has_a_script_and_settings_that_load(page: Path) -> None:
    checked = 0
    for script, *words in commands(page):
        assert (PROJECT / "ray_jobs" / script).is_file(), script
        configs = [word for word in words if word.startswith("configs/")]
        if script == "train.py" and configs:
            overrides = [word for word in words if "=" in word and not word.startswith("key=")]
            load_settings(TrainConfig, PROJECT / configs[0], overrides)
            checked += 1
    assert checked > 1


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_a_page_opens_with_three_commands(page: Path) -> None:
    block = page.read_text(encoding="utf-8").partition("```\n")[2].partition("```")[0]
    assert len(re.findall(r"^(?:ray job submit -- )?python ray_jobs/\w+\.py ", block, re.M)) == 3
    assert len(block.splitlines()) == 3
    assert f"](migrating/{page.name})" in INDEX.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "page", [PROJECT / "README.md", *sorted(PROJECT.glob("docs/*.md")), *PAGES], ids=page_id
)
def test_every_link_to_a_page_of_ours_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+\.md)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).is_file()] == []

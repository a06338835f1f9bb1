"""The figures in the headers of configs that a machine without a GPU trains in minutes."""

import re
from pathlib import Path

import pytest

from ocr.files import read_json
from tests.support.commands import PROJECT, call

# Another CPU rounds otherwise, so another base and another network come out: results.md has two
FIGURES = [
    pytest.param("odia_ctc.yaml", [], r"CER (\d+\.\d+) %", 0.5, id="odia_ctc"),
    pytest.param("tiny_vlm.yaml", [], r"before and (\d+\.\d+) to \d+\.\d+ %", 5.0, id="tiny_vlm"),
    pytest.param(
        "tiny_vlm.yaml",
        ["model.architecture=qwen2_5_vl"],
        r"qwen2_5_vl: (\d+\.\d+) %",
        5.0,
        id="tiny_vlm, qwen2_5_vl",
    ),
]


@pytest.mark.timeout(1500)
@pytest.mark.parametrize(("config", "words", "written", "points"), FIGURES)
def test_a_header_says_what_its_config_gives(
    config: str, words: list[str], written: str, points: float, tmp_path: Path
) -> None:
    path = PROJECT / "configs" / config
    header = " ".join(
        line.lstrip("# ") for line in path.read_text("utf-8").splitlines() if line.startswith("#")
    )
    found = re.search(written, header)
    assert found, header
    done = call("train", str(path), f"storage_path={tmp_path}", *words, timeout=1400)
    assert done.returncode == 0, done.stderr
    (report,) = tmp_path.rglob("report.json")
    cer = 100 * read_json(report)["eval_cer"]
    print(f"{config} {' '.join(words)}: {cer:.2f} %, its header says {found[1]} %")
    assert abs(cer - float(found[1])) <= points

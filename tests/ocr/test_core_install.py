"""Reading needs the core dependencies alone: no Ray, no torch, no data packages."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ocr.dataset.read import Dataset
from tests.support.commands import PROJECT

CORE = {"numpy", "onnxruntime", "pillow", "pydantic", "pyyaml", "rapidfuzz", "regex"}
HEAVY = (
    "ray",
    "torch",
    "transformers",
    "deepspeed",
    "pyarrow",
    "datasets",
    "cv2",
    "jinja2",
    "pypdfium2",
    "pikepdf",
)
BLOCKED = f"import sys\nfor name in {HEAVY!r}:\n    sys.modules[name] = None\n"


@pytest.fixture(scope="module")
def word(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("core") / "word.webp"
    path.write_bytes(Dataset.open("odia_words", "validation").image_bytes(0))
    return str(path)


def run(code: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", BLOCKED + code]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)


def test_the_core_dependencies_are_these() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert {line.partition(">")[0] for line in project["dependencies"]} == CORE


@pytest.mark.parametrize("name", ["odia", "bangla", "thai"])
def test_a_bundle_reads_with_the_core_alone(name: str, word: str) -> None:
    done = run(f"from ocr.recognizers import load\nprint(load({name!r}).read([{word!r}])[0].text)")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("more", [[], ["format=alto"], ["format=json", "output=FOLDER"]])
def test_read_py_needs_the_core_alone(more: list[str], word: str, tmp_path: Path) -> None:
    words = ["read.py", "odia", word, *(each.replace("FOLDER", str(tmp_path)) for each in more)]
    code = f"import runpy\nsys.argv = {words!r}\n"
    done = run(code + "runpy.run_path('ray_jobs/read.py', run_name='__main__')")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()

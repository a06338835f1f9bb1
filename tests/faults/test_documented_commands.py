"""Every `python ray_jobs/…` in the fenced blocks of README and docs, run as it stands there.

Runs are made shorter. What cannot run on this machine is listed with its reason; a command that is
neither run nor listed fails the test.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import requests
import yaml
from PIL import Image

from ocr.dataset.read import Dataset
from ocr.images import encode_image, open_image
from tests.support.commands import PROJECT
from tests.support.composed_pages import composed_page

PAGES = ["README", "docs/training", "docs/finetuning", "docs/sweeps", "docs/watching"]
PAGES += ["docs/serving", "docs/new_script"]
ELSEWHERE = {  # a word of the command → why it is not run here
    "ray job submit": "tests/faults/test_readme_cluster.py runs it",
    "configs/odia.yaml": "needs a GPU and the hub",
    "format=gguf": "needs a checkout of llama.cpp",
    "format=hub": "needs the hub",
    ".venv-vllm": "the environment that `make vllm` makes; tests/vllm has them",
    "configs/new_script.yaml": "fifteen minutes; its figure is in results.md",
    "runs/kannada/bundle": "made by the command before it",
    "report_to=tensorboard": "the run is there already; tests/trainers/test_trackers.py has it",
}
SHORTER = {
    "configs/odia_ctc.yaml": {
        "train.max_steps": "20",
        "train.max_minutes": "null",
        "train.save_steps": "10",
        "train.eval_steps": "20",
        "data.max_train_samples": "400",
        "data.max_validation_samples": "40",
        "threads_per_worker": "1",
    },
    "configs/sweeps/tiny.yaml": {"trials": "2"},
}
FOR_EVER = ("deploy.py",)


def commands() -> list[tuple[str, str]]:
    """The pages' commands in their order; a comment behind one is left out."""
    found, in_block = [], False
    for page in PAGES:
        for line in (PROJECT / f"{page}.md").read_text(encoding="utf-8").splitlines():
            in_block ^= line.startswith("```")
            if in_block and "ray_jobs/" in line and "|" not in line:
                found.append((page, re.sub(r"\s+#.*", "", line.strip())))
    return found


RUN = [
    pytest.param(page, command, id=f"{Path(page).name}: {command[:60]}")
    for page, command in commands()
    if not any(word in command for word in ELSEWHERE)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a user has it after `make train`: code, configs, a run, images."""
    path = tmp_path_factory.mktemp("typed")
    for name in ("ray_jobs", "configs"):
        (path / name).symlink_to(PROJECT / name)
    data = Dataset.open("odia_words", "validation")
    words = [open_image(data.image_bytes(index)) for index in range(40)]
    page = composed_page(words, data.texts[:40], 1, 0.0, 1)[0][:360, :760]
    Image.fromarray(page).save(path / "letter.pdf", resolution=200)
    for folder in ("scans", "pairs", "corrected"):
        (path / folder).mkdir()
    (path / "scans" / "a.png").write_bytes(encode_image(page))
    (path / "line.png").write_bytes(encode_image(words[0]))
    for index in range(40):
        (path / "pairs" / f"{index}.png").write_bytes(encode_image(words[index]))
        (path / "pairs" / f"{index}.gt.txt").write_text(data.texts[index], encoding="utf-8")
        (path / "corrected" / f"{index}.png").write_bytes(encode_image(words[index]))
        (path / "corrected" / f"{index}.json").write_text(f'{{"text": "{data.texts[index]}"}}')
    value = {"output": "my_data", "sources": [{"format": "pairs", "path": "pairs"}]}
    (path / "my_data.yaml").write_text(yaml.safe_dump(value))
    typed(path, "python ray_jobs/train.py configs/odia_ctc.yaml")
    for name in ("old", "new"):
        shutil.copytree(path / "runs" / "odia-ctc", path / "runs" / name)
    return path


def typed(folder: Path, command: str) -> str:
    """Type a command, with the settings that make it shorter; return what it printed."""
    words = shlex.split(command)
    shorter = next((SHORTER[word] for word in words if word in SHORTER), {})
    words = [word for word in words if word.partition("=")[0] not in shorter]
    line = shlex.join(words + [f"{key}={value}" for key, value in shorter.items()])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", line.replace(" '|' ", " | ")],
        cwd=folder,
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout[-3000:]}"
    return done.stdout


def _environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "RAY_raylet_start_wait_time_s": "150"}


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("page", "command"), RUN)
def test_a_command_runs_as_it_is_written(page: str, command: str, folder: Path) -> None:
    assert page in PAGES
    if not any(script in command for script in FOR_EVER):
        assert typed(folder, command).strip()
        return
    port = next((word[5:] for word in command.split() if word.startswith("port=")), "8000")
    server = subprocess.Popen(
        shlex.split(command), cwd=folder, env=_environment(), stdout=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + 150
        while not _is_ready(port):
            assert server.poll() is None and time.monotonic() < until, command
            time.sleep(0.5)
    finally:
        family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        server.terminate()
        server.wait(60)
        psutil.wait_procs(family, 30)


def _is_ready(port: str) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/readyz", timeout=2).ok
    except requests.RequestException:
        return False


def test_nothing_is_excused_that_is_not_there() -> None:
    written = " ".join(command for _, command in commands())
    assert [word for word in ELSEWHERE if word not in written] == []

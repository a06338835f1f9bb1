"""The commands of docs/reading.md, as they are written there, on files of these names."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pypdfium2 as pdfium
import pytest
from PIL import Image

from ocr.dataset.read import Dataset
from ocr.images import open_image
from ocr.reading.config import ReadConfig
from ocr.settings import settings_from
from tests.support.buckets import bucket_server
from tests.support.commands import PROJECT
from tests.support.composed_pages import composed_page

TEXT = (PROJECT / "docs" / "reading.md").read_text(encoding="utf-8")
COMMANDS = [
    words.replace("\\|", "|")
    for words in re.findall(r"\| `((?:cat [^|]*\\\| )?python ray_jobs/read\.py [^`]*)`", TEXT)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The files that the page names, and a bucket with scans."""
    path = tmp_path_factory.mktemp("reading")
    (path / "ray_jobs").symlink_to(PROJECT / "ray_jobs")
    data = Dataset.open("odia_words", "validation")
    words = [open_image(data.image_bytes(index)) for index in range(40)]
    pages = [
        composed_page(words, data.texts[:40], 1, 0.0, seed)[0][:360, :760] for seed in (1, 2, 3)
    ]
    images = [Image.fromarray(page) for page in pages]
    images[0].save(path / "letter.pdf", save_all=True, append_images=images[1:], resolution=200)
    for name in ("line.png", "lines/a.png", "lines/b.png", "scans/c.png", "scans/deep/d.png"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(words[0] if "line" in name else pages[0]).save(path / name)
    with bucket_server() as client:
        client.create_bucket(Bucket="bucket")
        client.upload_file(str(path / "line.png"), "bucket", "scans/e.png")
        yield path


def test_the_page_has_its_commands() -> None:
    assert len(COMMANDS) == 9


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_runs(command: str, folder: Path) -> None:
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    given = [word for word in shlex.split(command.rpartition("|")[2]) if "=" in word]
    config = settings_from(ReadConfig, {}, given, "reading.md")
    if config.output and "://" not in config.output:
        assert any((folder / config.output).rglob("*.[tpx]*"))
    if config.format == "pdf":
        text = pdfium.PdfDocument(folder / "searchable" / "letter.pdf")[0].get_textpage()
        assert len(text.get_text_range().split()) > 5
    if not config.output and command.endswith(" lines/"):
        assert [line.split("\t")[0] for line in done.stdout.splitlines()] == [
            "lines/a.png",
            "lines/b.png",
        ]


def test_the_python_of_the_page_runs(folder: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    assert done.returncode == 0 and float(done.stdout.split()[-1]) > 0, done.stderr

"""Tesseract as the benchmarks read with it: one process of one thread over a list of files."""

import os
import resource
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ocr.errors import UserError


def read(files: Sequence[Path], language: str, page_mode: int) -> tuple[float, list[str]]:
    """CPU seconds, start-up included, and a reading for each file, on one line.

    `page_mode` is 3 for a page, 7 a line, 8 a word, 10 a character.
    """
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder, "files.txt")
        listed.write_text("".join(f"{file}\n" for file in files), encoding="utf-8")
        command = [
            "tesseract",
            str(listed),
            str(Path(folder, "read")),
            "-l",
            language,
            "--psm",
            str(page_mode),
            "-c",
            "page_separator=\f",
        ]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            command,
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_THREAD_LIMIT": "1"},
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        pages = Path(folder, "read.txt").read_text(encoding="utf-8").split("\f")[: len(files)]
    if len(pages) < len(files):
        raise UserError(f"tesseract read {len(pages)} of {len(files)} images")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, [
        " ".join(page.split()) for page in pages
    ]

"""What `ray job submit --working-dir .` sends to the nodes."""

import zipfile
from pathlib import Path

from ray._private.runtime_env.packaging import create_package

from tests.support.commands import PROJECT

PACKAGES = ("ocr", "trainers", "serve", "ray_jobs", "configs")


def test_every_file_of_the_packages_goes_along_and_what_was_made_here_does_not(
    tmp_path: Path,
) -> None:
    package = tmp_path / "package.zip"
    create_package(str(PROJECT), package, include_gitignore=True)
    sent = set(zipfile.ZipFile(package).namelist())
    wanted = {
        str(file.relative_to(PROJECT))
        for name in PACKAGES
        for file in (PROJECT / name).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert not wanted - sent
    tops = {name.partition("/")[0] for name in sent}
    assert not tops & {"runs", "fonts", "faces", "build", ".venv", ".git", ".mypy_cache"}
    assert not [name for name in sent if "__pycache__" in name]

"""Where runs live: never in Ray's copies of working directories."""

from pathlib import Path

import pytest

from ocr.errors import UserError
from ocr.storage import storage_path


@pytest.fixture
def rays_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as `ray job submit --working-dir .` and `serve run --working-dir .` make it."""
    folder = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("LIPI_STORAGE", raising=False)
    return folder


@pytest.mark.filterwarnings("ignore")  # Ray's own deprecations at import
def test_a_relative_path_in_rays_copy_is_refused(rays_copy: Path) -> None:
    from serve.app import build

    with pytest.raises(UserError, match=r"storage_path runs: relative .* set LIPI_STORAGE"):
        storage_path("runs")
    with pytest.raises(UserError, match="set LIPI_STORAGE"):
        build({"bundle": "odia"})


def test_with_a_storage_it_lies_there(rays_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIPI_STORAGE", "/mnt/lipi")
    assert storage_path("runs") == "/mnt/lipi/runs"
    assert storage_path("/srv/runs") == "/srv/runs"


def test_elsewhere_it_lies_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LIPI_STORAGE", raising=False)
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    assert storage_path("runs") == str(tmp_path / "runs")


@pytest.mark.parametrize("path", ["s3://bucket/runs", "gs://bucket/runs"])
def test_a_bucket(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert storage_path(path) == path
    monkeypatch.setenv("LIPI_STORAGE", path)
    assert storage_path("runs") == f"{path}/runs"
    assert storage_path("/mnt/runs") == "/mnt/runs"
    assert storage_path("gs://other/runs") == "gs://other/runs"

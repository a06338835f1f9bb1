"""Folders replaced whole, locks, and the cache folder."""

import multiprocessing
from pathlib import Path

import pytest

from ocr.errors import first_line, last_line
from ocr.files import cache_dir, locked, replaced_folder


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "data"
    for content in ("one", "two"):
        with replaced_folder(target) as making:
            (making / "file").write_text(content)
        assert (target / "file").read_text() == content
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]


def test_an_error_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "data"
    target.mkdir()
    (target / "file").write_text("old")

    def fail() -> None:
        with replaced_folder(target) as making:
            (making / "file").write_text("new")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk"):
        fail()
    assert (target / "file").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]


def _is_free(path: Path) -> bool:
    try:
        with locked(path, wait=False):
            return True
    except BlockingIOError:
        return False


@pytest.mark.parametrize("name", ["file.lock", "folder"])
def test_a_lock_keeps_another_process_out_and_ends_with_the_block(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        with locked(tmp_path / name):
            assert not pool.apply(_is_free, (tmp_path / name,))
        assert pool.apply(_is_free, (tmp_path / name,))


@pytest.mark.parametrize("value", [None, ""])
def test_an_empty_cache_variable_means_the_home_folder(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIPI_CACHE", value) if value is not None else monkeypatch.delenv(
        "LIPI_CACHE"
    )
    assert cache_dir() == Path.home() / ".cache" / "lipi"


def test_the_telling_line_of_an_error() -> None:
    problem = ValueError("\n  what happened\nmore\n\n  at the end \n")
    assert first_line(problem) == "what happened" and last_line(problem) == "at the end"
    assert first_line(ValueError()) == last_line(ValueError("")) == "ValueError"

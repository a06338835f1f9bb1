"""What a command may name: files, nested folders, globs, buckets, standard input."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ocr.dataset.read import Dataset
from ocr.errors import UserError
from ocr.reading.inputs import find_inputs
from tests.support.buckets import bucket_server
from tests.support.commands import PROJECT, assert_refused, call


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (
        "b.png",
        "a.PDF",
        "sub/c.tif",
        "sub/deep/d.jpg",
        "notes.txt",
        "sub/e.docx",
        ".hidden.png",
        ".cache/f.png",
    ):
        path = tmp_path / "scans" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path / "scans"


def targets(*words: str | Path) -> list[str]:
    return [item.target for item in find_inputs([str(word) for word in words])[0]]


def test_folders_are_read_with_the_folders_in_them(folder: Path) -> None:
    items, warnings = find_inputs([str(folder)])
    assert [item.target for item in items] == ["a", "b", "sub/c", "sub/deep/d"]
    assert warnings == [f"warning: not read in {folder}: 1 .docx, 1 .txt"]


def test_several_folders_keep_their_names(folder: Path) -> None:
    assert targets(folder / "sub", folder / "sub" / "deep") == ["sub/c", "deep/d"]


def test_globs_of_any_depth(folder: Path) -> None:
    assert targets(f"{folder}/**/*.jpg") == ["d"]
    assert targets(f"{folder}/*.png", f"{folder}/?.PDF") == ["b", "a"]
    with pytest.raises(UserError, match="no such file or folder; name images, PDF files"):
        find_inputs([f"{folder}/*.bmp"])


def test_a_file_whose_name_looks_like_a_glob_is_a_file(folder: Path) -> None:
    (folder / "page[1].png").write_bytes(b"x")
    assert targets(folder / "page[1].png") == ["page[1]"]


def test_files_that_differ_by_their_ending_have_results_of_their_own(folder: Path) -> None:
    (folder / "b.jpg").write_bytes(b"x")
    assert targets(folder) == ["a", "b.jpg", "b.png", "sub/c", "sub/deep/d"]


def test_two_files_of_one_name_are_refused(folder: Path) -> None:
    (folder / "sub" / "b.png").write_bytes(b"x")
    with pytest.raises(UserError, match="both would be written to b"):
        find_inputs([str(folder / "b.png"), str(folder / "sub" / "b.png")])


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UserError, match="no image and no PDF in this folder"):
        find_inputs([str(tmp_path)])


@pytest.fixture(scope="module")
def word() -> bytes:
    return Dataset.open("odia_words", "validation").image_bytes(0)


def test_from_a_bucket_into_a_bucket(word: bytes) -> None:
    with bucket_server() as client:
        for name in ("in/a.png", "in/sub/b.png"):
            client.put_object(Bucket="lipi", Key=name, Body=word)
        client.put_object(Bucket="lipi", Key="in/c.txt", Body=b"x")
        words = ("odia", "s3://lipi/in", "format=json", "output=s3://lipi/out")
        done = call("read", *words)
        assert done.returncode == 0, done.stderr
        assert "2 of 2 files as json" in done.stdout
        keys = [
            one["Key"] for one in client.list_objects_v2(Bucket="lipi", Prefix="out")["Contents"]
        ]
        assert keys == ["out/a.json", "out/sub/b.json"]
        again = call("read", *words)
        assert "0 of 2 files as json" in again.stdout and "2 kept" in again.stdout
        one = call("read", "odia", "s3://lipi/in/a.png")
        glob = call("read", "odia", "s3://lipi/in/*b.png")
        assert one.stdout.strip() and one.stdout.strip() == glob.stdout.split("\t")[1].strip()
        assert_refused(call("read", "odia", "s3://lipi/nothing"), "no image and no PDF there")
        assert_refused(call("read", "odia", "s3://*/a.png"), "name the bucket")


def test_standard_input_is_read(word: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(word)
    command = [sys.executable, str(PROJECT / "ray_jobs" / "read.py"), "odia", "-"]
    piped = subprocess.run(command, input=word, capture_output=True, timeout=120)
    assert piped.stdout.decode() == call("read", "odia", tmp_path / "a.png").stdout


def test_what_is_refused_is_named_and_the_rest_is_written(word: bytes, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    (scans / "a.png").write_bytes(word)
    (scans / "b.pdf").write_bytes(b"%PDF-1.4 broken")
    (scans / "c.png").write_bytes(b"")
    for format in ("pdf", "page"):
        done = call("read", "odia", scans, f"format={format}", f"output={tmp_path / format}")
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert "1 of 3 files" in done.stdout and "2 refused" in done.stdout
        for name in ("b.pdf: not a readable document", "c.png: empty file"):
            assert name in done.stderr
        assert len(list((tmp_path / format).iterdir())) == 1


def test_a_setting_that_is_none_and_a_format_without_a_folder(word: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(word)
    file = tmp_path / "a.png"
    assert_refused(call("read", "odia", file, "fromat=pdf"), "did you mean 'format'?")
    assert_refused(call("read", "odia", file, "format=pdf"), "set output=FOLDER")
    assert_refused(call("read", "odia", file, "format=docx"), "format")
    assert_refused(call("read", "odia", "format=text"), "nothing to read")
    odd = tmp_path / "format=1.png"
    odd.write_bytes(word)
    named = call("read", "odia", odd)
    assert named.returncode == 0 and named.stdout.strip()


def test_auto_says_what_it_took_for_pages(word: bytes, tmp_path: Path) -> None:
    (tmp_path / "word.png").write_bytes(word)
    page = np.full((900, 700), 255, np.uint8)
    picture = np.asarray(Image.open(io.BytesIO(word)).convert("L"))[:100, :600]
    page[100 : 100 + picture.shape[0], 50 : 50 + picture.shape[1]] = picture
    Image.fromarray(page).save(tmp_path / "page.png")
    done = call("read", "odia", tmp_path)
    assert done.returncode == 0 and "1 as lines, 1 as pages" in done.stderr
    assert done.stdout.startswith("==> ")
    assert "as lines" not in call("read", "odia", tmp_path, "level=page").stderr

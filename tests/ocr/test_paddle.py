"""PaddleOCR label files: good lines become samples, bad ones are named by file and line."""

from pathlib import Path

import pytest

from ocr.errors import UserError
from ocr.sample import Sample, Skip
from ocr.sources.settings import PaddleSettings
from tests.support.sources import read_source


def read(folder: Path, content: bytes, **settings: str) -> list[Sample | Skip]:
    (folder / "images").mkdir(exist_ok=True)
    (folder / "images" / "a.png").write_bytes(b"PNG bytes")
    (folder / "labels.txt").write_bytes(content)
    return list(
        read_source(PaddleSettings.model_validate({"path": str(folder / "labels.txt"), **settings}))
    )


def test_a_line_is_path_tab_text_and_a_byte_order_mark_does_not_count(tmp_path: Path) -> None:
    (sample,) = read(tmp_path, "\ufeffimages/a.png\tสวัสดี ชาวโลก\r\n\n".encode())
    assert isinstance(sample, Sample)
    assert (sample.text, sample.image, sample.level) == ("สวัสดี ชาวโลก", b"PNG bytes", "line")


def test_images_may_lie_under_another_root_and_the_delimiter_may_be_a_space(tmp_path: Path) -> None:
    (sample,) = read(tmp_path, "a.png ก ข".encode(), images=str(tmp_path / "images"), delimiter=" ")
    assert isinstance(sample, Sample) and sample.text == "ก ข"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"images/a.png no tab", "malformed label line"),
        (b"images/b.png\tx", "missing image"),
        (b"../../etc/passwd\tx", "path outside the images folder"),
        (b"/etc/passwd\tx", "path outside the images folder"),
        (b"images/a.png\t\xff\xfe", "label not UTF-8"),
        (b"images/a\x00.png\tx", "missing image"),
    ],
)
def test_a_bad_line_is_skipped_by_name_and_line(tmp_path: Path, line: bytes, reason: str) -> None:
    good, skip = read(tmp_path, b"images/a.png\tgood\n" + line)
    assert isinstance(good, Sample) and isinstance(skip, Skip)
    assert skip.reason == reason
    assert skip.where == f"{tmp_path / 'labels.txt'}:2"


def test_a_missing_label_file_or_folder_is_a_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="PaddleOCR label file"):
        list(read_source(PaddleSettings(path=str(tmp_path / "none.txt"))))
    with pytest.raises(UserError, match="no such folder"):
        read(tmp_path, b"a.png\tx", images=str(tmp_path / "none"))

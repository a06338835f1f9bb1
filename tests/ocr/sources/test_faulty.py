"""Any input of a source becomes a sample or a counted reason.

Over 300 lines: one list of faults for every source.
"""

import io
import json
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter

from ocr.dataset.build import build
from ocr.dataset.config import PrepareConfig
from ocr.dictionary import Dictionary
from ocr.errors import UserError
from ocr.sample import Sample, Skip
from ocr.sources.settings import Source
from tests.support.sources import read_source

NOISE = Image.fromarray(
    np.random.Generator(np.random.Philox(key=1)).integers(0, 255, (20, 60), dtype=np.uint8)
)


def file(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def header(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(
        b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    )


PNG = file(NOISE)
BOMB = header(60, 20) + chunk(b"zTXt", b"a\x00\x00" + zlib.compress(bytes(20_000_000))) + PNG[33:]
ROTATED = Image.Exif()
ROTATED[0x0112] = 6
IMAGES: dict[str, tuple[bytes, str | None]] = {
    "empty.png": (b"", "empty file"),
    "header.png": (PNG[:33], "not a readable image"),
    "text.png": (b"hello", "not a readable image"),
    "crc.png": (PNG[:29] + bytes(4) + PNG[33:], "not a readable image"),
    "half.png": (PNG[: len(PNG) // 2], "not a readable image"),
    "flipped.png": (PNG[:300] + bytes([PNG[300] ^ 1]) + PNG[301:], "not a readable image"),
    "declared.png": (
        header(100_000, 100_000) + chunk(b"IDAT", b"x") + chunk(b"IEND", b""),
        "image too large",
    ),
    "declared12k.png": (
        header(12_000, 12_000) + chunk(b"IDAT", b"x") + chunk(b"IEND", b""),
        "image too large",
    ),
    "ztxt.png": (BOMB, "not a readable image"),
    "9000.png": (file(Image.new("L", (9000, 9000))), "image too large"),
    "1x1.png": (file(Image.new("L", (1, 1))), "image too small"),
    "20000x4.png": (file(Image.new("L", (20_000, 4))), "image too large"),
    "drawing.svg.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a readable image"),
    "page.eps.png": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        "not a readable image",
    ),
    "photo.heic.png": (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", "not a readable image"),
    "animated.gif": (
        file(NOISE, "GIF", save_all=True, append_images=[NOISE.rotate(180)]),
        "several frames",
    ),
    "cmyk.jpg": (file(NOISE.convert("CMYK"), "JPEG"), None),
    "deep.png": (file(Image.fromarray(np.asarray(NOISE, dtype=np.uint16) * 257)), None),
    "palette.png": (file(NOISE.convert("P"), transparency=0), None),
    "turned.jpg": (file(NOISE, "JPEG", exif=ROTATED), None),
    "pages.tif": (file(NOISE, "TIFF", save_all=True, append_images=[NOISE]), "several pages"),
}


def samples(form: str, path: Path, **more: Any) -> list[Sample | Skip]:
    return list(
        read_source(
            TypeAdapter(Source).validate_python({"format": form, "path": str(path), **more})
        )
    )


def reasons(items: list[Sample | Skip]) -> list[str | None]:
    return [item.reason if isinstance(item, Skip) else None for item in items]


def test_every_kind_of_image_is_decoded_or_counted(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, (data, _) in IMAGES.items():
        (tmp_path / "in" / name).write_bytes(data)
    (tmp_path / "in" / "labels.txt").write_text("".join(f"{name}\t{name}\n" for name in IMAGES))
    config = {
        "output": str(tmp_path / "out"),
        "sources": [{"format": "paddle", "path": str(tmp_path / "in" / "labels.txt")}],
        "split": {"validation_ratio": 0},
    }
    with pytest.raises(
        UserError,
        match=(
            r"(?s)17 of 21 samples \(81\.0%\).*9 not a readable image, such as "
            r"labels\.txt#header\.png.*4 image too large"
        ),
    ):
        build(PrepareConfig.model_validate(config))
    assert not (tmp_path / "out").exists()
    build(PrepareConfig.model_validate(config | {"max_skipped": 1.0}))
    left_out = {
        record["where"]: record["reason"]
        for record in map(json.loads, (tmp_path / "out" / "skipped.jsonl").read_text().splitlines())
    }
    assert left_out == {
        f"labels.txt#{name}": reason for name, (_, reason) in IMAGES.items() if reason
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(PNG)
    return tmp_path


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "not a correction"),
        ('{"corrected_text": 7}', "no corrected text"),
        ('{"original_text": "a"}', "no corrected text"),
        (
            '{"corrected_text": "a", "image": "../../../etc/passwd"}',
            "path outside the images folder",
        ),
        ('{"corrected_text": "a", "image": "b.png"}', "missing image"),
        (b'{"corrected_text": "\xff"}', "not valid JSON"),
    ],
)
def test_a_faulty_correction_is_named(folder: Path, record: str | bytes, reason: str) -> None:
    (folder / "a.json").write_bytes(record if isinstance(record, bytes) else record.encode())
    assert reasons(samples("corrections", folder)) == [reason]


def test_a_pair_without_its_image_and_a_text_that_is_no_utf8_are_named(folder: Path) -> None:
    (folder / "a.gt.txt").write_bytes(b"\xff")
    (folder / "b.gt.txt").write_text("b")
    assert reasons(samples("pairs", folder)) == ["label not UTF-8", "missing image"]


def test_pipes_folders_and_links_out_of_the_folder_are_refused(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "secret.png"
    elsewhere.write_bytes(PNG)
    os.mkfifo(folder / "pipe.png")
    (folder / "folder.png").mkdir()
    (folder / "link.png").symlink_to(elsewhere)
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "labels.txt").write_text(
        "".join(f"{name}.png\tx\n" for name in ("pipe", "folder", "link", "loop"))
    )
    assert reasons(samples("paddle", folder / "labels.txt")) == [
        "not an ordinary file",
        "not an ordinary file",
        "path outside the images folder",
        "missing image",
    ]


def test_a_file_that_vanishes_during_the_run_is_counted(folder: Path) -> None:
    (folder / "labels.txt").write_text("a.png\tfirst\nb.png\tsecond\n")
    (folder / "b.png").write_bytes(PNG)
    items: Iterator[Any] = read_source(
        TypeAdapter(Source).validate_python(
            {"format": "paddle", "path": str(folder / "labels.txt")}
        )
    )
    assert isinstance(next(items), Sample)
    (folder / "b.png").unlink()
    assert reasons(list(items)) == ["missing image"]


@pytest.mark.parametrize("length", [10_000_000, 25_000_000])
def test_a_line_without_end_is_one_skip_with_its_number(folder: Path, length: int) -> None:
    (folder / "labels.txt").write_bytes(
        b"a.png\tfirst\na.png\t" + b"x" * length + b"\na.png\tlast\n"
    )
    first, long, last = samples("paddle", folder / "labels.txt")
    assert isinstance(first, Sample) and isinstance(last, Sample) and last.text == "last"
    assert (
        isinstance(long, Skip)
        and long.reason == "malformed label line"
        and long.where.endswith("labels.txt:2")
    )


@pytest.mark.parametrize(
    ("boxes", "reason"),
    [
        ("not json", "malformed label line"),
        ('{"transcription": "a"}', "malformed label line"),
        ('[{"transcription": "a", "points": [[1, 2], [3]]}]', "malformed label"),
        (
            '[{"transcription": "###", "points": [[1, 1], [9, 1], [9, 9], [1, 9]]}]',
            "marked unreadable",
        ),
        ('[{"transcription": "a", "points": [[1, 1], [9, 1], [1, 1]]}]', "polygon without area"),
        (
            '[{"transcription": "a", "points": [[100, 1], [190, 1], [190, 9], [100, 9]]}]',
            "polygon outside the image",
        ),
    ],
)
def test_a_faulty_detection_label_is_named(folder: Path, boxes: str, reason: str) -> None:
    (folder / "Label.txt").write_text(f"a.png\t{boxes}\n")
    assert reasons(samples("paddle", folder / "Label.txt", labels="detection")) == [reason]
    (folder / "Label.txt").write_text(f"b.png\t{boxes}\n")
    assert reasons(samples("paddle", folder / "Label.txt", labels="detection"))[:1] in (
        [reason],
        ["missing image"],
    )


def test_a_label_that_the_dictionary_cannot_spell_is_left_out(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "dict.txt").write_text("ก\nกา\nข\n", encoding="utf-8")
    (folder / "labels.txt").write_text(
        "".join(f"a.png\t{text}\n" for text in ("กาข", "กา ข", "๐", "ขขขข")), encoding="utf-8"
    )
    settings = {"character_dict_path": str(folder / "dict.txt"), "max_text_length": 3}
    items = samples("paddle", folder / "labels.txt", **settings)
    assert reasons(items) == [
        None,
        "characters outside the dictionary",
        "characters outside the dictionary",
        "text too long",
    ]
    assert isinstance(items[2], Skip) and "U+0E50 THAI DIGIT ZERO" in items[2].detail
    assert (
        "dict.txt lacks: U+0020 SPACE (1 labels), U+0E50 THAI DIGIT ZERO (1 labels)"
        in capsys.readouterr().out
    )
    assert (
        reasons(samples("paddle", folder / "labels.txt", use_space_char=True, **settings))[1]
        is None
    )


def test_a_dictionary_of_several_characters_an_entry_spells_the_longest_first(
    tmp_path: Path,
) -> None:
    (tmp_path / "dict.txt").write_text("ก\r\nกา\r\n\r\nก\r\nกี\r\nขที่\r\n", encoding="utf-8-sig")
    dictionary = Dictionary.open(tmp_path / "dict.txt")
    assert dictionary.entries == ("ก", "กา", "กี", "ขที่") and dictionary.spell("กากก") == [
        "กา",
        "ก",
        "ก",
    ]
    oddities = [oddity.partition("dict.txt:")[2] for oddity in dictionary.oddities]
    assert oddities == [
        "3: an empty line is no entry",
        "4: 'ก' repeats line 1",
        "2: 'กา' is 2 written units; are two entries joined on one line?",
        "6: 'ขที่' is 2 written units; are two entries joined on one line?",
    ]


def test_paddles_thai_dictionary_lacks_what_its_notes_say() -> None:
    path = Path("../shared/data/dictionaries/paddle_th_dict.txt")
    if not path.is_file():
        pytest.skip("../shared is not here")
    missing = Dictionary.open(path).missing("๐ a1")
    assert [part.split()[0] for part in missing.split(", ")] == [
        "U+0E50",
        "U+0020",
        "U+0061",
        "U+0031",
    ]


@pytest.mark.parametrize(
    ("form", "says"),
    [
        ("pairs", "no file whose name ends in .gt.txt"),
        ("corrections", "no file whose name ends in .json"),
        ("page", "no XML file"),
        ("alto", "no XML file"),
    ],
)
def test_an_empty_folder_and_a_missing_one_are_a_users_mistake(
    tmp_path: Path, form: str, says: str
) -> None:
    with pytest.raises(UserError, match=says):
        samples(form, tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        samples(form, tmp_path / "none")

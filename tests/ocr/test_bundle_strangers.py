"""Bundles, zip files and workbooks from strangers: whatever is in them, one message or a reading;
never a traceback, a file elsewhere, or all the memory.
"""

import copy
import gzip
import hashlib
import io
import json
import lzma
import random
import shutil
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ocr.bundle import SHIPPED, open_bundle
from ocr.errors import UserError
from ocr.images import open_image
from ocr.recognizers.ctc.language_model import MAX_UNPACKED_BYTES
from ocr.recognizers.factory import load
from ocr.sources import archives, spreadsheet
from ocr.unpacking import gunzipped, unxzipped
from serve.models import BadVote, Models
from tests.support.bombs import pixel_bomb
from tests.support.commands import assert_refused, call

ODIA = SHIPPED / "odia"
FILES = sorted(file.name for file in ODIA.iterdir())
READ = [name for name in FILES if not name.endswith((".md", ".parquet"))]
LINE = open_image(pixel_bomb(200, 40))


def sealed(folder: Path, **more: str) -> None:
    """Write the manifest for the files as they are now."""
    names = [file.name for file in folder.iterdir() if file.name != "manifest.json"]
    hashes = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    (folder / "manifest.json").write_text(json.dumps({**hashes, **more}))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ODIA, tmp_path / "bundle"))


def described(bundle: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    values = json.loads((ODIA / "bundle.json").read_text(encoding="utf-8"))
    change(values)
    (bundle / "bundle.json").write_text(json.dumps(values), encoding="utf-8")
    sealed(bundle)


def opens(bundle: Path, backend: str | None) -> None:
    """Read a line, or be refused with the bundle's name."""
    message = str(bundle)
    try:
        load(bundle, backend).read([LINE])
    except UserError as refusal:
        message = str(refusal)
    assert str(bundle) in message


def mutated(content: bytes, other: bytes, draw: random.Random) -> Iterator[bytes]:
    yield b""
    yield other
    yield content[: len(content) // 2]
    yield content[:-1]
    yield draw.randbytes(2000)
    for most in (64, 2000, len(content)):
        flipped = bytearray(content)
        for _ in range(5):
            flipped[draw.randrange(min(most, len(content)))] ^= 1 << draw.randrange(8)
        yield bytes(flipped)


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_part_is_one_message(bundle: Path, name: str) -> None:
    file, other = bundle / name, (ODIA / FILES[FILES.index(name) - 1]).read_bytes()
    for content in mutated(file.read_bytes(), other, random.Random(name)):
        file.write_bytes(content)
        if name != "manifest.json":
            with pytest.raises(UserError, match=r"its SHA-256 differs|is damaged"):
                load(bundle)
            sealed(bundle)
        if name in READ:
            opens(bundle, "torch" if name == "weights.safetensors" else None)
        shutil.copy(ODIA / "manifest.json", bundle)


ODD: list[Any] = [None, 0, -1, 1e308, "x", [], {}, True, ["a"] * 500]


def places(values: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, value in values.items():
        yield (*place, key)
        if isinstance(value, dict) and key != "card":
            yield from places(value, (*place, key))


@pytest.mark.parametrize("odd", range(len(ODD)))
def test_a_description_with_an_odd_value_is_one_message(bundle: Path, odd: int) -> None:
    values = json.loads((ODIA / "bundle.json").read_text(encoding="utf-8"))
    for place in places(values):
        changed = copy.deepcopy(values)
        inner = changed
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = ODD[odd]
        (bundle / "bundle.json").write_text(json.dumps(changed), encoding="utf-8")
        sealed(bundle)
        opens(bundle, None)


@pytest.mark.parametrize("backend", ["onnx-int8", "torch"])
def test_an_alphabet_of_another_length_is_named(bundle: Path, backend: str) -> None:
    described(bundle, lambda values: values.update(alphabet=values["alphabet"][:-3]))
    with pytest.raises(UserError, match=r"an alphabet of|weights\.safetensors: cannot be read"):
        load(bundle, backend)


@pytest.mark.parametrize(
    "name", ["../../../pwned/x", "a/b", "a\nb", "<img onerror=x>", "a,b", "", ".hidden", "x" * 300]
)
def test_a_name_that_is_a_path_or_worse_is_refused(bundle: Path, name: str) -> None:
    described(bundle, lambda values: values.update(name=name))
    with pytest.raises(UserError, match=r"bundle\.json: name: expected letters, digits") as refusal:
        open_bundle(bundle)
    assert "\n" not in str(refusal.value)
    with pytest.raises(UserError, match="name: expected"):
        Models(str(bundle.parent / "store" / "a" / "b")).add(str(bundle))
    assert {file.name for file in bundle.parent.iterdir()} <= {"bundle", "store"}


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "a/b", "..", ".", "", "a\\b"])
def test_a_manifest_that_names_a_path_is_refused(bundle: Path, name: str) -> None:
    (bundle.parent / "secret").write_text("x")
    sealed(bundle, **{name: hashlib.sha256(b"x").hexdigest()})
    with pytest.raises(UserError, match=r"manifest\.json: the bundle is damaged: .* is not the"):
        open_bundle(bundle)


def test_links_and_files_that_are_not_listed_are_not_read(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (bundle / "other.txt").symlink_to(tmp_path / "secret")
    (bundle / "notes.txt").write_text("not listed")
    models = Models(str(tmp_path / "store"))
    id = models.add(str(bundle))
    stored = {file.name for file in (tmp_path / "store" / "models" / id).iterdir()}
    assert stored == set(FILES)
    assert not {"other.txt", "notes.txt"} & set(open_bundle(bundle).files())
    sealed(bundle)
    with pytest.raises(UserError, match=r"other\.txt: a link"):
        open_bundle(bundle)


@pytest.mark.parametrize("part", ["language_model.txt.gz", "lexicon.txt.gz"])
def test_a_part_that_unpacks_to_gigabytes_is_refused_before_it_does(
    bundle: Path, part: str
) -> None:
    (bundle / part).write_bytes(gzip.compress(b"\0" * (3 * MAX_UNPACKED_BYTES), 9))
    described(bundle, lambda values: values["decoding"].update(lexicon=part[:3] == "lex"))
    tracemalloc.start()
    with pytest.raises(UserError, match=f"{part}.*more than 64,000,000 bytes when it is unpacked"):
        load(bundle)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * MAX_UNPACKED_BYTES


def test_the_script_says_what_is_damaged(bundle: Path, tmp_path: Path) -> None:
    (bundle / "language_model.txt.gz").write_bytes(b"no gzip")
    sealed(bundle)
    (tmp_path / "a.png").write_bytes(pixel_bomb(100, 40))
    assert_refused(
        call("read", bundle, tmp_path / "a.png"), "language_model.txt.gz", "it is damaged"
    )


def test_unpacked_content_is_whole_or_refused() -> None:
    content = b"lines\n" * 1000
    for packed, unpack in (
        (gzip.compress(content), gunzipped),
        (lzma.compress(content), unxzipped),
    ):
        assert unpack(packed, len(content)) == content
        with pytest.raises(ValueError, match="more than 5,999 bytes"):
            unpack(packed, len(content) - 1)
        for damaged in (packed[:-3], b"", b"x" * 50):
            if damaged:
                with pytest.raises((OSError, EOFError, lzma.LZMAError)):
                    unpack(damaged, 10_000)


def zip_of(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_a_zip_file_that_unpacks_to_far_more_than_it_is_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIPI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(archives, "_USUAL_BYTES", 1_000_000)
    (tmp_path / "a.zip").write_bytes(zip_of(a=bytes(3_000_000)))
    with pytest.raises(UserError, match=r"3,000,000 bytes in .* as no export has"):
        archives.unpacked(tmp_path / "a.zip")


def test_damaged_zip_files_and_workbooks_are_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIPI_CACHE", str(tmp_path / "cache"))
    draw = random.Random(3)
    cells = "<row>" + '<c r="XFD1" t="s"><v>0</v></c>' * 3 + "</row>"
    book = {
        "xl/workbook.xml": b'<w xmlns:r="r"><sheet r:id="1"/></w>',
        "xl/_rels/workbook.xml.rels": b'<w><x Id="1" Target="sheet.xml"/></w>',
        "xl/sharedStrings.xml": b"<w><si><t>word</t></si></w>",
        "xl/sheet.xml": f"<w>{cells * 40}</w>".encode(),
    }
    for name, read in (("a.zip", archives.unpacked), ("a.xlsx", spreadsheet.rows_of)):
        whole = zip_of(**book)
        (tmp_path / name).write_bytes(whole)
        read(tmp_path / name)
        for _ in range(25):
            for content in mutated(whole, b"another file", draw):
                (tmp_path / name).write_bytes(content)
                message = name
                try:
                    read(tmp_path / name)
                except UserError as refusal:
                    message = str(refusal)
                assert name in message


def test_a_workbook_of_wide_empty_rows_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spreadsheet, "_MAX_CELLS", 100_000)
    row = '<row><c r="XFD1"><v>1</v></c></row>'
    book = {
        "xl/workbook.xml": b'<w xmlns:r="r"><sheet r:id="1"/></w>',
        "xl/_rels/workbook.xml.rels": b'<w><x Id="1" Target="sheet.xml"/></w>',
        "xl/sheet.xml": f"<w>{row * 20}</w>".encode(),
    }
    (tmp_path / "a.xlsx").write_bytes(zip_of(**book))
    with pytest.raises(UserError, match="more than 100,000 cells"):
        spreadsheet.rows_of(tmp_path / "a.xlsx")


def test_a_model_votes_once_and_four_at_most(tmp_path: Path, bundle: Path) -> None:
    models = Models(str(tmp_path / "store"))
    odia, ids = models.add("odia"), []
    for number in range(5):
        described(bundle, lambda values, number=number: values.update(name=f"m{number}"))
        ids.append(models.add(str(bundle)))
    assert models.promote(",".join(ids[:4]))
    with pytest.raises(BadVote, match=rf"{odia}: named 11 times; a model votes once"):
        models.promote(",".join([odia] * 11))
    with pytest.raises(BadVote, match="at most 4 models that vote together, got 5"):
        models.promote(",".join(ids), what="traffic", share=0.1)
    with pytest.raises(BadVote, match="named 2 times"):
        models.add("odia,odia")

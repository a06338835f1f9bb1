"""Exports of annotation tools are read as they come: folders, zip files, tables, odd names."""

import json
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from ocr.dataset.build import build
from ocr.dataset.config import PrepareConfig
from ocr.errors import UserError
from ocr.images import encode_image, open_image
from ocr.sample import Sample, Skip
from ocr.sources.settings import Source
from tests.ocr.sources.test_layout import alto, block, line, page_xml
from tests.support.sources import read_source

WORD = '<String CONTENT="word" HPOS="10" VPOS="10" WIDTH="50" HEIGHT="20"/>'
METS = '<mets xmlns="http://www.loc.gov/METS/"><fileSec/></mets>'
METADATA = "<trpDocMetadata><docId>1</docId></trpDocMetadata>"
GRADIENT = encode_image(np.tile(np.arange(100, dtype=np.uint8), (50, 1)))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIPI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def read(form: str, path: Path, **more: Any) -> list[Sample | Skip]:
    values = {"format": form, "path": str(path), **more}
    return list(read_source(TypeAdapter(Source).validate_python(values)))


def texts(items: list[Sample | Skip]) -> list[str]:
    assert all(isinstance(item, Sample) for item in items), items
    return [item.text for item in items if isinstance(item, Sample)]


def kept(items: list[Sample | Skip]) -> list[str]:
    return [item.text for item in items if isinstance(item, Sample)]


def put(folder: Path, files: dict[str, bytes | str]) -> Path:
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


TRANSKRIBUS: dict[str, bytes | str] = {
    "1/DOC/mets.xml": METS,
    "1/DOC/metadata.xml": METADATA,
    "1/DOC/0001.png": GRADIENT,
    "1/DOC/0002.png": GRADIENT,
    "1/DOC/page/0001.xml": page_xml(line("first"), image="0001.png"),
    "1/DOC/page/0002.xml": page_xml(line("second"), image="0002.png"),
    "1/DOC/alto/0001.xml": alto(block(WORD), image="0001.png"),
}
ESCRIPTORIUM: dict[str, bytes | str] = {
    "METS.xml": METS,
    "scan one.png": GRADIENT,
    "scan one.xml": alto(block(WORD), image="scan one.png"),
}


def zipped(path: Path, files: dict[str, bytes | str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_a_transkribus_export_is_read_with_everything_beside_it(tmp_path: Path) -> None:
    items = read("page", put(tmp_path / "export", TRANSKRIBUS))
    assert kept(items) == ["first", "second"]
    assert [item.reason for item in items if isinstance(item, Skip)] == ["not PAGE"] * 3
    other = read("alto", tmp_path / "export")
    assert kept(other) == ["word"]


def test_what_else_an_export_holds_is_no_fault(tmp_path: Path) -> None:
    config = {
        "output": str(tmp_path / "out"),
        "sources": [{"format": "page", "path": str(put(tmp_path / "export", TRANSKRIBUS))}],
        "max_skipped": 0,
        "split": {"validation_ratio": 0},
    }
    summary = build(PrepareConfig.model_validate(config))
    assert summary.kept["train"] == 2 and summary.skipped == {"not PAGE": 3}


@pytest.mark.parametrize(
    ("form", "files", "expected"),
    [("page", TRANSKRIBUS, ["first", "second"]), ("alto", ESCRIPTORIUM, ["word"])],
)
def test_a_zip_file_is_read_like_the_folder_in_it(
    tmp_path: Path, form: str, files: dict[str, bytes | str], expected: list[str]
) -> None:
    archive = zipped(tmp_path / "export.zip", files)
    from_zip, from_folder = read(form, archive), read(form, put(tmp_path / "export", files))
    assert kept(from_zip) == kept(from_folder) == expected
    for item, same in zip(from_zip, from_folder, strict=True):
        if isinstance(item, Sample) and isinstance(same, Sample):
            assert (item.id, item.image) == (same.id, same.image)
            assert item.source == f"{form}:{archive}"
        else:
            assert isinstance(item, Skip) and item.where.startswith(str(archive))


def test_a_zip_file_makes_the_same_data_set_wherever_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, made = zipped(tmp_path / "export.zip", TRANSKRIBUS), []
    for number in (1, 2):
        monkeypatch.setenv("LIPI_CACHE", str(tmp_path / f"cache{number}"))
        config = {
            "output": str(tmp_path / f"out{number}"),
            "sources": [{"format": "page", "path": str(archive)}],
            "split": {"validation_ratio": 0},
        }
        build(PrepareConfig.model_validate(config))
        made.append((tmp_path / f"out{number}" / "train.parquet").read_bytes())
    assert made[0] == made[1]


def test_names_in_a_zip_file_are_utf8_marked_or_not(tmp_path: Path) -> None:
    name = "ପୃଷ୍ଠା.png"
    files = {name: GRADIENT, "a.xml": page_xml(line("word"), image=name)}
    archive = zipped(tmp_path / "marked.zip", files)
    assert kept(read("page", archive)) == ["word"]
    data = archive.read_bytes()
    unmarked = bytearray(data)
    for start in range(len(data)):  # bit 11 of the flags says that the name is UTF-8
        if data[start : start + 4] in (b"PK\x03\x04", b"PK\x01\x02"):
            flags = start + (6 if data[start + 2] == 3 else 8)
            unmarked[flags + 1] &= ~0x08
    (tmp_path / "unmarked.zip").write_bytes(unmarked)
    assert kept(read("page", tmp_path / "unmarked.zip")) == ["word"]


def test_a_zip_file_that_is_none_or_leads_out_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"no zip")
    with pytest.raises(UserError, match="not a readable zip file"):
        read("page", tmp_path / "a.zip")
    with pytest.raises(UserError, match="leads out of the zip file"):
        read("page", zipped(tmp_path / "b.zip", {"../../a.xml": "x"}))
    assert not list(tmp_path.glob("*.xml"))


LABEL = "ଶବ୍ଦ"


@pytest.mark.parametrize(
    ("named", "there"),
    [
        ("crop_img\\0.png", "crop_img/0.png"),
        ("C:\\data\\set\\crop_img\\0.png", "crop_img/0.png"),
        ("D:/data/crop_img/0.png", "crop_img/0.png"),
        ("/home/other/data/crop_img/0.png", "crop_img/0.png"),
        (".\\crop_img\\0.png", "crop_img/0.png"),
        ("crop_img/0.PNG", "crop_img/0.png"),
        ("CROP_IMG/0.png", "crop_img/0.png"),
        ("my%20scan.png", "my scan.png"),
        ("%E0%AC%93.png", "ଓ.png"),
        ("file:///data/my%20scan.png", "my scan.png"),
        ("https://host/files/scan.png?size=full", "scan.png"),
        (unicodedata.normalize("NFC", "é.png"), unicodedata.normalize("NFD", "é.png")),
        (unicodedata.normalize("NFD", "é.png"), unicodedata.normalize("NFC", "é.png")),
        ("ক\u09cb\u09dc.png", unicodedata.normalize("NFD", "ক\u09cb\u09dc.png")),
        ("/data/upload/3/0123abcd-scan.png", "scan.png"),
        ("/data/upload/3/0123abcd-scan.png", "0123abcd-scan.png"),
        ("/data/local-files/?d=crops/scan.png", "crops/scan.png"),
    ],
)
def test_every_source_finds_an_image_under_any_of_its_names(
    tmp_path: Path, named: str, there: str
) -> None:
    put(tmp_path, {there: GRADIENT})
    (tmp_path / "labels.txt").write_text(f"{named}\t{LABEL}\n", encoding="utf-8")
    assert texts(read("paddle", tmp_path / "labels.txt")) == [LABEL]
    (tmp_path / "table.tsv").write_text(f"file\ttext\n{named}\t{LABEL}\n", encoding="utf-8")
    assert texts(read("table", tmp_path / "table.tsv")) == [LABEL]
    (tmp_path / "x.json").write_text(json.dumps({"corrected_text": LABEL, "image": named}))
    assert kept(read("corrections", tmp_path)) == [LABEL]
    (tmp_path / "tasks.json").write_text(json.dumps([{"image": named, "transcription": LABEL}]))
    assert texts(read("label_studio", tmp_path / "tasks.json")) == [LABEL]
    (tmp_path / "y.xml").write_text(page_xml(line(LABEL), image=named.replace("&", "&amp;")))
    assert kept(read("page", tmp_path)) == [LABEL]


def test_several_files_that_differ_by_case_alone_are_named(tmp_path: Path) -> None:
    put(tmp_path, {"A.png": GRADIENT, "a.PNG": GRADIENT})
    (tmp_path / "labels.txt").write_text("a.png\tx\nA.png\ty\n")
    first, second = read("paddle", tmp_path / "labels.txt")
    assert isinstance(first, Skip) and first.reason == "several files of that name"
    assert isinstance(second, Sample)


def test_calamaris_and_ocropys_images_are_found(tmp_path: Path) -> None:
    put(tmp_path, {"000000.bin.png": GRADIENT, "000000.gt.txt": "a", "b.nrm.png": GRADIENT})
    put(tmp_path, {"b.gt.txt": "b", "c.bin.png": GRADIENT, "c.png": GRADIENT, "c.gt.txt": "c"})
    put(tmp_path, {"e.gt.txt": "e", unicodedata.normalize("NFD", "é.png"): GRADIENT})
    put(tmp_path, {unicodedata.normalize("NFC", "é.gt.txt"): "é"})
    items = read("pairs", tmp_path)
    assert kept(items) == ["a", "b", "c", "é"]
    reasons = [item.reason for item in items if isinstance(item, Skip)]
    assert reasons == ["missing image", "not read: image .png"]  # e.gt.txt; c.bin.png


def test_two_variants_of_an_image_are_named(tmp_path: Path) -> None:
    put(tmp_path, {"a.bin.png": GRADIENT, "a.nrm.png": GRADIENT, "a.gt.txt": "a"})
    (skip,) = read("pairs", tmp_path)
    assert isinstance(skip, Skip) and skip.reason == "several files of that name"
    assert "a.bin.png, a.nrm.png" in skip.detail


def test_a_list_of_images_is_a_sample_each(tmp_path: Path) -> None:
    put(
        tmp_path,
        {"crop_img/0.png": GRADIENT, "crop_img/1.png": encode_image(np.eye(20, dtype=np.uint8))},
    )
    content = f'["crop_img/0.png", "crop_img/1.png"]\t{LABEL}\n["crop_img/0.png", "2.png"]\tx\n'
    (tmp_path / "rec.txt").write_text(content, encoding="utf-8")
    items = read("paddle", tmp_path / "rec.txt")
    assert kept(items) == [LABEL, LABEL, "x"]
    (skip,) = [item for item in items if isinstance(item, Skip)]
    assert skip.where.endswith("rec.txt:2[1]") and skip.reason == "missing image"


def test_a_label_file_in_utf16_is_read(tmp_path: Path) -> None:
    put(tmp_path, {"a.png": GRADIENT, "a.gt.txt": "ଶବ୍ଦ ଦୁଇ".encode("utf-16")})
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"):
        content = f"a.png\t{LABEL}\r\na.png\tଦୁଇ\r\n".encode(encoding)
        (tmp_path / "rec.txt").write_bytes(content)
        assert texts(read("paddle", tmp_path / "rec.txt")) == [LABEL, "ଦୁଇ"]
    assert kept(read("pairs", tmp_path)) == ["ଶବ୍ଦ ଦୁଇ"]
    (tmp_path / "t.csv").write_bytes(f"file,text\r\na.png,{LABEL}\r\n".encode("utf-16"))
    assert texts(read("table", tmp_path / "t.csv")) == [LABEL]


def test_a_dictionary_may_have_joiners_as_entries(tmp_path: Path) -> None:
    put(tmp_path, {"a.png": GRADIENT, "rec.txt": "a.png\tর\u200d্যাব\n"})
    (tmp_path / "dict.txt").write_text("র\n\u200d\n্\nয\nা\nব\n", encoding="utf-8")
    options = {"character_dict_path": str(tmp_path / "dict.txt")}
    assert texts(read("paddle", tmp_path / "rec.txt", **options)) == ["র\u200d্যাব"]


def test_a_table_needs_no_settings(tmp_path: Path) -> None:
    put(tmp_path, {"a.png": GRADIENT, "b.png": GRADIENT})
    tables = {
        "one.csv": f'file_name,text\na.png,"{LABEL}, ""x"""\nb.png,007\n',
        "two.csv": f'Image;Transcription\na.png;{LABEL}, "x"\nb.png;007\n'.replace('"', "”"),
        "three.tsv": f'a.png\t{LABEL}, "x"\nb.png\t007\n',
        "four.tsv": f'filename\ttext\na.png\t"{LABEL}, ""x"""\nb.png\t007\n',
    }
    for name, content in tables.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
        expected = [f'{LABEL}, "x"', "007"]
        found = texts(read("table", tmp_path / name))
        assert [text.replace("”", '"') for text in found] == expected, name


def workbook(path: Path, rows: list[list[str]]) -> None:
    """A workbook with shared and inline strings, numbers, and empty cells left out."""
    strings, cells = list[str](), list[str]()
    for number, row in enumerate(rows, start=1):
        written = ""
        for column, value in enumerate(row):
            place = f"{chr(65 + column)}{number}"
            if value.isdecimal():
                written += f'<c r="{place}"><v>{value}</v></c>'
            elif value.startswith("="):
                written += f'<c r="{place}" t="inlineStr"><is><t>{value[1:]}</t></is></c>'
            elif value:
                strings.append(value)
                written += f'<c r="{place}" t="s"><v>{len(strings) - 1}</v></c>'
        cells.append(f'<row r="{number}">{written}</row>')
    main = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    relations = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    shared = "".join(
        f"<si><r><t>{text[:1]}</t></r><r><t>{text[1:]}</t></r></si>" for text in strings
    )
    zipped(
        path,
        {
            "xl/workbook.xml": f'<workbook {main} xmlns:r="{relations}"><sheets>'
            '<sheet name="Labels" sheetId="1" r:id="rId7"/></sheets></workbook>',
            "xl/_rels/workbook.xml.rels": '<Relationships><Relationship Id="rId7" '
            'Target="worksheets/sheet3.xml"/></Relationships>',
            "xl/worksheets/sheet3.xml": f"<worksheet {main}><sheetData>{''.join(cells)}"
            "</sheetData></worksheet>",
            "xl/sharedStrings.xml": f"<sst {main}>{shared}</sst>",
        },
    )


def test_a_workbook_is_a_table(tmp_path: Path) -> None:
    put(tmp_path, {"a.png": GRADIENT})
    rows = [["file", "writer", "text"], ["a.png", "", LABEL], ["a.png", "=w1", "1880"]]
    workbook(tmp_path / "labels.xlsx", [*rows, ["", "", "x"], ["b.png", "", "x"]])
    items = read("table", tmp_path / "labels.xlsx", group_columns={"writer": "writer"})
    assert kept(items) == [LABEL, "1880"]
    groups = [dict(item.group) for item in items if isinstance(item, Sample)]
    assert groups == [{"file": "a.png"}, {"file": "a.png", "writer": "w1"}]
    skips = [(item.where[-2:], item.reason) for item in items if isinstance(item, Skip)]
    assert skips == [(":4", "missing image"), (":5", "missing image")]


@pytest.mark.parametrize(
    ("name", "content", "settings", "says"),
    [
        ("t.csv", "a,b\nx,y\n", {}, "file_column: no column file_name or .*; known: a, b"),
        ("t.csv", "file,text\n", {"text_column": "texts"}, "did you mean 'text'"),
        ("t.csv", 'file,text\na.png,"x\n', {}, "not valid CSV"),
        ("t.csv", "", {}, "no row in it"),
        ("t.xlsx", "no zip", {}, "not a readable workbook"),
        ("t.xls", "x", {}, "expected a table in .csv, .tsv, .xlsx"),
    ],
)
def test_a_table_that_cannot_be_read_is_a_mistake(
    tmp_path: Path, name: str, content: str, settings: dict[str, str], says: str
) -> None:
    put(tmp_path, {name: content})
    with pytest.raises(UserError, match=says):
        read("table", tmp_path / name, **settings)


def result(id: str, kind: str, **value: Any) -> dict[str, Any]:
    size = {"original_width": 100, "original_height": 50}
    return {"id": id, "type": kind, "value": value, **size}


BOX = {"x": 10, "y": 20, "width": 50, "height": 40, "rotation": 0}


def test_label_studios_regions_are_cut_out(tmp_path: Path) -> None:
    put(tmp_path, {"abc/0123abcd-scan.png": GRADIENT})
    results = [
        result("r1", "rectangle", **BOX),
        result("r1", "labels", **BOX, labels=["Text"]),
        result("r1", "textarea", **BOX, text=[LABEL]),
        result("r2", "polygon", points=[[0, 0], [20, 0], [20, 100], [0, 100]]),
        result("r2", "textarea", text=["two"]),
        result("r3", "rectangle", **BOX),
        result("r4", "rectangle", **BOX),
        result("r4", "textarea", text=["a", "b"]),
        result("r5", "choices", choices=["clear"]),
    ]
    old = {"result": [result("r9", "textarea", text=["old"])], "updated_at": "2020"}
    cancelled = {"result": old["result"], "was_cancelled": True, "updated_at": "2030"}
    newest = {"result": results, "updated_at": "2024"}
    tasks = [
        {
            "data": {"ocr": "/data/upload/1/0123abcd-scan.png"},
            "annotations": [newest, old, cancelled],
        },
        {"data": {"ocr": "/data/upload/1/0123abcd-scan.png"}, "annotations": []},
        {"data": {"ocr": "/data/upload/1/gone.png"}, "annotations": [newest]},
        {"data": {"text": "no image"}, "annotations": [newest]},
        "odd",
    ]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    items = read("label_studio", tmp_path / "export.json", images=str(tmp_path / "abc"))
    first, second, *rest = items
    assert isinstance(first, Sample) and isinstance(second, Sample)
    assert (first.text, second.text) == (LABEL, "two")
    greys = open_image(first.image)
    assert greys.shape == (20, 50) and greys[0].tolist() == list(range(10, 60))
    assert open_image(second.image).shape == (50, 20)
    reasons = [item.reason for item in rest if isinstance(item, Skip)]
    assert reasons[:3] == ["region without text", "malformed label", "task without annotation"]
    assert reasons[3:] == ["missing image"] * 6


def test_label_studios_rotated_boxes_are_upright(tmp_path: Path) -> None:
    put(tmp_path, {"a.png": GRADIENT})
    turned = {"x": 60, "y": 20, "width": 15, "height": 50, "rotation": 90}
    results = [result("r", "rectangle", **turned), result("r", "textarea", **turned, text="a")]
    tasks = [{"data": {"image": "a.png"}, "annotations": [{"result": results}]}]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    (sample,) = read("label_studio", tmp_path / "export.json")
    assert isinstance(sample, Sample)
    pixels = open_image(sample.image)
    assert pixels.shape == (25, 15)
    assert pixels[:, 0].tolist() == sorted(pixels[:, 0].tolist(), reverse=True)


def test_label_studios_short_form_is_read(tmp_path: Path) -> None:
    put(tmp_path, {"a.png": GRADIENT})
    shapes = [{**BOX, "original_width": 100, "original_height": 50}] * 2
    tasks = [
        {"ocr": "a.png", "bbox": shapes, "transcription": ["one", "two"], "id": 3},
        {"image": "a.png", "transcription": "whole"},
        {"image": "a.png", "bbox": shapes, "transcription": ["only"]},
        {"image": "a.png"},
    ]
    (tmp_path / "min.json").write_text(json.dumps(tasks))
    items = read("label_studio", tmp_path / "min.json")
    assert kept(items) == ["one", "two", "whole"]
    reasons = [item.reason for item in items if isinstance(item, Skip)]
    assert reasons == ["malformed label", "malformed label", "task without annotation"]


@pytest.mark.parametrize("content", ["{", "3", '"a"'])
def test_an_export_that_is_none_is_a_mistake(tmp_path: Path, content: str) -> None:
    (tmp_path / "export.json").write_text(content)
    with pytest.raises(UserError, match=r"export\.json: "):
        read("label_studio", tmp_path / "export.json")


def test_a_page_in_a_format_that_is_not_read_is_named_or_read_from_its_copy(tmp_path: Path) -> None:
    put(tmp_path, {"a.heic": b"x", "b.xml": page_xml(line("word"), image="a.heic")})
    (skip, unread) = read("page", tmp_path)
    assert isinstance(skip, Skip) and skip.reason == "image of a format that is not read"
    assert "HEIC" in skip.detail and isinstance(unread, Skip)
    put(tmp_path, {"a.png": GRADIENT})
    assert kept(read("page", tmp_path)) == ["word"]

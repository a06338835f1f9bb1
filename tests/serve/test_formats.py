"""Documents over HTTP in every format: the same files as read.py writes; level=auto; words."""

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import defusedxml.ElementTree
import pypdfium2 as pdfium
import pytest
import requests
from PIL import Image

from ocr.dataset.read import Dataset
from ocr.errors import UserError
from ocr.images import open_image
from ocr.reading.config import ReadConfig
from ocr.reading.inputs import Input
from ocr.reading.run import Read, read_each
from ocr.recognizers.factory import load
from ocr.scoring import score_all
from ocr.writers.formats import FORMATS
from serve.client import Client
from serve.formats import format_of
from tests.support.composed_pages import composed_page
from tests.support.running import Running, endpoint


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with endpoint(tmp_path_factory.mktemp("serve"), "autoscaling.max_replicas=1") as found:
        yield found


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page, a PDF of two, and a word."""
    folder = tmp_path_factory.mktemp("files")
    data = Dataset.open("odia_words", "validation")
    words = [open_image(data.image_bytes(index)) for index in range(60)]
    made = [composed_page(words, data.texts[:60], 1, 0.0, seed)[0] for seed in (1, 2)]
    pages = [Image.fromarray(page[:360, :760]) for page in made]
    pages[0].save(folder / "page.png")
    pages[0].save(folder / "two.pdf", save_all=True, append_images=pages[1:], resolution=200)
    Image.fromarray(words[0]).save(folder / "word.png")
    return {file.stem: file for file in folder.iterdir()}


@pytest.fixture(scope="module")
def read(files: dict[str, Path]) -> dict[str, Read]:
    """What `read.py format=alto` reads of them: a word as a line, the others as pages."""
    items = [Input(str(path), name) for name, path in files.items()]
    found = read_each(load("odia"), items, ReadConfig(format="alto"))
    return {one.item.target: one for one in found if isinstance(one, Read)}


def posted(running: Running, file: Path, query: str, **headers: str) -> requests.Response:
    kind = {"Content-Type": "application/octet-stream", **headers}
    address = f"{running.address}/v1/ocr?{query}"
    return requests.post(address, data=file.read_bytes(), headers=kind, timeout=60)


def page_text(pdf: bytes, number: int) -> str:
    text = str(pdfium.PdfDocument(pdf)[number].get_textpage().get_text_range())
    assert len(text.split()) > 5
    return text


@pytest.mark.parametrize("format", [name for name in FORMATS if name not in ("json", "pdf")])
def test_a_page_is_answered_as_the_file_that_is_written_of_it(
    format: str, running: Running, files: dict[str, Path], read: dict[str, Read]
) -> None:
    answered = posted(running, files["page"], f"level=page&format={format}")
    assert answered.status_code == 200, answered.text
    assert answered.headers["content-type"].startswith(FORMATS[format].media_type)
    assert answered.headers["x-model"].startswith("base-odia@")
    document = read["page"].document
    expected = FORMATS[format].write(document, {}, b"").decode()
    assert undated(answered.text) == undated(expected.replace(document.source, "image"))
    by_type = posted(running, files["page"], "level=page", Accept=FORMATS[format].media_type)
    assert undated(by_type.text) == undated(answered.text)


def undated(text: str) -> str:
    """PAGE-XML has the time of writing."""
    return re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", "", text)


def test_a_document_of_two_pages(
    running: Running, files: dict[str, Path], read: dict[str, Read]
) -> None:
    text = posted(running, files["two"], "level=page&format=text").text
    assert text.split() == read["two"].document.text.split() and text.count("\f") >= 1
    pdf = posted(running, files["two"], "level=page&format=pdf")
    assert pdf.headers["content-type"] == "application/pdf"
    written = FORMATS["pdf"].write(read["two"].document, {}, files["two"].read_bytes())
    assert [page_text(pdf.content, number) for number in (0, 1)] == [
        page_text(written, number) for number in (0, 1)
    ]
    alto = posted(running, files["two"], "level=page&format=alto")
    assert alto.headers["content-type"] == "application/zip"
    archive = zipfile.ZipFile(io.BytesIO(alto.content))
    assert archive.namelist() == ["image-0001.xml", "image-0002.xml"]
    for name in archive.namelist():
        assert defusedxml.ElementTree.fromstring(archive.read(name)).tag.endswith("alto")


def test_words_come_with_their_boxes_where_they_are_asked_for(
    running: Running, files: dict[str, Path], read: dict[str, Read]
) -> None:
    plain = posted(running, files["page"], "level=page").json()
    assert "words" not in plain["pages"][0]["lines"][0]
    found = posted(running, files["page"], "level=page&detail=words").json()["pages"][0]["lines"]
    expected = json.loads(FORMATS["json"].write(read["page"].document, {}, b""))["pages"][0]
    both = zip(found, expected["lines"], strict=True)
    for line, ours in both:
        assert [word["text"] for word in line["words"]] == line["text"].split()
        assert [word["box"] for word in line["words"]] == [word["box"] for word in ours["words"]]
    (line,) = posted(running, files["word"], "detail=words").json()["lines"]
    assert [word["text"] for word in line["words"]] == [line["text"]]
    together = posted(running, files["page"], "level=page&detail=words,images").json()["pages"][0]
    assert together["image"] and together["lines"][0]["words"]


def test_a_page_upside_down_is_read_and_said(
    running: Running, files: dict[str, Path], tmp_path: Path
) -> None:
    upright = posted(running, files["page"], "level=page").json()
    assert abs(upright["pages"][0]["degrees"]) < 1
    Image.open(files["page"]).rotate(180).save(tmp_path / "turned.png")
    turned = posted(running, tmp_path / "turned.png", "level=page&detail=words").json()
    assert abs(turned["pages"][0]["degrees"] - 180) < 1
    assert all(abs(line["degrees"] - 180) < 1 for line in turned["pages"][0]["lines"])
    assert score_all([(upright["text"], turned["text"])]).cer < 0.1


def test_the_level_is_found_by_kind_and_shape(
    running: Running, files: dict[str, Path], read: dict[str, Read]
) -> None:
    for name, level in (("word", "line"), ("page", "page"), ("two", "page")):
        found = posted(running, files[name], "level=auto").json()
        assert found["level"] == level == read[name].level
        assert found["text"].split() == read[name].document.text.split()
        assert ("pages" in found) == (level == "page")
    form = [("image", (path.name, path.read_bytes())) for path in files.values()]
    address = f"{running.address}/v1/ocr?level=auto"
    several = requests.post(address, files=form, timeout=60).json()["results"]
    assert {one["name"]: one["level"] for one in several} == {
        "page.png": "page",
        "two.pdf": "page",
        "word.png": "line",
    }


def test_what_cannot_be_written_is_refused(running: Running, files: dict[str, Path]) -> None:
    refused = posted(running, files["page"], "level=page&format=docx")
    assert refused.status_code == 400 and refused.json()["error"]["code"] == "bad_format"
    form = [("image", ("a.png", files["word"].read_bytes()))] * 2
    address = f"{running.address}/v1/ocr?format=alto"
    several = requests.post(address, files=form, timeout=60)
    assert several.status_code == 400 and several.json()["error"]["code"] == "one_document"
    bad = requests.post(address, files=[("image", ("a.png", b"nonsense"))], timeout=60)
    assert bad.status_code == 422 and bad.json()["error"]["code"] == "not_a_readable_image"


def test_the_client_reads_pages_and_documents(
    running: Running, files: dict[str, Path], read: dict[str, Read]
) -> None:
    client = Client(running.address)
    page, two = client.read([files["page"], files["two"].read_bytes()], level="page")
    assert page.text.split() == read["page"].document.text.split() and page.confidence > 0.3
    assert two.text.split() == read["two"].document.text.split()
    assert client.read(files["word"], level="auto").text == read["word"].document.text
    assert client.read_document(files["two"]).decode().split() == two.text.split()
    assert client.read_document(files["two"], format="pdf").startswith(b"%PDF")
    (value,) = [json.loads(client.read_document(files["page"], format="json"))]
    assert value["text"] == page.text and value["pages"]
    with pytest.raises(UserError, match="not a readable image"):
        client.read_document(b"nonsense", format="alto")


@pytest.mark.parametrize(
    ("accept", "format"),
    [
        ("", "json"),
        ("*/*", "json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "json"),
        ("application/json, text/plain, */*", "json"),
        ("application/PDF;q=0.9", "pdf"),
        ("image/png, text/plain", "text"),
    ],
)
def test_accept_names_a_format(accept: str, format: str) -> None:
    assert format_of(None, accept) == format
    assert format_of("tsv", accept) == "tsv"

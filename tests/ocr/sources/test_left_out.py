"""Nothing is left out without a count: stray lines, further frames, unread files, lost letters."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ocr.dataset.build import build
from ocr.dataset.config import PrepareConfig
from ocr.errors import UserError
from ocr.images import ImageRefused, encode_image, image_size, open_image
from ocr.sample import Sample, Skip
from ocr.sources.settings import CorrectionsSettings, HuggingFaceSettings, PairsSettings
from tests.ocr.sources.test_layout import (
    SQUARE,
    WORD,
    alto,
    block,
    line,
    page_xml,
    read,
    texts,
)
from tests.ocr.sources.test_layout import folder as folder
from tests.support.sources import read_source

PLACE = 'HPOS="10" VPOS="10" WIDTH="50" HEIGHT="20"'
LINE = f'<TextLine ID="l" {PLACE}>{WORD}</TextLine>'


@pytest.mark.parametrize(
    "inner",
    [
        LINE,
        f"<ComposedBlock>{LINE}</ComposedBlock>",
        f"<ComposedBlock><ComposedBlock>{LINE}</ComposedBlock></ComposedBlock>",
        f'<TextBlock ID="b"><TextBlock ID="c">{LINE}</TextBlock></TextBlock>',
        f"<OwnBlock>{LINE}</OwnBlock>",
        f'<TextBlock ID="b"><Inner>{LINE}</Inner></TextBlock>',
    ],
)
def test_alto_lines_are_found_wherever_they_stand(folder: Path, inner: str) -> None:
    assert texts(read(folder, alto(inner))) == ["word"]
    outside = alto("").replace("<PrintSpace></PrintSpace>", inner)
    assert texts(read(folder, outside)) == ["word"]


def test_lines_without_any_id_have_ids_of_their_own(folder: Path) -> None:
    bare = f"<TextBlock><TextLine {PLACE}>{WORD}</TextLine></TextBlock>"
    items = read(folder, alto(bare + bare + f"<ComposedBlock>{bare}</ComposedBlock>"))
    assert len({item.id for item in items if isinstance(item, Sample)}) == 3


@pytest.mark.parametrize(
    "wrapped",
    [
        "{}",
        '<TableRegion id="t"><TableCell id="c">{}</TableCell></TableRegion>',
        '<TableRegion id="t">{}</TableRegion>',
        '<GraphicRegion id="g">{}</GraphicRegion>',
        '<AdvertRegion id="a"><TextRegion id="r2"><TextRegion id="r3">{}</TextRegion></TextRegion>'
        "</AdvertRegion>",
        "<OwnElement>{}</OwnElement>",
    ],
)
def test_page_lines_are_found_wherever_they_stand(folder: Path, wrapped: str) -> None:
    xml = page_xml("").replace("</Page>", f"{wrapped.format(line('stray'))}</Page>")
    assert texts(read(folder, xml)) == ["stray"]


def test_words_outside_a_line_are_counted(folder: Path) -> None:
    text = "<TextEquiv><Unicode>a</Unicode></TextEquiv>"
    word = f'<Word id="w"><Coords points="{SQUARE}"/>{text}</Word>'
    for xml in (page_xml(word + line("b")), alto(f'<TextBlock ID="b">{WORD}{LINE}</TextBlock>')):
        items = read(folder, xml)
        reasons = [item.reason for item in items if isinstance(item, Skip)]
        assert reasons == ["words outside a line"] and len(items) == 2


@pytest.mark.parametrize("xml", [page_xml(""), alto(""), alto('<TextBlock ID="b"/>')])
def test_a_file_of_which_nothing_comes_is_counted_and_says_why(folder: Path, xml: str) -> None:
    (skip,) = read(folder, xml)
    assert isinstance(skip, Skip) and skip.reason == "page without such pieces"
    (skip,) = read(folder, alto(block("")), levels=["word"])
    assert isinstance(skip, Skip) and skip.detail == "no word in it"


@pytest.mark.parametrize(
    ("xml", "attribute"),
    [
        (alto(block(WORD).replace("<TextBlock", '<TextBlock ROTATION="false"')), "ROTATION"),
        (alto(block(WORD.replace('WIDTH="50"', 'WIDTH="wide"'))), "WIDTH"),
        (alto(block(WORD).replace('HPOS="10"', 'HPOS="10px"')), "HPOS"),
        (alto(block(WORD.replace("/>", ' WC="sure"/>'))), "WC"),
        (page_xml(line(), region='id="r" orientation="left"'), "orientation"),
    ],
)
def test_an_odd_attribute_costs_its_element_and_not_its_page(
    folder: Path, xml: str, attribute: str
) -> None:
    good = (
        block(WORD).replace('ID="b"', 'ID="c"').replace('ID="l"', 'ID="m"')
        if "<alto" in xml
        else f'<TextRegion id="s"><Coords points="{SQUARE}"/>{line("word")}</TextRegion>'
    )
    whole = xml.replace("</PrintSpace>", f"{good}</PrintSpace>").replace(
        "</Page>", f"{good}</Page>"
    )
    whole = whole.replace(f"</PrintSpace>{good}", "</PrintSpace>")
    items = read(folder, whole, levels=["line", "word"] if "<alto" in xml else ["line"])
    odd = [item for item in items if isinstance(item, Skip)]
    assert odd and all(item.reason == "odd attribute" for item in odd)
    assert all(attribute in item.detail for item in odd)
    assert "word" in [item.text for item in items if isinstance(item, Sample)]


def test_alto_of_several_pages_is_several_pages(folder: Path) -> None:
    (folder / "b.png").write_bytes(encode_image(np.full((50, 100), 7, np.uint8)))
    second = f'<Page WIDTH="100" HEIGHT="50"><PrintSpace>{block(WORD)}</PrintSpace></Page></Layout>'
    two = alto(block(WORD)).replace("</Layout>", second)
    named = two.replace(
        "</fileName>",
        "</fileName></sourceImageInformation><sourceImageInformation><fileName>b.png</fileName>",
    )
    first, other = read(folder, named)
    assert isinstance(first, Sample) and isinstance(other, Sample)
    assert (first.id, other.id) == ("a.xml/page1#l", "a.xml/page2#l")
    assert dict(other.group)["page"] == "a.xml/page2"
    assert open_image(other.image).max() == 7 < open_image(first.image).max()
    (folder / "b.png").unlink()
    skips = read(folder, two)  # one for each line that is lost
    assert [skip.reason for skip in skips if isinstance(skip, Skip)] == [
        "several pages in one file"
    ] * len(skips)
    assert len(skips) == 2


HIDDEN = "line where none may stand"


@pytest.mark.parametrize(
    ("xml", "lost"),
    [
        (page_xml(line(inner=line("inner", attributes='id="i"'))), 1),
        (page_xml(line(f"a{line('inner')}b")), 1),
        (page_xml(line()).replace("</Page>", f"</Page><Page>{line() + line()}</Page>"), 2),
        (page_xml(line()).replace("<Page ", f"<Metadata>{line()}</Metadata><Page "), 1),
        (alto(block(f"{WORD}{LINE}")), 1),
        (alto(block(WORD)).replace("</Description>", f"{LINE}{LINE}</Description>"), 2),
    ],
    ids=["in a line", "in a text", "second page", "metadata", "alto line", "alto description"],
)
def test_lines_where_none_may_stand_are_counted(folder: Path, xml: str, lost: int) -> None:
    items = read(folder, xml)
    assert [item.reason for item in items if isinstance(item, Skip)] == [HIDDEN] * lost
    assert sum(isinstance(item, Sample) for item in items) == 1


@pytest.mark.parametrize("value", ["NaN", "1e999", "-inf"])
def test_numbers_that_are_none_cost_their_element(folder: Path, value: str) -> None:
    (skip,) = read(folder, alto(block(WORD)).replace('HPOS="10"', f'HPOS="{value}"'))
    assert isinstance(skip, Skip) and skip.reason == "odd attribute"


def test_points_far_off_the_page_are_cut_at_its_edge(folder: Path) -> None:
    (far,) = read(folder, page_xml(line(points="10,10 99999999999999999999,10 60,30 10,30")))
    assert isinstance(far, Sample) and open_image(far.image).shape[1] <= 100


def frames(format: str, count: int = 3) -> bytes:
    noise = np.random.Generator(np.random.Philox(key=1)).integers(0, 255, (20, 60), dtype=np.uint8)
    images = [Image.fromarray(np.roll(noise, step)) for step in range(count)]
    buffer = io.BytesIO()
    images[0].save(buffer, format, save_all=True, append_images=images[1:])
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("format", "says"),
    [
        ("TIFF", "several pages: 3 pages in one file; split it"),
        ("GIF", "several frames: an animation of 3 frames"),
        ("WEBP", "several frames: an animation of 3 frames"),
        ("PNG", "several frames: an animation of 3 frames"),
    ],
)
def test_an_image_of_several_frames_is_refused_by_name(
    tmp_path: Path, format: str, says: str
) -> None:
    for look in (open_image, image_size):
        with pytest.raises(ImageRefused, match=says):
            look(frames(format))
    assert open_image(frames(format, 1)).shape == (20, 60)


def test_a_small_copy_in_a_tiff_is_no_page() -> None:
    image, buffer = Image.fromarray(np.full((40, 80), 9, np.uint8)), io.BytesIO()
    small = image.resize((8, 4))
    small.encoderinfo = {"tiffinfo": {254: 1}}
    image.save(buffer, "TIFF", save_all=True, append_images=[small])
    with Image.open(buffer) as both:
        assert both.n_frames == 2
    assert open_image(buffer.getvalue()).shape == (40, 80)


def test_prepare_counts_images_of_several_frames(tmp_path: Path) -> None:
    for name, data in (("a.tif", frames("TIFF")), ("b.gif", frames("GIF"))):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "c.png").write_bytes(frames("PNG", 1))
    for name in "abc":
        (tmp_path / f"{name}.gt.txt").write_text(name)
    config = {
        "output": str(tmp_path / "out"),
        "sources": [{"format": "pairs", "path": str(tmp_path)}],
        "max_skipped": 1,
    }
    summary = build(PrepareConfig.model_validate(config))
    assert summary.skipped == {"several pages": 1, "several frames": 1}


def test_files_of_a_folder_that_nothing_names_are_counted(folder: Path) -> None:
    for name in ("b.png", "notes.docx", "c.json", "sub/d.tif", ".hidden"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    unread = {"b.png": "image .png", "notes.docx": "file .docx", "c.json": "file .json"}
    expected = {
        str(folder / name): f"not read: {kind}"
        for name, kind in {**unread, "sub/d.tif": "image .tif"}.items()
    }
    layout = read(folder, page_xml(line()))
    assert {one.where: one.reason for one in layout if isinstance(one, Skip)} == expected
    (folder / "a.xml").unlink()
    (folder / "a.gt.txt").write_text("a")
    pairs = list(read_source(PairsSettings(path=str(folder))))
    assert {one.where: one.reason for one in pairs if isinstance(one, Skip)} == expected
    (folder / "a.gt.txt").unlink()
    (folder / "x.json").write_text(json.dumps({"corrected_text": "a", "image": "a.png"}))
    (folder / "c.json").unlink()
    corrections = list(read_source(CorrectionsSettings(path=str(folder))))
    del expected[str(folder / "c.json")]
    assert {one.where: one.reason for one in corrections if isinstance(one, Skip)} == expected


def test_what_is_not_read_is_no_fault_but_a_source_of_nothing_else_is_an_error(
    folder: Path,
) -> None:
    (folder / "notes.docx").write_bytes(b"x")
    (folder / "a.xml").write_text(alto(block(WORD)))
    config = {"output": str(folder.parent / "out"), "sources": [], "split": {"validation_ratio": 0}}
    config["sources"] = [{"format": "alto", "path": str(folder)}]
    summary = build(PrepareConfig.model_validate(config))
    assert summary.skipped == {"not read: file .docx": 1}
    config["sources"] = [{"format": "page", "path": str(folder)}]
    with pytest.raises(UserError, match=r"source 1 .page.: no sample was kept .* not PAGE"):
        build(PrepareConfig.model_validate(config))


def lettered(letters: int, paper_alpha: int = 0, mode: str = "RGBA") -> bytes:
    pixels = np.zeros((20, 60, 4), np.uint8)
    pixels[..., :3], pixels[..., 3] = letters, paper_alpha
    pixels[5:15, 10:50:4, 3] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["L", "RGB", "as it is"])
@pytest.mark.parametrize("kind", ["RGBA", "LA"])
@pytest.mark.parametrize("grey", [0, 100, 200, 235, 255])
def test_letters_on_transparency_are_seen(mode: str, kind: str, grey: int) -> None:
    pixels = open_image(lettered(grey, mode=kind), mode)  # type: ignore[arg-type]
    assert int(pixels.max()) - int(pixels.min()) >= 48


def test_black_letters_on_transparency_stay_over_white() -> None:
    assert open_image(lettered(0))[0, 0] == 255
    assert open_image(lettered(255))[0, 0] == 0


def test_prepare_counts_images_without_any_contrast(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode_image(np.full((20, 60), 200, np.uint8)))
    (tmp_path / "a.gt.txt").write_text("a")
    config = {
        "output": str(tmp_path.parent / "plain"),
        "sources": [{"format": "pairs", "path": str(tmp_path)}],
        "split": {"validation_ratio": 0},
    }
    table = build(PrepareConfig.model_validate(config)).table
    assert "image: image without contrast: 1 times, such as a" in table


def test_images_that_no_metadata_names_are_counted(tmp_path: Path) -> None:
    for name in ("train/a.png", "train/b.png", "c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(frames("PNG", 1))
    (tmp_path / "train" / "metadata.csv").write_text("file_name,text\na.png,x\n")
    items = list(read_source(HuggingFaceSettings(path=str(tmp_path))))
    left_out = {one.where: one.reason for one in items if isinstance(one, Skip)}
    assert len(items) == 3 and left_out == {
        str(tmp_path / "train/b.png"): "not read: image .png",
        str(tmp_path / "c.txt"): "not read: file .txt",
    }

"""PAGE and ALTO of every kind: versions, units, reading orders, and all possible faults.

Over 300 lines: each test is checked for both formats by the same helpers.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ocr.images import ImageRefused, cut, encode_image, open_image
from ocr.sample import Sample, Skip
from ocr.sources.settings import AltoSettings, PageSettings
from tests.support.sources import read_source

SQUARE = "10,10 60,10 60,30 10,30"


def page_xml(
    lines: str,
    image: str = "a.png",
    order: str = "",
    region: str = 'id="r"',
    namespace: str = "2019-07-15",
) -> str:
    return (
        f'<PcGts xmlns="http://schema.primaresearch.org/PAGE/gts/pagecontent/{namespace}">'
        f'<Page imageFilename="{image}" imageWidth="100" imageHeight="50">'
        f'{order}<TextRegion {region}><Coords points="{SQUARE}"/>{lines}</TextRegion></Page>'
        "</PcGts>"
    )


def line(
    text: str | None = "word", points: str = SQUARE, attributes: str = 'id="l"', inner: str = ""
) -> str:
    equivalent = "" if text is None else f"<TextEquiv><Unicode>{text}</Unicode></TextEquiv>"
    return f'<TextLine {attributes}><Coords points="{points}"/>{inner}{equivalent}</TextLine>'


def alto(
    inner: str, unit: str = "pixel", page: str = 'WIDTH="100" HEIGHT="50"', image: str = "a.png"
) -> str:
    return (
        '<alto xmlns="http://www.loc.gov/standards/alto/ns-v3#"><Description>'
        f"<MeasurementUnit>{unit}</MeasurementUnit><sourceImageInformation>"
        f"<fileName>{image}</fileName></sourceImageInformation></Description><Layout><Page "
        f"{page}><PrintSpace>{inner}</PrintSpace></Page></Layout></alto>"
    )


def block(content: str, position: str = 'HPOS="10" VPOS="10" WIDTH="50" HEIGHT="20"') -> str:
    return (
        f'<TextBlock ID="b" {position}><TextLine ID="l" {position}>{content}</TextLine></TextBlock>'
    )


WORD = '<String CONTENT="word" HPOS="10" VPOS="10" WIDTH="50" HEIGHT="20"/>'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    gradient = np.tile(np.arange(100, dtype=np.uint8), (50, 1))
    (tmp_path / "a.png").write_bytes(encode_image(gradient))
    return tmp_path


def read(folder: Path, xml: str | bytes, **more: Any) -> list[Sample | Skip]:
    (folder / "a.xml").write_bytes(xml if isinstance(xml, bytes) else xml.encode())
    kind = AltoSettings if b"<alto" in (folder / "a.xml").read_bytes() else PageSettings
    return list(read_source(kind.model_validate({"path": str(folder), **more})))


def texts(items: list[Sample | Skip]) -> list[str]:
    assert all(isinstance(item, Sample) for item in items), items
    return [item.text for item in items if isinstance(item, Sample)]


def test_a_line_is_cut_at_its_polygon(folder: Path) -> None:
    (sample,) = read(folder, page_xml(line()))
    assert (
        isinstance(sample, Sample)
        and sample.id == "a.xml#l"
        and dict(sample.group) == {"page": "a.xml"}
    )
    assert np.array_equal(
        open_image(sample.image), np.tile(np.arange(10, 60, dtype=np.uint8), (20, 1))
    )


@pytest.mark.parametrize(
    "namespace", ["2013-07-15", "2016-07-15", "2017-07-15", "2018-07-15", "2019-07-15"]
)
def test_every_version_of_page_reads_alike(folder: Path, namespace: str) -> None:
    assert texts(read(folder, page_xml(line(), namespace=namespace))) == ["word"]


def test_page_2010_writes_points_as_elements(folder: Path) -> None:
    points = "".join(
        f'<Point x="{point.split(",")[0]}" y="{point.split(",")[1]}"/>' for point in SQUARE.split()
    )
    xml = page_xml(line()).replace(f'<Coords points="{SQUARE}"/>', f"<Coords>{points}</Coords>")
    assert texts(read(folder, xml)) == ["word"]


def test_the_text_with_the_lowest_index_counts(folder: Path) -> None:
    several = "".join(
        f'<TextEquiv index="{index}"><Unicode>{text}</Unicode></TextEquiv>'
        for index, text in ((2, "c"), (0, "a"), (1, "b"))
    )
    assert texts(read(folder, page_xml(line(None, inner=several)))) == ["a"]


def test_a_line_without_text_is_spelt_by_its_words_and_a_word_by_its_glyphs(folder: Path) -> None:
    glyphs = "".join(
        f'<Glyph><Coords points="{SQUARE}"/><TextEquiv><Unicode>{letter}</Unicode></TextEquiv>'
        "</Glyph>"
        for letter in "ab"
    )
    words = (
        f'<Word id="w1"><Coords points="{SQUARE}"/>{glyphs}</Word><Word id="w2"><Coords '
        f'points="{SQUARE}"/><TextEquiv><Unicode>c</Unicode></TextEquiv></Word>'
    )
    assert texts(read(folder, page_xml(line(None, inner=words)), levels=["line", "word"])) == [
        "ab c",
        "ab",
        "c",
    ]


def test_unsure_text_is_left_out_when_asked(folder: Path) -> None:
    unsure = '<TextEquiv conf="0.4"><Unicode>a</Unicode></TextEquiv>'
    (skip,) = read(folder, page_xml(line(None, inner=unsure)), min_confidence=0.5)
    assert isinstance(skip, Skip) and skip.reason == "text not sure enough"


def test_nested_groups_and_custom_orders_decide_the_reading_order(folder: Path) -> None:
    order = (
        '<ReadingOrder><OrderedGroup id="g"><UnorderedGroupIndexed index="1" id="u">'
        '<RegionRef regionRef="r"/></UnorderedGroupIndexed>'
        '<RegionRefIndexed index="0" regionRef="s"/></OrderedGroup></ReadingOrder>'
    )
    lines = "".join(
        line(text, attributes=f'id="{text}" custom="readingOrder {{index:{position};}}"')
        for position, text in ((1, "second"), (0, "first"))
    )
    xml = page_xml(lines, order=order).replace(
        "</Page>",
        f'<TextRegion id="s"><Coords points="{SQUARE}"/>{line("zeroth")}</TextRegion></Page>',
    )
    assert texts(read(folder, xml)) == ["zeroth", "first", "second"]


def test_text_in_a_table_is_found(folder: Path) -> None:
    xml = page_xml("").replace(
        "</Page>",
        f'<TableRegion id="t"><Coords points="{SQUARE}"/><TextRegion '
        f'id="cell">{line("cell")}</TextRegion></TableRegion></Page>',
    )
    assert texts(read(folder, xml)) == ["cell"]


def test_a_baseline_that_leans_turns_the_line_upright(folder: Path) -> None:
    page = np.full((200, 200), 255, np.uint8)
    for step in range(100):
        page[50 + step - 3 : 50 + step + 4, 50 + step] = 0
    (folder / "a.png").write_bytes(encode_image(page))
    polygon, baseline = "40,60 60,40 160,140 140,160", '<Baseline points="50,60 140,150"/>'
    xml = page_xml(line(points=polygon, inner=baseline)).replace(
        'imageWidth="100" imageHeight="50"', 'imageWidth="200" imageHeight="200"'
    )
    (sample,) = read(folder, xml)
    assert isinstance(sample, Sample)
    pixels = open_image(sample.image)
    assert pixels.shape[1] == pytest.approx(100 * np.sqrt(2), abs=3) and pixels.shape[
        0
    ] == pytest.approx(20 * np.sqrt(2), abs=3)
    ink_rows = np.flatnonzero((pixels < 128).mean(axis=1) > 0.3)
    assert len(ink_rows) < 8 and abs(ink_rows.mean() - pixels.shape[0] / 2) < 3


@pytest.mark.parametrize(("unit", "factor"), [("pixel", 1), ("mm10", 0.847), ("inch1200", 4)])
def test_alto_places_are_shares_of_the_page_in_any_unit(
    folder: Path, unit: str, factor: float
) -> None:
    position = (
        f'HPOS="{10 * factor}" VPOS="{10 * factor}" WIDTH="{50 * factor}" HEIGHT="{20 * factor}"'
    )
    (sample,) = read(
        folder,
        alto(
            block('<String CONTENT="word"/>', position),
            unit,
            f'WIDTH="{100 * factor}" HEIGHT="{50 * factor}"',
        ),
    )
    assert isinstance(sample, Sample) and open_image(sample.image).shape == (20, 50)


@pytest.mark.parametrize("version", ["ns-v2#", "ns-v3#", "ns-v4#"])
def test_every_version_of_alto_reads_alike(folder: Path, version: str) -> None:
    assert texts(read(folder, alto(block(WORD)).replace("ns-v3#", version))) == ["word"]


def test_alto_words_are_spaced_as_sp_says_and_a_hyphen_is_shown(folder: Path) -> None:
    spaced = (
        '<String CONTENT="a"/><SP/><String CONTENT="b"/><String CONTENT="c" '
        'SUBS_TYPE="HypPart1" SUBS_CONTENT="cd"/><HYP CONTENT="\u00ad"/>'
    )
    assert texts(read(folder, alto(block(spaced)))) == ["a bc-"]
    assert texts(read(folder, alto(block('<String CONTENT="a"/><String CONTENT="b"/>')))) == ["a b"]


def test_alto_in_millimetres_without_a_page_size_is_refused(folder: Path) -> None:
    (skip,) = read(folder, alto(block(WORD), "mm10", ""))
    assert isinstance(skip, Skip) and skip.reason == "page without a size" and "mm10" in skip.detail


BILLION_LAUGHS = (
    '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]><PcGts>'
    "<Page>&b;</Page></PcGts>"
)
EXTERNAL = '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><PcGts><Page>&e;</Page></PcGts>'


@pytest.mark.parametrize(
    ("xml", "reason"),
    [
        ("", "not valid XML"),
        ("<PcGts><Page>", "not valid XML"),
        (b'<?xml version="1.0" encoding="no-such"?><PcGts/>', "not valid XML"),
        ("<html/>", "not PAGE"),
        (BILLION_LAUGHS, "XML with entities or a DTD"),
        (EXTERNAL, "XML with entities or a DTD"),
        (page_xml(line()).replace('imageWidth="100"', 'imageWidth="wide"'), "odd attribute"),
        (page_xml(line(), image="none.png"), "missing image"),
        (page_xml(line(), image=f"{'../' * 12}etc/passwd"), "path outside the images folder"),
        (page_xml(line(points="200,10 250,10 250,30")), "polygon outside the image"),
        (page_xml(line(points="10,10 60,10 10,10")), "polygon without area"),
        (page_xml(line(points="10,10")), "no place on the page"),
        (page_xml(line(points="nan,1 inf,2 3,4")), "no place on the page"),
        (page_xml(line("")), "empty text"),
        (page_xml(line("  ")), "empty text"),
        (page_xml(line(None)), "empty text"),
        (alto('<TextBlock ID="b"><TextLine ID="l"/></TextBlock>'), "empty text"),
        (
            page_xml(line()).replace('imageHeight="50"', 'imageHeight="500"'),
            "image of another shape",
        ),
    ],
)
def test_what_is_wrong_is_named(folder: Path, xml: str | bytes, reason: str) -> None:
    if b"none.png" in (xml if isinstance(xml, bytes) else xml.encode()):
        (folder / "a.png").unlink()
    (skip,) = read(folder, xml)
    assert isinstance(skip, Skip) and skip.reason == reason, skip


def test_a_link_out_of_the_folder_is_not_followed(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "a.png"
    (folder / "a.png").rename(elsewhere)
    (folder / "a.png").symlink_to(elsewhere)
    (skip,) = read(folder, page_xml(line()))
    assert isinstance(skip, Skip) and skip.reason == "path outside the images folder"


@pytest.mark.parametrize(
    ("named", "there"),
    [
        ("A.PNG", "a.png"),
        ("a.png", "A.PNG"),
        ("C:\\scans\\a.png", "a.png"),
        ("/data/scans/a.png", "a.png"),
        ("", "a.png"),
        ("other.tif", "a.png"),
    ],
)
def test_the_image_is_found_beside_the_xml(folder: Path, named: str, there: str) -> None:
    (folder / "a.png").rename(folder / there)
    assert texts(read(folder, page_xml(line(), image=named))) == ["word"]


def test_a_path_from_a_folder_above_is_found(folder: Path) -> None:
    """OCR-D's workspaces: XML in one folder, images in its neighbour, named from their parent."""
    (folder / "IMG").mkdir()
    (folder / "a.png").rename(folder / "IMG" / "x.png")
    (folder / "GT").mkdir()
    (folder / "GT" / "a.xml").write_text(page_xml(line(), image="IMG/x.png"))
    assert texts(list(read_source(PageSettings(path=str(folder))))) == ["word"]


def test_an_untranscribed_line_spoils_its_paragraph_and_page_but_an_empty_region_does_not(
    folder: Path,
) -> None:
    two = page_xml(line("a") + line(None, attributes='id="m"'))
    assert [
        item.reason
        for item in read(folder, two, levels=["paragraph", "page"])
        if isinstance(item, Skip)
    ] == ["a line in it has no text"] * 2
    drawing = page_xml(line("a")).replace(
        "</Page>", f'<TextRegion id="s"><Coords points="{SQUARE}"/></TextRegion></Page>'
    )
    items = read(folder, drawing, levels=["paragraph", "page"])
    assert [item.reason if isinstance(item, Skip) else item.text for item in items] == [
        "a",
        "a",
        "region without text",
    ]


def test_quarter_turns_lose_no_pixel() -> None:
    page = np.random.Generator(np.random.Philox(key=1)).integers(0, 255, (40, 60), dtype=np.uint8)
    box = np.array([(10, 5), (30, 5), (30, 35), (10, 35)], dtype=np.float64)
    for quarter in range(-4, 5):
        assert np.array_equal(cut(page, box, 90.0 * quarter), np.rot90(page[5:35, 10:30], quarter))


def test_outside_the_polygon_is_the_median_of_its_box() -> None:
    page = np.full((20, 20, 3), 200, np.uint8)
    page[:, :10] = (1, 2, 3)
    pixels = cut(page, np.array([(10, 0), (20, 10), (10, 20), (8, 10)], dtype=np.float64))
    assert (
        pixels.shape == (20, 12, 3)
        and pixels[0, -1].tolist() == [200, 200, 200]
        and pixels[0, 0].tolist() == [200, 200, 200]
    )
    with pytest.raises(ImageRefused, match="without area"):
        cut(page, np.array([(1, 1), (5, 5)], dtype=np.float64))

"""Draws the pages and writes every form of them into this folder."""

import json
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ocr.images import Pixels, encode_image
from tests.pages import FOLDER

FACES = {
    "ଓ": "/usr/share/fonts/truetype/freefont/FreeSerif.ttf",
    "ท": "/usr/share/fonts/truetype/noto/NotoSansThai-Regular.ttf",
}


@dataclass(frozen=True)
class Line:
    """A line of a page: text, region, top left corner, and whether it is turned clockwise by a
    quarter.
    """

    id: str
    region: str
    text: str
    place: tuple[int, int]
    turned: bool = False
    face: str = "ଓ"

    @property
    def pixels(self) -> Pixels:
        """The line as it reads, upright."""
        font = ImageFont.truetype(FACES[self.face], 26, layout_engine=ImageFont.Layout.RAQM)
        left, top, right, bottom = font.getbbox(self.text)
        image = Image.new("L", (int(right - left) + 12, int(bottom - top) + 12), 235)
        ImageDraw.Draw(image).text((6 - left, 6 - top), self.text, font=font, fill=25)
        return np.asarray(image)

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom on the page."""
        height, width = self.pixels.shape[::-1] if self.turned else self.pixels.shape
        return self.place[0], self.place[1], self.place[0] + width, self.place[1] + height


@dataclass(frozen=True)
class Page:
    """A page: its lines in reading order, its regions in the order of the document."""

    name: str
    lines: tuple[Line, ...]
    document_order: tuple[str, ...]
    inside: tuple[tuple[str, str], ...] = ()  # region → the one that it lies in
    size: tuple[int, int] = (640, 400)

    @property
    def reading_order(self) -> list[str]:
        """Regions in the order of their lines."""
        return list(dict.fromkeys(line.region for line in self.lines))

    def of(self, region: str) -> list[Line]:
        """The lines of a region."""
        return [line for line in self.lines if line.region == region]

    def box(self, region: str) -> tuple[int, int, int, int]:
        """The box around a region's lines."""
        boxes = np.array([line.box for line in self.of(region)])
        return (*boxes.min(axis=0)[:2].tolist(), *boxes.max(axis=0)[2:].tolist())

    @property
    def pixels(self) -> Pixels:
        """The page as drawn."""
        page = np.full((self.size[1], self.size[0]), 235, np.uint8)
        for line in self.lines:
            left, top, right, bottom = line.box
            page[top:bottom, left:right] = np.rot90(line.pixels, -1) if line.turned else line.pixels
        return page


ODIA = Page(
    "odia",
    (
        Line("l1", "heading", "ଓଡ଼ିଶା ସମାଚାର", (200, 20)),
        Line("l2", "text", "କୋଣାର୍କ ମନ୍ଦିର ସୂର୍ଯ୍ୟ-", (40, 100)),
        Line("l3", "text", "ଦେବଙ୍କ ଉଦ୍ଦେଶ୍ୟରେ ନିର୍ମିତ।", (40, 160)),
        Line("l4", "margin", "ପୃଷ୍ଠା ୧୨", (580, 120), turned=True),
    ),
    document_order=("margin", "text", "heading"),
)
THAI = Page(
    "thai",
    (
        Line("l1", "text", "ที่นี่มีน้ำและปลา", (50, 40), face="ท"),
        Line("l2", "text", "ภาษาไทย ๑๒๓", (50, 110), face="ท"),
        Line("l3", "note", "ଓଡ଼ିଆ ଭାଷା", (80, 250)),
    ),
    document_order=("text", "note"),
    inside=(("note", "text"),),
)


def corners(box: tuple[int, int, int, int]) -> list[tuple[int, int]]:
    left, top, right, bottom = box
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def page_xml(page: Page) -> str:
    def points(box: tuple[int, int, int, int]) -> str:
        return f'<Coords points="{" ".join(f"{x},{y}" for x, y in corners(box))}"/>'

    def line(one: Line) -> str:
        other = '<TextEquiv index="1"><Unicode>not this</Unicode></TextEquiv>'
        text = f'<TextEquiv index="0" conf="0.9"><Unicode>{one.text}</Unicode></TextEquiv>'
        return f'<TextLine id="{one.id}">{points(one.box)}{other}{text}</TextLine>'

    def region(id: str) -> str:
        turned = ' orientation="-90"' if page.of(id)[0].turned else ""
        inner = "".join(region(child) for child, parent in page.inside if parent == id)
        lines = "".join(map(line, page.of(id)))
        outline = points(page.box(id))
        return f'<TextRegion id="{id}"{turned}>{outline}{inner}{lines}</TextRegion>'

    order = "".join(
        f'<RegionRefIndexed index="{place}" regionRef="{id}"/>'
        for place, id in enumerate(page.reading_order)
    )
    regions = "".join(region(id) for id in page.document_order if id not in dict(page.inside))
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<PcGts xmlns="http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15">'
        f'<Metadata/><Page imageFilename="{page.name.upper()}.PNG" imageWidth="{page.size[0]}" '
        f'imageHeight="{page.size[1]}">'
        "<ReadingOrder><OrderedGroup "
        f'id="ro">{order}</OrderedGroup></ReadingOrder>{regions}</Page></PcGts>\n'
    )


def alto(page: Page, unit: str, per_px: int) -> str:
    def place(box: tuple[int, int, int, int]) -> str:
        left, top, right, bottom = (value * per_px for value in box)
        return f'HPOS="{left}" VPOS="{top}" WIDTH="{right - left}" HEIGHT="{bottom - top}"'

    def line(one: Line) -> str:
        hyphen = '<HYP CONTENT="\u00ad"/>' if one.text.endswith("-") else ""
        words = "<SP/>".join(
            f'<String CONTENT="{word}" {place(one.box)} WC="0.9"/>'
            for word in one.text.removesuffix("-").split(" ")
        )
        return f'<TextLine ID="{one.id}" {place(one.box)}>{words}{hyphen}</TextLine>'

    def block(id: str) -> str:
        turned = ' ROTATION="-90"' if page.of(id)[0].turned else ""
        lines = "".join(map(line, page.of(id)))
        return f'<TextBlock ID="{id}"{turned} {place(page.box(id))}>{lines}</TextBlock>'

    order = "".join(
        f'<ElementRef ID="ref{place}" REF="{id}"/>' for place, id in enumerate(page.reading_order)
    )
    blocks = "".join(block(id) for id in page.document_order)
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<alto xmlns="http://www.loc.gov/standards/alto/ns-v4#"><Description><MeasurementUnit>{unit}</MeasurementUnit>'
        f"<sourceImageInformation><fileName>C:\\scans\\{page.name}.png</fileName></sourceImageInformation></Description>"
        f'<ReadingOrder><OrderedGroup ID="ro">{order}</OrderedGroup></ReadingOrder>'
        f'<Layout><Page ID="p" WIDTH="{page.size[0] * per_px}" '
        f'HEIGHT="{page.size[1] * per_px}"><PrintSpace><ComposedBlock '
        f'ID="c">{blocks}</ComposedBlock></PrintSpace></Page></Layout></alto>\n'
    )


def detection(page: Page) -> str:
    def points(line: Line) -> list[tuple[int, int]]:
        first = 1 if line.turned else 0  # the first corner is the upper left one of the writing
        return corners(line.box)[first:] + corners(line.box)[:first]

    boxes = [{"transcription": line.text, "points": points(line)} for line in page.lines]
    return f"{page.name}.png\t{json.dumps(boxes, ensure_ascii=False)}\n"


def write(path: str, content: str | bytes) -> None:
    file = FOLDER / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)


def main() -> None:
    """Every form of both pages."""
    import datasets

    rows = []
    for page, unit, per_px in ((ODIA, "pixel", 1), (THAI, "inch1200", 4)):
        for form in ("page", "alto", "detection"):
            write(f"{form}/{page.name}.png", encode_image(page.pixels))
        write(f"page/{page.name}.xml", page_xml(page))
        write(f"alto/{page.name}.xml", alto(page, unit, per_px))
        for line in page.lines:
            name, image = f"{page.name}_{line.id}", encode_image(line.pixels)
            write(f"paddle/crops/{name}.png", image)
            write(f"pairs/{name}.png", image)
            write(f"pairs/{name}.gt.txt", line.text + "\n")
            write(f"corrections/{name}.png", image)
            write(
                f"corrections/{name}.json",
                json.dumps(
                    {"original_text": "ଓ", "corrected_text": line.text, "user": "a"},
                    ensure_ascii=False,
                ),
            )
            rows.append({"image": {"bytes": image, "path": None}, "text": line.text})
    write("detection/Label.txt", detection(ODIA) + detection(THAI))
    write(
        "paddle/rec_gt_train.txt",
        "".join(
            f"crops/{page.name}_{line.id}.png\t{line.text}\n"
            for page in (ODIA, THAI)
            for line in page.lines
        ),
    )
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    (FOLDER / "huggingface").mkdir(exist_ok=True)
    datasets.Dataset.from_list(rows, features=features).to_parquet(
        FOLDER / "huggingface" / "train.parquet"
    )


if __name__ == "__main__":
    main()

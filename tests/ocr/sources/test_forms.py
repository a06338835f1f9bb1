"""One page of ground truth is the same samples in whatever form it comes."""

from typing import Any

import pytest
from pydantic import TypeAdapter

from ocr.images import open_image
from ocr.sample import Sample
from ocr.sources.settings import Source
from ocr.text import normalise
from tests.pages import FOLDER
from tests.pages.__main__ import ODIA, THAI, Line, Page
from tests.support.sources import read_source

FORMS: dict[str, dict[str, Any]] = {
    "page": {"format": "page", "path": "page"},
    "alto": {"format": "alto", "path": "alto"},
    "paddle detection": {"format": "paddle", "path": "detection/Label.txt", "labels": "detection"},
    "paddle": {"format": "paddle", "path": "paddle/rec_gt_train.txt"},
    "corrections": {"format": "corrections", "path": "corrections"},
    "pairs": {"format": "pairs", "path": "pairs"},
    "huggingface": {"format": "huggingface", "path": "huggingface"},
}


def samples(form: str, **more: Any) -> list[Sample]:
    values = FORMS[form] | {"path": str(FOLDER / FORMS[form]["path"])} | more
    items = list(read_source(TypeAdapter(Source).validate_python(values)))
    assert all(isinstance(item, Sample) for item in items), items
    return [item for item in items if isinstance(item, Sample)]


def seen(sample: Sample) -> tuple[str, str, bytes, tuple[int, ...]]:
    pixels = open_image(sample.image, "as it is")
    return normalise(sample.text), sample.level, pixels.tobytes(), pixels.shape


def rendered(page: Page, line: Line) -> tuple[str, str, bytes, tuple[int, ...]]:
    """The line as it was rendered before it was put on the page."""
    pixels = open_image(FOLDER / "pairs" / f"{page.name}_{line.id}.png")
    return normalise(line.text), "line", pixels.tobytes(), pixels.shape


@pytest.mark.parametrize("form", FORMS)
def test_the_same_page_is_the_same_samples_in_every_form(form: str) -> None:
    assert [seen(sample) for sample in samples(form)] == [
        rendered(page, line) for page in (ODIA, THAI) for line in page.lines
    ]


@pytest.mark.parametrize("form", ["page", "alto"])
def test_paragraphs_and_pages_hold_their_lines_in_reading_order(form: str) -> None:
    items = {
        sample.id.rpartition("/")[2]: sample
        for sample in samples(form, levels=["paragraph", "page"])
    }
    assert [sample.level for sample in items.values()].count("page") == 2
    texts = {id.replace(".xml", ""): normalise(sample.text) for id, sample in items.items()}
    assert texts["odia#text"] == normalise("\n".join(line.text for line in ODIA.of("text")))
    assert texts["odia#page"] == normalise("\n".join(line.text for line in ODIA.lines))
    assert texts["thai#page"] == normalise("\n".join(line.text for line in THAI.lines))
    assert items["odia.xml#page"].image == (FOLDER / form / "odia.png").read_bytes()
    turned = open_image(items["odia.xml#margin"].image)
    assert turned.tobytes() == rendered(ODIA, ODIA.of("margin")[0])[2]


@pytest.mark.parametrize("form", ["page", "alto", "paddle detection"])
def test_a_sample_knows_its_page(form: str) -> None:
    assert len({dict(sample.group)["page"] for sample in samples(form)}) == 2


def test_a_correction_keeps_what_was_read_and_who_corrected_it() -> None:
    assert dict(samples("corrections")[0].group) == {"reading": "ଓ", "user": "a"}

"""The web page with pages: boxes lie on lines, what is no line is left out, crops are saved."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ocr.dataset.read import Dataset
from ocr.images import Pixels, cut, encode_image, open_image
from tests.support.browser import PHONE, browser, opened, read, until
from tests.support.composed_pages import composed_page
from tests.support.running import Running, endpoint

INK = 110  # darker pixels of a page are ink


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with endpoint(tmp_path_factory.mktemp("serve"), "autoscaling.max_replicas=1") as found:
        yield found


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as found:
        yield found


def page_of_words(columns: int, degrees: float) -> Pixels:
    data = Dataset.open("odia_words", "validation")
    words = [open_image(data.image_bytes(index)) for index in range(200)]
    return composed_page(words, data.texts[:200], columns=columns, degrees=degrees, seed=4)[0]


def line_of_words() -> Pixels:
    """One line, wide and low, read as a page."""
    page = page_of_words(1, 0.0)
    rows = np.flatnonzero((page < INK).any(axis=1))
    end = rows[np.flatnonzero(np.diff(rows) > 8)[0]]
    return np.ascontiguousarray(page[max(0, rows[0] - 20) : end + 20])


def kept_as(image: Pixels, path: Path, kind: str = "PNG", **options: Any) -> Path:
    Image.fromarray(image).save(path, kind, **options)
    return path


def ink_in_boxes(page: Any) -> float:
    """The share of a shown page's ink that lies in the boxes as the browser shows them."""
    sheet = page.locator(".sheet").first
    sheet.scroll_into_view_if_needed()
    rects = page.evaluate(
        """() => { const s = document.querySelector(".sheet"), o = s.getBoundingClientRect();
        return [...s.querySelectorAll("polygon")].map((p) => { const r = p.getBoundingClientRect();
        return [r.left - o.left, r.top - o.top, r.right - o.left, r.bottom - o.top]; }); }"""
    )
    page.evaluate("document.querySelector('.sheet svg').style.visibility = 'hidden'")
    pixels = np.asarray(Image.open(io.BytesIO(sheet.screenshot())).convert("L"))
    page.evaluate("document.querySelector('.sheet svg').style.visibility = ''")
    inside = np.zeros(pixels.shape, bool)
    for left, top, right, bottom in rects:
        inside[int(top) : int(bottom) + 1, int(left) : int(right) + 1] = True
    assert inside.mean() < 0.75, "boxes that cover everything prove nothing"
    return float((pixels < INK)[inside].sum() / (pixels < INK).sum())


@pytest.mark.parametrize("what", ["page", "turned page", "one line", "pdf"])
def test_boxes_lie_on_the_lines_that_they_are_of(
    running: Running, chromium: Any, tmp_path: Path, what: str
) -> None:
    image = line_of_words() if what == "one line" else page_of_words(2, 1.5 * (what != "page"))
    kind = {"resolution": 200} if what == "pdf" else {}
    name = "page.pdf" if what == "pdf" else "page.png"
    path = kept_as(image, tmp_path / name, "PDF" if what == "pdf" else "PNG", **kind)
    for size in (None, PHONE):
        with opened(chromium, running.address) as page:
            if size:
                page.set_viewport_size(size)
            page.check("input[value=page]")
            read(page, [path])
            assert ink_in_boxes(page) > 0.95
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def records(running: Running) -> dict[str, dict[str, Any]]:
    files = (running.storage / "corrections").glob("*.json")
    return {file.stem: json.loads(file.read_text()) for file in files}


def test_two_lines_are_left_out_and_three_corrected_in_their_order(
    running: Running, chromium: Any, tmp_path: Path
) -> None:
    image = page_of_words(2, 1.5)
    path = kept_as(image, tmp_path / "page.png")
    before = set(records(running))
    with opened(chromium, running.address) as page:
        read(page, [path])
        rows = page.locator("#lines li")
        names = rows.locator(".crop").evaluate_all("all => all.map(e => e.ariaLabel)")
        count = len(names)
        assert names == [f"line {place} of page.png" for place in range(1, count + 1)]
        tick = rows.nth(0).locator(".right")
        tick.click()
        assert page.inner_text("#save") == "Save 1 line"
        tick.click()
        assert page.is_disabled("#save"), "the tick is taken back"
        rows.nth(0).locator(".none").click()
        rows.nth(1).locator("textarea").fill("")
        for place in (2, 3, 4):
            rows.nth(place).locator("textarea").fill(f"ଅଆଇ {place}")
        assert page.inner_text("#count") == f"{count - 2}, 2 left out, 3 looked at"
        with page.expect_download() as got:
            page.click("#as-text")
        text = Path(got.value.path()).read_text()
        assert text.splitlines()[:3] == ["ଅଆଇ 2", "ଅଆଇ 3", "ଅଆଇ 4"]
        assert len(text.splitlines()) == count - 2
        with page.expect_download() as got:
            page.click("#as-json")
        (document,) = json.loads(Path(got.value.path()).read_text())
        assert len(document["pages"][0]["lines"]) == count - 2
        page.keyboard.press("Control+s")
        until(page, "document.querySelector('#message').textContent === '3 saved.'")
    stored = {name: one for name, one in records(running).items() if name not in before}
    assert {one["corrected_text"] for one in stored.values()} == {f"ଅଆଇ {n}" for n in (2, 3, 4)}
    assert len({one["page"] for one in stored.values()}) == 1, "of one page"
    answer = running_page(running, image)
    lines = answer["pages"][0]["lines"][2:5]
    degrees = answer["pages"][0]["degrees"]
    for line in lines:  # the crop that was sent holds the pixels that the endpoint cut
        found = cut(image, np.array(line["polygon"]), degrees)
        assert any(
            np.array_equal(found, as_grey(running.storage / "corrections" / f"{name}.png"))
            for name in stored
        )


def as_grey(path: Path) -> Pixels:
    return np.asarray(Image.open(path).convert("L"))


def running_page(running: Running, image: Pixels) -> dict[str, Any]:
    import requests

    body = {"image": base64.b64encode(encode_image(image)).decode()}
    answered = requests.post(f"{running.address}/v1/ocr?level=page", json=body, timeout=60)
    return dict(answered.json())


def test_what_can_be_read_can_be_saved(running: Running, chromium: Any, tmp_path: Path) -> None:
    """A PNG of 15.5 MB is under the limit of a body, its base64 is over it."""
    noisy = np.repeat(page_of_words(1, 0.0)[:1500, :, None], 3, axis=2)
    noise = np.random.default_rng(1).integers(0, 12, (1500, 1400, 3), np.uint8)
    big = np.concatenate(
        [noisy - noise, np.random.default_rng(2).integers(238, 255, (1500, 3000, 3), np.uint8)],
        axis=1,
    )
    path = kept_as(big, tmp_path / "big.png", compress_level=0)
    assert 15_000_000 < path.stat().st_size < 20_000_000
    with opened(chromium, running.address) as page:
        page.check("input[value=page]")
        read(page, [path])
        page.locator("#lines li .right").first.click()
        page.keyboard.press("Control+s")
        until(page, "document.querySelector('#message').textContent.includes('saved')")
        assert "bad" not in (page.get_attribute("#message", "class") or "")


def test_an_empty_page_offers_a_sample_and_a_correction_can_be_removed(
    running: Running, chromium: Any
) -> None:
    with opened(chromium, running.address) as page:
        page.click("#sample")
        page.wait_for_selector("#lines li")
        assert page.is_hidden("#sample")
        page.locator("#lines textarea").first.fill("ଭୁଲ")
        page.keyboard.press("Control+s")
        until(page, "document.querySelector('#message').textContent.includes('saved')")
        stored = len(records(running))
        page.click("#tab-learn")
        page.wait_for_selector("#stored:not([hidden])")
        page.click("#stored summary")
        row = page.locator("#stored-rows li").first
        row.wait_for()
        assert "ଭୁଲ" in row.inner_text()
        page.once("dialog", lambda dialog: dialog.accept())
        row.locator(".remove").click()
        until(page, "document.querySelector('#message').textContent === 'Removed.'")
        assert len(records(running)) == stored - 1
        with page.expect_download() as got:
            page.click("#export-zip")
        assert Path(got.value.path()).read_bytes().startswith(b"PK")


def test_a_file_of_another_kind_is_answered_in_words_for_people(
    running: Running, chromium: Any, tmp_path: Path
) -> None:
    path = tmp_path / "make.py"
    path.write_text("print()")
    with opened(chromium, running.address) as page:
        page.set_input_files("#files", str(path))
        page.wait_for_selector("#message.bad")
        said = page.inner_text("#message")
        assert said.startswith("make.py: This kind of file cannot be read; PNG, JPEG, WebP")


def test_files_for_other_programs_are_downloaded(
    running: Running, chromium: Any, tmp_path: Path
) -> None:
    path = kept_as(page_of_words(1, 0.0)[:700], tmp_path / "scan.png")
    with opened(chromium, running.address) as page:
        page.check("input[value=page]")
        read(page, [path])
        for format, name, begins in (
            ("alto", "scan.xml", b"<?xml"),
            ("page", "scan.xml", b"<?xml"),
            ("pdf", "scan.pdf", b"%PDF"),
        ):
            with page.expect_download() as got:
                page.click(f"#as-{format}")
            assert got.value.suggested_filename == name
            content = Path(got.value.path()).read_bytes()
            assert content.startswith(begins)
            assert format == "pdf" or {"alto": b"<alto", "page": b"<PcGts"}[format] in content

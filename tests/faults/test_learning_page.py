"""The whole loop in a browser, with a real page.

Read, leave two lines out, correct three, save, train, stop, train again, promote, roll back.
"""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ocr.dataset.read import Dataset
from ocr.images import encode_image, open_image
from tests.support.browser import PHONE, browser, correct, opened, read, until
from tests.support.composed_pages import DATA, pages_of
from tests.support.running import Running, endpoint

REAL = "alto_french_print"


def saved(page: Any, count: int) -> None:
    page.keyboard.press("Control+s")
    until(page, f"document.querySelector('#message').textContent === '{count} saved.'")


def start_training(page: Any) -> None:
    if not page.is_visible("input[name=num_epochs]"):
        page.click("#training summary")
    page.fill("input[name=num_epochs]", "1")
    page.click("#start")
    until(page, "!document.querySelector('#progress').hidden", 60)
    until(page, "document.querySelector('#meter').value > 0", 240)


@pytest.mark.skipif(not (DATA / REAL).is_dir(), reason="real pages lie beside the project")
@pytest.mark.timeout(1500)
def test_a_person_trains_stops_trains_again_promotes_and_rolls_back(tmp_path: Path) -> None:
    _, pixels, _ = next(iter(pages_of(REAL)))
    Image.fromarray(pixels).save(tmp_path / "page.png")
    data, words = Dataset.open("odia_words", "validation"), dict[str, str]()
    for index in range(9):
        content = encode_image(open_image(data.image_bytes(index)))
        (tmp_path / f"word{index}.png").write_bytes(content)
        words[f"word{index}.png"] = data.texts[index]
    with (
        endpoint(tmp_path / "serve", "autoscaling.max_replicas=1") as running,
        browser() as chromium,
        opened(chromium, running.address) as page,
    ):
        page.on("dialog", lambda dialog: dialog.accept())
        _correct_a_page(page, tmp_path / "page.png")
        page.check("input[value=line]")
        read(page, [tmp_path / name for name in words])
        correct(page, words)
        page.click("#tab-learn")
        until(page, "!document.querySelector('#start').disabled")
        start_training(page)
        page.screenshot(path=tmp_path / "training.png", full_page=True)
        page.click("#stop")
        until(page, "document.querySelector('#verdict h3')?.textContent === 'Stopped'", 120)
        start_training(page)
        until(page, "!document.querySelector('#verdict').hidden", 900)
        page.screenshot(path=tmp_path / "verdict.png", full_page=True)
        _promote_and_roll_back(page, running)
        page.set_viewport_size(PHONE)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        page.screenshot(path=tmp_path / "phone.png", full_page=True)
    print(f"\npictures in {tmp_path}")


def _correct_a_page(page: Any, path: Path) -> None:
    page.check("input[value=page]")
    read(page, [path])
    rows = page.locator("#lines li:not(.left-out)")
    for place in (0, 1):
        page.locator("#lines li").nth(place).locator(".none").click()
    for place in (0, 1, 2):
        rows.nth(place).locator("textarea").fill(f"ଅଆଇ {place}")
    saved(page, 3)
    page.click("#clear")


def _promote_and_roll_back(page: Any, running: Running) -> None:
    first = running.get("/readyz")["model"]
    page.click("#promote-candidate")
    until(page, "document.querySelector('#message').textContent.endsWith('is live.')", 90)
    candidate = running.get("/readyz")["model"]
    assert candidate.startswith("base-odia-r1@")
    page.locator("#models button", has_text="Roll back to it").click()
    until(page, f"document.querySelector('#live').textContent === '{first}'", 90)
    journal = running.get("/v1/models/journal")
    asked = [entry for entry in journal if entry["what"] in ("retrain_stop", "retrain_stopped")]
    assert len(asked) == 2
    (retrained,) = [entry for entry in journal if entry["what"] == "retrained"]
    (promoted,) = [
        entry
        for entry in journal
        if entry.get("bundle") == candidate and entry["what"] == "promote"
    ]
    assert ("against" in promoted) == (retrained["verdict"] == "refused")

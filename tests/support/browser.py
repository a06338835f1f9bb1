"""A real headless Chromium for a test, and what people do in it."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path("/usr/bin/chromium")
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """Skips where there is none; Debian's package is chromium."""
    if not CHROMIUM.is_file():
        pytest.skip("no /usr/bin/chromium; apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        try:
            yield started
        finally:
            started.close()


@contextlib.contextmanager
def opened(started: Any, address: str, **options: Any) -> Iterator[Any]:
    """The page of an endpoint; an error in its console fails the test."""
    context = started.new_context(viewport=DESKTOP, **options)
    page, problems = context.new_page(), list[str]()
    page.on("pageerror", lambda problem: problems.append(str(problem)))
    page.on(
        "console",
        lambda said: (
            problems.append(said.text)
            if said.type == "error" and "Failed to load resource" not in said.text
            else None
        ),
    )
    page.goto(address)
    page.wait_for_selector(".dot.on")
    try:
        yield page
    finally:
        context.close()
    assert problems == []


def until(page: Any, condition: str, timeout_s: float = 30) -> None:
    """Until a JavaScript expression is true (Playwright's own way evaluates a string in the page,
    which the page's policy forbids).
    """
    deadline = time.monotonic() + timeout_s
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, (condition, page.inner_text("body")[:2000])
        page.wait_for_timeout(50)


def read(page: Any, files: Sequence[Path], timeout_s: float = 60) -> None:
    """Choose files and wait for their lines."""
    before = page.locator("#lines li").count()
    page.set_input_files("#files", [str(file) for file in files])
    until(
        page,
        f"document.querySelectorAll('#lines li').length > {before} && "
        "document.querySelector('#message').hidden",
        timeout_s,
    )


def correct(page: Any, texts: dict[str, str]) -> None:
    """Every line, by the name of its image.

    Type what it says where it was read otherwise, Enter where it was right; then save, by keyboard
    alone.
    """
    rows = page.locator("#lines li")
    for place in range(rows.count()):
        row = rows.nth(place)
        name = row.locator(".crop").get_attribute("aria-label").partition(" of ")[2]
        field = row.locator("textarea")
        field.focus()
        if field.input_value() != texts[name]:
            field.fill(texts[name])
        field.press("Enter")
    page.keyboard.press("Control+s")
    until(page, "document.querySelector('#message').textContent.includes(' saved')")

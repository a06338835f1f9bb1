"""The web page in a real browser.

Read, correct by keyboard, save, look at the statistics; on a phone, in the dark, with a page, a PDF
and a key.
"""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from ocr.dataset.read import Dataset
from ocr.images import encode_image, open_image
from tests.support.browser import PHONE, browser, correct, opened, read, until
from tests.support.composed_pages import composed_page
from tests.support.running import Running, endpoint

SCRIPT = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with endpoint(tmp_path_factory.mktemp("serve"), "autoscaling.max_replicas=1") as found:
        yield found


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, str]:
    """Six words as files, and their texts."""
    data, folder = Dataset.open("odia_words", "validation"), tmp_path_factory.mktemp("words")
    found = {}
    for index in range(6):
        path = folder / f"word{index}.png"
        path.write_bytes(encode_image(open_image(data.image_bytes(index))))
        found[path] = data.texts[index]
    return found


def records(running: Running) -> list[dict[str, Any]]:
    return [
        json.loads(file.read_text()) for file in (running.storage / "corrections").glob("*.json")
    ]


def test_words_are_read_corrected_by_keyboard_and_saved_once(
    running: Running, chromium: Any, words: dict[Path, str], tmp_path: Path
) -> None:
    texts = {path.name: text for path, text in words.items()}
    with opened(chromium, running.address) as page:
        page.check("input[value=line]")
        read(page, list(words))
        page.select_option("#order", "certainty")
        sure = [
            float(told.split()[0]) for told in page.locator("#lines .under b").all_inner_texts()
        ]
        assert sure == sorted(sure), "least certain first"
        correct(page, texts)
        assert page.locator("#lines li.saved").count() == 6
        page.screenshot(path=tmp_path / "read.png")
        page.click("#tab-learn")
        until(page, "document.querySelector('#figures').textContent.includes('6')")
        assert "10 are needed" in page.inner_text("#training-note")
        assert page.is_disabled("#start")
    assert {record["corrected_text"] for record in records(running)} == set(texts.values())
    assert all(
        {"original_text", "confidence", "model"} <= set(record) for record in records(running)
    )
    with opened(chromium, running.address) as page:  # the same again is nothing new
        page.check("input[value=line]")
        read(page, list(words))
        correct(page, texts)
        assert page.inner_text("#message") == "0 saved, 6 were there already."


def test_a_page_and_a_pdf_are_cut_into_lines_and_a_script_stays_text(
    running: Running, chromium: Any, tmp_path: Path
) -> None:
    data = Dataset.open("odia_words", "validation")
    pixels, boxes, _ = composed_page(
        [open_image(data.image_bytes(index)) for index in range(200)],
        data.texts[:200],
        columns=2,
        degrees=1.5,
        seed=4,
    )
    for name, kind in (("page.png", "PNG"), ("page.pdf", "PDF")):
        Image.fromarray(pixels).save(
            tmp_path / name, kind, **({"resolution": 200} if kind == "PDF" else {})
        )
    before = len(records(running))
    with opened(chromium, running.address, color_scheme="dark") as page:
        for name in ("page.png", "page.pdf"):
            read(page, [tmp_path / name])
        assert page.locator(".page-view").count() == 2
        assert page.locator(".page-view polygon").count() == pytest.approx(2 * len(boxes), abs=4)
        page.locator(".page-view polygon").first.click(force=True)
        assert page.evaluate("document.activeElement.tagName") == "TEXTAREA"
        row = page.locator("#lines li").first
        row.locator("textarea").fill(SCRIPT)
        page.keyboard.press("Enter")
        page.keyboard.press("Control+s")
        until(page, "document.querySelector('#message').textContent.includes('1 saved')")
        page.screenshot(path=tmp_path / "page.png")
    stored = [record for record in records(running) if record["corrected_text"] == SCRIPT]
    assert (len(records(running)), len(stored)) == (before + 1, 1)


def test_a_phone_shows_everything_within_its_width(
    running: Running, chromium: Any, words: dict[Path, str]
) -> None:
    with opened(chromium, running.address) as page:
        page.set_viewport_size(PHONE)
        page.check("input[value=line]")
        read(page, list(words)[:2])
        for tab in ("#tab-read", "#tab-learn"):
            page.click(tab)
            page.wait_for_timeout(300)
            assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_what_cannot_be_read_is_told_and_nothing_is_fetched_from_elsewhere(
    running: Running, chromium: Any, tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nothing")
    with opened(chromium, running.address) as page:
        asked = list[str]()
        page.on("request", lambda request: asked.append(request.url))
        page.set_input_files("#files", str(tmp_path / "broken.png"))
        page.wait_for_selector("#message.bad")
        assert "broken.png: not a readable image" in page.inner_text("#message")
        page.reload()
        page.wait_for_selector(".dot.on")
        assert all(url.startswith((running.address, "data:", "blob:")) for url in asked)
    headers = requests.get(running.address, timeout=5).headers
    assert "script-src 'self'" in headers["Content-Security-Policy"]


def test_retraining_with_too_few_and_with_unknown_settings_is_refused(running: Running) -> None:
    few = requests.post(f"{running.address}/v1/retrain", json={}, timeout=10)
    assert (few.status_code, few.json()["error"]["code"]) == (422, "too_few_corrections")
    for wrong in (
        {"epochs": 3},
        {"num_epochs": 0},
        {"learning_rate": "fast"},
        {"global_batch_size": 100_000},
    ):
        assert (
            requests.post(f"{running.address}/v1/retrain", json=wrong, timeout=10).json()["error"][
                "code"
            ]
            == "invalid"
        )
    assert requests.get(f"{running.address}/v1/retrain/nothing", timeout=10).status_code == 404
    assert [
        entry for entry in running.get("/v1/models/journal") if entry["what"] == "retrain"
    ] == []


def test_a_candidate_reads_its_share_of_the_requests(
    running: Running, words: dict[Path, str]
) -> None:
    from serve.models import Models

    thai, live = Models(str(running.storage)).add("thai"), running.get("/readyz")["model"]
    asked = requests.post(
        f"{running.address}/v1/models/traffic", json={"candidate": thai, "share": 0.3}, timeout=10
    ).json()
    assert running.outcome(asked["promotion"])["what"] == "live"
    image = next(iter(words)).read_bytes()

    def asked_for(count: int) -> list[str]:
        with requests.Session() as session:
            return [
                session.post(
                    f"{running.address}/v1/ocr",
                    data=image,
                    headers={"Content-Type": "image/png"},
                    timeout=10,
                ).json()["model"]
                for _ in range(count)
            ]

    found = asked_for(200)
    assert set(found) == {thai, live}
    assert 30 <= found.count(thai) <= 95
    assert {model["id"]: model["share"] for model in running.get("/v1/models")["data"]} == {
        thai: 0.3,
        live: 0.0,
    }
    ended = requests.post(
        f"{running.address}/v1/models/traffic", json={"candidate": thai, "share": 0}, timeout=10
    ).json()
    assert running.outcome(ended["promotion"])["what"] == "live"
    assert set(asked_for(30)) == {live}


def test_pages_over_http_and_as_a_chat(running: Running, tmp_path: Path) -> None:
    import base64

    data = Dataset.open("odia_words", "validation")
    pixels, boxes, _ = composed_page(
        [open_image(data.image_bytes(index)) for index in range(200)],
        data.texts[:200],
        columns=1,
        degrees=0.0,
        seed=6,
    )
    body = encode_image(pixels)
    found = requests.post(
        f"{running.address}/v1/ocr?level=page",
        data=body,
        headers={"Content-Type": "image/png"},
        timeout=30,
    ).json()
    (page,) = found["pages"]
    assert (page["width"], page["height"]) == (pixels.shape[1], pixels.shape[0])
    assert len(page["lines"]) == pytest.approx(len(boxes), abs=2)
    assert found["text"] == "\n".join(line["text"] for line in page["lines"])
    url = f"data:image/png;base64,{base64.b64encode(body).decode()}"
    asked = {
        "level": "page",
        "messages": [
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}
        ],
    }
    chat = requests.post(f"{running.address}/v1/chat/completions", json=asked, timeout=30).json()
    assert chat["choices"][0]["message"]["content"] == found["text"]
    wrong = requests.post(
        f"{running.address}/v1/ocr?level=book",
        data=body,
        headers={"Content-Type": "image/png"},
        timeout=30,
    )
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "bad_level")


def test_no_other_machine_reaches_the_dashboard(running: Running) -> None:
    """Jobs run through it, so it listens here alone, and asks for Ray's token."""
    import psutil

    ports = {
        connection.laddr.port
        for process in running.processes("dashboard")
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and "dashboard.py" in " ".join(process.cmdline())
    }
    assert ports
    host = next(
        (
            address.address
            for name, addresses in psutil.net_if_addrs().items()
            for address in addresses
            if address.family == socket.AF_INET and name != "lo"
        ),
        None,
    )
    asking = [
        port
        for port in ports
        if requests.post(
            f"http://127.0.0.1:{port}/api/jobs/", json={"entrypoint": "true"}, timeout=5
        ).status_code
        == 401
    ]
    assert asking, "jobs ask for the token"
    for port in asking:
        if host is not None:
            with pytest.raises(OSError), socket.create_connection((host, port), timeout=2):
                pass

"""The loop that learns, whole.

In a browser on real lines; under load with kills in the middle of each step, nothing lost, nothing
doubled.
"""

import base64
import json
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from ocr.scoring import score_all
from ocr.text import normalise
from serve.client import Client
from tests.support.browser import PHONE, browser, correct, opened, read, until
from tests.support.commands import PROJECT
from tests.support.load import odia_words
from tests.support.running import Running, endpoint, loaded, word_shots

BANGLA = PROJECT.parent / "shared" / "data" / "bangla_handwriting_lines"
QUICK = {"num_epochs": 6}  # of the steps that a real retraining takes


def lines(page: int, count: int) -> list[tuple[Path, str]]:
    """Lines of one of the two pages that one person wrote."""
    paths = sorted(BANGLA.glob("*.png"))
    pages = sorted({re.split(r"_[yl]\d", path.stem)[0] for path in paths})
    mine = [path for path in paths if path.stem.startswith(pages[page])][:count]
    return [
        (path, normalise(path.with_suffix(".gt.txt").read_text(encoding="utf-8").strip()))
        for path in mine
    ]


def errors(address: str, pairs: list[tuple[Path, str]]) -> tuple[int, int]:
    """Lines read all right, and wrong characters in all."""
    readings = Client(address).read([path for path, _ in pairs])
    counts = score_all(
        (text, reading.text) for (_, text), reading in zip(pairs, readings, strict=True)
    )
    return sum(
        reading.text == text for (_, text), reading in zip(pairs, readings, strict=True)
    ), counts.character_edits


@pytest.mark.skipif(not BANGLA.is_dir(), reason="real lines lie beside the project")
@pytest.mark.timeout(1500)
def test_ten_lines_corrected_in_a_browser_are_read_better_and_others_too(tmp_path: Path) -> None:
    """Handwriting that the recogniser reads badly; the others are of another page."""
    corrected, others = lines(0, 10), lines(1, 10)
    with (
        endpoint(tmp_path / "serve", "autoscaling.max_replicas=1", bundle="bangla") as running,
        browser() as chromium,
    ):
        before = errors(running.address, corrected), errors(running.address, others)
        with opened(chromium, running.address) as page:
            page.check("input[value=line]")
            read(page, [path for path, _ in corrected])
            page.screenshot(path=tmp_path / "read.png")
            correct(page, {path.name: text for path, text in corrected})
            page.click("#tab-learn")
            until(page, "!document.querySelector('#start').disabled")
            began = time.monotonic()
            page.click("#start")
            until(page, "!document.querySelector('#progress').hidden")
            until(page, "document.querySelector('#meter').value > 0.3", 900)
            page.screenshot(path=tmp_path / "training.png", full_page=True)
            until(page, "!document.querySelector('#verdict').hidden", 1200)
            page.screenshot(path=tmp_path / "verdict.png", full_page=True)
            assert "Too few to be sure: you decide" in page.inner_text("#verdict"), page.inner_text(
                "#verdict"
            )
            page.click("#promote-candidate")
            until(page, "document.querySelector('#message').textContent.endsWith('is live.')", 60)
            seconds = time.monotonic() - began
            page.set_viewport_size(PHONE)
            page.screenshot(path=tmp_path / "phone.png", full_page=True)
        after = errors(running.address, corrected), errors(running.address, others)
        print(
            f"\ncorrected (right, errors): {before[0]} -> {after[0]}; others: {before[1]} -> "
            f"{after[1]}; start to live {seconds:.0f} s; pictures in {tmp_path}"
        )
        assert after[0][1] < 0.5 * before[0][1]
        assert after[1][1] < 0.8 * before[1][1]
        told = [entry["what"] for entry in running.get("/v1/models/journal")]
        assert told == ["deploy", "live", "retrain", "retrained", "promote", "live"]


@pytest.fixture(scope="module")
def words() -> tuple[list[bytes], list[str]]:
    return odia_words(60)


def told(image: bytes, text: str) -> dict[str, Any]:
    return {
        "images": {"word": base64.b64encode(image).decode()},
        "corrections": [{"image": "word", "text": text, "reading": text, "model": "m"}],
    }


def until_stored(running: Running, image: bytes, text: str) -> None:
    """As a client does: the same again until it is there."""
    deadline = time.monotonic() + 90
    while True:
        try:
            if (
                requests.post(
                    f"{running.address}/v1/corrections", json=told(image, text), timeout=10
                ).status_code
                == 201
            ):
                return
        except requests.RequestException:
            pass  # the kill itself
        assert time.monotonic() < deadline
        time.sleep(0.3)


def retraining(running: Running, one: str, timeout_s: float = 600) -> dict[str, Any]:
    """What came of it."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            found = dict(running.get(f"/v1/retrain/{one}"))
            if found["status"] in ("done", "failed"):
                return found
        except requests.RequestException:
            pass  # a server that is killed and comes back
        assert time.monotonic() < deadline, running.get(f"/v1/retrain/{one}")
        time.sleep(1)


def training(running: Running) -> list[psutil.Process]:
    """The processes of the retraining's job, its driver first."""
    return [
        process
        for kind in ("ray_jobs/retrain.py", "RayTrainWorker")
        for process in running.processes(kind)
    ]


@pytest.mark.timeout(1500)
def test_under_load_with_kills_in_every_step_nothing_is_lost_or_doubled(
    tmp_path: Path, words: tuple[list[bytes], list[str]]
) -> None:
    images, texts = words
    with endpoint(
        tmp_path / "serve", "autoscaling.min_replicas=2", "autoscaling.max_replicas=2"
    ) as running:
        first = running.get("/readyz")["model"]
        with loaded(running, word_shots(*odia_words(60)), rate=20) as outcome:
            for place, (image, text) in enumerate(zip(images[:30], texts[:30], strict=True)):
                if place == 15:
                    running.processes("ServeReplica")[0].kill()
                until_stored(running, image, text)
            asked = requests.post(f"{running.address}/v1/retrain", json=QUICK, timeout=10).json()[
                "retraining"
            ]
            assert (
                requests.post(f"{running.address}/v1/retrain", json=QUICK, timeout=10).status_code
                == 409
            ), "one at a time"
            killed = list[str]()
            for what, kind in (
                ("driver", "ray_jobs/retrain.py"),
                ("worker", "RayTrainWorker"),
                ("promoter", "Promoter"),
            ):
                deadline = time.monotonic() + 240
                while not (found := running.processes(kind)):
                    assert time.monotonic() < deadline, (kind, running.get(f"/v1/retrain/{asked}"))
                    time.sleep(0.2)
                time.sleep(2)
                for process in found:
                    if process.is_running():
                        process.send_signal(signal.SIGKILL)
                killed.append(what)
                time.sleep(5)
            came = retraining(running, asked)
            assert came["status"] == "done", came
            candidate = came["candidate"]
            if came["verdict"]["verdict"] != "better":
                promotion = requests.post(
                    f"{running.address}/v1/models/promote", json={"bundle": candidate}, timeout=10
                ).json()["promotion"]
                running.processes("ServeReplica")[0].kill()
                assert running.outcome(promotion)["what"] == "live"
            assert running.promote(first)["what"] == "live", "rolled back"
        print(
            f"\nkilled: a replica, {', '.join(killed)}, a replica; {outcome.summary()}; attempts "
            f"{came['attempts']}; {came['why']}"
        )
        assert set(outcome.statuses) == {200}, outcome.statuses
        assert outcome.lost == 0
        stored = {
            json.loads(file.read_text())["corrected_text"]
            for file in (tmp_path / "serve/corrections").glob("*.json")
        }
        assert stored == {text for text in texts[:30]}
        assert len(list((tmp_path / "serve/corrections").glob("*.json"))) == len(set(images[:30]))
        journal = [entry["what"] for entry in running.get("/v1/models/journal")]
        assert journal.count("retrain") == journal.count("retrained") == 1, journal


@pytest.mark.timeout(1500)
def test_a_server_that_dies_in_a_retraining_goes_on_with_it_when_it_is_started_again(
    tmp_path: Path, words: tuple[list[bytes], list[str]]
) -> None:
    images, texts = words
    with endpoint(tmp_path / "serve", "autoscaling.max_replicas=1") as running:
        for image, text in zip(images[:12], texts[:12], strict=True):
            until_stored(running, image, text)
        asked = requests.post(f"{running.address}/v1/retrain", json=QUICK, timeout=10).json()[
            "retraining"
        ]
        deadline = time.monotonic() + 240
        while running.get(f"/v1/retrain/{asked}")["progress"] < 0.2:
            assert time.monotonic() < deadline
            time.sleep(0.5)
        family = [
            psutil.Process(running.process.pid),
            *psutil.Process(running.process.pid).children(recursive=True),
        ]
        for process in family:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
    runs = sorted(
        path.name
        for path in (tmp_path / "serve/retrain" / asked / "run").iterdir()
        if (path / "report.json").is_file()
    )
    with endpoint(tmp_path / "serve", "autoscaling.max_replicas=1") as running:
        came = retraining(running, asked)
        assert came["status"] == "done", came
        assert came["attempts"] == 2
        assert runs, "a part was finished before the kill"
        assert all(f"{name}: this run is finished" in running_log(tmp_path, asked) for name in runs)


def running_log(tmp_path: Path, asked: str) -> str:
    return (tmp_path / "serve/retrain" / asked / "log.txt").read_text()


@pytest.fixture(autouse=True)
def _no_left_overs() -> Iterator[None]:
    yield
    for process in psutil.process_iter(["cmdline"]):
        if any("retrain.py" in part for part in process.info["cmdline"] or []):
            process.kill()

"""Who may ask an endpoint, and what: hosts, other sites' pages, keys with roles, private files."""

import base64
import contextlib
import hashlib
import io
import json
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from ocr.dataset.read import Dataset
from ocr.sources.corrections import plan
from ocr.sources.settings import CorrectionsSettings
from tests.support.browser import browser, until
from tests.support.commands import start
from tests.support.running import Running, free_port

KEYS = {"reader": "read", "ward 3": "correct", "ward 4": "correct", "boss": "train"}
HOST = "ocr.example"
TYPES = {"/v1/ocr": "image/webp"}


def secret(name: str) -> str:
    return f"ключ of {name}"


def bearer(name: str | None) -> dict[str, str | bytes]:
    return {"Authorization": f"Bearer {secret(name)}".encode()} if name else {}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """With keys, a name of its own, and a TMPDIR as long as Slurm's."""
    digests = {name: hashlib.sha256(secret(name).encode()).hexdigest() for name in KEYS}
    keys = ", ".join(
        f"{{name: {name}, role: {role}, sha256: {digests[name]}}}" for name, role in KEYS.items()
    )
    folder = tmp_path_factory.mktemp("slurm") / "scratch-of-a-node" / "job.123456789.0.interactive"
    folder.mkdir(parents=True)
    port, storage = free_port(), folder / "new" / "serve"
    process = start(
        "deploy",
        "odia",
        f"port={port}",
        f"storage_path={storage}",
        f"api_keys=[{keys}]",
        f"allowed_hosts=[{HOST}]",
        "autoscaling.max_replicas=1",
        TMPDIR=str(folder),
    )
    found = Running(process, port, storage)
    try:
        found.wait_up()
        yield found
        process.terminate()
        said, errors = process.communicate(timeout=90)
        assert (process.returncode, errors) == (0, ""), "a clean end says nothing"
        assert len(said.splitlines()) == 1, said
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate(timeout=30)


def ask(
    running: Running, method: str, path: str, key: str | None = "boss", **more: Any
) -> requests.Response:
    headers = {**bearer(key), **more.pop("headers", {})}
    return requests.request(method, running.address + path, headers=headers, timeout=20, **more)


def assert_error(answered: requests.Response, status: int, code: str) -> None:
    assert (answered.status_code, answered.json()["error"]["code"]) == (status, code)


def routes(running: Running, *methods: str) -> list[tuple[str, str]]:
    document = requests.get(f"{running.address}/openapi.json", timeout=10).json()
    return [
        (method.upper(), path.replace("{id}", "0" * 32).replace("{promotion}", "x"))
        for path, operations in document["paths"].items()
        for method in operations
        if method in methods
    ]


def word(number: int) -> bytes:
    return Dataset.open("odia_words", "validation").image_bytes(number)


def corrected(number: int, text: str) -> dict[str, Any]:
    line = {"image": "word", "text": text, "reading": "?", "confidence": 0.5, "model": "m"}
    image = base64.b64encode(word(number)).decode()
    return {"images": {"word": image}, "corrections": [line]}


def test_a_page_of_another_site_changes_nothing_on_any_route(running: Running) -> None:
    changing = routes(running, "post", "delete", "put", "patch")
    assert len(changing) >= 8
    own = f"127.0.0.1:{running.port}"
    foreign: list[dict[str, str]] = [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": f"http://localhost:{running.port}"},
        {"Origin": f"https://{own}.evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": f"http://{own}", "Sec-Fetch-Site": "cross-site"},
    ]
    for method, path in changing:
        for headers in foreign:
            kind = {"Content-Type": TYPES.get(path, "application/json"), **headers}
            answered = ask(running, method, path, data=b"{}", headers=kind)
            assert_error(answered, 403, "cross_site")
    page = {"Origin": f"http://{own}", "Sec-Fetch-Site": "same-origin"}
    behind = {"Origin": f"https://{HOST}", "Sec-Fetch-Site": "same-origin"}
    for headers in (page, behind, {"Sec-Fetch-Site": "none"}, {}):
        kind = {"Content-Type": "image/webp", **headers}
        assert ask(running, "POST", "/v1/ocr", data=word(0), headers=kind).ok


def test_a_name_that_is_not_this_endpoints_is_not_answered(running: Running) -> None:
    for method, path in routes(running, "get", "post", "delete"):
        answered = ask(running, method, path, headers={"Host": "evil.example"})
        assert_error(answered, 421, "unknown_host")
    for path in ("/", "/web/app.js", "/healthz", "/docs"):
        assert_error(
            ask(running, "GET", path, headers={"Host": "localhost.evil.example"}),
            421,
            "unknown_host",
        )
    for host in (HOST, f"{HOST}:443", "localhost", "127.0.0.1", "[::1]:8000", "OCR.example."):
        assert ask(running, "GET", "/readyz", headers={"Host": host}).ok, host


def test_every_post_asks_for_its_content_type(running: Running) -> None:
    posts = routes(running, "post")
    for _, path in posts:
        kinds = ["text/plain", "application/x-www-form-urlencoded", "text/json"]
        kinds += [] if path == "/v1/ocr" else ["multipart/form-data; boundary=x", "image/png"]
        for kind in kinds:
            answered = ask(running, "POST", path, data=b"{}", headers={"Content-Type": kind})
            assert_error(answered, 415, "unsupported_media_type")
        answered = ask(running, "POST", path, data=b"{}")
        assert_error(answered, 415, "unsupported_media_type")


def test_a_role_includes_the_ones_below_it_and_no_more(running: Running) -> None:
    json_type = {"Content-Type": "application/json"}
    for method, path in routes(running, "get", "post", "delete"):
        if path in ("/healthz", "/readyz", "/health"):
            continue
        assert_error(ask(running, method, path, key=None), 401, "unauthorized")
        answered = ask(running, method, path, data=b"{}", headers=json_type, key="reader")
        changes = method == "DELETE" or path in (
            "/v1/corrections",
            "/v1/retrain",
            "/v1/models/promote",
            "/v1/models/traffic",
            "/webhook",
        )
        shows_lines = path.startswith(("/v1/retrain", "/v1/corrections")) and path != (
            "/v1/corrections/stats"
        )
        assert (answered.status_code == 403) == (changes or shows_lines), (method, path)
    promotion = json.dumps({"bundle": "x"})
    for path in ("/v1/models/promote", "/v1/retrain", "/v1/models/traffic"):
        answered = ask(running, "POST", path, data=promotion, headers=json_type, key="ward 3")
        assert_error(answered, 403, "not_allowed")
    roles = {name: ask(running, "GET", "/v1/key", key=name).json() for name in KEYS}
    assert roles == {name: {"name": name, "role": role} for name, role in KEYS.items()}


def test_keys_are_taken_as_programs_send_them(running: Running) -> None:
    def status(value: bytes) -> int:
        headers = {"Authorization": value}
        return requests.get(f"{running.address}/v1/key", headers=headers, timeout=10).status_code

    key = secret("reader").encode()
    basic = base64.b64encode(b"anyone:" + key)
    assert [status(scheme + key) for scheme in (b"Bearer ", b"bearer ", b"BEARER  ")] == [200] * 3
    assert status(b"Basic " + basic) == 200
    wrong = (
        b"Basic " + base64.b64encode(b"anyone:other"),
        b"Basic %%%",
        b"Bearer ",
        b"Basic " + key,
    )
    assert [status(value) for value in wrong] == [401] * 4


def test_corrections_are_listed_exported_and_removed_by_their_owner(
    running: Running, tmp_path: Path
) -> None:
    def store(number: int, text: str, key: str) -> str:
        answered = ask(running, "POST", "/v1/corrections", key, json=corrected(number, text))
        assert answered.status_code == 201, answered.text
        return str(answered.json()["ids"][0])

    ids = [store(number, f"text {number}", "ward 3") for number in range(3)]
    other = store(3, "of another", "ward 4")
    first = ask(running, "GET", "/v1/corrections?size=3", "ward 3").json()
    assert (first["total"], first["pages"], len(first["data"])) == (4, 2, 3)
    assert (
        first["data"][0] | {"id": other, "text": "of another", "by": "ward 4"} == first["data"][0]
    )
    (last,) = ask(running, "GET", "/v1/corrections?size=3&page=2", "ward 3").json()["data"]
    assert last["id"] == ids[0]
    image = ask(running, "GET", f"/v1/corrections/{ids[0]}/image", "ward 3")
    assert image.content.startswith(b"\x89PNG")

    exported = ask(running, "GET", "/v1/corrections/export", "ward 3")
    with zipfile.ZipFile(io.BytesIO(exported.content)) as archive:
        archive.extractall(tmp_path / "zip")
    assert len(list((tmp_path / "zip").glob("*.png"))) == 4
    settings = CorrectionsSettings(format="corrections", path=str(tmp_path / "zip"))
    assert plan(settings), "retrain.py and prepare.py take it"
    tasks = ask(running, "GET", "/v1/corrections/export?format=label_studio", "ward 3").json()
    texts = {task["annotations"][0]["result"][0]["value"]["text"][0] for task in tasks}
    assert texts == {"text 0", "text 1", "text 2", "of another"}
    assert all(task["data"]["image"].startswith("data:image/png;base64,") for task in tasks)

    assert_error(ask(running, "DELETE", f"/v1/corrections/{other}", "ward 3"), 403, "not_allowed")
    assert ask(running, "DELETE", f"/v1/corrections/{ids[0]}", "ward 3").ok
    assert ask(running, "DELETE", f"/v1/corrections/{other}", "boss").ok
    for gone in (other, "../../etc/passwd", "0" * 32):
        assert ask(running, "DELETE", f"/v1/corrections/{gone}", "boss").status_code == 404
    assert ask(running, "GET", "/v1/corrections", "ward 3").json()["total"] == 2
    stored = {file.stem for file in (running.storage / "corrections").glob("*.*")}
    assert stored == set(ids[1:]), "neither its text nor its image is left"


def test_the_journal_says_who_promoted(running: Running) -> None:
    model = requests.get(f"{running.address}/readyz", timeout=10).json()["model"]
    body = {"bundle": model, "why": "as it was"}
    assert ask(running, "POST", "/v1/models/promote", "boss", json=body).status_code == 202
    entry = ask(running, "GET", "/v1/models/journal", "reader").json()
    assert [each["by"] for each in entry if each["what"] == "promote"] == ["boss"]


def test_what_is_stored_is_its_owners_alone(running: Running) -> None:
    modes = {}
    for path in [running.storage, *running.storage.rglob("*")]:
        with contextlib.suppress(FileNotFoundError):  # a temporary file that got its name meanwhile
            modes[path] = stat.S_IMODE(path.stat().st_mode)
    assert len(modes) > 10
    assert [path for path, mode in modes.items() if mode & 0o077] == []
    token = Path.home() / ".ray" / "auth_token"
    assert not token.exists() or stat.S_IMODE(token.stat().st_mode) == 0o600


def test_no_port_of_ray_listens_to_other_machines_but_one_that_asks_for_the_token(
    running: Running,
) -> None:
    processes = [psutil.Process(running.process.pid), *running.processes("")]
    everywhere = [
        process.name()
        for process in processes
        for listening in process.net_connections("tcp")
        if listening.status == psutil.CONN_LISTEN
        and listening.laddr.ip not in ("127.0.0.1", "::1", "::ffff:127.0.0.1")
    ]
    # Ray Serve's port between deployments has no setting for its address
    assert [name for name in everywhere if not name.startswith("ray::ServeRepli")] == []
    assert len(everywhere) <= 1


def test_the_page_of_a_reader_offers_what_a_reader_may(running: Running) -> None:
    with browser() as chromium:
        page = chromium.new_page()
        page.goto(running.address)
        page.wait_for_selector("#key-form", state="visible")
        assert page.is_hidden("#message"), "a key that is asked for is no error"
        assert page.evaluate("document.querySelector('#learn').inert")
        page.fill("#key", secret("reader"))  # beyond ASCII
        page.click("#key-form button")
        page.wait_for_selector("#key-form", state="hidden")
        page.click("#tab-learn")
        until(page, "document.querySelector('#training-note').textContent.includes('may not')")
        assert page.is_disabled("#start") and page.is_hidden("#stored")
        page.click("#tab-read")
        page.click("#sample")
        page.wait_for_selector("#lines li")
        page.locator("#lines .right").first.click()
        page.keyboard.press("Control+s")
        page.wait_for_selector("#message.bad")
        assert "Your key may read only" in page.inner_text("#message")


def test_docs_name_the_port_that_was_asked_and_have_the_headers(running: Running) -> None:
    for method in ("GET", "HEAD"):
        answered = requests.request(method, f"{running.address}/docs", timeout=10)
        policy = answered.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert answered.headers["X-Content-Type-Options"] == "nosniff"
    page = requests.get(f"{running.address}/docs", timeout=10).text
    assert f"curl http://127.0.0.1:{running.port}/v1/models" in page
    assert "8000" not in page

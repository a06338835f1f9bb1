"""Overload, malice and bad luck on the wire: the endpoint refuses in JSON, others go on being read,
memory stays bounded.

Each test prints its counts; docs/results.md has them.
"""

import contextlib
import gzip
import io
import json
import random
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image

from tests.support import load
from tests.support.load import odia_words
from tests.support.running import REPLICA, Running, endpoint, loaded, word_shots

LIMIT = 2_000_000
Words = tuple[list[bytes], list[str]]


@pytest.fixture(scope="module")
def words() -> Words:
    return odia_words(100)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with endpoint(
        tmp_path_factory.mktemp("serve"),
        "autoscaling.max_replicas=1",
        f"limits.max_body_bytes={LIMIT}",
        "limits.request_timeout_s=10",
    ) as found:
        yield found


def rss(running: Running) -> float:
    """MB of the replicas."""
    return sum(process.memory_info().rss for process in running.processes(REPLICA)) / 1e6


def calm(running: Running, words: Words, seconds: float = 3) -> load.Outcome:
    """What a quiet client sees."""
    with loaded(running, word_shots(*words), clients=1) as outcome:
        time.sleep(seconds)
    return outcome


def p99(outcome: load.Outcome) -> float:
    return float(np.percentile(outcome.latencies, 99))


def raw(running: Running, data: bytes, timeout_s: float = 20) -> bytes:
    """What comes back on a connection of its own; as much as there is."""
    with socket.create_connection(("127.0.0.1", running.port), timeout=timeout_s) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(data)
        found = b""
        with contextlib.suppress(OSError):
            while part := connection.recv(65536):
                found += part
                head, _, body = found.partition(b"\r\n\r\n")
                length = next(
                    (
                        int(line.split(b":")[1])
                        for line in head.split(b"\r\n")
                        if line.lower().startswith(b"content-length")
                    ),
                    None,
                )
                if length is not None and len(body) >= length:
                    break
        return found


def test_overload_is_refused_at_once_and_over_when_it_ends(running: Running, words: Words) -> None:
    with loaded(running, word_shots(*words), clients=16, pause_s=0) as full:
        time.sleep(8)
    saturation, before = full.statuses[200] / full.seconds, rss(running)
    with loaded(running, word_shots(*words), rate=5 * saturation) as outcome:
        time.sleep(30)
    after = rss(running)
    began = time.monotonic()
    recovered = calm(running, words, 2)
    print(
        f"\nsaturation {saturation:.0f}/s; at five times it: {outcome.summary()}; RSS "
        f"{before:.0f} -> {after:.0f} MB; afterwards {recovered.summary()}"
    )
    assert set(outcome.statuses) <= {200, 503}
    assert outcome.wrong == 0
    assert outcome.statuses[200] > 0.6 * saturation * 30
    assert float(np.percentile(outcome.refusals, 99)) < 500, (
        "the client of this test itself holds a core"
    )
    assert max(outcome.latencies) < 12_000
    assert after < before + 200
    assert (set(recovered.statuses), recovered.lost) == ({200}, 0)
    assert time.monotonic() - began < 8


def test_bodies_that_lie_or_never_end_are_refused_and_others_are_read(
    running: Running, words: Words
) -> None:
    alone, before = p99(calm(running, words)), rss(running)
    head = b"POST /v1/ocr HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"

    def endless() -> int:
        """A chunked GiB: bytes that were taken."""
        sent, piece = 0, b"10000\r\n" + b"x" * 65536 + b"\r\n"
        with (
            socket.create_connection(("127.0.0.1", running.port), timeout=20) as connection,
            contextlib.suppress(OSError),
        ):
            connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
            while sent < 2**30:
                connection.sendall(piece)
                sent += 65536
        return sent

    taken, answers = list[int](), list[bytes]()
    with loaded(running, word_shots(*words), clients=1) as others:
        for _ in range(3):
            taken.append(endless())
            answers.append(raw(running, head + b"Content-Length: 1073741824\r\n\r\n" + b"x" * 1000))
            answers.append(raw(running, head + b"Content-Length: 10\r\n\r\n" + b"x" * 5000))
    print(
        f"\nGiB: {[f'{size / 1e6:.1f} MB taken' for size in taken]}; others {p99(others):.1f} "
        f"ms, alone {alone:.1f}; RSS {before:.0f} -> {rss(running):.0f} MB"
    )
    assert max(taken) < LIMIT + 20_000_000, (
        "the sender counts what the kernel's buffers of two loopback connections hold, too: up "
        "to 10 MB each"
    )
    assert all(
        b" 413 " in answer.split(b"\r\n")[0] or b" 408 " in answer.split(b"\r\n")[0]
        for answer in answers[::2]
    ), "too large, or never sent"
    assert all(b" 4" in answer.split(b"\r\n")[0] for answer in answers[1::2]), answers
    assert (set(others.statuses), others.wrong, others.lost) == ({200}, 0, 0)
    assert p99(others) < max(2 * alone, 100)
    assert rss(running) < before + 100


def test_requests_that_are_no_requests_get_json_and_no_500(running: Running, words: Words) -> None:
    image = words[0][0]
    bomb = gzip.compress(b"x" * 100_000_000)
    parts = (
        b"".join(
            b'--x\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\nx\r\n'
            for _ in range(10_000)
        )
        + b"--x--\r\n"
    )
    posts: list[tuple[bytes, dict[str, str]]] = [
        (b"", {"Content-Type": "image/png"}),
        (b"\x00" * 1000, {"Content-Type": "image/png"}),
        (image, {}),
        (image, {"Content-Type": "application/json"}),
        (b"[1, 2", {"Content-Type": "application/json"}),
        (b'{"images": {"a": 1}}', {"Content-Type": "application/json"}),
        (b'{"images": [[[]]]}', {"Content-Type": "application/json"}),
        (b'"' + b"\\ud800" * 10 + b'"', {"Content-Type": "application/json"}),
        (parts, {"Content-Type": "multipart/form-data; boundary=x"}),
        (b"no boundary", {"Content-Type": "multipart/form-data"}),
        (bomb, {"Content-Type": "image/png", "Content-Encoding": "gzip"}),
        (bomb, {"Content-Type": "application/json", "Content-Encoding": "gzip"}),
    ]
    for body, headers in posts:
        for path in ("/v1/ocr", "/v1/chat/completions", "/v1/models/promote"):
            answered = requests.post(running.address + path, data=body, headers=headers, timeout=20)
            assert 400 <= answered.status_code < 500, (
                path,
                headers,
                answered.status_code,
                answered.text[:200],
            )
            assert set(answered.json()["error"]) == {"code", "message"}
    big = raw(
        running, b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"A: " + b"x" * 300_000 + b"\r\n\r\n"
    )
    many = raw(
        running,
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
        + b"".join(b"A%d: x\r\n" % place for place in range(100_000))
        + b"\r\n",
    )
    garbage = raw(running, bytes(random.Random(0).randbytes(500)) + b"\r\n\r\n")
    for answer in (big, many, garbage):
        assert b" 4" in answer.split(b"\r\n")[0] or answer == b"", answer[:200]
    assert running.is_up()


def test_slow_clients_are_let_go_and_others_are_read(running: Running, words: Words) -> None:
    alone = p99(calm(running, words))
    lines = (
        "POST /v1/ocr HTTP/1.1",
        "Host: x",
        "Content-Type: image/png",
        "Content-Length: 100000",
    )
    head = "\r\n".join([*lines, "", ""]).encode()
    slow = [socket.create_connection(("127.0.0.1", running.port), timeout=5) for _ in range(200)]
    for place, connection in enumerate(slow):
        connection.sendall(head if place % 2 else head[: 20 + place % 40])
    gone = requests.post(
        running.address + "/v1/ocr",
        data=words[0][0],
        headers={"Content-Type": "image/webp"},
        timeout=10,
    )
    began, let_go = time.monotonic(), dict[int, float]()
    with loaded(running, word_shots(*words), clients=1) as others:
        while len(let_go) < len(slow) and time.monotonic() - began < 60:
            for place, connection in enumerate(slow):
                if place in let_go:
                    continue
                try:
                    connection.sendall(b"x" if place % 2 else b"y")
                    connection.setblocking(False)
                    if connection.recv(1000) is not None:
                        let_go[place] = time.monotonic() - began
                except BlockingIOError:
                    pass
                except OSError:
                    let_go[place] = time.monotonic() - began
                connection.settimeout(5)
            time.sleep(1)
    for connection in slow:
        connection.close()
    print(
        f"\n200 slow clients: let go after {min(let_go.values()):.0f} to "
        f"{max(let_go.values()):.0f} s; others {others.summary()}, alone {alone:.1f} ms"
    )
    assert gone.status_code == 200
    assert len(let_go) == 200
    assert (set(others.statuses), others.wrong, others.lost) == ({200}, 0, 0)
    assert p99(others) < max(2 * alone, 100)


def test_one_poisoned_image_among_sixteen_spoils_none(running: Running, words: Words) -> None:
    images, texts = words
    for place in range(16):
        batch = [image if at != place else image[:60] for at, image in enumerate(images[:16])]
        answered = requests.post(
            running.address + "/v1/ocr",
            files=[("f", (str(at), image)) for at, image in enumerate(batch)],
            timeout=20,
        ).json()
        assert [result.get("text") for result in answered["results"]] == [
            None if at == place else text for at, text in enumerate(texts[:16])
        ]
        assert "error" in answered["results"][place]


def pixel_bomb(side: int) -> bytes:
    """A PNG of side² grey pixels in a few kB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(side + 1)) for _ in range(side)) + packer.flush()
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def test_sixteen_pixel_bombs_at_once_are_refused_by_their_headers(
    running: Running, words: Words
) -> None:
    before = rss(running)
    bombs, statuses = (
        [pixel_bomb(20_000), pixel_bomb(4_400)],
        list[int](),
    )  # above the limit, and just below it: 19 megapixels are decoded

    def send(bomb: bytes) -> None:
        statuses.append(
            requests.post(
                running.address + "/v1/ocr",
                data=bomb,
                headers={"Content-Type": "image/png"},
                timeout=60,
            ).status_code
        )

    threads = [threading.Thread(target=send, args=(bombs[place % 2],)) for place in range(16)]
    with loaded(running, word_shots(*words), clients=1) as others:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    print(
        f"\n16 pixel bombs: {sorted(statuses)}; RSS {before:.0f} -> {rss(running):.0f} MB; "
        f"others {others.summary()}"
    )
    assert statuses.count(422) >= 8
    assert set(statuses) <= {200, 422, 503, 504}
    assert rss(running) < before + 800
    assert (others.wrong, others.lost) == (0, 0)


def test_a_request_that_takes_too_long_ends_with_504_and_the_replica_lives(
    tmp_path: Path, words: Words
) -> None:
    image = Image.fromarray(
        np.tile(np.asarray(Image.open(io.BytesIO(words[0][0])).convert("L")), (1, 20))
    )
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    with endpoint(
        tmp_path, "autoscaling.max_replicas=1", "limits.request_timeout_s=0.1", "batch_size=2"
    ) as running:
        pids = [process.pid for process in running.processes(REPLICA)]
        answered = requests.post(
            running.address + "/v1/ocr",
            files=[("f", (str(at), buffer.getvalue())) for at in range(60)],
            timeout=20,
        )
        assert (answered.status_code, answered.json().get("error", {}).get("code")) == (
            504,
            "deadline",
        ), answered.text[:500]
        for _ in range(20):
            time.sleep(0.25)
            later = requests.post(
                running.address + "/v1/ocr",
                data=words[0][0],
                headers={"Content-Type": "image/webp"},
                timeout=5,
            )
            if later.ok:
                break
        assert later.json().get("text") == words[1][0], later.text
        assert [process.pid for process in running.processes(REPLICA)] == pids


def test_no_text_is_logged(running: Running, words: Words) -> None:
    requests.post(
        running.address + "/v1/ocr",
        data=words[0][0],
        headers={"Content-Type": "image/webp"},
        timeout=5,
    )
    logs = Path("/tmp/ray/session_latest/logs")
    text = words[1][0].encode()
    escaped = json.dumps(words[1][0]).encode()
    assert [
        file.name
        for file in logs.rglob("*")
        if file.is_file() and (text in (found := file.read_bytes()) or escaped in found)
    ] == []


def mutated(image: bytes, draw: random.Random) -> bytes:
    """Flipped, cut, doubled, or with a part of noise."""
    data = bytearray(image)
    for _ in range(draw.randint(1, 8)):
        at = draw.randrange(len(data)) if data else 0
        what = draw.randrange(4)
        if what == 0 and data:
            data[at] ^= 1 << draw.randrange(8)
        elif what == 1:
            del data[at : at + draw.randint(1, 64)]
        elif what == 2:
            data[at:at] = data[at : at + draw.randint(1, 64)]
        else:
            data[at : at + 16] = draw.randbytes(16)
    return bytes(data)


def encoded(image: bytes) -> list[bytes]:
    """The same in every format that is read."""
    found = [image]
    for kind in ("PNG", "JPEG", "TIFF", "BMP", "GIF", "PPM"):
        buffer = io.BytesIO()
        Image.open(io.BytesIO(image)).convert("L").save(buffer, kind)
        found.append(buffer.getvalue())
    return found


def test_ten_thousand_mutated_images_make_no_500_and_memory_is_bounded(
    running: Running, words: Words
) -> None:
    draw, before = random.Random(8), rss(running)
    pool = [form for image in words[0][:10] for form in encoded(image)]
    images = [mutated(draw.choice(pool), draw) for _ in range(10_000)]
    statuses, session = dict[int, int](), requests.Session()
    pids = [process.pid for process in running.processes(REPLICA)]

    def told(answer: Any) -> str:
        return str(answer.get("error", {}).get("code", "read"))

    codes = dict[str, int]()
    for start in range(0, len(images), 50):
        answered = session.post(
            running.address + "/v1/ocr",
            files=[("f", (str(at), image)) for at, image in enumerate(images[start : start + 50])],
            timeout=60,
        )
        statuses[answered.status_code] = statuses.get(answered.status_code, 0) + 1
        for result in answered.json()["results"]:
            codes[told(result)] = codes.get(told(result), 0) + 1
    print(
        f"\n10,000 mutated images: {statuses}, {codes}; RSS {before:.0f} -> {rss(running):.0f} MB"
    )
    assert set(statuses) == {200}
    assert codes.get("read", 0) > 500
    assert codes.get("not_a_readable_image", 0) > 500
    assert [process.pid for process in running.processes(REPLICA)] == pids
    assert rss(running) < before + 300


def test_a_long_steady_load_leaks_nothing(running: Running, words: Words) -> None:
    with loaded(running, word_shots(*words), clients=8, pause_s=0):
        time.sleep(20)  # warm
    seen = list[tuple[float, float, int]]()
    with loaded(running, word_shots(*words), clients=8, pause_s=0) as outcome:
        for _ in range(12):
            time.sleep(10)
            seen.append(
                (
                    time.monotonic(),
                    rss(running),
                    sum(process.num_fds() for process in running.processes(REPLICA)),
                )
            )
    minutes = [(at - seen[0][0]) / 60 for at, _, _ in seen]
    slope = float(np.polyfit(minutes, [size for _, size, _ in seen], 1)[0])
    print(
        f"\nsteady load: {outcome.summary()}; RSS {slope:+.2f} MB a minute, files {seen[0][2]} "
        f"-> {seen[-1][2]}"
    )
    assert (set(outcome.statuses), outcome.wrong, outcome.lost) == ({200}, 0, 0)
    assert outcome.statuses[200] > 24_000
    assert slope < 1
    assert abs(seen[-1][2] - seen[0][2]) < 10

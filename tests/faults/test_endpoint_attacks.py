"""Files that are small to send and dear to decode: their sender gets a refusal, others are read as
before, and the memory goes back.

Each test prints its figures; docs/security.md has them.
"""

import base64
import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import psutil
import pytest
import requests

from tests.support import bombs, load
from tests.support.running import REPLICA, Running, endpoint, loaded, word_shots

RATE, PHASE_S, PHASES = 20, 5.0, 5
PAUSE_S = 0.25  # of the attacker, between an answer and the next request
Words = tuple[list[bytes], list[str]]
Sent = tuple[str, bytes, str]  # path, body, type


@pytest.fixture(scope="module")
def words() -> Words:
    return load.odia_words(100)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with endpoint(tmp_path_factory.mktemp("serve"), "autoscaling.max_replicas=1") as found:
        yield found


def memory(running: Running) -> float:
    """MB of the replica and of all that it started."""
    replicas = running.processes(REPLICA)
    started = [child for replica in replicas for child in replica.children(recursive=True)]
    found = 0.0
    for process in {*replicas, *started}:
        try:
            found += process.memory_info().rss / 1e6
        except psutil.NoSuchProcess:
            continue
    return found


def corrections(count: int, side: int) -> bytes:
    """So many corrections, each of the whole page and turned otherwise."""
    polygon = [[0, 0], [side, 0], [side, side], [0, side]]
    given = [
        {"image": "a", "text": "x", "polygon": polygon, "degrees": 1 + each / 100}
        for each in range(count)
    ]
    image = base64.b64encode(bombs.pixel_bomb(side, side)).decode()
    return json.dumps({"images": {"a": image}, "corrections": given}).encode()


def chat(image: bytes) -> bytes:
    url = f"data:image/jpeg;base64,{base64.b64encode(image).decode()}"
    parts = [{"type": "image_url", "image_url": {"url": url}}]
    return json.dumps({"messages": [{"role": "user", "content": parts}]}).encode()


ATTACKS: dict[str, Callable[[], Sent]] = {
    "small JPEG": lambda: ("/v1/ocr", bombs.many_scans(1400, 7500), "image/jpeg"),
    "113 kB JPEG": lambda: ("/v1/ocr", bombs.many_scans(4400, 2500), "image/jpeg"),
    "17 MB JPEG": lambda: ("/v1/ocr", bombs.many_scans(4400, 450_000), "image/jpeg"),
    "JPEG as page": lambda: ("/v1/ocr?level=page", bombs.many_scans(4400, 2500), "image/jpeg"),
    "JPEG in a chat": lambda: (
        "/v1/chat/completions",
        chat(bombs.many_scans(4400, 2600)),
        "application/json",
    ),
    "PDF of depth 6": lambda: ("/v1/ocr?level=page", bombs.nested_pdf(6), "application/pdf"),
    "PDF of depth 7": lambda: ("/v1/ocr?level=page", bombs.nested_pdf(7), "application/pdf"),
    "PDF of depth 12": lambda: ("/v1/ocr?level=page", bombs.nested_pdf(12), "application/pdf"),
    "TIFF of pages": lambda: ("/v1/ocr", bombs.many_pages_tiff(190_000), "image/tiff"),
    "corrections": lambda: ("/v1/corrections", corrections(1000, 4400), "application/json"),
}


def attack(running: Running, sent: Sent, over: threading.Event, answers: list[int]) -> None:
    """Send it, and again soon after it is answered, from a process of its own."""
    path, body, kind = sent
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        told = ("-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", f"Content-Type: {kind}")
        while not over.is_set():
            found = subprocess.run(
                ["curl", *told, "--data-binary", f"@{file.name}", running.address + path],
                capture_output=True,
                check=False,
            )
            answers.append(int(found.stdout))
            over.wait(PAUSE_S)


def phase(running: Running, words: Words, sent: Sent | None, answers: list[int]) -> load.Outcome:
    """What others see for some seconds, with or without the attack."""
    over = threading.Event()
    arguments = (running, sent, over, answers)
    attacker = threading.Thread(target=attack, args=arguments) if sent else None
    if attacker:
        attacker.start()
    with loaded(running, word_shots(*words), rate=RATE) as outcome:
        time.sleep(PHASE_S)
    over.set()
    if attacker:
        attacker.join()
    return outcome


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_costs_its_sender_a_refusal_and_others_nothing(
    running: Running, words: Words, name: str
) -> None:
    sent, answers = ATTACKS[name](), list[int]()
    # receiving many bytes takes time from others, whatever is in them
    received = (sent[0], sent[1], "text/plain") if len(sent[1]) > 1_000_000 else None
    phase(running, words, None, [])
    before = memory(running)
    pairs = [
        (phase(running, words, received, []), phase(running, words, sent, answers))
        for _ in range(PHASES)
    ]
    ended = time.monotonic()
    while (after := memory(running)) > before + 60 and time.monotonic() - ended < 10:
        time.sleep(0.2)
    alone, attacked = (  # the median of phases: other programs disturb some of them
        float(np.median([np.percentile(pair[side].latencies, 99) for pair in pairs]))
        for side in (0, 1)
    )
    print(
        f"\n{name}: {len(sent[1]):,} bytes, answers {sorted(set(answers))} ({len(answers)}); p99 "
        f"of others {attacked:.1f} ms, else {alone:.1f} ms; memory {before:.0f} -> {after:.0f} MB "
        f"after {time.monotonic() - ended:.1f} s"
    )
    for _, others in pairs:
        assert (set(others.statuses), others.wrong, others.lost) == ({200}, 0, 0)
    assert set(answers) <= ({200, 422} if name == "PDF of depth 6" else {422})
    assert attacked < max(2 * alone, 100), "milliseconds; cores are shared with this test itself"
    assert after <= before + 60
    assert len(running.processes(REPLICA)) == 1


def test_a_reader_that_is_stuck_is_not_ready_and_its_replica_is_replaced(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Batches that take longer than `max_batch_s`, one after the other, stand for a stuck one."""
    wide = [("f", (str(each), bombs.pixel_bomb(9000, 60))) for each in range(16)]
    storage = tmp_path_factory.mktemp("stuck")
    with endpoint(
        storage, "autoscaling.max_replicas=1", "limits.max_batch_s=0.01", "limits.max_pixels=600000"
    ) as running:
        (first,), over, ready = running.processes(REPLICA), threading.Event(), set[int]()

        def send() -> None:
            while not over.is_set():
                requests.post(running.address + "/v1/ocr", files=wide, timeout=60)

        senders = [threading.Thread(target=send) for _ in range(2)]
        for sender in senders:
            sender.start()
        deadline = time.monotonic() + 120
        while first.is_running() and time.monotonic() < deadline:
            ready.add(requests.get(running.address + "/readyz", timeout=60).status_code)
            time.sleep(0.1)
        over.set()
        for sender in senders:
            sender.join()
        assert 503 in ready
        assert not first.is_running()
        running.wait_up()

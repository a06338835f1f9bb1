"""SIGKILL of everything an endpoint is made of, and models that swap, under load: counts of lost
and sent. Through HAProxy a dead replica loses nothing.

Each test prints its counts; docs/results.md has them.
"""

import random
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
import requests

from ocr.errors import UserError
from serve.client import Client
from tests.support.load import odia_words
from tests.support.running import (
    CONTROLLER,
    PROMOTER,
    PROXY,
    REPLICA,
    Running,
    endpoint,
    loaded,
    shots_by_model,
    word_shots,
)

KILLS, PAUSE_S = 10, 6.0


@pytest.fixture(scope="module")
def words() -> tuple[list[bytes], list[str]]:
    return odia_words(100)


def test_replicas_that_die_under_load_lose_nothing_with_our_client_or_without(
    tmp_path: Path, words: tuple[list[bytes], list[str]]
) -> None:
    images, texts = words
    found, over = list[str](), threading.Event()
    with endpoint(tmp_path, "autoscaling.min_replicas=2") as running:
        client = Client(running.address)

        def ask(place: int) -> None:
            while not over.is_set():
                place = (place + 1) % len(images)
                try:
                    text = client.read([images[place]])[0].text
                    found.append("right" if text == texts[place] else f"wrong: {text}")
                except UserError as problem:
                    found.append(f"lost: {problem}")
                time.sleep(0.05)

        threads = [threading.Thread(target=ask, args=(place,)) for place in range(2)]
        back = list[float]()
        with loaded(running, word_shots(images, texts)) as outcome:
            for thread in threads:
                thread.start()
            for _ in range(KILLS):
                time.sleep(PAUSE_S)
                random.choice(running.processes(REPLICA)).kill()
                began = time.monotonic()
                while len(_ready_replicas(running)) < 2:
                    assert time.monotonic() - began < 60
                    time.sleep(0.2)
                back.append(time.monotonic() - began)
            over.set()
            for thread in threads:
                thread.join()
    print(
        f"\n{KILLS} kills; our client: {found.count('right')} of {len(found)}; plain: "
        f"{outcome.summary()}; longest {max(outcome.latencies):.0f} ms; replica back after "
        f"{max(back):.1f} s at most"
    )
    assert [what for what in found if what != "right"] == []
    assert (set(outcome.statuses), outcome.wrong, outcome.lost) == ({200}, 0, 0)
    assert max(back) < 15


def _ready_replicas(running: Running) -> list[psutil.Process]:
    """Replicas that listen."""
    return [
        process
        for process in running.processes(REPLICA)
        if any(
            30000 <= found.laddr.port < 31000
            for found in process.net_connections()
            if found.status == "LISTEN"
        )
    ]


def test_without_its_controller_an_endpoint_goes_on_reading(
    tmp_path: Path, words: tuple[list[bytes], list[str]]
) -> None:
    with endpoint(tmp_path, "autoscaling.min_replicas=2") as running:
        with loaded(running, word_shots(*words)) as outcome:
            for _ in range(3):
                time.sleep(3)
                for process in running.processes(CONTROLLER):
                    process.kill()
                time.sleep(8)
            for process in running.processes(PROMOTER):
                process.kill()
            time.sleep(3)
        print(f"\n3 kills of the controller, one of the promoter: {outcome.summary()}")
        assert (set(outcome.statuses), outcome.wrong, outcome.lost) == ({200}, 0, 0)


def test_a_killed_front_comes_back(tmp_path: Path, words: tuple[list[bytes], list[str]]) -> None:
    with endpoint(tmp_path, "autoscaling.min_replicas=2") as running:
        for kind in ("haproxy -db", PROXY):
            with loaded(running, word_shots(*words)) as outcome:
                time.sleep(2)
                for process in running.processes(kind):
                    process.kill()
                time.sleep(0.5)
                down = running.wait_up(60)
                time.sleep(2)
            print(f"\n{kind} killed: down {down:.1f} s; {outcome.summary()}")
            assert outcome.wrong == 0
            assert set(outcome.statuses) <= {200, 503}


def test_with_all_replicas_dead_it_says_so_and_comes_back(
    tmp_path: Path, words: tuple[list[bytes], list[str]]
) -> None:
    with endpoint(tmp_path, "autoscaling.min_replicas=2") as running:
        with loaded(running, word_shots(*words)) as outcome:
            time.sleep(2)
            for process in running.processes(REPLICA):
                process.kill()
            time.sleep(0.5)
            down = running.wait_up(60)
            time.sleep(2)
        print(f"\nall replicas killed: down {down:.1f} s; {outcome.summary()}")
        assert outcome.wrong == 0
        assert down < 30
        assert max(outcome.refusals, default=0) < 32_000, "503, not a hang"


def test_models_swap_ten_times_under_load_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    shots, _ = shots_by_model()
    with endpoint(tmp_path, "autoscaling.min_replicas=2", bundle="thai"):
        pass  # so that both are kept
    with endpoint(tmp_path, "autoscaling.min_replicas=2") as running:
        odia, thai = (
            next(
                model["id"]
                for model in running.get("/v1/models")["data"]
                if model["id"].startswith(name)
            )
            for name in ("base-odia", "base-thai")
        )
        seconds = list[float]()
        with loaded(running, shots) as outcome:
            for turn in range(10):
                began = time.monotonic()
                assert running.promote(thai if turn % 2 == 0 else odia)["what"] == "live"
                seconds.append(time.monotonic() - began)
        print(f"\n10 swaps: {outcome.summary()}; {min(seconds):.1f} to {max(seconds):.1f} s each")
        assert (set(outcome.statuses), outcome.wrong, outcome.lost) == ({200}, 0, 0), (
            outcome.wrong_bodies[:3]
        )


def test_a_promotion_ends_however_often_its_processes_die(tmp_path: Path) -> None:
    shots, _ = shots_by_model()
    with endpoint(tmp_path, "autoscaling.min_replicas=2", bundle="thai"):
        pass
    with endpoint(tmp_path, "autoscaling.min_replicas=2") as running:
        thai = next(
            model["id"]
            for model in running.get("/v1/models")["data"]
            if model["id"].startswith("base-thai")
        )
        with loaded(running, shots) as outcome:
            promotion = requests.post(
                f"{running.address}/v1/models/promote", json={"bundle": thai}, timeout=10
            ).json()["promotion"]
            for kind in (PROMOTER, REPLICA, PROMOTER):
                time.sleep(random.uniform(0.2, 1.5))
                for process in running.processes(kind)[:1]:
                    process.kill()
            found = running.outcome(promotion, 180)
            time.sleep(3)
        print(f"\nkilled in a promotion: {found}; {outcome.summary()}")
        assert found["what"] == "live"
        assert (set(outcome.statuses), outcome.wrong, outcome.lost) == ({200}, 0, 0), (
            outcome.wrong_bodies[:3]
        )


def test_sigterm_answers_what_was_taken(
    tmp_path: Path, words: tuple[list[bytes], list[str]]
) -> None:
    with endpoint(tmp_path, "autoscaling.min_replicas=2") as running:
        with loaded(running, word_shots(*words)) as outcome:
            time.sleep(3)
            running.process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            running.process.wait(60)
            ended = time.monotonic() - began
        print(f"\nSIGTERM: ended after {ended:.1f} s; {outcome.summary()}")
        assert (outcome.wrong, outcome.lost) == (0, 0)
        assert set(outcome.statuses) <= {200, 503}
        assert ended < 45

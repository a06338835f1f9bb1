"""Replicas come with the load and go with it."""

import time
from pathlib import Path

from tests.support.load import odia_words
from tests.support.running import Running, endpoint, loaded, word_shots


def replicas(running: Running) -> int:
    return len(running.processes("ServeReplica"))


def seconds_until(running: Running, count: int, timeout_s: float) -> float:
    began = time.monotonic()
    while replicas(running) != count:
        assert time.monotonic() - began < timeout_s, (count, replicas(running))
        time.sleep(0.2)
    return time.monotonic() - began


def test_load_adds_a_replica_and_its_end_takes_it_away_and_no_request_is_lost(
    tmp_path: Path,
) -> None:
    scaling = [
        "autoscaling.max_replicas=2",
        "autoscaling.upscale_delay_s=2",
        "autoscaling.downscale_delay_s=10",
    ]
    with endpoint(tmp_path / "serve", *scaling) as running:
        assert replicas(running) == 1
        with loaded(running, word_shots(*odia_words(60)), clients=16, pause_s=0.0) as busy:
            up = seconds_until(running, 2, 90)
            time.sleep(5)
        with loaded(running, word_shots(*odia_words(60)), rate=2) as calm:
            down = seconds_until(running, 1, 180)
            time.sleep(3)
        print(
            f"\nload up: a second replica after {up:.1f} s; load away: gone after {down:.1f} s; "
            f"{busy.summary()}; then {calm.summary()}"
        )
        for outcome in (busy, calm):
            assert set(outcome.statuses) == {200}
            assert (outcome.lost, outcome.wrong) == (0, 0)

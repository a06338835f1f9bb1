"""A run that goes on with fewer workers when a node is lost, and grows when one comes."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.faults.test_nodes import timings, with_a_worker
from tests.support.nodes import Nodes, needs_nodes, nodes
from tests.support.resuming import wait_for
from trainers.loop.checkpoint import directory_of, verify_hashes
from trainers.report.records import read_records

pytestmark = needs_nodes
STEPS = 1500
WORDS = ["python", "ray_jobs/train.py", "configs/tiny.yaml", "threads_per_worker=1"]
WORDS += [f"train.max_steps={STEPS}", "train.save_steps=20", "train.eval_steps=1500"]
WORDS += ["train.logging_steps=1", "train.save_total_limit=2"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    with nodes(3) as made:
        yield made


def sizes(run_dir: Path) -> list[str]:
    """What the run has said about its workers when it began again."""
    return [line["text"] for line in timings(run_dir) if line.get("event") == "restart"]


def until_restart(run_dir: Path, number: int, seconds: float) -> float:
    """Wait for a restart and the step after it; return how long that took."""
    began = time.monotonic()
    while time.monotonic() < began + seconds:
        lines = timings(run_dir)
        places = [at for at, line in enumerate(lines) if line.get("event") == "restart"]
        if len(places) >= number and "samples_per_second" in str(lines[places[number - 1] :]):
            return time.monotonic() - began
        time.sleep(0.3)
    raise AssertionError(f"{number} restarts were expected: {sizes(run_dir)}")


@pytest.mark.timeout(1800)
def test_three_workers_then_two_then_three(cluster: Nodes) -> None:
    run_dir = cluster.shared / "runs" / "elastic"
    words = [*WORDS, "run_name=elastic", "workers={min: 1, max: 3}"]
    running = cluster.head.start(*cluster.submit(*words))
    wait_for(directory_of(run_dir, 40), seconds=200)
    node = with_a_worker(cluster)
    node.kill()
    shrunk = until_restart(run_dir, 1, 200)
    node.boot()
    node.start_ray()
    grown = until_restart(run_dir, 2, 300)
    said, _ = running.communicate(timeout=900)
    assert running.returncode == 0, said
    first, second = sizes(run_dir)[:2]
    assert re.search(r"equal to rounding, because workers 3 → 2", first), first
    assert re.search(r"equal to rounding, because workers 2 → 3", second), second
    print(f"{shrunk:.0f} s from the loss to the next step, {grown:.0f} s until it had grown")
    ledger = read_records(run_dir / "samples.jsonl").lines
    assert [line["step"] for line in ledger] == list(range(1, STEPS + 1))
    calm = cluster.head.run(*cluster.submit(*WORDS, "run_name=calm", "workers=3"), timeout=900)
    assert calm.returncode == 0, calm.stdout
    other = cluster.shared / "runs" / "calm"
    assert ledger == read_records(other / "samples.jsonl").lines
    mine, theirs = (verify_hashes(directory_of(at, STEPS)).weights() for at in (run_dir, other))
    worst = max(float((mine[name].float() - theirs[name].float()).abs().max()) for name in mine)
    print(f"weights differ by {worst:.1e} at most from a run of three workers")
    assert worst < 1e-2 and all(torch.isfinite(mine[name]).all() for name in mine)

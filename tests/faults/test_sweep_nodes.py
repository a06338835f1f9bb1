"""A sweep on a cluster that grows: a node that joins late gets trials too."""

import json
import time

from ocr.settings import load_settings
from tests.support.nodes import Nodes, needs_nodes, nodes
from trainers.sweep.settings import SweepConfig
from trainers.sweep.space import sampled

pytestmark = needs_nodes
SWEEP = [
    "python",
    "ray_jobs/sweep.py",
    "configs/sweeps/tiny.yaml",
    "sweep_name=growing",
    "searcher=random",
    "scheduler=fifo",
    "trials=8",
]


def trials_here(cluster: Nodes) -> list[int]:
    """The number of processes with a trial, by node."""
    return [len(node.processes("ray::ImplicitFunc")) for node in cluster.nodes]


def wait_for_trials(cluster: Nodes, wanted: list[int], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while (now := trials_here(cluster)) != wanted:
        assert time.monotonic() < until, f"{now} trials on the nodes, not {wanted}"
        time.sleep(0.1)


def test_a_node_that_joins_late_gets_trials_and_changes_no_value() -> None:
    with nodes(2) as cluster:
        late = cluster.nodes[1]
        late.kill()
        late.boot()
        cluster.wait_alive(1)
        running = cluster.head.start(*cluster.submit(*SWEEP))
        try:
            wait_for_trials(cluster, [1, 0])
            late.start_ray()
            wait_for_trials(cluster, [1, 1])
        finally:
            said, _ = running.communicate(timeout=500)
        assert running.returncode == 0, said
        assert "room for 2 trials at once, not 1" in said
        folder = next(cluster.shared.rglob("growing/ledger.jsonl")).parent
        found = json.loads((folder / "sweep.json").read_text())
        sweep = load_settings(SweepConfig, folder / "sweep_config.yaml")
    assert [trial["status"] for trial in found["trials"]] == ["finished"] * 8
    assert [trial["values"] for trial in found["trials"]] == [
        sampled(sweep, number) for number in range(8)
    ]

"""Nodes of a cluster that die while a run is on them: the run goes on, to the same bits."""

import time
from collections.abc import Iterator

import pytest

from tests.support.nodes import SHARED, Nodes, needs_nodes, nodes
from tests.support.resuming import assert_equal_at, wait_for
from trainers.loop.checkpoint import directory_of

pytestmark = needs_nodes
STEPS = 120
TRAIN = ["python", "ray_jobs/train.py", "configs/tiny.yaml", "workers=2", "train.save_steps=10"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    with nodes(3) as made:
        yield made


@pytest.fixture(scope="module")
def undisturbed(cluster: Nodes) -> str:
    done = cluster.head.run(*job(cluster, "undisturbed"))
    assert done.returncode == 0, done.stdout
    return "undisturbed"


def job(cluster: Nodes, name: str) -> list[str]:
    return cluster.submit(*TRAIN, f"run_name={name}", f"train.max_steps={STEPS}")


def test_a_node_dies_and_another_takes_its_place(cluster: Nodes, undisturbed: str) -> None:
    runs = cluster.shared / "runs"
    running = cluster.head.start(*job(cluster, "node_died"))
    wait_for(directory_of(runs / "node_died", 20), seconds=120)
    at_work = [node for node in cluster.nodes[1:] if node.processes("RayTrainWorker")]
    assert at_work, "one of the two workers is not on the head"
    killed_at = time.monotonic()
    at_work[0].kill()
    said, _ = running.communicate(timeout=300)
    assert running.returncode == 0, said
    print(f"ended {time.monotonic() - killed_at:.0f} s after the node's death")
    assert_equal_at(STEPS, runs / undisturbed, runs / "node_died")
    at_work[0].boot()
    at_work[0].start_ray()
    cluster.wait_alive(3)
    assert SHARED

"""Nodes of a cluster that die, leave or come late while a run is on them.

The run goes on to the same bits; with a notice, no step is taken twice.
"""

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.support.nodes import Node, Nodes, needs_nodes, nodes
from tests.support.resuming import assert_equal_at, wait_for
from trainers.loop.checkpoint import directory_of
from trainers.report.records import read_records

pytestmark = needs_nodes
STEPS = 200
TRAIN = ["python", "ray_jobs/train.py", "configs/tiny.yaml", "workers=2", "threads_per_worker=1"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    with nodes(3) as made:
        yield made


@pytest.fixture(scope="module")
def undisturbed(cluster: Nodes) -> Path:
    done = cluster.head.run(*job(cluster, "undisturbed"))
    assert done.returncode == 0, done.stdout
    return cluster.shared / "runs" / "undisturbed"


@pytest.fixture(autouse=True)
def all_there(cluster: Nodes) -> Iterator[None]:
    yield
    for node in cluster.nodes[1:]:
        if not node.processes("raylet"):
            node.kill()
            node.boot()
            node.start_ray()
    cluster.wait_alive(len(cluster.nodes))


def job(cluster: Nodes, name: str, save_steps: int = 10, *options: str) -> list[str]:
    words = [f"run_name={name}", f"train.max_steps={STEPS}", f"train.save_steps={save_steps}"]
    words += ["train.eval_steps=100", "train.logging_steps=1"]
    return cluster.submit(*TRAIN, *words, options=options)


def at_step(run_dir: Path, step: int, seconds: float = 120) -> None:
    """Wait until a run has taken a step."""
    until = time.monotonic() + seconds
    while max((line["step"] for line in timings(run_dir)), default=0) < step:
        assert time.monotonic() < until, f"{run_dir.name} did not come to step {step}"
        time.sleep(0.05)


def timings(run_dir: Path) -> list[dict]:
    path = run_dir / "timings.jsonl"
    return list(read_records(path).lines) if path.exists() else []


def steps_repeated(run_dir: Path) -> int:
    """How many steps were taken more than once, by the lines of the loop's own log."""
    taken = [line["step"] for line in timings(run_dir) if "samples_per_second" in line]
    return len(taken) - len(set(taken))


def with_a_worker(cluster: Nodes) -> Node:
    """A node that has one of the two workers, and is not the head."""
    return next(node for node in cluster.nodes[1:] if node.processes("RayTrainWorker"))


def seconds_to_go_on(run_dir: Path, most: float = 200) -> tuple[float, float]:
    """Wait until a run that lost a node continues; to its restart, and to its next step."""
    lost_at, seen = time.monotonic(), len(timings(run_dir))
    restart = 0.0
    while time.monotonic() < lost_at + most:
        for line in timings(run_dir)[seen:]:
            if not restart and line.get("event") == "restart":
                restart = time.monotonic() - lost_at
            if restart and "samples_per_second" in line:
                return restart, time.monotonic() - lost_at
        time.sleep(0.1)
    raise AssertionError(f"{run_dir.name} did not go on within {most:g} s")


@contextlib.contextmanager
def killed(node: Node) -> Iterator[None]:
    node.kill()
    yield


@contextlib.contextmanager
def cut_off(node: Node) -> Iterator[None]:
    """The node lives on, and so do the processes on it that believe to train."""
    node.cut()
    yield
    node.join()
    node.kill()


@contextlib.contextmanager
def frozen(node: Node) -> Iterator[None]:
    """It wakes up once another worker has its place."""
    pids = node.freeze()
    yield
    node.thaw(pids)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("loss", [killed, cut_off, frozen], ids=lambda loss: loss.__name__)
def test_a_node_is_lost_and_another_takes_its_place(
    cluster: Nodes, undisturbed: Path, loss: Callable[[Node], AbstractContextManager[None]]
) -> None:
    name = loss.__name__
    run_dir = cluster.shared / "runs" / name
    running = cluster.head.start(*job(cluster, name))
    wait_for(directory_of(run_dir, 20), seconds=120)
    with loss(with_a_worker(cluster)):
        restart, step = seconds_to_go_on(run_dir)
    said, _ = running.communicate(timeout=300)
    assert running.returncode == 0, said
    print(
        f"{name}: {restart:.0f} s to the restart, {step:.0f} s to the next step, "
        f"{steps_repeated(run_dir)} steps again"
    )
    assert_equal_at(STEPS, run_dir, undisturbed)
    assert steps_repeated(run_dir) <= 12  # the save_steps and what was on the way to the disk


@pytest.mark.timeout(900)
def test_a_vision_language_run_loses_a_node(cluster: Nodes) -> None:
    words = ["python", "ray_jobs/train.py", "configs/tiny_vlm.yaml", "model.base_steps=0"]
    words += ["workers=2", "train.micro_batch_size=8", "train.max_steps=24", "train.save_steps=4"]
    words += ["train.eval_steps=24", "train.logging_steps=1", "data.max_validation_samples=6"]
    calm = cluster.head.run(*cluster.submit(*words, "run_name=vlm-calm"), timeout=400)
    assert calm.returncode == 0, calm.stdout
    run_dir = cluster.shared / "runs" / "vlm-killed"
    running = cluster.head.start(*cluster.submit(*words, "run_name=vlm-killed"))
    wait_for(directory_of(run_dir, 8), seconds=200)
    with_a_worker(cluster).kill()
    restart, step = seconds_to_go_on(run_dir)
    said, _ = running.communicate(timeout=400)
    assert running.returncode == 0, said
    print(f"vision-language: {restart:.0f} s to the restart, {step:.0f} s to the next step")
    assert_equal_at(24, run_dir, cluster.shared / "runs" / "vlm-calm")
    assert steps_repeated(run_dir) <= 6


def test_a_node_that_is_drained_costs_no_step(cluster: Nodes, undisturbed: Path) -> None:
    run_dir = cluster.shared / "runs" / "drained"
    running = cluster.head.start(*job(cluster, "drained", save_steps=1000))
    at_step(run_dir, 20)
    node = with_a_worker(cluster)
    node_id = node.run("python", "-c", OWN_ID).stdout.split()[-1]
    drain = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
    where = ["--address", f"{cluster.head.address}:6379", "--node-id", node_id]
    done = cluster.head.run(
        "ray", "drain-node", *where, *drain, "--deadline-remaining-seconds", "10"
    )
    assert done.returncode == 0, done.stdout
    time.sleep(10)
    node.kill()
    said, _ = running.communicate(timeout=300)
    assert running.returncode == 0, said
    assert steps_repeated(run_dir) == 0
    assert_equal_at(STEPS, run_dir, undisturbed)


OWN_ID = (
    "import ray; ray.init('auto', logging_level='ERROR', log_to_driver=False); "
    "print(ray.get_runtime_context().get_node_id())"
)


def test_a_stopped_job_costs_no_step(cluster: Nodes, undisturbed: Path) -> None:
    run_dir = cluster.shared / "runs" / "stopped"
    running = cluster.head.start(*job(cluster, "stopped", 1000, "--submission-id=stopped"))
    at_step(run_dir, 20)
    stop = cluster.head.run("ray", "job", "stop", "stopped")
    assert stop.returncode == 0, stop.stdout
    said, _ = running.communicate(timeout=100)
    assert re.search(r"checkpoint of step \d+ is saved", said), said
    again = cluster.head.run(*job(cluster, "stopped", save_steps=1000))
    assert again.returncode == 0 and "continues exactly, from step" in again.stdout, again.stdout
    assert steps_repeated(run_dir) == 0
    assert_equal_at(STEPS, run_dir, undisturbed)


def test_a_run_says_what_it_waits_for_and_starts_when_a_node_comes(
    cluster: Nodes, undisturbed: Path
) -> None:
    for node in cluster.nodes[1:]:
        node.kill()
    cluster.wait_alive(1)
    running = cluster.head.start(*job(cluster, "late"))
    time.sleep(25)
    cluster.nodes[1].boot()
    cluster.nodes[1].start_ray()
    said, _ = running.communicate(timeout=300)
    assert running.returncode == 0, said
    assert re.search(
        r"waiting since \d+ s for 2 workers with CPU 1 each; the cluster has 1 node, CPU ", said
    ), said
    assert_equal_at(STEPS, cluster.shared / "runs" / "late", undisturbed)


def test_a_run_gives_up_after_wait_minutes(cluster: Nodes) -> None:
    for node in cluster.nodes[1:]:
        node.kill()
    cluster.wait_alive(1)
    done = cluster.head.run(*job(cluster, "bounded"), "wait_minutes=0.3")
    assert done.returncode == 1 and "waited wait_minutes=0.3 for 2 workers" in done.stdout

"""Two nodes with addresses, host names, processes and folders of their own: the first minutes."""

import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.nodes import SHARED, Nodes, needs_nodes, nodes

pytestmark = needs_nodes
TRAIN = ["python", "ray_jobs/train.py", "configs/tiny.yaml", "workers=2", "train.max_steps=16"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    with nodes(2) as made:
        yield made


def test_a_submitted_job_trains_over_both(cluster: Nodes) -> None:
    """The second node has no file of the project, and its host name is an address of loopback.

    The shared folder has any name.
    """
    for node in cluster.nodes:
        assert node.run("mount", "--bind", SHARED, "/srv").returncode == 0
    done = cluster.head.run(*cluster.submit(*TRAIN, "run_name=both", "storage_path=/srv/runs"))
    assert done.returncode == 0, done.stdout
    assert (cluster.shared / "runs" / "both" / "bundle" / "manifest.json").is_file()
    assert (
        len(re.findall(r"node node[ab] \([\d.]+\): storage shared, \d+ GiB free", done.stdout)) == 2
    )


def test_a_folder_that_is_not_shared_is_refused_whatever_its_name(cluster: Nodes) -> None:
    for node in cluster.nodes:
        assert node.run("mount", "-t", "tmpfs", "tmpfs", "/mnt/lipi-own").returncode == 0
    done = cluster.head.run(*cluster.submit(*TRAIN, "run_name=own", "storage_path=/mnt/lipi-own"))
    assert done.returncode != 0
    assert (
        "error: storage_path /mnt/lipi-own: not shared by all nodes: nodeb (what the driver wrote "
        "is not there)" in done.stdout
    )


@pytest.fixture(autouse=True, scope="module")
def own_folder() -> None:
    subprocess.run(["mkdir", "-p", "/mnt/lipi-own"], check=True)

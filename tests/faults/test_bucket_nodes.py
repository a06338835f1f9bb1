"""Runs and bulk reading in a bucket, on nodes that share nothing else and die."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pyarrow.parquet as pq
import pytest

from ocr.dataset.read import Dataset
from ocr.mirror import fetched
from tests.faults.test_nodes import STEPS, TRAIN, with_a_worker
from tests.support.nodes import Nodes, address_of_head, needs_nodes, nodes
from tests.support.resuming import assert_equal_at
from trainers.loop.bucket import RunInBucket
from trainers.report.records import read_records

pytestmark = needs_nodes
RUNS = "s3://lipi/runs"
SERVER_PORT = 5123


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    bucket = {
        "AWS_ENDPOINT_URL": f"http://{address_of_head()}:{SERVER_PORT}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "LIPI_STORAGE": "s3://lipi",
    }
    with pytest.MonkeyPatch.context() as patch, nodes(3, start=False, env=bucket) as made:
        for name, value in bucket.items():
            patch.setenv(name, value)
        patch.setenv("LIPI_CACHE", str(tmp_path_factory.mktemp("cache")))
        serve = f"exec moto_server -H 0.0.0.0 -p {SERVER_PORT} > /dev/null 2>&1"
        server = made.head.start("sh", "-c", serve)
        client = boto3.client("s3", region_name="us-east-1")
        until = time.monotonic() + 60
        while True:
            try:
                client.create_bucket(Bucket="lipi")
                break
            except Exception:  # noqa: BLE001  (not up yet)
                assert time.monotonic() < until and server.poll() is None
                time.sleep(0.5)
        for node in made.nodes:
            node.start_ray()
        made.wait_alive(3)
        yield made
        for pid in made.head.processes("moto_server"):
            os.kill(pid, signal.SIGKILL)
        server.communicate(timeout=60)


def job(cluster: Nodes, name: str) -> list[str]:
    words = [f"run_name={name}", f"train.max_steps={STEPS}", "train.save_steps=10"]
    return cluster.submit(*TRAIN, *words, "train.eval_steps=100", "train.logging_steps=1")


def until_saved(name: str, step: int, seconds: float = 200) -> None:
    run, until = RunInBucket(f"{RUNS}/{name}"), time.monotonic() + seconds
    while (run.steps() or [0])[-1] < step:
        assert time.monotonic() < until, f"{name} did not come to step {step}"
        time.sleep(0.3)


@pytest.mark.timeout(900)
def test_nodes_without_a_shared_folder_lose_one(cluster: Nodes) -> None:
    calm = cluster.head.run(*job(cluster, "calm"), timeout=500)
    assert calm.returncode == 0, calm.stdout
    assert "storage shared" in calm.stdout  # as each node's preflight found the bucket
    running = cluster.head.start(*job(cluster, "killed"))
    until_saved("killed", 30)
    lost = with_a_worker(cluster)
    lost.kill()
    began = time.monotonic()
    said, _ = running.communicate(timeout=400)
    assert running.returncode == 0, said
    assert "continues exactly, from step" in said, said
    lines = read_records(fetched(f"{RUNS}/killed") / "timings.jsonl").lines
    restart = next(line for line in lines if line.get("event") == "restart")
    print(f"{time.monotonic() - began:.0f} s from the kill to the end; {restart['text']}")
    compare("killed")
    lost.boot()
    lost.start_ray()
    cluster.wait_alive(3)


@pytest.mark.timeout(900)
def test_files_of_a_bucket_are_read_into_it_once_though_a_node_is_lost(cluster: Nodes) -> None:
    client, count = boto3.client("s3", region_name="us-east-1"), 1500
    data = Dataset.open("odia_words", "validation")
    for index in range(count):
        body = data.image_bytes(index % len(data.texts))
        client.put_object(Bucket="lipi", Key=f"words/{index:05d}.webp", Body=body)
    words = ("odia", "s3://lipi/words", "output=s3://lipi/read", "workers=2")
    job = cluster.head.start(*cluster.submit("python", "ray_jobs/read.py", *words))
    until = time.monotonic() + 400
    while len(before := written(client)) < 0.2 * count:
        assert time.monotonic() < until and job.poll() is None, job.communicate()
        time.sleep(0.3)
    lost = next(node for node in cluster.nodes[1:] if node.processes("MapWorker"))
    lost.kill()
    out, _ = job.communicate(timeout=500)
    assert f"{count:,} of {count:,} files as text" in out, out
    after = written(client)
    assert after.keys() == {f"read/{index:05d}.txt" for index in range(count)}
    assert before.items() <= after.items()  # none is written twice
    table = pq.read_table(fetched("s3://lipi/read") / "read.parquet").to_pylist()
    assert len({row["file"] for row in table}) == len(table) == count
    assert not any(row["error"] for row in table)
    lost.boot()
    lost.start_ray()
    cluster.wait_alive(3)


def written(client: Any) -> dict[str, Any]:
    """Return when each text was written, by its key."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket="lipi", Prefix="read/")
    found = [each for page in pages for each in page.get("Contents", [])]
    return {each["Key"]: each["LastModified"] for each in found if each["Key"].endswith(".txt")}


@pytest.mark.timeout(900)
def test_the_whole_cluster_is_lost_and_another_goes_on(cluster: Nodes) -> None:
    running = cluster.head.start(*job(cluster, "moved"))
    until_saved("moved", 30)
    for node in cluster.nodes[1:]:
        node.kill()
    for pid in cluster.head.processes("ray_jobs/train.py"):
        os.kill(pid, signal.SIGKILL)
    running.kill()
    running.communicate()
    cluster.head.run("ray", "stop", "--force", timeout=60)
    shutil.rmtree(cluster.head.folder / "cache")
    for node in cluster.nodes:
        if node is not cluster.head:
            node.boot()
        node.start_ray()
    cluster.wait_alive(3)
    done = cluster.head.run(*job(cluster, "moved"), timeout=500)
    assert done.returncode == 0 and "continues exactly, from step" in done.stdout, done.stdout
    compare("moved")


def compare(name: str) -> None:
    ours, calm = (fetched(f"{RUNS}/{each}") for each in (name, "calm"))
    assert_equal_at(STEPS, ours, calm)
    assert (ours / "metrics.jsonl").read_text() == (calm / "metrics.jsonl").read_text()
    assert not Path(f"/mnt/lipi-shared/runs/{name}").exists()

"""The files of `ray up`: Ray accepts them, and a node has all that a run needs. No cloud needed."""

import copy
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from moto import mock_aws

PROJECT = Path(__file__).parent.parent
PATHS = ("cluster.yaml", "configs/cluster/gcp.yaml", "configs/cluster/local.yaml")
CLUSTERS: dict[str, dict[str, Any]] = {
    path: yaml.safe_load((PROJECT / path).read_text()) for path in PATHS
}
CLOUDS = PATHS[:2]
AWS, GCP = (CLUSTERS[path] for path in CLOUDS)
COMMANDS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)
every = pytest.mark.parametrize("path", PATHS)
in_a_cloud = pytest.mark.parametrize("path", CLOUDS)


def prepared(path: str) -> dict[str, Any]:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config: dict[str, Any] = prepare_config(copy.deepcopy(CLUSTERS[path]))
    validate_config(config)
    return config


def starts(path: str) -> list[str]:
    cluster = CLUSTERS[path]
    return [
        command
        for kind in ("head", "worker")
        for command in cluster[f"{kind}_start_ray_commands"]
        if "ray start" in command
    ]


@every
@pytest.mark.filterwarnings("ignore")  # Ray's and boto's own deprecations at import
def test_rays_own_validation_accepts_it_and_adds_no_command_of_its_own(path: str) -> None:
    config, given = prepared(path), CLUSTERS[path]
    for kind in ("head", "worker"):
        wanted = given["setup_commands"] + given[f"{kind}_setup_commands"]
        assert config[f"{kind}_setup_commands"] == wanted


@pytest.mark.filterwarnings("ignore")
def test_rays_aws_provider_launches_every_type_with_its_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that `ray up` and the autoscaler ask of AWS, answered by moto."""
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    monkeypatch.setenv("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
    monkeypatch.setenv("HOME", str(tmp_path))  # the launcher writes its key to ~/.ssh
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with mock_aws():
        ec2 = boto3.client("ec2", region_name=AWS["provider"]["region"])
        image = ec2.describe_images()["Images"][0]["ImageId"]
        config = prepared("cluster.yaml")
        for kind in config["available_node_types"].values():
            kind["node_config"]["ImageId"] = image
        config = bootstrap_aws(config)
        provider = AWSNodeProvider(config["provider"], config["cluster_name"])
        for name, kind in config["available_node_types"].items():
            tags = {"ray-user-node-type": name, "ray-cluster-name": config["cluster_name"]}
            provider.create_node(kind["node_config"], tags, 1)
        machines = {
            machine["InstanceType"]: machine.get("InstanceLifecycle")
            for reservation in ec2.describe_instances()["Reservations"]
            for machine in reservation["Instances"]
        }
        sizes = [volume["Size"] for volume in ec2.describe_volumes()["Volumes"]]
    assert machines == {"m6i.2xlarge": None, "g5.2xlarge": "spot", "g5.12xlarge": "spot"}
    assert sizes == [200, 200, 200]


@in_a_cloud
def test_a_head_on_demand_and_spot_workers_of_one_and_of_four_gpus(path: str) -> None:
    cluster = CLUSTERS[path]
    types = cluster["available_node_types"]
    assert {name: kind["resources"].get("GPU", 0) for name, kind in types.items()} == {
        "head": 0,
        "gpu_1": 1,
        "gpu_4": 4,
    }
    assert cluster["head_node_type"] == "head"
    assert all(kind.get("max_workers", 0) <= cluster["max_workers"] for kind in types.values())
    spot = {
        name
        for name, kind in types.items()
        if kind["node_config"].get("InstanceMarketOptions") == {"MarketType": "spot"}
        or kind["node_config"].get("scheduling", {}).get("provisioningModel") == "SPOT"
    }
    assert spot == {"gpu_1", "gpu_4"}


def test_every_node_of_a_cloud_has_one_image_with_a_driver_and_python_3_12() -> None:
    """Ubuntu 24.04 has Python 3.12; the AMI's id is the user's, so its name is in the comment."""
    images = {kind["node_config"]["ImageId"] for kind in AWS["available_node_types"].values()}
    assert len(images) == 1
    name = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/"
    assert name in (PROJECT / "cluster.yaml").read_text()
    disks = [kind["node_config"]["disks"][0] for kind in GCP["available_node_types"].values()]
    for disk in disks:
        image = disk["initializeParams"]["sourceImage"]
        assert re.fullmatch(r"projects/[\w/-]+/common-cu\d+-ubuntu-2404-nvidia-\d+", image)
        assert disk["initializeParams"]["diskSizeGb"] == 200


@every
def test_python_and_driver_are_checked_before_ray_starts(path: str) -> None:
    cluster = CLUSTERS[path]
    assert any("make setup" in command for command in cluster["setup_commands"])
    assert "sys.version_info < (3, 11)" in (PROJECT / "Makefile").read_text()
    if path in CLOUDS:
        assert "nvidia-smi --list-gpus" in cluster["worker_setup_commands"]


@every
def test_every_node_gets_the_token_and_asks_for_it(path: str) -> None:
    token = "~/.ray/auth_token"
    assert CLUSTERS[path]["file_mounts"][token] == token
    assert len(starts(path)) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in starts(path))
    assert "get-auth-token --generate" in (PROJECT / path).read_text()


@every
def test_the_shared_folder_is_mounted_from_an_address_in_the_file(path: str) -> None:
    """`ray up` forwards no variable of the shell it runs in."""
    mount = next(command for command in CLUSTERS[path]["setup_commands"] if "mount -t" in command)
    variables = set(re.findall(r"\$\{?(\w+)", mount))
    assert variables == set()
    source, folder = re.search(r"mount -t nfs4? -o \S+ (\S+) (\S+)\)", mount).groups()  # type: ignore[union-attr]
    assert re.fullmatch(r"[\w.-]+:/\S*", source)
    assert folder.startswith("/mnt/")
    assert all(f"LIPI_STORAGE={folder}" in command for command in starts(path))


@every
def test_no_command_needs_a_variable_of_the_users_shell(path: str) -> None:
    text = " ".join(command for kind in COMMANDS for command in CLUSTERS[path][kind])
    assert set(re.findall(r"\$\{?(\w+)", text)) <= {"HOME", "PATH", "RAY_HEAD_IP"}


@every
def test_every_command_is_a_shell_command(path: str) -> None:
    commands = [command for kind in COMMANDS for command in CLUSTERS[path][kind]]
    assert len(commands) >= 8
    for command in commands:
        subprocess.run(["bash", "-n", "-c", command], check=True)


@every
def test_a_login_finds_ray_and_the_token_also_after_a_second_ray_up(
    path: str, tmp_path: Path
) -> None:
    command = next(line for line in CLUSTERS[path]["setup_commands"] if ".bashrc" in line)
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    (tmp_path / ".bashrc").touch()
    for _ in range(2):
        subprocess.run(["bash", "-c", command], check=True, env=environment)
    show = ". ~/.bashrc; echo $RAY_AUTH_MODE $LIPI_STORAGE ${PATH%%:*}"
    shown = subprocess.run(
        ["bash", "-c", show], check=True, env=environment, capture_output=True, text=True
    )
    assert shown.stdout.split() == ["token", "/mnt/lipi", f"{tmp_path}/lipi/.venv/bin"]
    assert (tmp_path / ".bashrc").read_text().count("LIPI_STORAGE") == 1

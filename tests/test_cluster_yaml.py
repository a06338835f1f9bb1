"""cluster.yaml passes Ray's own validation, which needs no cloud."""

import copy
from pathlib import Path

import pytest
import yaml

CLUSTER = yaml.safe_load((Path(__file__).parent.parent / "cluster.yaml").read_text())


@pytest.mark.filterwarnings("ignore")  # Ray's and boto's own deprecations at import
def test_rays_offline_validation_accepts_it() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(copy.deepcopy(CLUSTER)))


def test_what_rays_validation_misses() -> None:
    types = CLUSTER["available_node_types"]
    assert CLUSTER["head_node_type"] in types
    assert all(kind.get("max_workers", 0) <= CLUSTER["max_workers"] for kind in types.values())
    assert "InstanceMarketOptions" not in types["head"]["node_config"]
    assert types["gpu"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert types["gpu"]["resources"]["GPU"] == 1
    starts = CLUSTER["head_start_ray_commands"] + CLUSTER["worker_start_ray_commands"]
    assert all(
        "RAY_AUTH_MODE=token" in command and "LIPI_STORAGE=/mnt/" in command
        for command in starts
        if "ray start" in command
    )
    assert any("make setup" in command for command in CLUSTER["setup_commands"])

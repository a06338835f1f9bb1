"""A Ray of this process's own, beside any other Ray on the machine."""

import functools
from typing import Any
from unittest.mock import patch

_OBJECT_STORE_BYTES = 100_000_000  # no data of ours passes through it


def start_local_ray(**options: Any) -> None:
    """Start Ray in this process (`ray.init("local", **options)`); it ends with the process.

    Ray's agent, which starts jobs, takes port 52365 on every cluster, and `ray.init` has no option
    for it: of two clusters on one machine the later one would answer each `ray job submit` with
    "No available agent". It gets a free port here.
    """
    import ray
    from ray._private import parameter

    own = functools.partial(parameter.RayParams, dashboard_agent_listen_port=0)
    with patch.object(parameter, "RayParams", own):
        ray.init("local", object_store_memory=_OBJECT_STORE_BYTES, **options)

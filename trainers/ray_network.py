"""torch.distributed over the network that Ray itself uses."""

import os
from dataclasses import dataclass
from typing import Any

import psutil
import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend

_VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


@dataclass
class RaysNetwork(TorchConfig):
    """TorchConfig whose workers meet at the addresses that Ray gave to their nodes.

    Gloo and NCCL choose an interface by themselves. Gloo takes the one of the host's own name,
    which Debian and Ubuntu make an address of loopback: workers on two nodes do not meet.
    """

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        """The backend that sets the interface first."""
        return _Backend


class _Backend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        worker_group.execute(use_rays_interface)
        super().on_start(worker_group, backend_config)


def use_rays_interface() -> None:
    """Name the interface with this node's address, where the environment names none."""
    name = interface_of(ray.util.get_node_ip_address())
    for variable in _VARIABLES:
        if name:
            os.environ.setdefault(variable, name)


def interface_of(address: str) -> str | None:
    """Return the network interface that has this address."""
    for name, known in psutil.net_if_addrs().items():
        if address in (each.address for each in known):
            return name
    return None

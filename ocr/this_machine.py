"""What is asked of this machine goes past `http_proxy`, which knows nothing of it."""

import os
import socket
from collections.abc import Iterable, MutableMapping

_NAMES = ("localhost", "127.0.0.1", "::1")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def past_proxies(hosts: Iterable[str] = (), environ: MutableMapping[str, str] = os.environ) -> None:
    """Add this machine, and more hosts, to `no_proxy` of this process and those it starts.

    Nothing changes where no proxy is set.
    """
    if not any(environ.get(name) or environ.get(name.upper()) for name in _PROXIES):
        return
    given = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    known = [name.strip() for name in given.split(",") if name.strip()]
    if "*" in known:
        return
    merged = ",".join(dict.fromkeys([*known, *_NAMES, *own_names(), *hosts]))
    environ["no_proxy"] = environ["NO_PROXY"] = merged


def own_names() -> list[str]:
    """Return this machine's name, and the address that its other nodes know it by."""
    names = [socket.gethostname()]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address for documentation; nothing is sent
            names.append(str(probe.getsockname()[0]))
        except OSError:
            pass  # no network at all
    return names


def is_this_machine(host: str) -> bool:
    """Return whether a host's name or address is this machine's."""
    host = host.strip("[]").lower()
    return host in (*_NAMES, "0.0.0.0", "::") or host.startswith("127.") or host in own_names()  # noqa: S104

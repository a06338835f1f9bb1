"""Whether a cluster answers at RAY_ADDRESS, asked before Ray, which waits for minutes."""

import os
import socket

from ocr.errors import UserError

_TIMEOUT_S = 5.0


class NoCluster(UserError):
    """RAY_ADDRESS names a cluster, and none answers there."""


def names_cluster() -> bool:
    """Return whether RAY_ADDRESS is set and not `local`."""
    return os.environ.get("RAY_ADDRESS", "") not in ("", "local")


def require_cluster() -> bool:
    """Return whether RAY_ADDRESS names a cluster; NoCluster where nothing answers.

    False: it is not set, or is `local`.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    if not names_cluster() or address == "auto":
        return names_cluster()
    if address.startswith(("http://", "https://")):
        raise NoCluster(
            f"RAY_ADDRESS={address}: expected HOST:PORT, found the address that jobs are sent to; "
            "start this command with `ray job submit --working-dir . -- python …`, "
            "or unset RAY_ADDRESS"
        )
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _TIMEOUT_S):
            return True
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or str(problem) or "no answer"
        raise NoCluster(
            f"RAY_ADDRESS={address}: no Ray cluster answers there ({reason}); "
            "start one with `ray start --head`, or unset RAY_ADDRESS to use this machine alone"
        ) from None

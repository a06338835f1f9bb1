"""The application on Ray Serve: deployed without waiting for what has no place, and looked at."""

from dataclasses import dataclass
from typing import Any

from ray import serve
from ray.serve.api import RunTarget

from serve.deployment import APPLICATION, DEPLOYMENT

_NO_PLACE = "to be scheduled"  # in Serve's message, after 30 s without room for a replica


@dataclass(frozen=True, slots=True)
class State:
    """The replicas that answer, and what Serve says of the others.

    `is_settled`: no replica starts or stops, or those that start find no place.
    """

    answering: int
    is_settled: bool
    message: str
    failed: bool


def run(application: Any, logging_config: dict[str, Any] | None = None) -> None:
    """Deploy the application; returns once Serve knows of it, whether or not replicas have room.

    `serve.run` waits for all replicas without limit: one whose node is gone held every promotion
    and every roll back.
    """
    target = RunTarget(
        application, name=APPLICATION, route_prefix="/", logging_config=logging_config
    )
    serve.run_many([target], wait_for_applications_running=False)


def state() -> State:
    """Return how far the deployment is."""
    application = serve.status().applications.get(APPLICATION)
    found = application.deployments.get(DEPLOYMENT) if application else None
    if application is None or found is None:
        return State(0, False, "", False)
    states: dict[Any, int] = dict(found.replica_states)
    changing = sum(count for name, count in states.items() if name not in ("RUNNING", "STARTING"))
    has_place = _NO_PLACE not in found.message
    settled = found.status == "HEALTHY" or (not has_place and not changing)
    failed = application.status == "DEPLOY_FAILED"
    return State(states.get("RUNNING", 0), settled, found.message or application.message, failed)

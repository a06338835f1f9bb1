"""Counts and seconds through Ray's own metrics, so that one Prometheus target has all replicas.

`GET /metrics` gives those of all nodes.
"""

import asyncio
import re
import urllib.request
from urllib.request import ProxyHandler

import ray
from ray.util.metrics import Counter, Gauge, Histogram

_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]
_IMAGES = [1.0, 2, 4, 8, 16, 32, 64]
_OURS = re.compile(r"^(# (HELP|TYPE) )?ray_(lipi|serve_(deployment|replica|autoscaling|num))_")


# nodes of a cluster know one another, a proxy does not know them
_DIRECTLY = urllib.request.build_opener(ProxyHandler({}))


class Metrics:
    """The metrics of one replica; Ray adds its id."""

    def __init__(self) -> None:
        self._requests = Counter(
            "lipi_requests", "requests, by route, status and model", ("route", "status", "model")
        )
        self._seconds = Histogram(
            "lipi_request_seconds",
            "from a request's first byte to its answer",
            _SECONDS,
            ("route",),
        )
        self._images = Histogram("lipi_batch_images", "images that were read together", _IMAGES)
        self._batch_seconds = Histogram(
            "lipi_batch_seconds", "to decode and read a batch", _SECONDS
        )
        self._ongoing = Gauge("lipi_ongoing_requests", "requests that are read or wait")

    def request(self, route: str, status: int, model: str, seconds: float, ongoing: int) -> None:
        """Count an answered request."""
        self._requests.inc(1, {"route": route, "status": str(status), "model": model})
        self._seconds.observe(seconds, {"route": route})
        self._ongoing.set(ongoing)

    def batch(self, images: int, seconds: float) -> None:
        """Count a batch that was read."""
        self._images.observe(images)
        self._batch_seconds.observe(seconds)


async def scraped() -> str:
    """Return our metrics and Ray Serve's of every live node, in Prometheus's text format.

    They trail by up to ten seconds, Ray's own interval.
    """
    nodes = [node for node in ray.nodes() if node["Alive"] and node.get("MetricsExportPort")]
    texts = await asyncio.gather(
        *[
            asyncio.to_thread(_scrape, node["NodeManagerAddress"], node["MetricsExportPort"])
            for node in nodes
        ]
    )
    return (
        "\n".join(line for text in texts for line in text.splitlines() if _OURS.match(line)) + "\n"
    )


def _scrape(host: str, port: int) -> str:
    try:
        with _DIRECTLY.open(f"http://{host}:{port}/metrics", timeout=3) as answered:
            return str(answered.read().decode())
    except OSError as problem:
        return f"# ray_lipi_ node {host}: {problem}"

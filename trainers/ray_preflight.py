"""What can go wrong with several nodes, looked at on each of them before a run starts.

Every node reads what the driver wrote into the storage and the driver what the node wrote; a path
cannot say whether it is shared.
"""

import shutil
import socket
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ocr.errors import UserError
from ocr.files import cache_dir
from ocr.place import Place

_LIBRARIES = ("torch", "numpy", "pillow")
_MOST_SKEW_S = 5.0
_LEAST_FREE_GIB = 1.0
_PATIENCE_S = 120.0
_LOOKED_AT = set[tuple[str, str]]()  # nodes and storages, by this process


@dataclass(frozen=True, slots=True)
class NodeReport:
    """One node: what is wrong with the storage there (or None), versions, clock and free space.

    `clock`: seconds since 1970; `free_gib` of the storage, or of the cache before a bucket.
    """

    name: str
    address: str
    problem: str | None
    versions: dict[str, str]
    clock: float
    free_gib: float


def preflight(storage: str) -> list[NodeReport]:
    """Look at every node, and print a line for each where there are several; once in a process.

    Raises UserError where a node does not share the storage, or has other versions.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    known = {(node["NodeID"], storage) for node in nodes}
    if len(nodes) < 2 or known <= _LOOKED_AT:
        return []
    mark = Place(f"{storage}/.preflight-{uuid.uuid4().hex}")
    began = time.time()
    try:
        _write(mark, "driver")
        reports = _asked(nodes, mark)
        lost = [
            report.name for report in reports if not report.problem and not mark.has(report.address)
        ]
    finally:
        Place(storage).delete_folder(mark.path.rpartition("/")[2])
    _print(reports, began)
    _require_shared(storage, reports, lost)
    _require_equal_versions(reports)
    _LOOKED_AT.update(known)
    return reports


def _asked(nodes: Sequence[dict[str, Any]], mark: Place) -> list[NodeReport]:
    task: Any = ray.remote(num_cpus=0, max_retries=1)(_look)
    asked = [
        task.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(str(mark), node["NodeManagerAddress"])
        for node in nodes
    ]
    reports = list[NodeReport]()
    for node, answer in zip(nodes, asked, strict=True):
        try:
            reports.append(ray.get(answer, timeout=_PATIENCE_S))
        except (ray.exceptions.RayError, TimeoutError) as problem:
            if isinstance(problem, ray.exceptions.RayTaskError):
                raise
            print(f"preflight: no answer of {node['NodeManagerHostname']}: {problem}", flush=True)
    return reports


def _look(mark: str, address: str) -> NodeReport:
    """On a node: read the driver's file, write one beside it."""
    problem, free = None, 0.0
    try:
        place = Place(mark)
        place.read("driver")
        _write(place, address)
        free = shutil.disk_usage(mark if place.is_local else _cache()).free / 2**30
    except UserError as mistake:
        problem = str(mistake)
    except FileNotFoundError:
        problem = "what the driver wrote is not there"
    except OSError as error:
        problem = f"{error.strerror or error}"
    return NodeReport(socket.gethostname(), address, problem, _versions(), time.time(), free)


def _write(place: Place, name: str) -> None:
    """Write a file as a run writes its files, and read it back."""
    content = uuid.uuid4().bytes
    place.write(name, content)
    if place.read(name) != content:
        raise OSError(0, "what was written reads otherwise")


def _cache() -> Path:
    cache_dir().mkdir(parents=True, exist_ok=True)
    return cache_dir()


def _versions() -> dict[str, str]:
    found = {}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = "none"
    return found


def _print(reports: Sequence[NodeReport], began: float) -> None:
    now = time.time()
    for report in reports:
        skew = max(0.0, began - report.clock, report.clock - now)
        words = [report.problem or "storage shared"]
        words += [f"{report.free_gib:.0f} GiB free"] if not report.problem else []
        words += [f"clock {skew:.0f} s off"] if skew > _MOST_SKEW_S else []
        words += ["NEARLY FULL"] if not report.problem and report.free_gib < _LEAST_FREE_GIB else []
        print(f"node {report.name} ({report.address}): {', '.join(words)}", flush=True)


def _require_shared(storage: str, reports: Sequence[NodeReport], lost: Sequence[str]) -> None:
    bad = [f"{report.name} ({report.problem})" for report in reports if report.problem]
    bad += [f"{name} (what it wrote is not here)" for name in lost]
    if bad:
        raise UserError(
            f"storage_path {storage}: not shared by all nodes: {', '.join(bad)}; "
            "name a folder that every node mounts, such as a network file system's, or a bucket"
        )


def _require_equal_versions(reports: Sequence[NodeReport]) -> None:
    for library in _LIBRARIES:
        found = {report.name: report.versions[library] for report in reports}
        if len(set(found.values())) > 1:
            each = ", ".join(f"{name} {number}" for name, number in found.items())
            raise UserError(
                f"{library}: the nodes have different versions: {each}; install one on all"
            )

"""Nodes of a Ray cluster on one machine that are as apart as machines are.

Each has its own network address, host name, processes, /tmp, home, cache and project folder; one
folder, `shared`, is mounted on all. Needs root and `ip`; tests skip without them (`needs_nodes`).
"""

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.commands import PROJECT

BIN = Path(sys.executable).parent
SHARED = Path("/mnt/lipi-shared")
_RAY = Path("/tmp/ray")  # Ray's own folder, of which each node has one
TOKEN = "0" * 64
_READY_S = 90.0


def _are_possible() -> bool:
    """Whether bridges, network namespaces and mounts may be made; containers often forbid it."""
    if not (shutil.which("ip") and shutil.which("nsenter") and shutil.which("unshare")):
        return False
    bridge = f"lipitry{os.getpid() % 1000}"
    tries = (
        ["ip", "link", "add", bridge, "type", "bridge"],
        ["ip", "link", "del", bridge],
        ["ip", "netns", "add", bridge],
        ["ip", "netns", "del", bridge],
        [
            "unshare",
            "-n",
            "-u",
            "-m",
            "-p",
            "-f",
            "--mount-proc",
            "mount",
            "--bind",
            "/tmp",
            "/tmp",
        ],
    )
    return all(subprocess.run(each, capture_output=True).returncode == 0 for each in tries)


needs_nodes = pytest.mark.skipif(
    not _are_possible(),
    reason="nodes need the right to make network namespaces, bridges and mounts (root)",
)


@dataclass
class Node:
    """One node. `init` is its first process, whose death ends all others of the node."""

    name: str
    address: str
    folder: Path
    namespace: str
    link: str
    init: "subprocess.Popen[bytes]"
    head: str
    env: dict[str, str] = field(default_factory=dict)

    def command(self, *words: str | Path) -> list[str]:
        """Return the command that runs `words` on this node, in the project's folder."""
        inside = ["nsenter", "-t", str(self._inner()), "-n", "-u", "-m", "-p"]
        variables = [f"{key}={value}" for key, value in self.environment().items()]
        return [*inside, "env", "-i", *variables, "sh", "-c", f"cd {PROJECT} && {_line(words)}"]

    def environment(self) -> dict[str, str]:
        """The variables of every process of this node."""
        return {
            "PATH": f"{BIN}:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(self.folder / "home"),
            "LANG": "C.UTF-8",
            "LIPI_CACHE": str(self.folder / "cache"),
            "LIPI_STORAGE": str(SHARED),
            "LIPI_ACCELERATOR": "cpu",
            "RAY_AUTH_MODE": "token",
            "RAY_USAGE_STATS_ENABLED": "0",
            **self.env,
        }

    def start(self, *words: str | Path) -> "subprocess.Popen[str]":
        """Return the running command."""
        return subprocess.Popen(
            self.command(*words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def run(self, *words: str | Path, timeout: float = 300) -> "subprocess.CompletedProcess[str]":
        """Return the ended command, both outputs in `stdout`."""
        return subprocess.run(
            self.command(*words),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )

    def start_ray(self, cpus: int = 1, **labels: str) -> None:
        """Start this node's Ray: the head, or one that joins it."""
        role = (
            ["--head", "--dashboard-host=0.0.0.0"]
            if self.address == self.head
            else [f"--address={self.head}:6379"]
        )
        named = [f"--labels={','.join(f'{k}={v}' for k, v in labels.items())}"] if labels else []
        done = self.run(
            "ray",
            "start",
            *role,
            f"--node-ip-address={self.address}",
            f"--num-cpus={cpus}",
            "--object-store-memory=100000000",
            *named,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout

    def kill(self) -> None:
        """End every process of the node at once, as a machine that loses its power."""
        with contextlib.suppress(ProcessLookupError, FileNotFoundError, IndexError):  # it is off
            os.kill(self._inner(), signal.SIGKILL)
        self.init.wait(30)

    def boot(self) -> None:
        """Start the node again, after `kill`; its disk is as it was, Ray is not started."""
        self.init = _booted(self.namespace, self.name, self.folder, self.address == self.head)

    def cut(self) -> None:
        """Take the node off the network."""
        subprocess.run(["ip", "link", "set", self.link, "down"], check=True)

    def join(self) -> None:
        """Put the node back on the network."""
        subprocess.run(["ip", "link", "set", self.link, "up"], check=True)

    def freeze(self) -> list[int]:
        """Stop every process of the node but its first; return them for `thaw`."""
        frozen = self.processes()
        for pid in frozen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        return frozen

    def thaw(self, frozen: Sequence[int]) -> None:
        """Let them go on."""
        for pid in frozen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def processes(self, *words: str) -> list[int]:
        """Return the ids, as this machine sees them, of the node's processes with these words."""
        found: list[int] = []
        try:
            space = os.readlink(f"/proc/{self._inner()}/ns/pid")
        except (FileNotFoundError, IndexError):  # it is off
            return found
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                pid = int(entry.name)
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if os.readlink(entry / "ns" / "pid") == space and all(w in line for w in words):
                    found.append(pid)
        return found

    def _inner(self) -> int:
        """The id of the node's first process, the child of `unshare`."""
        children = Path(f"/proc/{self.init.pid}/task/{self.init.pid}/children")
        return int(children.read_text().split()[0])


@dataclass
class Nodes:
    """A cluster; the first node is the head."""

    nodes: list[Node]
    folder: Path

    @property
    def head(self) -> Node:
        return self.nodes[0]

    @property
    def shared(self) -> Path:
        """The folder that all nodes mount at SHARED, as this process sees it."""
        return self.folder / "shared"

    def submit(
        self, *words: str, working_dir: str | None = ".", options: Sequence[str] = ()
    ) -> list[str]:
        """Return the words of `ray job submit … -- WORDS`, for the head's `run` or `start`."""
        where = ["--working-dir", working_dir] if working_dir else []
        return ["ray", "job", "submit", *where, *options, "--", *words]

    def alive(self) -> int:
        """Return how many nodes Ray holds to be alive."""
        script = "import ray; ray.init('auto', logging_level='ERROR', log_to_driver=False); " + (
            "print('alive:', sum(n['Alive'] for n in ray.nodes()))"
        )
        done = self.head.run("python", "-c", script)
        found = re.search(r"alive: (\d+)", done.stdout)  # among Ray's own warnings
        return int(found[1]) if found else 0

    def wait_alive(self, count: int) -> None:
        """Wait until Ray holds `count` nodes to be alive."""
        until = time.monotonic() + _READY_S
        while (now := self.alive()) != count:
            assert time.monotonic() < until, f"{now} nodes are alive, not {count}"
            time.sleep(1)


def _number() -> int:
    return os.getpid() % 200 + 20


def address_of_head() -> str:
    """Return the address that the head of this process's `nodes` has, or will have."""
    return f"10.77.{_number()}.2"


@contextlib.contextmanager
def nodes(
    count: int = 2, start: bool = True, env: Mapping[str, str] | None = None
) -> Iterator[Nodes]:
    """Make `count` nodes, with `start` each with Ray and one CPU; all end with the block."""
    number = _number()
    folder = Path(tempfile.mkdtemp(prefix="lipi", dir="/var/tmp"))  # short: Ray's sockets lie there
    bridge = f"lipib{number}"
    (folder / "shared").mkdir(parents=True)
    made: list[Node] = []
    _ip("link", "add", bridge, "type", "bridge")
    try:
        _ip("addr", "add", f"10.77.{number}.1/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        for index in range(count):
            made.append(_node(folder, bridge, number, index, dict(env or {})))
        cluster = Nodes(made, folder)
        if start:
            for node in made:
                node.start_ray()
            _wait_for_jobs(cluster)
        yield cluster
    finally:
        for node in made:
            node.kill()
            subprocess.run(["ip", "netns", "del", node.namespace], check=False)
        _ip("link", "del", bridge)
        shutil.rmtree(folder, ignore_errors=True)


def _node(folder: Path, bridge: str, number: int, index: int, env: dict[str, str]) -> Node:
    name, address = f"node{'abcdefgh'[index]}", f"10.77.{number}.{index + 2}"
    namespace, link = f"lipi{number}{name}", f"lv{number}{name[-1]}"
    _ip("netns", "add", namespace)
    _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", namespace)
    _ip("link", "set", link, "master", bridge, "up")
    _ip("-n", namespace, "addr", "add", f"{address}/24", "dev", "eth0")
    _ip("-n", namespace, "link", "set", "eth0", "up")
    _ip("-n", namespace, "link", "set", "lo", "up")
    own = folder / name
    for part in ("tmp", "home/.ray", "cache", "etc", "project"):
        (own / part).mkdir(parents=True)
    if PROJECT in BIN.parents:
        (own / "project" / BIN.parent.relative_to(PROJECT)).mkdir(parents=True)
    (own / "home/.ray/auth_token").write_text(TOKEN, encoding="utf-8")
    # as Debian and Ubuntu write it: the host's own name is an address of loopback
    (own / "etc/hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {name}\n", encoding="utf-8")
    init = _booted(namespace, name, own, project=index == 0)
    return Node(name, address, own, namespace, link, init, f"10.77.{number}.2", env)


def _booted(namespace: str, name: str, own: Path, project: bool) -> "subprocess.Popen[bytes]":
    """Start the first process of a node; where not `project`, the project's folder is empty."""
    for place in (SHARED, _RAY):
        place.mkdir(parents=True, exist_ok=True)
    mounts = [
        "mount --make-rprivate /",
        f"mount --bind {own.parent}/shared {SHARED}",
        f"mount --bind {own}/etc/hosts /etc/hosts",
        f"mount --bind {own}/tmp {_RAY}",
    ]
    if not project and PROJECT in BIN.parents:
        mounts.append(f"mount --bind {BIN.parent} {own}/project/{BIN.parent.relative_to(PROJECT)}")
    if not project:
        mounts.append(f"mount --rbind {own}/project {PROJECT}")
    ready = own / "home/ready"
    ready.unlink(missing_ok=True)
    script = " && ".join([*mounts, f"hostname {name}", f"touch {ready}"])
    space = ["ip", "netns", "exec", namespace, "unshare", "-u", "-m", "-p", "-f", "--mount-proc"]
    init = subprocess.Popen([*space, "bash", "-c", f"{script}; while :; do sleep 1; done"])
    until = time.monotonic() + _READY_S
    while not ready.exists():
        assert time.monotonic() < until and init.poll() is None, f"{name} did not start"
        time.sleep(0.05)
    return init


def _wait_for_jobs(cluster: Nodes) -> None:
    """Wait for every node, and for the agent that starts jobs."""
    cluster.wait_alive(len(cluster.nodes))
    until = time.monotonic() + _READY_S
    while True:
        done = cluster.head.run(*cluster.submit("true", working_dir=None))
        if done.returncode == 0:
            return
        assert time.monotonic() < until, done.stdout
        time.sleep(1)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def _line(words: Sequence[str | Path]) -> str:
    return shlex.join(map(str, words))

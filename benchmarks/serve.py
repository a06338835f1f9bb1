"""The endpoint against FastAPI with uvicorn, the same with a hand-written micro-batcher, and
LitServe: same bundle, same cores, in turn.

python benchmarks/serve.py                     # everything, about half an hour on two cores;
LitServe comes from PyPI into a folder of its own
python benchmarks/serve.py --only odia --rounds 1

Saturation in closed loop; then an open loop at 30, 60 and 90 % of each server's own. The client
holds a part of the same cores, alike for all. Every text is checked.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

PROJECT = Path(__file__).parent.parent
sys.path.insert(0, str(PROJECT))

from tests.support import load  # noqa: E402

RATES = (0.3, 0.6, 0.9)
WARM_S = 4.0


@dataclass(frozen=True)
class Server:
    """One column: how it is started, and how its clients ask."""

    name: str
    module: str
    words: tuple[str, ...]
    shape: str = "raw"  # raw, json, or form


@dataclass(frozen=True)
class Case:
    """One table: a model and how it is asked."""

    name: str
    model: str
    clients: int
    images: int = 1  # in a request
    seconds: float = 5.0
    open_loop: bool = True


CASES = (
    Case("odia", "odia", 16),
    Case("sixteen", "odia", 8, images=16, open_loop=False),
    Case("10ms", "timed:0.01:0.02", 32, open_loop=False),
    Case("300ms", "timed:0.3:0.39", 64, seconds=12, open_loop=False),
)
SERVERS = (
    Server("Lipi, 1 replica", "lipi_server", ("--workers", "1")),
    Server("Lipi, 2 replicas", "lipi_server", ("--workers", "2")),
    Server("FastAPI, 1 process", "fastapi_server", ("--workers", "1")),
    Server("FastAPI, 2 processes", "fastapi_server", ("--workers", "2")),
    Server("FastAPI + micro-batcher, 1", "fastapi_server", ("--workers", "1", "--batching")),
    Server("FastAPI + micro-batcher, 2", "fastapi_server", ("--workers", "2", "--batching")),
    Server("LitServe, 1 worker, batch 8", "litserve_server", ("--workers", "1"), "json"),
    Server("LitServe, 2 workers, batch 8", "litserve_server", ("--workers", "2"), "json"),
)


def main() -> None:
    """Rounds over all servers; a table of medians a case."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=[case.name for case in CASES])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--servers", help="those whose name has this")
    arguments = parser.parse_args()
    litserve = tempfile.mkdtemp(prefix="lipi-litserve-")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--target",
            litserve,
            "litserve==0.2.19",
            "pyzmq",
        ],
        check=True,
    )
    images, texts = load.odia_words()
    for case in [case for case in CASES if arguments.only in (None, case.name)]:
        servers = [
            server
            for server in SERVERS
            if (arguments.servers or "") in server.name
            and not (case.images > 1 and server.shape == "json")
        ]
        found = {server.name: list[dict[str, Any]]() for server in servers}
        for turn in range(arguments.rounds):
            for server in servers if turn % 2 == 0 else servers[::-1]:
                found[server.name].append(measured(server, case, images, texts, litserve))
                print(
                    f"  {case.name}, round {turn + 1}: {server.name}: "
                    f"{json.dumps(found[server.name][-1])}",
                    flush=True,
                )
        table(case, found)


def measured(
    server: Server, case: Case, images: list[bytes], texts: list[str], litserve: str
) -> dict[str, Any]:
    """Start it, saturate it, ask it at three rates, end it."""
    from tests.support.running import free_port

    port = free_port()
    path = os.pathsep.join([str(PROJECT), litserve])
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    command = [
        sys.executable,
        "-m",
        f"benchmarks.servers.{server.module}",
        "--port",
        str(port),
        "--model",
        case.model,
        *server.words,
    ]
    errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
    process = subprocess.Popen(
        command, env=env, cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=errors
    )
    try:
        wait(port, process, errors)
        shots = shots_for(server, case, images, texts)
        load.run(load.Load("127.0.0.1", port, shots).closed(case.clients, WARM_S))
        closed = checked(
            load.run(load.Load("127.0.0.1", port, shots).closed(case.clients, case.seconds)), server
        )
        result: dict[str, Any] = {
            "rps": closed["per_second"] * case.images,
            "p50": closed["p50_ms"],
            "p99": closed["p99_ms"],
            "mb": memory(process.pid),
        }
        for rate in RATES if case.open_loop else ():
            opened = checked(
                load.run(
                    load.Load("127.0.0.1", port, shots).open(
                        closed["per_second"] * rate, case.seconds
                    )
                ),
                server,
            )
            result[f"{rate:.0%}"] = [
                opened["p50_ms"],
                opened["p99_ms"],
                opened["statuses"].get(503, 0) / opened["sent"],
            ]
        return result
    finally:
        family = [process_ for process_ in psutil.Process(process.pid).children(recursive=True)]
        process.terminate()
        process.wait(90)
        for member in family:
            if member.is_running() and server.module != "lipi_server":
                member.kill()
        time.sleep(1)


def shots_for(server: Server, case: Case, images: list[bytes], texts: list[str]) -> list[load.Shot]:
    """The requests, and what their answers must be."""
    if case.model.startswith("timed:"):
        import io

        from PIL import Image

        texts = [str(Image.open(io.BytesIO(image)).width) for image in images]
    if case.images == 1:
        return load.words("127.0.0.1", images, texts, as_json=server.shape == "json")
    path = "/v1/ocr" if server.module == "lipi_server" else "/v1/forms"
    shots = []
    for start in range(0, len(images) - case.images + 1, case.images):
        expected = texts[start : start + case.images]
        body, kind = load.form(images[start : start + case.images])
        shots.append(
            load.request(
                "127.0.0.1",
                path,
                body,
                kind,
                lambda answer, expected=expected: (
                    [one["text"] for one in json.loads(answer)["results"]] == expected
                ),
            )
        )  # type: ignore[misc]
    return shots


def checked(outcome: load.Outcome, server: Server) -> dict[str, Any]:
    """Its summary; every answer was a right one, or for a moment too many 503."""
    assert (
        set(outcome.statuses) <= {200, 503}
        and outcome.statuses[200]
        and outcome.wrong == 0
        and outcome.lost == 0
    ), (
        server.name,
        outcome.summary(),
        outcome.wrong_bodies[:2],
    )
    return outcome.summary()


def memory(pid: int) -> int:
    """MB that the whole server holds for itself (PSS, shared pages counted once)."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return round(
        sum(process.memory_full_info().pss for process in processes if process.is_running()) / 1e6
    )


def wait(port: int, process: "subprocess.Popen[bytes]", errors: IO[str]) -> None:
    """Until it answers."""
    for _ in range(400):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2)
            return
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.25)
    errors.seek(0)
    raise SystemExit(f"a server did not come up: {errors.read()[-3000:]}")


def table(case: Case, found: dict[str, list[dict[str, Any]]]) -> None:
    """Markdown: medians of the rounds, images a second with their range."""
    opened = [f"p50 / p99 at {rate:.0%}" for rate in RATES] if case.open_loop else []
    print(f"\n{case.name}: {case.model}, {case.clients} clients, {case.images} image(s) a request")
    print(
        "| server | images/s | p50 / p99 ms |" + "".join(f" {name} |" for name in opened) + " MB |"
    )
    print("|---|---:|---:|" + "---:|" * len(opened) + "---:|")
    for name, rounds in found.items():
        rates = [one["rps"] for one in rounds]
        cells = [
            f"{statistics.median(rates):.0f} ({min(rates):.0f}–{max(rates):.0f})",
            pair([[one["p50"], one["p99"]] for one in rounds]),
        ]
        cells += (
            [pair([one[f"{rate:.0%}"] for one in rounds]) for rate in RATES]
            if case.open_loop
            else []
        )
        print(
            f"| {name} | "
            + " | ".join(cells)
            + f" | {statistics.median(one['mb'] for one in rounds):.0f} |"
        )
    print(flush=True)


def pair(values: list[list[float]]) -> str:
    """Medians of p50 and p99, and how many were refused, if any."""
    refused = statistics.median(value[2] for value in values) if len(values[0]) > 2 else 0.0
    times = " / ".join(
        f"{statistics.median(value[place] for value in values):.1f}" for place in (0, 1)
    )
    return times + (f", {refused:.1%} refused" if refused else "")


if __name__ == "__main__":
    main()

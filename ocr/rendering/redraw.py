"""A process that renders: pickled requests on standard input, images on standard output.

It ends with its input. `RenderProcess` starts one and asks it; the process ends with the one that
started it, however that dies.
"""

import os
import pickle
import subprocess
import sys
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ocr.errors import UserError
from ocr.images import Pixels
from ocr.sources.settings import SyntheticSettings

_PROJECT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True, slots=True)
class Request:
    """Image `index` of a source in epoch `epoch`, showing `text`."""

    settings: SyntheticSettings
    text: str
    index: int
    epoch: int


class RenderProcess:
    """A rendering process, started at the first request."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def render(self, requests: Sequence[Request]) -> list[Pixels]:
        """Return the images, in order.

        UserError when one cannot be rendered, RuntimeError when the process died (its message is on
        standard error).
        """
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            _send(process.stdin, list(requests))
            images: list[Pixels] | UserError = pickle.load(process.stdout)  # noqa: S301  (our own process)
        except (EOFError, OSError):
            raise RuntimeError(
                f"the rendering process ended with status {process.wait()}"
            ) from None
        if isinstance(images, UserError):
            raise images
        return images

    def _start(self) -> "subprocess.Popen[bytes]":
        path = os.pathsep.join(filter(None, [str(_PROJECT), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        weakref.finalize(self, _end, self._process)
        return self._process


def _end(process: "subprocess.Popen[bytes]") -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    process.stdout.close()
    process.wait()


def _send(stream: IO[bytes], value: object) -> None:
    pickle.dump(value, stream, protocol=pickle.HIGHEST_PROTOCOL)
    stream.flush()


def serve(requests: IO[bytes], images: IO[bytes]) -> None:
    """Answer requests until they end."""
    from ocr.rendering.synthetic import rendered_again

    while True:
        try:
            batch: list[Request] = pickle.load(requests)  # noqa: S301  (from the process that started this one)
        except EOFError:
            return
        try:
            _send(
                images,
                [
                    rendered_again(each.settings, each.text, each.index, each.epoch)
                    for each in batch
                ],
            )
        except UserError as mistake:
            _send(images, mistake)


if __name__ == "__main__":
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # other output must not mix with the images
    serve(sys.stdin.buffer, answers)

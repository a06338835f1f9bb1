"""Files of strangers → pixels, in another process with limits of memory and time.

A file may be small and yet take gigabytes and hours to decode, or crash its decoder. Each is
decoded in a child of its own (`serve/decoding_process.py`), which nobody else waits for and whose
memory goes back when it ends. Small images of common kinds stay in the process: a child costs
more than they do (docs/results.md).

To the child: the arguments and the file, each after 8 bytes of length. Back: JSON, after 8 bytes of
length: {"shape"} with the bytes of a page (or of a line's file) after it, {"refused"}, {"died"}
with an exit status, or {"end"}.
"""

import contextlib
import json
import math
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Literal

import numpy as np

from ocr.errors import ImageRefused
from ocr.jpeg import scans_at_most
from ocr.limits import ImageLimits
from ocr.pixels import Mode, Pixels
from ocr.reading.page import TextPage
from serve.config import LimitSettings
from serve.line_cuts import LineCut

# most of an image that is decoded in the process, where no decoder takes 20 ms for it
SMALL_BYTES, SMALL_PIXELS, _SMALL_SCANS = 100_000, 1_000_000, 12
_HEADS = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF")
_PATIENCE = 6  # seconds of waiting per second of computing: other processes compute, too
_MOST_MESSAGE = 100_000  # bytes
_PREFIX = struct.Struct("<Q")
# of the environment, which may have keys in it
_KEPT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL", "HOME")
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class DecoderLost(RuntimeError):
    """The decoding process ended; the file may be sent again."""


def is_small(data: bytes) -> bool:
    """Return whether a file may be decoded in the process, if its pixels are few."""
    return (
        len(data) <= SMALL_BYTES
        and data[:4].startswith(_HEADS)
        and scans_at_most(data) <= _SMALL_SCANS
    )


class Decoding:
    """The decoding process of one replica; it is started when it is needed, and again if lost."""

    def __init__(self, limits: LimitSettings) -> None:
        self._limits, self._lock = limits, threading.Lock()
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def image(self, data: bytes, mode: Mode, limits: ImageLimits) -> Pixels:
        """Return the pixels that `open_image` gives; ImageRefused as there."""
        with self._opened("image", data, {"mode": mode, "limits": limits}) as pages:
            return next(pages)

    def document(
        self,
        data: bytes,
        mode: Mode,
        limits: ImageLimits,
        max_pages: int,
        where: str = "document",
    ) -> "Pages":
        """Return the pages that `open_pages` yields; close them, and the child ends."""
        options = {"mode": mode, "limits": limits, "max_pages": max_pages, "where": where}
        return self._opened("document", data, options)

    def pdf(self, data: bytes, pages: Sequence[TextPage]) -> bytes:
        """Return the searchable PDF that `as_pdf` makes; ImageRefused where that cannot be done."""
        with self._opened("pdf", data, {"pages": pages}) as made:
            return next(made).tobytes()

    def lines(
        self,
        data: bytes,
        cuts: Sequence[LineCut],
        limits: ImageLimits,
        max_pages: int,
        max_pixels: int,
        where: str,
    ) -> "Pages":
        """Return the PNG files that `encoded_lines` yields; `about` has what comes with them."""
        options = {"cuts": cuts, "limits": limits, "max_pages": max_pages, "where": where}
        return self._opened("lines", data, {**options, "max_pixels": max_pixels})

    def start(self) -> None:
        """Start the process, unless it runs; does not wait for it."""
        with self._lock:
            self._running()

    def close(self) -> None:
        """End the process."""
        with self._lock:
            if self._control is not None and self._process is not None:
                _end(self._control, self._process)
            self._control = self._process = None

    def _opened(
        self,
        what: Literal["image", "document", "lines", "pdf"],
        data: bytes,
        options: dict[str, Any],
    ) -> "Pages":
        asked = pickle.dumps((what, options))
        head = _PREFIX.pack(len(asked)) + asked + _PREFIX.pack(len(data))
        return Pages(self, (head, data), options.get("where", "image"), self._limits)

    def connect(self) -> socket.socket:
        """Return a connection to a new child."""
        ours, theirs = socket.socketpair()
        try:
            with theirs, self._lock:
                socket.send_fds(self._running(), [b"\0"], [theirs.fileno()])
        except OSError:
            ours.close()
            raise
        return ours

    def _running(self) -> socket.socket:
        if self._control is not None and self._process is not None:
            if self._process.poll() is None:
                return self._control
            _end(self._control, self._process)
        self._control, self._process = _started(self._limits)
        weakref.finalize(self, _end, self._control, self._process)
        return self._control


def _started(limits: LimitSettings) -> "tuple[socket.socket, subprocess.Popen[bytes]]":
    ours, theirs = socket.socketpair()
    numbers = (theirs.fileno(), limits.max_decode_bytes, math.ceil(limits.max_decode_s))
    path = os.pathsep.join(part for part in sys.path if part)
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "serve.decoding_process", *map(str, numbers)],
            env={**kept, "PYTHONPATH": path, **dict.fromkeys(_ONE_THREAD, "1")},
            pass_fds=[theirs.fileno()],
        )
    return ours, process


def _end(control: socket.socket, process: "subprocess.Popen[bytes]") -> None:
    control.close()
    process.kill()
    process.wait()


class Pages(Iterator[Pixels]):
    """The pages of a file as its child sends them; ImageRefused where there are no (more) pages."""

    def __init__(
        self, decoding: Decoding, asked: tuple[bytes, bytes], where: str, limits: LimitSettings
    ) -> None:
        self._decoding, self._asked, self._where, self._limits = decoding, asked, where, limits
        self._connection: socket.socket | None = None
        self._turn, self._is_closed = threading.Lock(), False
        self.about = dict[str, Any]()  # what the child says of the last page

    def __enter__(self) -> "Pages":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: object, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the child; also while another thread waits for its next page."""
        self._is_closed = True
        if self._connection is None:
            return
        with contextlib.suppress(OSError):  # it has ended by itself
            self._connection.shutdown(socket.SHUT_RDWR)
        if self._turn.acquire(blocking=False):
            self._connection.close()
            self._turn.release()

    def __next__(self) -> Pixels:
        """Return the next page, uint8 [H, W] or [H, W, 3]."""
        is_page = False
        try:
            with self._turn:
                pixels = self._next()
            is_page = True
        except TimeoutError:
            raise self._died(-signal.SIGXCPU) from None
        except OSError:
            raise DecoderLost("the decoding process ended") from None
        finally:
            if self._is_closed or not is_page:
                self.close()
        return pixels

    def _next(self) -> Pixels:
        if self._is_closed:
            raise StopIteration
        message = self._first() if self._connection is None else self._message()
        if "shape" in message:
            self.about = message["about"]
            return self._pixels(message["shape"])
        if "refused" in message:
            raise ImageRefused(*message["refused"])
        if "died" in message:
            raise self._died(message["died"])
        raise StopIteration

    def _first(self) -> dict[str, Any]:
        """Ask a child, or a second one where the process was lost before it answered."""
        for _ in range(2):
            try:
                self._connection = self._decoding.connect()
                self._connection.settimeout(_PATIENCE * self._limits.max_decode_s)
                for part in self._asked:  # without a copy of the file
                    self._connection.sendall(part)
                return self._message()
            except TimeoutError:
                raise
            except OSError:
                if self._connection is not None:
                    self._connection.close()
                if self._is_closed:
                    break
        raise DecoderLost("the decoding process ended")

    def _message(self) -> dict[str, Any]:
        (length,) = _PREFIX.unpack(self._received(bytearray(_PREFIX.size)))
        if length > _MOST_MESSAGE:
            raise DecoderLost(f"a message of {length} bytes came from the decoding process")
        content: dict[str, Any] = json.loads(bytes(self._received(bytearray(length))))
        return content

    def _pixels(self, shape: list[int]) -> Pixels:
        if math.prod(shape) > 4 * self._limits.max_pixels + _MOST_MESSAGE:
            raise DecoderLost(f"a page of the shape {shape} came from the decoding process")
        pixels = np.empty(shape, np.uint8)
        self._received(pixels.data.cast("B"))
        return pixels

    def _received(self, into: "bytearray | memoryview") -> "bytearray | memoryview":
        assert self._connection is not None
        view = memoryview(into)
        while view:
            count = self._connection.recv_into(view)
            if not count:
                raise ConnectionResetError
            view = view[count:]
        return into

    def _died(self, status: int) -> ImageRefused:
        seconds, most = self._limits.max_decode_s, f"{self._limits.max_decode_bytes:,}"
        if status == -signal.SIGXCPU:
            message = f"it takes more than {seconds:g} s; make it simpler"
            return ImageRefused(self._where, "too slow to decode", message)
        message = f"decoding it takes more than {most} bytes of memory, or its content is damaged"
        return ImageRefused(self._where, "not a readable image", message)

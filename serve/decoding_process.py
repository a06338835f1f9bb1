"""The process that decodes files of strangers: for each file it forks a child with limits.

`serve/decoding.py` starts it and describes what is sent. It has one thread and nothing of the
endpoint in it: a fork costs milliseconds, and a file finds no model, no key and no other request.
It ends when its endpoint does.
"""

import json
import os
import pickle
import resource
import select
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil

from ocr.documents import open_pages
from ocr.errors import ImageRefused, UserError
from ocr.images import NO_MEMORY, Pixels, open_image
from serve.line_cuts import encoded_lines

_NICE = 10  # reading comes first where cores are few
_PREFIX = struct.Struct("<Q")


def main(control_fd: int, max_bytes: int, max_seconds: int) -> None:
    """Fork a child for each socket that arrives; end where no more can."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the endpoint's own end ends this process
    control = socket.socket(fileno=control_fd)
    ended, wake = socket.socketpair()
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    poll, jobs = select.poll(), dict[int, socket.socket]()
    poll.register(control, select.POLLIN)
    poll.register(ended, select.POLLIN)
    memory = psutil.Process().memory_info().vms + max_bytes
    while True:
        ready = dict(poll.poll())
        for pid, job in jobs.items():
            if ready.get(job.fileno(), 0) & (select.POLLHUP | select.POLLERR):
                os.kill(pid, signal.SIGKILL)  # nobody waits for it; not reaped yet, so it is it
        if ended.fileno() in ready:
            ended.recv(4096)
            for pid, status in _reaped():
                job = jobs.pop(pid)
                poll.unregister(job)
                _report(job, status)
        if control.fileno() in ready:
            _, fds, _, _ = socket.recv_fds(control, 1, 1)
            if not fds:
                break
            job = socket.socket(fileno=fds[0])
            pid = os.fork()
            if not pid:
                for other in (control, ended, wake, *jobs.values()):
                    other.close()
                _child(job, memory, max_seconds)
            jobs[pid] = job
            poll.register(job, 0)  # 0: hang-ups alone
    for pid in jobs:
        os.kill(pid, signal.SIGKILL)


def _reaped() -> Iterator[tuple[int, int]]:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        yield pid, os.waitstatus_to_exitcode(status)


def _report(job: socket.socket, status: int) -> None:
    """Say how a child ended that said nothing itself."""
    with job:
        if status:
            job.setblocking(False)
            try:
                job.sendall(_message({"died": status}))
            except OSError:  # nobody listens
                return


def _child(job: socket.socket, memory: int, seconds: int) -> None:
    """Decode one file under limits, and exit without anything of the parent's."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        os.nice(_NICE)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        _answer(job)
        status = 0
    except ConnectionError:  # the endpoint is gone, or waits no longer
        status = 0
    finally:
        os._exit(status)


def _answer(job: socket.socket) -> None:
    what, options = pickle.loads(_part(job))  # noqa: S301  from the endpoint itself
    try:
        for about, pixels in _decoded(what, _part(job), options):
            job.sendall(_message({"shape": pixels.shape, "about": about}))
            job.sendall(pixels.data.cast("B"))
        last: dict[str, Any] = {"end": True}
    except ImageRefused as problem:
        last = {"refused": (problem.where, problem.reason, problem.detail)}
    except UserError as problem:
        last = {"refused": ("document", "not a writable document", str(problem))}
    except MemoryError:
        last = {"refused": ("image", "image too large", NO_MEMORY)}
    job.sendall(_message(last))


def _decoded(
    what: str, data: bytes, options: dict[str, Any]
) -> Iterator[tuple[dict[str, Any], Pixels]]:
    """Yield an image, pages, lines as files, or the bytes of the PDF that is made of a document."""
    if what == "lines":
        yield from encoded_lines(data, **options)
        return
    if what == "pdf":
        from ocr.writers.pdf import as_pdf  # half a second, in this child alone

        yield {}, np.frombuffer(as_pdf(data, **options), np.uint8)
        return
    pages = open_pages(data, **options) if what == "document" else [open_image(data, **options)]
    for page in pages:
        yield {}, np.ascontiguousarray(page)


def _message(content: dict[str, Any]) -> bytes:
    encoded = json.dumps(content).encode()
    return _PREFIX.pack(len(encoded)) + encoded


def _part(job: socket.socket) -> bytes:
    (length,) = _PREFIX.unpack(_received(job, _PREFIX.size))
    return _received(job, length)


def _received(job: socket.socket, size: int) -> bytes:
    found = bytearray(size)
    view = memoryview(found)
    while view:
        count = job.recv_into(view)
        if not count:
            raise ConnectionResetError("the endpoint is gone")
        view = view[count:]
    return bytes(found)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

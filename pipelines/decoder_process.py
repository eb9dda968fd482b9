"""The child of `pipelines.decoder`: gives up what it does not need, then opens and decodes what it is handed.

    python -m pipelines.decoder_process SOCKET

It imports NumPy, Pillow and PDFium, no TensorFlow and no Beam. Before it sees a byte of a scan it limits its memory,
its open files and its processor time, and may write no file. On Linux for x86-64 and aarch64 a filter of system calls
takes away sockets, other programs and the memory of other processes; where the kernel does not allow such a filter,
nothing here opens a socket, and nothing more is promised. It may still read what its user may read: PDFium looks for
fonts.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import mmap
import os
import platform
import resource
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ocr_model.errors import UnreadablePage
from ocr_model.images import Document, Limits, open_document

Open = Callable[[bytes, Limits], Document]

_MAX_REQUEST_BYTES = 64 * 1024
_TEXT_CHARACTERS = 1000
_OPEN_FILES = 32

# Numbers of socket, connect, bind, listen, socketpair, execve, execveat, ptrace, process_vm_readv, process_vm_writev,
# io_uring_setup; before them the name that the kernel gives the machine.
_FORBIDDEN_CALLS = {
    "x86_64": (0xC000003E, (41, 42, 49, 50, 53, 59, 322, 101, 310, 311, 425)),
    "aarch64": (0xC00000B7, (198, 203, 200, 201, 199, 221, 281, 117, 270, 271, 425)),
}


def main(arguments: Sequence[str], open_file: Open = open_document) -> int:
    """0 when the parent has closed its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    _end_with_parent(sys.stdin.fileno())
    os.set_blocking(sys.stderr.fileno(), False)  # nobody may be reading
    with socket.socket(fileno=int(arguments[1])) as connection:
        start, (pixels_file,) = _received(connection)
        limits = Limits(**start["limits"])
        pixels = mmap.mmap(pixels_file, limits.max_pixels)
        os.close(pixels_file)
        _confine(start["memory_bytes"])
        _answer(connection, start, {"ready": True})
        decoder = _Decoder(limits, pixels, open_file)
        while True:
            request, files = _received(connection)
            if not request:
                return 0
            _limit_cpu(start["timeout_s"])
            _answer(connection, request, decoder.outcome(request, files))


@dataclass
class _Decoder:
    """The open document, and how requests are answered."""

    limits: Limits
    pixels: mmap.mmap
    open_file: Open
    document: Document | None = None

    def outcome(self, request: dict[str, Any], files: Sequence[int]) -> dict[str, Any]:
        """What the parent is told: the result, or the failure that is the file's."""
        try:
            return self._open(files[0]) if request["do"] == "open" else self._decode(request["index"])
        except UnreadablePage as error:
            words = {"message": error.message[:_TEXT_CHARACTERS], "remedy": error.remedy[:_TEXT_CHARACTERS]}
            return {"reason": error.reason, **words}
        except MemoryError:
            return {"reason": "out-of-memory", "message": "not enough memory for the file"}

    def _open(self, file: int) -> dict[str, Any]:
        self.document = None
        try:
            data = _contents(file, self.limits.max_bytes)
        except OSError as error:
            return {"os_error": error.errno or errno.EIO}
        finally:
            os.close(file)
        self.document = self.open_file(data, self.limits)
        return {"pages": self.document.page_count}

    def _decode(self, index: int) -> dict[str, Any]:
        assert self.document is not None
        page = self.document.decode(index)
        height, width = page.pixels.shape
        self.pixels[: height * width] = page.pixels.data.cast("B")
        return {"height": height, "width": width, "dpi": page.dpi, "reduced_by": page.reduced_by}


def _contents(file: int, limit_bytes: int) -> bytes:
    """The bytes of a file from its start, at most one more than the limit. The file's position is shared: not used."""
    pieces: list[bytes] = []
    at = 0
    expected = max(1, os.fstat(file).st_size)
    while at <= limit_bytes:
        piece = os.pread(file, min(max(expected - at, 2**16), limit_bytes + 1 - at), at)
        if not piece:
            break
        pieces.append(piece)
        at += len(piece)
    return b"".join(pieces)


def _received(connection: socket.socket) -> tuple[dict[str, Any], Sequence[int]]:
    """The next request and the files that came with it; an empty request at the end."""
    data, files, _, _ = socket.recv_fds(connection, _MAX_REQUEST_BYTES, 1)
    return (json.loads(data) if data else {}), files


def _answer(connection: socket.socket, request: dict[str, Any], answer: dict[str, Any]) -> None:
    connection.send(json.dumps({**answer, "id": request["id"]}).encode())


def _end_with_parent(pipe: int) -> None:
    """Has the kernel end this process when the parent's end of the pipe closes, even in the midst of decoding.

    Not PR_SET_PDEATHSIG: that signal comes when the thread ends that started this process.
    """
    with suppress(OSError):  # else the closed socket ends it, after the page that it is at
        fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)  # SIGIO, which kills
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    if poll.poll(0):
        sys.exit("the parent has ended")


def _confine(memory_bytes: int) -> None:
    """Limits this process for good."""
    with open("/proc/self/statm", encoding="ascii") as stream:
        used_bytes = int(stream.read().split()[0]) * resource.getpagesize()
    _forbid_calls()
    for kind, limit in (
        (resource.RLIMIT_AS, used_bytes + memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_NPROC, 0),
    ):
        _, hard = resource.getrlimit(kind)
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (limit, limit))


def _limit_cpu(timeout_s: float) -> None:
    """A second line behind the parent's clock: more processor time than one request can take ends this process."""
    used_s = sum(os.times()[:2])
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = int(used_s + 2 * timeout_s + 10)
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _forbid_calls() -> bool:
    """Whether the kernel now refuses sockets, other programs and other processes' memory (seccomp) to this process."""
    machine, calls = _FORBIDDEN_CALLS.get(platform.machine(), (0, ()))
    if not calls:
        return False
    load, equal, above, give = 0x20, 0x15, 0x35, 0x06
    to_end = len(calls) + 1
    steps = [(load, 0, 0, 4), (equal, 0, to_end + 2, machine), (load, 0, 0, 0), (above, to_end, 0, 0x40000000)]
    steps += [(equal, to_end - 1 - n, 0, call) for n, call in enumerate(calls)]
    steps += [(give, 0, 0, 0x7FFF0000), (give, 0, 0, 0x00050000 | errno.EPERM)]  # allowed; refused with EPERM
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    header = ctypes.create_string_buffer(struct.pack("HP", len(steps), ctypes.addressof(program)))
    prctl = ctypes.CDLL(None).prctl
    prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)
    no_new_privileges, seccomp, with_filter = 38, 22, 2
    if prctl(no_new_privileges, 1, 0, 0, 0):
        return False
    return prctl(seccomp, with_filter, ctypes.addressof(header), 0, 0) == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))

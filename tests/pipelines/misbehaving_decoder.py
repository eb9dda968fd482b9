"""A decoder process whose documents say what happens: each line is what the decoding of one page does.

A document that begins with `pages:` is such a list, any other is decoded as usual. What follows `pages:` in the first
line is done while the file is opened.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable

import numpy as np

from ocr_model.errors import UnreadablePage
from ocr_model.images import Document, Limits, PageImage, open_document
from pipelines import decoder_process

PAGES = b"pages:"


def script(*pages: str, at_opening: str = "") -> bytes:
    """A document whose pages behave so."""
    return b"\n".join([PAGES + at_opening.encode(), *(page.encode() for page in pages)])


class _Script:
    """The document; see `do`."""

    def __init__(self, data: bytes) -> None:
        opening, *self._pages = data.decode().split("\n")
        do(opening.removeprefix(PAGES.decode()))
        self.page_count = len(self._pages)

    def decode(self, index: int) -> PageImage:
        return do(self._pages[index])


def do(what: str) -> PageImage:
    """Does it; a white page if it is nothing."""
    verb, _, rest = what.partition(" ")
    if verb == "hang":
        while True:
            pass
    elif verb == "signal":
        os.kill(os.getpid(), signal.Signals[rest])
    elif verb == "exit":
        sys.exit(rest)
    elif verb == "chatter":
        os.write(1, b"x" * 200_000)
        for _ in range(1000):
            try:
                os.write(2, b"libpng warning\n" * 100)
            except BlockingIOError:
                break
    elif verb == "allocate":
        np.ones(int(rest), np.uint8)
    elif verb == "fill-and-abort":
        kept = np.ones(int(rest), np.uint8)
        os.abort()
        del kept
    elif verb == "try":
        _try(rest)
    return PageImage(np.full((2, 3), 255, np.uint8), 300.0, 1)


def _try(what: str) -> None:
    """Tells as a failure of the page what became of an attempt."""
    what, _, detail = what.partition(" ")
    attempts: dict[str, Callable[[], object]] = {
        "socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
        "program": lambda: os.execv("/bin/true", ["true"]),
        "write": lambda: os.ftruncate(os.memfd_create("test"), 10_000),
        "files": lambda: [os.open("/dev/null", os.O_RDONLY) for _ in range(100)],
        "secret": lambda: os.environ["SECRET"],
        "inherited": lambda: os.fstat(int(detail)),
    }
    try:
        attempts[what]()
    except (OSError, KeyError) as error:
        raise UnreadablePage(type(error).__name__, "damaged") from error


def open_script(data: bytes, limits: Limits) -> Document:
    return _Script(data) if data.startswith(PAGES) else open_document(data, limits)


if __name__ == "__main__":
    sys.exit(decoder_process.main(sys.argv, open_script))

"""A reader in a process of its own, that a page may kill.

Native code that crashes cannot be caught. The first attempt at a unit reads in the worker itself, beside a clock
(`pipelines.watched_reader`); if the worker dies of it, the next attempt reads page by page in a child process, and the
page that kills the child, or hangs in it, becomes a dead letter.
"""

from __future__ import annotations

import multiprocessing
import pickle
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection

import numpy as np
from numpy.typing import NDArray

from ocr_model.document import Page
from ocr_model.errors import PagemillError, UnreadablePage
from pipelines.read_pages import PageReader

Grey = NDArray[np.uint8]
_START_S = 300.0  # for the child to load TensorFlow and a model, on a busy machine


class IsolatedReader:
    """Reads pages in a child process. A page that it hangs or dies on raises; the next page gets a new child.

    Args:
        load: makes the reader, in the child; must be importable there.
        timeout_s: for each page.
    """

    def __init__(self, load: Callable[[], PageReader], timeout_s: float) -> None:
        self._load, self._timeout_s = load, timeout_s
        self._process: multiprocessing.process.BaseProcess | None = None
        self._connection: Connection | None = None

    def read(self, images: Sequence[Grey]) -> list[Page]:
        """
        Raises:
            UnreadablePage: the child hung (`timeout`) or died (`reader-died`).
        """
        return self._call("read", images)

    def read_single_lines(self, images: Sequence[Grey]) -> list[Page]:
        """As `read`."""
        return self._call("read_single_lines", images)

    def close(self) -> None:
        """Ends the child."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._connection is not None:
            self._connection.close()
        self._process = self._connection = None

    def _call(self, method: str, images: Sequence[Grey]) -> list[Page]:
        try:
            connection = self._started()
            connection.send((method, list(images)))
            return self._answer(connection, self._timeout_s * len(images))
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            raise UnreadablePage(f"the page killed its reader ({self._cause()})", "reader-died") from error

    def _answer(self, connection: Connection, timeout_s: float) -> list[Page]:
        if not connection.poll(timeout_s):
            self.close()
            raise UnreadablePage(f"the page was not read within {timeout_s:g} s", "timeout")
        answer = connection.recv()
        if isinstance(answer, Exception):
            raise answer
        pages: list[Page] = answer
        return pages

    def _started(self) -> Connection:
        if self._connection is not None:
            return self._connection
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self._load), daemon=True)
        process.start()
        theirs.close()
        self._process, self._connection = process, ours
        try:
            self._answer(ours, _START_S)  # that it is ready, or why it is not
        except EOFError:  # the child has died; whoever called tells of what
            raise
        except BaseException:
            self.close()
            raise
        return ours

    def _cause(self) -> str:
        process = self._process
        if process is None:
            return "it is gone"
        process.join(5)
        code = process.exitcode
        self.close()
        return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"


def _serve(connection: Connection, load: Callable[[], PageReader]) -> None:
    """The child: answers until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    try:
        reader = load()
        connection.send([])
        while True:
            method, images = connection.recv()
            connection.send(_result(reader, method, images))
    except EOFError:
        return
    except Exception as error:  # told to the parent, which raises it
        connection.send(_sendable(error))


def _result(reader: PageReader, method: str, images: list[Grey]) -> list[Page] | Exception:
    try:
        return reader.read(images) if method == "read" else reader.read_single_lines(images)
    except Exception as error:  # raised again by the parent
        return _sendable(error)


def _sendable(error: Exception) -> Exception:
    """The error, or one like it that can be taken through a pipe."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever its class does when it is made anew
        return PagemillError(f"{type(error).__name__}: {error}")
    return error

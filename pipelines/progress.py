"""How far a run on this machine is: one line that changes on a terminal, plain lines elsewhere.

It also is who notices that the workers together have seen too many dead letters: each of them sees only its own.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TextIO

from pipelines import logs
from pipelines.report import clock


class Tally:
    """Counts that several processes of one machine keep together: a file each, one byte longer for every event.

    Beam's own counters arrive when the run is over.
    """

    def __init__(self, folder: str) -> None:
        self._name = str(Path(folder) / uuid.uuid4().hex)
        self._streams: dict[str, int] = {}

    def add(self, kind: str) -> None:
        if kind not in self._streams:
            self._streams[kind] = os.open(f"{self._name}.{kind}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(self._streams[kind], b".")

    def close(self) -> None:
        for descriptor in self._streams.values():
            os.close(descriptor)
        self._streams.clear()

    @staticmethod
    def count(folder: str, kind: str) -> int:
        return sum(file.stat().st_size for file in Path(folder).glob(f"*.{kind}"))


def progress_text(files: int, all_files: int, pages: int, elapsed_s: float) -> str:
    """
    >>> progress_text(30, 120, 45, 15.0)
    '30 of 120 files, 45 pages, 3.0 pages/s, 0:45 left'
    """
    text = f"{files} of {all_files} files, {pages} pages"
    if not files or not elapsed_s:
        return text
    left_s = elapsed_s * (all_files - files) / files
    return f"{text}, {pages / elapsed_s:.1f} pages/s, {clock(left_s)} left"


class Progress:
    """Tells a stream how far the tally of a folder is, as long as the `with` block lasts.

    Args:
        all_files: that are to be done.
        max_dead: dead letters after which `stop` is called, once.
    """

    def __init__(
        self,
        folder: str,
        all_files: int,
        stream: TextIO,
        max_dead: float | None = None,
        stop: Callable[[], None] = lambda: None,
    ) -> None:
        self._folder, self._all_files, self._stream = folder, all_files, stream
        self._max_dead, self._stop = max_dead, stop
        self._changing = stream.isatty() and not logs.are_json()
        self._period_s = 0.25 if self._changing else 10.0
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._tell_until_over, name="progress", daemon=True)]
        if max_dead is not None:
            self._threads.append(threading.Thread(target=self._watch_until_over, name="failure limit", daemon=True))
        self._started = time.monotonic()

    def __enter__(self) -> Progress:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        if self._changing:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _tell_until_over(self) -> None:
        while not self._over.wait(self._period_s):
            files, pages = Tally.count(self._folder, "files"), Tally.count(self._folder, "pages")
            text = progress_text(files, self._all_files, pages, time.monotonic() - self._started)
            with contextlib.suppress(OSError):  # nobody is listening any more
                if self._changing:
                    self._stream.write(f"\r{text}\x1b[K")
                    self._stream.flush()
                else:
                    logs.tell(text, stream=self._stream, files=files, all_files=self._all_files, pages=pages)

    def _watch_until_over(self) -> None:
        assert self._max_dead is not None
        while not self._over.wait(0.5):
            if Tally.count(self._folder, "dead") > self._max_dead:
                self._stop()
                return

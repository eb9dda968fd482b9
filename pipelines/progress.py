"""How far a run is: one line that changes on a terminal, plain lines elsewhere, and the summary at the end."""

from __future__ import annotations

import contextlib
import os
import resource
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TextIO


class Tally:
    """Counts that several processes of one machine keep together: a file each, one byte longer for every event.

    Beam's own counters arrive when the run is over.
    """

    def __init__(self, folder: str) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._name = str(Path(folder) / uuid.uuid4().hex)

    def add(self, kind: str) -> None:
        with open(f"{self._name}.{kind}", "ab", buffering=0) as file:
            file.write(b".")

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
    return f"{text}, {pages / elapsed_s:.1f} pages/s, {_clock(left_s)} left"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Progress:
    """Tells a stream how far the tally of a folder is, as long as the `with` block lasts."""

    def __init__(self, folder: str, all_files: int, stream: TextIO) -> None:
        self._folder, self._all_files, self._stream = folder, all_files, stream
        self._changing = stream.isatty()
        self._period_s = 0.25 if self._changing else 10.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tell_until_over, name="progress", daemon=True)
        self._started = time.monotonic()

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        if self._changing:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _tell_until_over(self) -> None:
        while not self._over.wait(self._period_s):
            files, pages = Tally.count(self._folder, "files"), Tally.count(self._folder, "pages")
            text = progress_text(files, self._all_files, pages, time.monotonic() - self._started)
            with contextlib.suppress(OSError):  # nobody is listening any more
                self._stream.write(f"\r{text}\x1b[K" if self._changing else f"{text}\n")
                self._stream.flush()


def cpu_seconds() -> float:
    """CPU time of this process and its finished children."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


@dataclass(frozen=True)
class Summary:
    """What a run did.

    Attributes:
        files, pages: how many were given, whole unreadable files counted as one page.
        read, lines: pages that became text, and their lines of text.
        failures: pages that did not, by reason.
        start_s: from the start of the command until the first page could be read: imports, model.
        wall_s, cpu_s: from then to the end.
    """

    output: str
    formats: tuple[str, ...]
    files: int
    pages: int
    read: int
    lines: int
    failures: Mapping[str, int] = field(default_factory=dict)
    start_s: float = 0.0
    wall_s: float = 0.0
    cpu_s: float = 0.0

    @property
    def failed(self) -> int:
        return sum(self.failures.values())

    def text(self) -> str:
        """A few lines for a person."""
        said = [f"{self.read} of {self.pages} pages read ({self.lines} lines) from {self.files} files"]
        if self.failures:
            reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(self.failures.items()))
            said.append(
                f"{self.failed} could not be read: {reasons} (see {os.path.join(self.output, 'dead_letters.jsonl')})"
            )
        if self.pages and self.wall_s:
            said.append(
                f"{self.pages / self.wall_s:.2f} pages/s, {self.cpu_s / self.pages:.2f} CPU seconds a page,"
                f" {self.start_s:.1f} s to start"
            )
        said.append("results in " + ", ".join(os.path.join(self.output, name) for name in self.formats))
        return "\n".join(said)

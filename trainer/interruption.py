"""Stopping in good order: SIGTERM (preemption) and Ctrl-C are noticed between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ocr_model.errors import PagemillError


class Interrupted(PagemillError):
    """The run was asked to stop and has written a checkpoint; the same command goes on."""

    exit_code = 130


class StopRequest:
    """Whether somebody asked for the end. A second request ends the process at once, as without this.

    >>> with StopRequest() as stop:
    ...     bool(stop)
    False
    """

    signals = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self._asked = self._at_once = False

    def __bool__(self) -> bool:
        return self._asked

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python takes no handlers
            self._before = {s: signal.signal(s, self._ask) for s in self.signals}
        else:
            self._before = {}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self._asked = True
        if self._at_once:
            raise Interrupted("stopped during a validation", "the same command goes on")

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within it a request raises `Interrupted`: for what may be broken off anywhere, as a validation."""
        self._at_once = True
        try:
            if self._asked:
                raise Interrupted("stopped before a validation", "the same command goes on")
            yield
        finally:
            self._at_once = False

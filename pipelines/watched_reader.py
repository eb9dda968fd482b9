"""A reader beside a clock: a page that hangs costs its limit, and this process goes on without it.

A call reads in a thread of its own, and the pages are handed to it one by one, so that it shows which one it has in
hand. A page that is in hand for longer than its limit is the one that hangs. The thread is told to end, which Python
code does; native code is left to itself, with the lowest priority. Where the pages of a call are worked on together
(the network takes lines of several), no page can be blamed: then each is read by itself.

Two things this process does not survive, and what starts it again reads in isolation (`pipelines.isolation`): too many
threads that have been left, and native code that hangs with Python's lock (the GIL) in its hands, which stops all
clocks but the kernel's.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import overload

import numpy as np
from numpy.typing import NDArray

from ocr_model.document import Page
from pipelines.read_pages import PageHung, PageReader, seconds_of
from pipelines.supervise import READING

Grey = NDArray[np.uint8]
Read = Callable[[Sequence[Grey]], list[Page]]

_STEP_S = 0.25  # from one look at the clock to the next
_ENDS_WITHIN_S = 0.25  # a thread that can be told to end
_FINISHES_WITHIN_S = 2.0  # one that is at work when this process is interrupted
_TOGETHER_S = 3.0  # that pages may be worked on together, however fast it usually goes
_FORGETS = 0.9  # of what it has taken once, from one call to the next
_MOST_LEFT = 3  # threads that hang in native code, beyond which the process is killed
_ALARM_AFTER_S = 3.0  # beyond a page's limit, if no clock of Python's runs any more


class WatchedReader:
    """A reader whose calls end in time.

    A page that is read alone has its limit for all of it. Of several, each has its limit whenever the reader takes it
    in hand, and the work on all together may take twice what it lately took for so many. Where that is not enough, the
    caller reads each by itself, and up to half of its limit has been used.

    Args:
        timeout_s: for a page.
    """

    def __init__(self, reader: PageReader, timeout_s: float) -> None:
        self._reader, self._timeout_s = reader, timeout_s
        self._together_s: float | None = None  # for each of the pages that are worked on together, lately
        self._suspects: list[weakref.ref[Grey]] = []  # the images of the last call that was stopped together
        self._had_s = 0.0  # by these
        self._left: list[_Call] = []

    @property
    def seconds(self) -> dict[str, float]:
        return dict(seconds_of(self._reader))

    def read(self, images: Sequence[Grey]) -> list[Page]:
        """
        Raises:
            PageHung: a page was not read within its limit; it tells which one, if that is known.
        """
        return self._read(self._reader.read, images)

    def read_single_lines(self, images: Sequence[Grey]) -> list[Page]:
        """As `read`."""
        return self._read(self._reader.read_single_lines, images)

    def together_limit_s(self, pages: int) -> float:
        """For what is done with so many pages together. At first nothing is known, and it is half a page's limit."""
        limit_s = self._timeout_s / 2 if self._together_s is None else 2 * self._together_s * pages
        return min(self._timeout_s * pages, max(limit_s, _TOGETHER_S))

    def limit_s(self, images: Sequence[Grey]) -> float:
        """For a page in hand."""
        is_suspect = len(images) == 1 and any(suspect() is images[0] for suspect in self._suspects)
        return self._timeout_s - (min(self._had_s, self._timeout_s / 2) if is_suspect else 0.0)

    def _took_together(self, seconds: float, pages: int) -> None:
        """Remembers it. The longest counts, for some time: a batch of newspapers follows on one of letters."""
        if pages > 1:
            self._together_s = max(seconds / pages, _FORGETS * (self._together_s or 0.0))

    def _read(self, read: Read, images: Sequence[Grey]) -> list[Page]:
        with _alarm(self._timeout_s + _ALARM_AFTER_S) as put_off:
            call = _Call(read, images)
            try:
                self._wait(call, images, put_off)
            except PageHung:
                if not call.end(_ENDS_WITHIN_S):
                    self._leave(call)
                raise
            except BaseException:  # Ctrl-C: Python must not end while the thread is at work
                call.end(_FINISHES_WITHIN_S)
                raise
        pages = call.result()
        self._took_together(call.images.together_s, len(images))
        return pages

    def _wait(self, call: _Call, images: Sequence[Grey], put_off: Callable[[], None]) -> None:
        """Returns when the call is over.

        A look at the clock counts for two steps at most: while this process was stopped nothing hung.
        """
        step_s = min(_STEP_S, self._timeout_s / 4)
        limit_s, together_s = self.limit_s(images), self.together_limit_s(len(images))
        looked_s, doing, had_s = time.monotonic(), call.images.doing, 0.0
        while not call.over.wait(step_s):
            put_off()
            passed_s = time.monotonic() - looked_s
            looked_s += passed_s
            if call.images.doing is not doing:
                doing, had_s = call.images.doing, 0.0
                continue
            had_s += min(passed_s, 2 * step_s)
            if doing.image is None and had_s >= together_s:
                self._took_together(had_s, len(images))  # it may be no page's fault: the machine has become slow
                self._suspects, self._had_s = [weakref.ref(image) for image in images], had_s
                raise PageHung(f"one of {len(images)} pages hangs that are read together", None)
            if doing.image is not None and had_s >= limit_s:
                raise PageHung(f"the page was not read within {self._timeout_s:g} s", doing.image)

    def _leave(self, call: _Call) -> None:
        self._left = [*(left for left in self._left if not left.over.is_set()), call]
        if len(self._left) > _MOST_LEFT:
            logging.critical("%d pages hang: the worker ends, and its unit is tried again", len(self._left))
            os.kill(os.getpid(), signal.SIGKILL)


class _Doing:
    """What a call is at: an image, or what concerns all of them together (None)."""

    def __init__(self, image: Grey | None) -> None:
        self.image, self.since_s = image, time.monotonic()


class _Handed(Sequence[Grey]):
    """The images of a call; whoever goes through them is seen to have the one in hand that was taken last.

    Attributes:
        doing: is another object whenever the reader goes on to something else.
        together_s: spent on all images together.
    """

    def __init__(self, images: Sequence[Grey]) -> None:
        self._images = tuple(images)
        self.doing = _Doing(images[0] if len(images) == 1 else None)
        self.together_s = 0.0

    @overload
    def __getitem__(self, index: int) -> Grey: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Grey, ...]: ...
    def __getitem__(self, index: int | slice) -> Grey | tuple[Grey, ...]:
        return self._images[index]

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[Grey]:
        try:
            for i in range(len(self._images)):  # an iterator of the tuple would hold all of it
                image = self._images[i]
                self.goes_on_to(image)
                yield image
        finally:
            self.goes_on_to(None)

    def goes_on_to(self, image: Grey | None) -> None:
        if len(self._images) > 1:
            before, self.doing = self.doing, _Doing(image)
            if before.image is None:
                self.together_s += self.doing.since_s - before.since_s

    def let_go(self) -> None:
        """Holds no images any more."""
        self._images = ()
        self.doing = _Doing(None)


class _ToldToEnd(SystemExit):
    """Is raised in a thread from outside; no `except Exception` stops it, and a thread that ends so says nothing."""


class _Call:
    """A call of a reader, in a thread of its own.

    Attributes:
        over: set when the thread is through.
    """

    def __init__(self, read: Read, images: Sequence[Grey]) -> None:
        self.images = _Handed(images)
        self.over = threading.Event()
        self._pages: list[Page] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(read,), name=READING, daemon=True)
        self._thread.start()

    def result(self) -> list[Page]:
        """The pages, or the error raised here."""
        error, self._error = self._error, None
        if error is None:
            return self._pages
        try:
            raise error
        finally:
            del error  # else it holds this frame, which holds it

    def end(self, within_s: float) -> bool:
        """Tells the thread to end; whether it has ended. If not, it is left with the lowest priority."""
        self.images.let_go()
        identity, native = self._thread.ident, self._thread.native_id
        assert identity is not None and native is not None  # it has been started
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(identity), ctypes.py_object(_ToldToEnd))
        if self.over.wait(within_s):
            return True
        with suppress(ProcessLookupError):  # it may have ended at this moment
            os.setpriority(os.PRIO_PROCESS, native, 19)  # Linux has a priority for each thread
        return False

    def _run(self, read: Read) -> None:
        try:
            self._pages = read(self.images)
        except BaseException as error:  # raised again by `result`
            self._error = error
        finally:
            self.images.goes_on_to(None)
            self.over.set()


_alarms = 0
_alarms_lock = threading.Lock()


@contextmanager
def _alarm(seconds: float) -> Iterator[Callable[[], None]]:
    """Lets the kernel end this process (SIGALRM) if nothing puts it off for so long. Yields what does put it off.

    There is one for all threads of a process. A program that has a use of its own for the signal keeps it.
    """
    global _alarms
    ours = signal.getsignal(signal.SIGALRM) is signal.SIG_DFL

    def put_off() -> None:
        if ours:
            signal.setitimer(signal.ITIMER_REAL, seconds)

    with _alarms_lock:
        _alarms += 1
    put_off()
    try:
        yield put_off
    finally:
        with _alarms_lock:
            _alarms -= 1
            if ours and _alarms == 0:
                signal.setitimer(signal.ITIMER_REAL, 0)

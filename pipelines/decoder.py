"""Scans from strangers, decoded in a process of its own that has limits and can be killed.

The libraries that decode are written in C and are handed hostile bytes: they may hang, ask for all memory, or be taken
over. So they run in a child (`pipelines.decoder_process`) that knows neither TensorFlow nor Beam, is given one open
file at a time and no paths, has limits on memory, time and what it may do, and is killed when it overstays. What it
answers is checked before it is believed.

    parent                                     child
    request, JSON, with the file    ------>    opens, decodes
    answer, JSON                    <------    sizes and errors
    pixels                          <======    memory that both hold

Both directions are one socket that keeps the bounds of messages, so there is no half of an answer to wait for. File
and pixels are memory without a name: nothing is left behind when either side is killed.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ocr_model.errors import PagemillError, UnreadablePage
from ocr_model.images import Grey, Limits, PageImage, check_bytes

COMMAND = (sys.executable, "-m", "pipelines.decoder_process")
REASONS = frozenset(
    (
        "empty-file",
        "not-an-image",
        "truncated",
        "too-many-pixels",
        "too-many-bytes",
        "too-many-pages",
        "encrypted",
        "zero-size",
        "damaged",
        "unsupported",
        "out-of-memory",
    )
)
MAX_MESSAGE_BYTES = 64 * 1024

_START_TIMEOUT_S = 120.0
_STARTS = 3
_DOCUMENTS_PER_CHILD = 1000  # what the libraries leak stays small
_PIXELS_KEPT_BYTES = 32 * 2**20  # memory of a page that is bigger is given back at once
_TEXT_CHARACTERS = 1000


class Decoder:
    """Opens one document at a time and decodes its pages, in a child process.

    A worker has one. The child is started by the first call and again after it died or was killed; the open document is
    then opened there anew. Not for several threads at once, which is refused, nor to be taken through a fork.

    Args:
        limits: what a file may ask.
        timeout_s: wall-clock seconds for one call, the start of the child not counted.
        memory_bytes: what the child may take beyond what it has at its start. It holds the file, too.
        command: the program of the child, to which the number of its socket is added.
    """

    def __init__(
        self,
        limits: Limits = Limits(),
        timeout_s: float = 60.0,
        memory_bytes: int = 2 * 2**30,
        command: Sequence[str] = COMMAND,
    ) -> None:
        if timeout_s <= 0 or memory_bytes <= 0:
            raise ValueError(f"timeout_s {timeout_s} and memory_bytes {memory_bytes} must be positive")
        self._limits = limits
        self._timeout_s = timeout_s
        self._memory_bytes = memory_bytes
        self._command = tuple(command)
        self._child: _Child | None = None
        self._source: int | None = None  # the open file, kept to open it again in another child
        self._path = ""
        self._page_count = 0
        self._busy = threading.Lock()

    def __enter__(self) -> Decoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self, source: str | bytes) -> int:
        """Number of pages of a local file, or of the file that the bytes are; it takes the place of the one before.

        Raises:
            UnreadablePage: the file as a whole cannot be read, with the reasons of `open_document`, or `timeout`,
                `out-of-memory`, `decoder-died`.
            OSError: the path cannot be opened or read.
            PagemillError: the child does not start.
        """
        with _One(self._busy):
            self._forget()
            if self._child is not None and self._child.documents >= _DOCUMENTS_PER_CHILD:
                self._stop()
            self._source, self._path = _opened(source, self._limits)
            try:
                child = self._running()
                self._open_in(child)
            except BaseException:
                self._forget()
                raise
            self._page_count = child.pages
            return self._page_count

    def decode(self, index: int) -> PageImage:
        """Page `index`, counted from 0, of the open document; the pixels are the caller's own.

        Raises:
            UnreadablePage: this page cannot be decoded, with the reasons of `open_document`, or `timeout`,
                `out-of-memory`, `decoder-died`; the others may be.
            OSError: the file had to be opened again and cannot be read any more.
            PagemillError: the child does not start.
        """
        with _One(self._busy):
            if self._source is None:
                raise ValueError("no document is open")
            if not 0 <= index < self._page_count:
                raise IndexError(f"page {index} of a document of {self._page_count}")
            child = self._running()
            if not child.pages:
                self._open_in(child)
            if index >= child.pages:
                raise UnreadablePage("the file has changed and has fewer pages now", "truncated")
            answer = self._ask(child, {"do": "decode", "index": index})
            try:
                return _page(answer, child, self._limits)
            except _BadAnswer as error:
                raise self._disbelieved(error) from error

    @property
    def child_pid(self) -> int | None:
        """Process id of the child, None while there is none."""
        return None if self._child is None else self._child.pid

    def close(self) -> None:
        """Ends the child and forgets the document; a later `open` starts anew."""
        with _One(self._busy):
            self._forget()
            self._stop()

    def _running(self) -> _Child:
        """The child, started if there is none or if it died while nothing was asked of it."""
        if self._child is not None and not self._child.is_alive():
            self._stop()
        if self._child is None:
            self._child = _started(self._command, self._limits, self._timeout_s, self._memory_bytes)
        return self._child

    def _open_in(self, child: _Child) -> None:
        """Has the child open the file, and count its pages."""
        assert self._source is not None
        child.documents += 1
        child.pages = 0
        answer = self._ask(child, {"do": "open"}, self._source)
        try:
            child.pages = _whole(answer, "pages", 1, self._limits.max_pages + 1)  # and a last one that breaks off
        except _BadAnswer as error:
            raise self._disbelieved(error) from error

    def _ask(self, child: _Child, request: dict[str, Any], file: int | None = None) -> dict[str, Any]:
        """What the child answers, if it is no failure. Whatever else happens, no child is left in an unknown state."""
        try:
            answer = child.ask(request, self._timeout_s, file)
        except TimeoutError as error:
            self._stop()
            raise UnreadablePage(f"the decoder was stopped after {self._timeout_s:g} s", "timeout") from error
        except _ChildDied as error:
            death = child.cause_of_death(self._memory_bytes)
            self._stop()
            raise death from error
        except _BadAnswer as error:
            raise self._disbelieved(error) from error
        except BaseException:
            self._stop()
            raise
        if "os_error" in answer:
            raise _os_error(answer["os_error"], self._path)
        if "reason" in answer:
            raise self._failure(answer)
        return answer

    def _failure(self, answer: dict[str, Any]) -> UnreadablePage:
        """The failure that an answer tells of. A child that ran out of memory is not used again."""
        reason = answer["reason"]
        if not isinstance(reason, str) or reason not in REASONS:
            return self._disbelieved(_BadAnswer("an unknown reason"))
        if reason == "out-of-memory":
            self._stop()
        message, remedy = (_printable(answer.get(key)) for key in ("message", "remedy"))
        return UnreadablePage(message, reason, remedy)

    def _disbelieved(self, error: _BadAnswer) -> UnreadablePage:
        self._stop()
        return UnreadablePage(f"the decoder gave an answer that cannot be: {error}", "decoder-died")

    def _stop(self) -> None:
        if self._child is not None:
            child, self._child = self._child, None
            child.end()

    def _forget(self) -> None:
        if self._source is not None:
            os.close(self._source)
        self._source = None
        self._page_count = 0
        if self._child is not None:
            self._child.pages = 0


class _One:
    """Lets one caller in; a second one is told that it may not."""

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise RuntimeError("a Decoder serves one caller at a time: give each thread its own")

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class _ChildDied(Exception):
    """The child closed its end."""


class _BadAnswer(Exception):
    """The child said what a sound child does not say."""


class _Child:
    """A running decoder process, the socket to it and the memory in which it leaves pixels."""

    def __init__(self, command: Sequence[str], pixels_bytes: int) -> None:
        self.documents = 0
        self.pages = 0  # of the document that it has open, 0 if none
        self.pixels_file = os.memfd_create("pagemill-pixels")
        self._pixels_bytes = pixels_bytes
        self._asked = 0
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.setblocking(True)  # a library may have set a default timeout, which makes sockets non-blocking
        try:
            with theirs:
                os.ftruncate(self.pixels_file, pixels_bytes)  # a promise: what is not touched takes no memory
                self._peak_at_start_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                self._process = subprocess.Popen(
                    [*command, str(theirs.fileno())],
                    stdin=subprocess.PIPE,  # never written to: it closes when this process ends, however it ends
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    pass_fds=(theirs.fileno(),),
                    cwd="/",
                    env=_environment(os.environ, sys.path),
                )
        except BaseException:
            self._socket.close()
            os.close(self.pixels_file)
            raise

    def ask(self, request: dict[str, Any], timeout_s: float, file: int | None = None) -> dict[str, Any]:
        """The child's answer.

        Raises:
            TimeoutError: there is none in time.
            _ChildDied: there will be none.
            _BadAnswer: it is none to this question.
        """
        self._asked += 1
        message = json.dumps({**request, "id": self._asked}).encode()
        try:
            self._socket.settimeout(timeout_s)  # by the monotonic clock
            socket.send_fds(self._socket, [message], [] if file is None else [file])
            data, _, flags, _ = self._socket.recvmsg(MAX_MESSAGE_BYTES)
        except ConnectionError as error:
            raise _ChildDied from error
        if not data:
            raise _ChildDied
        if flags & socket.MSG_TRUNC:
            raise _BadAnswer(f"it is longer than {MAX_MESSAGE_BYTES} bytes")
        answer = _parsed(data)
        if answer.get("id") != self._asked:
            raise _BadAnswer("it is not to this question")
        return answer

    def take_pixels(self, height: int, width: int) -> Grey:
        """[height, width] uint8, a copy of what the child left. Read as a file: a mapping that it cut short would kill.

        Raises:
            _BadAnswer: there is less.
        """
        pixels = np.empty((height, width), np.uint8)
        view = pixels.data.cast("B")
        done = 0
        while done < len(view):
            count = os.preadv(self.pixels_file, [view[done:]], done)
            if not count:
                raise _BadAnswer(f"there are {done} bytes of a page of {width} x {height} pixels")
            done += count
        if done > _PIXELS_KEPT_BYTES:
            os.ftruncate(self.pixels_file, 0)
            os.ftruncate(self.pixels_file, self._pixels_bytes)
        return pixels

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def cause_of_death(self, memory_bytes: int) -> UnreadablePage:
        """Why a child that closed its end did so: by its exit status, its peak of memory and its last words."""
        exit_code, peak_bytes = self._reap(grace_s=1.0)
        cause = f"exit code {exit_code}"
        if exit_code < 0:
            cause = _signal_name(-exit_code)
        words = self._last_words()
        message = f"the decoder process died of {cause}" + (f": {words}" if words else "")
        if exit_code == -signal.SIGXCPU:
            return UnreadablePage(message, "timeout")
        # The libraries abort in many ways when they get no memory, and the kernel kills when there is none.
        if exit_code < 0 and peak_bytes > memory_bytes // 2:
            return UnreadablePage(f"{message}; it had {peak_bytes >> 20} MiB", "out-of-memory")
        return UnreadablePage(message, "decoder-died")

    def end(self) -> None:
        """Kills the child if it lives, and frees what it had."""
        self._socket.close()
        self._reap(grace_s=0.0)
        for stream in (self._process.stdin, self._process.stderr):
            if stream is not None:
                stream.close()
        os.close(self.pixels_file)

    def _reap(self, grace_s: float) -> tuple[int, int]:
        """Exit code, negative for a signal, and peak of resident bytes of the child, which is killed if it lingers."""
        deadline_s = time.monotonic() + grace_s
        pid, status, usage = 0, 0, None
        while self._process.returncode is None:
            try:
                pid, status, usage = os.wait4(self._process.pid, os.WNOHANG)
                if not pid and time.monotonic() >= deadline_s:
                    os.kill(self._process.pid, signal.SIGKILL)
                    pid, status, usage = os.wait4(self._process.pid, 0)
            except ChildProcessError:  # somebody else in this process reaped it
                self._process.returncode = 0
                break
            if pid:
                self._process.returncode = os.waitstatus_to_exitcode(status)
            else:
                time.sleep(0.002)
        return self._process.returncode, self._peak_bytes(usage)

    def _peak_bytes(self, usage: resource.struct_rusage | None) -> int:
        """Of resident memory, 0 where it is not known: a child begins with the peak of the process that forked it."""
        peak_kib = usage.ru_maxrss if usage else 0
        return peak_kib * 1024 if peak_kib > self._peak_at_start_kib else 0

    def _last_words(self) -> str:
        """The last line on the child's stderr."""
        assert self._process.stderr is not None
        os.set_blocking(self._process.stderr.fileno(), False)
        try:
            said = os.read(self._process.stderr.fileno(), 2**20)
        except BlockingIOError:
            return ""
        lines = said.decode("utf-8", "replace").strip().splitlines()
        return _printable(lines[-1]) if lines else ""


def _started(command: Sequence[str], limits: Limits, timeout_s: float, memory_bytes: int) -> _Child:
    """A child that is ready.

    Raises:
        PagemillError: none could be started.
    """
    trouble = ""
    settings = {"limits": asdict(limits), "timeout_s": timeout_s, "memory_bytes": memory_bytes}
    for _ in range(_STARTS):
        child = _Child(command, limits.max_pixels)
        try:
            if child.ask({"do": "start", **settings}, _START_TIMEOUT_S, child.pixels_file).get("ready") is True:
                return child
        except (TimeoutError, _ChildDied, _BadAnswer):
            pass  # told below, if it is the last time
        except BaseException:
            child.end()
            raise
        trouble = child.cause_of_death(memory_bytes).message
        child.end()
    raise PagemillError(f"no decoder process can be started: {trouble}")


def _environment(inherited: Mapping[str, str], path: Sequence[str]) -> dict[str, str]:
    """What the child finds modules with, and nothing that it could give away."""
    kept = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PYTHONHOME")
    folders = [folder for folder in path if os.path.isabs(folder)] + [str(Path(__file__).resolve().parents[1])]
    own = {"PYTHONPATH": os.pathsep.join(folders), "PYTHONSAFEPATH": "1", "OPENBLAS_NUM_THREADS": "1"}
    # glibc keeps the memory of a page for the next one: to get it anew costs as much as to decode
    own |= {"MALLOC_MMAP_THRESHOLD_": str(32 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(128 * 2**20)}
    return {**{name: inherited[name] for name in kept if name in inherited}, **own}


def _opened(source: str | bytes, limits: Limits) -> tuple[int, str]:
    """A descriptor from which the file can be read, and what to call it.

    Raises:
        OSError: as `open` does; also for what is no regular file.
        UnreadablePage: it is empty or too big.
    """
    if isinstance(source, bytes):
        check_bytes(len(source), limits)
        file = os.memfd_create("pagemill-scan")
        with open(file, "wb", closefd=False) as stream:
            stream.write(source)
        return file, "bytes"
    file = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # or a pipe without a writer would hold it
    try:
        found = os.fstat(file)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), source)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", source)
        check_bytes(found.st_size, limits)
    except BaseException:
        os.close(file)
        raise
    return file, source


def _parsed(data: bytes) -> dict[str, Any]:
    """The JSON object of an answer."""
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _BadAnswer("it is no JSON") from error
    if not isinstance(answer, dict):
        raise _BadAnswer("it is no object")
    return answer


def _page(answer: dict[str, Any], child: _Child, limits: Limits) -> PageImage:
    """The page that an answer tells of, its pixels taken from the child's memory."""
    height, width = (_whole(answer, side, 1, limits.max_pixels) for side in ("height", "width"))
    if width * height > limits.max_pixels:
        raise _BadAnswer(f"{width} x {height} pixels are over the limit of {limits.max_pixels}")
    reduced_by = _whole(answer, "reduced_by", 1, 2**31)
    dpi = answer.get("dpi")
    if dpi is not None and not (type(dpi) in (int, float) and 0 <= dpi < 1e12):
        raise _BadAnswer("a resolution that cannot be")
    return PageImage(child.take_pixels(height, width), None if dpi is None else float(dpi), reduced_by)


def _whole(answer: dict[str, Any], name: str, lowest: int, highest: int) -> int:
    """A whole number of an answer, within bounds."""
    value = answer.get(name)
    if type(value) is not int or not lowest <= value <= highest:
        raise _BadAnswer(f"{name} is not a number from {lowest} to {highest}")
    return value


def _os_error(number: object, path: str) -> OSError:
    """The error of reading a file that the child met, of the class that belongs to its number."""
    known = number if isinstance(number, int) and number in errno.errorcode else errno.EIO
    return OSError(known, os.strerror(known), path)


def _printable(text: object) -> str:
    """Text from the child that can be shown: short, without control characters and halves of characters.

    >>> _printable("broken\\x1b[2J file")
    'broken [2J file'
    """
    return "".join(c if c.isprintable() else " " for c in text[:_TEXT_CHARACTERS]) if isinstance(text, str) else ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"

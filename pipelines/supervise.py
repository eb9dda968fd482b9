"""Runs a job in a child process and starts it again when it dies: of a crash in native code, of memory, of kill -9.

What is done stays done, so starting again costs a model's loading. The child carries the same name of the run on, by
which `pipelines.units` knows that a unit has killed its worker and reads it with more care.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from pipelines import logs

SUPERVISED_RUN = "PAGEMILL_SUPERVISED_RUN"  # set for the child: the name of the run
LAUNCHER = "PAGEMILL_LAUNCHER"  # and the number of this process
READING = "read pages"  # name of the threads of `pipelines.watched_reader`
WORKER_LOST = 75  # the child ends so when one of its own workers has died
_PR_SET_PDEATHSIG = 1
_THREADS = ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS")
# glibc gives memory to each thread apart, of which 40 MB stay unused in a worker: one thread reads at a time
_MEMORY = {"MALLOC_ARENA_MAX": "1"}


COMMAND = (sys.executable, "-m", "pipelines.cli")


def supervise(
    argv: Sequence[str], output: str, workers: int, max_attempts: int, command: Sequence[str] = COMMAND
) -> int:
    """Exit code of `pagemill` with these arguments, run in a child.

    It is started again as long as units get done in between (for the first time or anew), and `max_attempts` + 1 times
    if not.

    Args:
        output: the output folder, whose ledger tells what gets done.
        workers: that share the cores.
        command: the program of the child, to which `argv` is added.

    Raises:
        KeyboardInterrupt: the child was interrupted before it could say so itself.
    """
    run = uuid.uuid4().hex[:12]
    try:
        return _supervise([*command, *argv], run, output, workers, max_attempts)
    finally:
        _forget_attempts(output, run)
        _remove_run_folders(run)


def _supervise(command: Sequence[str], run: str, output: str, workers: int, max_attempts: int) -> int:
    done, left = _done(output), max_attempts + 1
    while True:
        code = _run_child(command, run, workers)
        if code >= 0 and code != WORKER_LOST:
            return code
        now_done = _done(output)
        left = max_attempts + 1 if now_done != done else left - 1
        done = now_done
        cause = _cause(code)
        if left < 1:
            logs.tell(f"pagemill: {cause}, again and again; what is done stays done", "error", exit_code=15)
            return 15
        logs.tell(f"pagemill: {cause}; it is started again", "warning")


def _cause(code: int) -> str:
    """Why a child with this exit code has to be started again."""
    if code == WORKER_LOST:
        return "a worker died"
    if code == -signal.SIGALRM:  # see `pipelines.watched_reader`
        return "a page hung, and the job with it"
    return f"the job died of {signal.Signals(-code).name}"


def _run_child(command: Sequence[str], run: str, workers: int) -> int:
    """Exit code, or the negative number of the signal that ended the child.

    Ctrl-C and a request to end are handed on as Ctrl-C. A child that such a signal ends before it can heed it has been
    interrupted all the same.
    """
    child: subprocess.Popen[bytes] | None = None
    asked = False

    def hand_on(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        if child is not None:
            child.send_signal(signal.SIGINT)

    # Before the child starts: it would not heed what is ignored here, as Ctrl-C is in the background of a script.
    before = {number: signal.signal(number, hand_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        # A session of its own: Ctrl-C comes once, from here, and what is left of a dead child's workers can be ended.
        child = subprocess.Popen(command, env=_environment(run, workers), start_new_session=True)
        if asked:
            child.send_signal(signal.SIGINT)
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
    if asked and code < 0:
        raise KeyboardInterrupt
    return code


def _environment(run: str, workers: int) -> dict[str, str]:
    """The child's: a worker gets its share of the cores and one pool of memory, and the package is found from anywhere.

    What is set already stays.
    """
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    paths = [here, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    shares = dict.fromkeys(_THREADS, threads) if workers > 1 else {}
    own = {SUPERVISED_RUN: run, LAUNCHER: str(os.getpid()), "PYTHONPATH": os.pathsep.join(paths)}
    return {**shares, **_MEMORY, **os.environ, **own}


def _done(output: str) -> object:
    """What changes when a unit gets an entry, or another one in the place of the one that it had."""
    if "://" in output:
        from apache_beam.io.filesystem import BeamIOError  # Beam takes 200 MB

        from pipelines.ledger import entry_names

        try:
            return len(entry_names(output))
        except BeamIOError:  # the child says what is wrong with the bucket
            return None
    try:
        with os.scandir(os.path.join(output, "ledger", "units")) as files:
            written_ns = [file.stat().st_mtime_ns for file in files if file.name.endswith(".json")]
    except (FileNotFoundError, NotADirectoryError):
        return None
    return len(written_ns), max(written_ns, default=0)


def make_run_folder(run: str) -> str:
    """A new folder of this machine, for what the processes of a run tell each other. A child that dies leaves it to
    its launcher."""
    return tempfile.mkdtemp(prefix=_run_folder_prefix(run))


def _run_folder_prefix(run: str) -> str:
    return f"pagemill-run-{run}-"


def _remove_run_folders(run: str) -> None:
    folder = tempfile.gettempdir()
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if name.startswith(_run_folder_prefix(run)):
                shutil.rmtree(os.path.join(folder, name), ignore_errors=True)


def _forget_attempts(output: str, run: str) -> None:
    """Nobody has a unit in hand any more. Workers that were ended could not say so; in a bucket the next run does."""
    if "://" in output:
        return
    folder = os.path.join(output, "ledger", "attempts")
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if f".{run}." in name:
                os.remove(os.path.join(folder, name))


_KILLED = re.compile(r"Worker subprocess exited with return code (-\d+|1[3-9]\d)$")


def end_with_workers() -> None:
    """This process ends as soon as one of its workers was killed: Beam would wait for it for ever."""
    usual = threading.excepthook

    def hook(arguments: threading.ExceptHookArgs) -> None:
        if _KILLED.match(str(arguments.exc_value)):
            os._exit(WORKER_LOST)
        usual(arguments)

    threading.excepthook = hook


def name_of_run() -> str:
    """The run that this process is the child of, "" if it is none; from here on it dies with launcher and workers."""
    name = os.environ.get(SUPERVISED_RUN, "")
    if name:
        die_with_parent()
        end_with_workers()
    return name


def die_with_parent() -> None:
    """This process is killed when its launcher is gone (Linux): nobody would take care of it any more."""
    with contextlib.suppress(OSError, AttributeError):  # elsewhere it lives on and finishes
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.environ.get(LAUNCHER, str(os.getppid())) != str(os.getppid()):  # it went before we could ask for that
        os._exit(WORKER_LOST)


def leave(code: int) -> NoReturn:
    """Ends this process. At once where native code is at work in a thread that was left: coming back to a Python that
    is being taken down, it would crash, and the exit code would be another."""
    if any(thread.name == READING for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


_ends_with: set[int] = set()


def end_with(process: int) -> None:
    """This process ends as soon as another one, which need not be its parent, is gone (Linux).

    Beam's workers notice that their job is dead when they have something to tell it; a page that hangs tells nothing.
    """
    if process in (os.getpid(), *_ends_with):
        return
    _ends_with.add(process)
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        os._exit(WORKER_LOST)
    except (OSError, AttributeError):  # elsewhere it lives on until it notices
        return
    threading.Thread(target=_end_when_readable, args=(descriptor,), name="end with the job", daemon=True).start()


def _end_when_readable(descriptor: int) -> None:
    select.select([descriptor], [], [])
    os._exit(WORKER_LOST)

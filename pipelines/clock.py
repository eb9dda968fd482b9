"""The time, and the CPU time of a process with its children."""

from __future__ import annotations

import os
import resource
from datetime import datetime, timezone
from pathlib import Path


def now() -> str:
    """The time in UTC, to the millisecond."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def cpu_seconds() -> float:
    """CPU time of this process and its children, the living ones and those that have ended."""
    own, ended = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    living = sum(_cpu_seconds_of(pid) for pid in _children())
    return own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime + living


def _children() -> set[str]:
    """Process numbers of the living children, where the system tells."""
    files = Path("/proc/self/task").glob("*/children")
    return {pid for file in files for pid in _text_of(file).split()}


def _cpu_seconds_of(pid: str) -> float:
    fields = _text_of(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def _text_of(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:  # the process or thread is gone, or this is no Linux
        return ""

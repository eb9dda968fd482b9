"""Memory that a process has and does not need, given back to the system: what loading large libraries leaves behind."""

from __future__ import annotations

import ctypes
import gc
import re
from contextlib import suppress
from pathlib import Path

_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) r-[x-]p \S+ \S+ [1-9]\d* +/.*\.so\b")
_MADV_DONTNEED = 4


def give_back() -> None:
    """Hands free memory back to the system, and lets go of the pages of shared libraries (Linux with glibc).

    To start TensorFlow reads through 400 MB of its libraries, of which 50 are needed afterwards: what is needed comes
    back from the system's cache of the file, without a copy. Elsewhere nothing happens.
    """
    gc.collect()
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None, use_errno=True)
        libc.malloc_trim(0)
        libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        for start, end in _library_pages(Path("/proc/self/smaps").read_text(encoding="utf-8", errors="replace")):
            libc.madvise(start, end - start, _MADV_DONTNEED)


def _library_pages(smaps: str) -> list[tuple[int, int]]:
    """First and last address of the read-only parts of libraries in which nothing differs from the file.

    >>> _library_pages('''7f00-7f10 r-xp 00001000 fe:00 12   /usr/lib/libm.so.6
    ... Anonymous:             0 kB
    ... 7f10-7f20 r--p 00011000 fe:00 12   /usr/lib/libm.so.6
    ... Anonymous:             4 kB
    ... 7f20-7f30 rw-p 00021000 fe:00 12   /usr/lib/libm.so.6
    ... Anonymous:             0 kB
    ... ''')
    [(32512, 32528)]
    """
    pages, mapping = [], None
    for line in smaps.splitlines():
        if line.startswith("Anonymous:"):
            if mapping is not None and line.split()[1] == "0":
                pages.append((int(mapping[1], 16), int(mapping[2], 16)))
        elif line[:1] in "0123456789abcdef" and "-" in line[:17]:
            mapping = _MAPPING.match(line)
    return pages

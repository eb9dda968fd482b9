"""Files of results, here or in a bucket, that are either whole or not there.

A local file is written under a temporary name and renamed. An object in a bucket appears when it is complete, and a
rename there would be a copy: it is written under its own name.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from apache_beam.io.filesystems import FileSystems

from ocr_model.errors import BadInput
from pipelines.streams import create_remote, is_remote, matching_files, open_file

PARTIAL = "ledger/partial"
LOCK = "ledger/lock"
_DYING_S = 5.0  # a run that was killed may hold the lock for so long: its processes take a moment to go

# What a file's name can be to blame for. Any other failure to write concerns the whole run.
_NAME_ERRORS = frozenset(
    {errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EILSEQ, errno.EINVAL, errno.ENOTEMPTY, errno.EEXIST}
)


def is_name_error(error: OSError) -> bool:
    """Whether another name could have been written: a folder stands in its place, or it is too long."""
    return error.errno in _NAME_ERRORS


def cannot_write(folder: str, error: OSError) -> BadInput:
    """The error that ends a run whose output folder cannot be written any more: a full disk, no permission."""
    return BadInput(f"cannot write to {folder}: {error.strerror or error}", "make room or choose another --output")


@contextlib.contextmanager
def told_if_it_cannot_be_written(folder: str) -> Iterator[None]:
    """
    Raises:
        BadInput: instead of an `OSError`; see `cannot_write`.
    """
    try:
        yield
    except OSError as error:
        raise cannot_write(folder, error) from error


def prepare_output(folder: str) -> None:
    """Makes the output folder and proves that it can be written; of a bucket, that it is there.

    Raises:
        BadInput: it cannot.
    """
    if is_remote(folder):  # there are no folders to make, and what may be written shows at the first write
        matching_files(join(folder, f"{PARTIAL}*"))
        return
    probe = os.path.join(folder, PARTIAL, uuid.uuid4().hex)
    try:
        os.makedirs(os.path.dirname(probe), exist_ok=True)
        with open(probe, "wb"):
            pass
        os.remove(probe)
    except OSError as error:
        raise BadInput(f"cannot write to {folder}: {error.strerror}", "choose another --output") from error


def remove_folder(folder: str, below: str) -> None:
    """Removes a folder of temporary files; buckets have none."""
    if not is_remote(folder):
        shutil.rmtree(join(folder, below), ignore_errors=True)


@contextlib.contextmanager
def locked(folder: str) -> Iterator[None]:
    """Keeps other runs of this machine from the folder. The lock ends with the process, however that ends.

    Raises:
        BadInput: another run holds it, and goes on doing so; or the file system has no locks.
    """
    if is_remote(folder):
        yield
        return
    path = join(folder, LOCK)
    deadline = time.monotonic() + _DYING_S
    while (lock := _taken(path)) is None:
        if time.monotonic() > deadline:
            raise BadInput(f"another run is writing to {folder}", "wait for it, or choose another --output")
        time.sleep(0.05)
    with lock:
        try:
            yield
        finally:
            _remove_if_alone(path)


def _taken(path: str) -> BinaryIO | None:
    """The open lock, if nobody else has it and nobody has removed it meanwhile."""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        lock = open(path, "ab")  # noqa: SIM115 - whoever gets it closes it
    except FileNotFoundError:  # its folder was removed at this moment
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock.fileno()), os.stat(path)):
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError as error:
        lock.close()
        raise BadInput(f"cannot lock {path}: {error.strerror}", "choose an --output on another disk") from error
    lock.close()
    return None


def _remove_if_alone(path: str) -> None:
    """Removes the lock, and its folder, of a run that has written nothing else: its inputs were wrong."""
    ledger = os.path.dirname(path)
    with contextlib.suppress(OSError):
        if set(os.listdir(ledger)) <= {os.path.basename(path), os.path.basename(PARTIAL)}:
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(os.path.join(ledger, os.path.basename(PARTIAL)))
            os.remove(path)
            os.rmdir(ledger)


def join(folder: str, relative: str) -> str:
    return f"{folder.rstrip('/')}/{relative}" if folder.rstrip("/") else f"/{relative}"


# ---- reading what was written


def open_to_read(folder: str, relative: str) -> BinaryIO:
    """A file below the folder, seekable.

    Raises:
        OSError: it is not there or cannot be read.
    """
    return open_file(join(folder, relative))


def read_text(folder: str, relative: str) -> str:
    """A small file in UTF-8.

    Raises:
        OSError: it is not there or cannot be read.
        UnicodeDecodeError: it is no UTF-8.
    """
    with open_to_read(folder, relative) as stream:
        return stream.read().decode("utf-8")


def is_there(folder: str, relative: str) -> bool:
    """Whether there is such a file; what a bucket raises where there is none is no `FileNotFoundError`."""
    path = join(folder, relative)
    return FileSystems.exists(path) if is_remote(path) else os.path.isfile(path)


def list_files(folder: str, below: str) -> set[str]:
    """The files directly in `folder/below`, relative to `folder`; none where there is no such folder."""
    path = join(folder, below)
    if not is_remote(folder):
        try:
            with os.scandir(path) as entries:
                return {f"{below}/{entry.name}" for entry in entries if entry.is_file()}
        except FileNotFoundError:
            return set()
    found = FileSystems.match([f"{path}/*"])[0].metadata_list
    return {f"{below}/{file.path[len(path) + 1 :]}" for file in found}


def remove(folder: str, relative: str) -> None:
    """Removes a file if it is there."""
    path = join(folder, relative)
    if is_remote(path):
        if FileSystems.exists(path):
            FileSystems.delete([path])
        return
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.remove(path)


# ---- writing one file


class AtomicFile:
    """A file below an output folder that is there after `commit`; `discard` leaves nothing behind.

    Raises:
        OSError: it cannot be made, written or renamed.
    """

    def __init__(self, folder: str, relative: str) -> None:
        self._final = join(folder, relative)
        self._remote = is_remote(folder)
        self._stream: BinaryIO
        if self._remote:
            self._partial = self._final
            self._stream = create_remote(self._final)
        else:
            self._partial = join(folder, f"{PARTIAL}/{uuid.uuid4().hex}")
            os.makedirs(os.path.dirname(self._final), exist_ok=True)
            os.makedirs(os.path.dirname(self._partial), exist_ok=True)
            self._stream = open(self._partial, "wb")  # noqa: SIM115 - closed by commit or discard

    def write(self, content: str | bytes) -> None:
        """Text goes out in UTF-8; half a surrogate pair, as in a file name that is no UTF-8, as `\\udcff`."""
        self._stream.write(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)

    def commit(self) -> None:
        if self._remote:
            self._stream.close()
            return
        try:
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._stream.close()
            os.replace(self._partial, self._final)
        except OSError:
            self.discard()
            raise

    def discard(self) -> None:
        with contextlib.suppress(OSError):  # what could not be flushed to a full disk is not wanted any more
            self._stream.close()
        if self._remote:
            FileSystems.delete([self._partial])
        else:
            os.remove(self._partial)


def write_atomically(folder: str, relative: str, content: str | bytes) -> None:
    """One whole file.

    Raises:
        OSError: it cannot be written.
    """
    file = AtomicFile(folder, relative)
    try:
        file.write(content)
    except BaseException:
        file.discard()
        raise
    file.commit()


# ---- writing the files of a unit


@dataclass(frozen=True, slots=True, order=True)
class OutputFile:
    """A file that was written; `path` is relative to the output folder, `sha256` in hexadecimal."""

    path: str
    size: int
    sha256: str


class _Digesting(io.RawIOBase):
    """A stream that counts and digests what goes through it."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream = stream
        self._digest = hashlib.sha256()
        self._size = 0

    def write(self, data: Any) -> int:
        self._stream.write(data)
        self._digest.update(data)
        size = memoryview(data).nbytes
        self._size += size
        return size

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._size

    def result(self, path: str) -> OutputFile:
        return OutputFile(path, self._size, self._digest.hexdigest())


class StagedFile:
    """One file of a `Staging`, to be written to `stream`."""

    def __init__(self, relative: str, raw: BinaryIO) -> None:
        self.relative = relative
        self._raw = raw
        self._digesting = _Digesting(raw)
        self.stream = cast(BinaryIO, self._digesting)

    def close(self) -> OutputFile:
        self._raw.close()
        return self._digesting.result(self.relative)


class Staging:
    """The files of one attempt at a unit. Here they lie in a folder of the attempt until `publish` renames them.

    Args:
        output: the output folder.
        below: folder of the attempt, relative to it.
    """

    def __init__(self, output: str, below: str) -> None:
        self.output, self.below = output, below
        self._remote = is_remote(output)
        self._made: set[str] = set()
        self._opened: set[str] = set()

    def open(self, relative: str) -> StagedFile:
        """A new file that will be `output/relative`.

        Raises:
            OSError: it cannot be made, or something else of this attempt has that name, or cannot be published there.
        """
        if relative in self._opened:
            raise FileExistsError(errno.EEXIST, "another page or document has this name", relative)
        self._opened.add(relative)
        if self._remote:
            raw = create_remote(join(self.output, relative))
            return StagedFile(relative, raw)
        path = join(self.output, f"{self.below}/{relative}")
        folder = os.path.dirname(path)
        final = join(self.output, relative)
        if folder not in self._made:
            os.makedirs(folder, exist_ok=True)
            _refuse_file_for_folder(os.path.dirname(final))
            self._made.add(folder)
        if os.path.isdir(final):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), final)
        return StagedFile(relative, open(path, "wb"))

    def drop(self, file: StagedFile) -> None:
        """Forgets a file of which nothing is wanted."""
        file.close()
        self.remove(file.relative)

    def remove(self, relative: str) -> None:
        """Removes a file that was staged and closed."""
        remove(self.output, relative if self._remote else f"{self.below}/{relative}")
        self._opened.discard(relative)

    def publish(self, files: list[OutputFile]) -> None:
        """Gives the files their names.

        Raises:
            OSError: one of them cannot be renamed.
        """
        if self._remote:
            return  # they have them already
        made: set[str] = set()
        for file in files:
            final = join(self.output, file.path)
            folder = os.path.dirname(final)
            if folder not in made:
                os.makedirs(folder, exist_ok=True)
                made.add(folder)
            os.replace(join(self.output, f"{self.below}/{file.path}"), final)

    def discard(self) -> None:
        """Removes what is left of the attempt."""
        remove_folder(self.output, self.below)


def _refuse_file_for_folder(path: str) -> None:
    """
    Raises:
        NotADirectoryError: a file stands where the folder or one above it is to be.
    """
    while path and not os.path.isdir(path):
        if os.path.lexists(path) and not os.path.isdir(path):  # another worker may have made it in between
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        path = os.path.dirname(path)


def sha256_of(output: str, relative: str) -> OutputFile:
    """Size and digest of a file as it is now.

    Raises:
        OSError: it cannot be read.
    """
    digest, size = hashlib.sha256(), 0
    with open_to_read(output, relative) as stream:
        for block in _blocks(stream.read):
            digest.update(block)
            size += len(block)
    return OutputFile(relative, size, digest.hexdigest())


def _blocks(read: Callable[[int], bytes]) -> Iterator[bytes]:
    while block := read(2**20):
        yield block

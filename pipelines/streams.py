"""Files to read, on this machine or in a bucket, behind one `open`."""

from __future__ import annotations

import errno
import io
import os
import re
import stat
from http import HTTPStatus
from typing import Any, BinaryIO, cast

from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems

from ocr_model.errors import BadInput

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+://")
_BUFFER_BYTES = 2**16


def is_remote(path: str) -> bool:
    """Whether the path names a bucket: local paths do not go through Beam, which takes `scan[1].jpg` for a pattern.

    >>> is_remote("gs://archive/scan.jpg"), is_remote("scans/a:b.jpg")
    (True, False)
    """
    return _SCHEME.match(path) is not None


def open_file(path: str) -> BinaryIO:
    """The file as a seekable stream of bytes, not decompressed.

    Raises:
        OSError: it cannot be opened, or is a pipe or a device, which could keep us waiting for ever. Reading raises it
            too, always with an `errno`.
    """
    if is_remote(path):
        return cast(BinaryIO, io.BufferedReader(_Remote(path), _BUFFER_BYTES))
    try:
        return open(path, "rb", opener=_open_regular)
    except ValueError as error:  # a zero byte, or a character that no file name can hold
        raise OSError(errno.EINVAL, str(error), path) from error


def read_bytes(path: str, limit: int) -> bytes:
    """The file's bytes, at most `limit` + 1 of them: enough to see that it is too big.

    Raises:
        OSError: it cannot be read.
    """
    with open_file(path) as stream:
        return stream.read(limit + 1)


def matching_files(pattern: str) -> list[tuple[str, int | None]]:
    """Paths and sizes of what a pattern matches in a bucket, sorted.

    Raises:
        BadInput: there is no such bucket, or it cannot be listed.
    """
    try:
        found = FileSystems.match([pattern])[0].metadata_list
    except Exception as error:  # each file system has its own classes, and some need a package that is not there
        cause = _cause(error)
        if getattr(cause, "code", None) == HTTPStatus.NOT_FOUND:
            raise BadInput(f"no such bucket: {'/'.join(pattern.split('/')[:3])}", "check the path") from error
        raise BadInput(f"cannot list {pattern}: {cause}", "check the path and the credentials") from error
    return sorted((file.path, file.size_in_bytes) for file in found)


def _cause(error: BaseException) -> BaseException:
    """What Beam's errors are about, which they hold in a dictionary each."""
    while isinstance(error, BeamIOError) and error.exception_details:
        error = next(iter(error.exception_details.values()))
    return error


def _open_regular(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):  # `open` refuses a folder itself
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "not a regular file", path)


class _Remote(io.RawIOBase):
    """A file in a bucket whose every failure is an `OSError`: each file system of Beam has classes of its own."""

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            self._stream = FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)
        except MemoryError:
            raise
        except Exception as error:
            raise self._failure(error) from error

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        try:
            data = self._stream.read(len(view))
        except MemoryError:
            raise
        except Exception as error:
            raise self._failure(error) from error
        view[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return int(self._stream.seek(offset, whence))
        except Exception as error:
            raise self._failure(error) from error

    def tell(self) -> int:
        return int(self._stream.tell())

    def close(self) -> None:
        if not self.closed and hasattr(self, "_stream"):
            self._stream.close()
        super().close()

    def _failure(self, error: Exception) -> OSError:
        return as_os_error(error, self._path)


class _NewRemote(io.RawIOBase):
    """An object that is there when it is closed; every failure is an `OSError`."""

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            self._stream = FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED)
        except Exception as error:
            raise as_os_error(error, path) from error

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        try:
            self._stream.write(data)
        except (TypeError, MemoryError):
            raise
        except Exception as error:
            raise as_os_error(error, self._path) from error
        return memoryview(data).nbytes

    def close(self) -> None:
        if self.closed or not hasattr(self, "_stream"):
            return
        super().close()
        try:
            self._stream.close()
        except Exception as error:
            raise as_os_error(error, self._path) from error


def create_remote(path: str) -> BinaryIO:
    """A new object of a bucket, to be written.

    Raises:
        OSError: it cannot be made. Writing and closing raise it too.
    """
    return cast(BinaryIO, _NewRemote(path))


def as_os_error(error: Exception, path: str) -> OSError:
    """What a file system of Beam has raised, as the error that a local file would have raised."""
    number = error.errno if isinstance(error, OSError) else errno.EINVAL if isinstance(error, ValueError) else None
    if isinstance(error, FileNotFoundError) or getattr(error, "code", None) == HTTPStatus.NOT_FOUND:
        number = errno.ENOENT
    return OSError(number or errno.EIO, str(error) or type(error).__name__, path)

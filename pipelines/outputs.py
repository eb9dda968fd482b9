"""Files that appear complete or not at all: written under a temporary name, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from typing import BinaryIO

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from ocr_model.errors import BadInput
from pipelines.corpus import is_remote

PARTIAL = ".partial"

# What a file's name can be to blame for. Any other failure to write concerns the whole run.
_NAME_ERRORS = frozenset(
    {errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EILSEQ, errno.EINVAL, errno.ENOTEMPTY, errno.EEXIST}
)


def is_name_error(error: OSError) -> bool:
    """Whether another name could have been written: a folder stands in its place, or it is too long."""
    return error.errno in _NAME_ERRORS


def prepare_output(folder: str) -> None:
    """Makes the output folder and proves that it can be written.

    Raises:
        BadInput: it cannot.
    """
    if is_remote(folder):
        return  # a bucket tells at the first write; there are no folders to make
    probe = os.path.join(folder, PARTIAL, uuid.uuid4().hex)
    try:
        os.makedirs(os.path.dirname(probe), exist_ok=True)
        with open(probe, "wb"):
            pass
        os.remove(probe)
    except OSError as error:
        raise BadInput(f"cannot write to {folder}: {error.strerror}", "choose another --output") from error


def remove_partial(folder: str) -> None:
    """Removes the folder of temporary names if nothing is left in it."""
    if not is_remote(folder):
        with contextlib.suppress(OSError):  # another run is still writing there
            os.rmdir(os.path.join(folder, PARTIAL))


class AtomicFile:
    """A file below an output folder that gets its name with `commit`; `discard` leaves nothing behind.

    Raises:
        OSError: it cannot be made, written or renamed.
    """

    def __init__(self, folder: str, relative: str) -> None:
        self._final = _join(folder, relative)
        self._partial = _join(folder, f"{PARTIAL}/{uuid.uuid4().hex}")
        self._stream: BinaryIO
        if is_remote(folder):
            self._stream = FileSystems.create(self._partial, compression_type=CompressionTypes.UNCOMPRESSED)
        else:
            os.makedirs(os.path.dirname(self._final), exist_ok=True)
            os.makedirs(os.path.dirname(self._partial), exist_ok=True)
            self._stream = open(self._partial, "wb")  # noqa: SIM115 - closed by commit or discard

    def write(self, content: str | bytes) -> None:
        """Text goes out in UTF-8; half a surrogate pair, as in a file name that is no UTF-8, as `\\udcff`."""
        self._stream.write(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)

    def commit(self) -> None:
        self._stream.close()
        if is_remote(self._final):
            FileSystems.rename([self._partial], [self._final])
            return
        try:
            os.replace(self._partial, self._final)
        except OSError:
            os.remove(self._partial)
            raise

    def discard(self) -> None:
        self._stream.close()
        if is_remote(self._partial):
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


def _join(folder: str, relative: str) -> str:
    return f"{folder.rstrip('/')}/{relative}" if folder.rstrip("/") else f"/{relative}"

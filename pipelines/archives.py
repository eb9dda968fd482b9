"""Scans inside tar and zip archives: which members there are, and the bytes of one.

An archive is hostile until proved otherwise: its members may be called anything, be listed twice, be encrypted, or
unpack to more than a disk holds. Nothing is ever unpacked to a path that the archive names, and never more of a member
than was asked for. Archives inside archives are not opened.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import os
import re
import stat
import struct
import tarfile
import tempfile
import threading
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, cast

from ocr_model.errors import UnreadablePage
from pipelines.streams import is_remote, open_file

ARCHIVE_EXTENSIONS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")

_EXTENSION = re.compile(r"(?<=[^/])(?:\.tar(?:\.gz|\.bz2|\.xz)?|\.tgz|\.zip)$", re.IGNORECASE)
_MEMBER = re.compile(r"(.+?(?:\.tar(?:\.gz|\.bz2|\.xz)?|\.tgz|\.zip))!(.+)", re.IGNORECASE | re.DOTALL)

_CHUNK_BYTES = 2**20
_CAREFUL_CHUNK_BYTES = 2**12  # zipfile unpacks what it has read of bzip2 and LZMA all at once
_LARGEST_HEADER_BYTES = 2**24
_MOST_MEMBERS = 2_000_000
_OPEN_AT_ONCE = 4

# Scans are compressed already: an archive that unpacks to more is a bomb, or better off as a zip.
_UNPACKED_FREELY_BYTES = 2**30
_LARGEST_RATIO = 100

_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    ValueError,  # figures that are none, names that are no UTF-8
    OverflowError,
    IndexError,
    RecursionError,  # headers that announce headers
)


class Member(NamedTuple):
    """A file in an archive.

    Attributes:
        name: as `read_member` takes it.
        size: bytes, as the archive says; it may lie.
    """

    name: str
    size: int


def split_archive(path: str) -> tuple[str, str]:
    """(path without the archive's extension, extension); the extension is empty where it is no archive's.

    >>> split_archive("a/box.tar.GZ"), split_archive("scan.gz")
    (('a/box', '.tar.GZ'), ('scan.gz', ''))
    """
    found = _EXTENSION.search(path)
    return (path[: found.start()], found[0]) if found else (path, "")


def split_member(path: str) -> tuple[str, str]:
    """(archive, member) of `archive!member`; the member is empty where none is named.

    >>> split_member("a/box.zip!1901/7!.png"), split_member("wow!.png")
    (('a/box.zip', '1901/7!.png'), ('wow!.png', ''))
    """
    found = _MEMBER.fullmatch(path) if "!" in path else None
    return (found[1], found[2]) if found else (path, "")


class ArchiveReader:
    """An open archive, whose members are read in any order.

    A compressed tar is unpacked once into a temporary file without a name (in `TMPDIR`), because it can only be read
    from its beginning; every other archive is read where it lies. Not for several threads at once.

    Attributes:
        damage: what is wrong with the archive after the members that were found, None for nothing.

    Raises:
        UnreadablePage: it is no archive of the kind that its name says.
        OSError: it cannot be opened.
    """

    damage: UnreadablePage | None = None

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = open_file(path)
        try:
            with _damage_told(path):
                self._index = _Zip(self._file) if _is_zip(path) else self._open_tar()
        except BaseException:
            self._file.close()
            raise

    def _open_tar(self) -> _Tar:
        stream, problem = self._file, None
        unpack = _decompressor(self._path)
        if unpack is not None:
            spool, problem = _unpacked(self._path, unpack, self._file)
            self._file.close()
            stream = self._file = spool
        tar = _Tar(_Bounded(stream, None))
        error = problem or tar.error
        if error is not None:
            if not tar.members:
                raise error
            self.damage = _as_unreadable(self._path, error)
        return tar

    def members(self) -> list[Member]:
        """The files in the archive's order, without folders and links; of a name that comes twice the last one."""
        return self._index.listed()

    def read(self, member: str, limit_bytes: int) -> bytes:
        """The member's bytes, at most `limit_bytes` + 1 of them, and no more than these are unpacked.

        Raises:
            UnreadablePage: there is no such member, or it is `encrypted`, `damaged`, `truncated` or `unsupported`.
            OSError: the archive cannot be read any more.
        """
        with _damage_told(f"{self._path}!{member}"):
            return self._index.read(member, limit_bytes)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> ArchiveReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def list_members(path: str) -> tuple[list[Member], UnreadablePage | None]:
    """`ArchiveReader.members` and `.damage`, without the temporary file.

    Raises:
        UnreadablePage: it is no archive of the kind that its name says.
        OSError: it cannot be opened.
    """
    unpack = None if _is_zip(path) else _decompressor(path)
    if unpack is None:
        with ArchiveReader(path) as reader:
            return reader.members(), reader.damage
    with _damage_told(path), open_file(path) as packed, unpack(packed) as stream:
        tar = _Tar(_Bounded(cast(BinaryIO, stream), _most_bytes(path, packed)))
        if tar.error and not tar.members:
            raise tar.error
        return tar.listed(), _as_unreadable(path, tar.error) if tar.error else None


# ---- archives that stay open, for members that come one by one

_open_archives: OrderedDict[tuple[object, ...], ArchiveReader] = OrderedDict()
_lock = threading.Lock()


def read_member(path: str, member: str, limit_bytes: int) -> bytes:
    """`ArchiveReader.read`, where the last few archives of this process are kept open.

    Raises:
        UnreadablePage: the archive or the member is damaged, encrypted or of an unknown kind.
        OSError: the archive cannot be read.
    """
    with _lock:  # the work is done by one at a time; next to reading a page it is little
        return _reader(path).read(member, limit_bytes)


def close_archives() -> None:
    """Closes what `read_member` keeps open."""
    with _lock:
        while _open_archives:
            _open_archives.popitem()[1].close()


def _reader(path: str) -> ArchiveReader:
    key = _version(path)
    reader = _open_archives.pop(key, None) or ArchiveReader(path)
    _open_archives[key] = reader
    while len(_open_archives) > _OPEN_AT_ONCE:
        _open_archives.popitem(last=False)[1].close()
    return reader


def _version(path: str) -> tuple[object, ...]:
    """What changes when the archive is replaced or this process is a fork, whose files share their positions."""
    if is_remote(path):
        return path, os.getpid()
    status = os.stat(path)
    return path, os.getpid(), status.st_ino, status.st_size, status.st_mtime_ns


# ---- kinds of damage


@contextmanager
def _damage_told(what: str) -> Iterator[None]:
    """Turns what the libraries raise on broken bytes into `UnreadablePage`."""
    try:
        yield
    except UnreadablePage:
        raise
    except _DAMAGE as error:
        raise _as_unreadable(what, error) from error
    except OSError as error:
        if not _is_damage(error):
            raise
        raise _as_unreadable(what, error) from error
    except NotImplementedError as error:
        raise UnreadablePage(f"{what}: {error}", "unsupported", "pack it with another method") from error


def _is_damage(error: OSError) -> bool:
    """Whether it is about the bytes (no error number, or a jump before the beginning) and not the disk or network."""
    return error.errno in (None, errno.EINVAL)


def _as_unreadable(what: str, error: Exception) -> UnreadablePage:
    if isinstance(error, UnreadablePage):
        return error
    is_cut = isinstance(error, EOFError) or "unexpected end of data" in str(error)
    return UnreadablePage(f"{what}: {error or type(error).__name__}", "truncated" if is_cut else "damaged")


def _no_such_member(member: str) -> UnreadablePage:
    return UnreadablePage(f"the archive has no member {member!r}", "damaged", "list the archive anew")


# ---- zip


def _is_zip(path: str) -> bool:
    return path.lower().endswith(".zip")


class _Zip:
    def __init__(self, stream: BinaryIO) -> None:
        self._zip = zipfile.ZipFile(stream)
        # NameToInfo: the last of a name wins.
        self._members = {name: info for name, info in self._zip.NameToInfo.items() if _is_file(info)}

    def listed(self) -> list[Member]:
        ordered = sorted(self._members.values(), key=lambda info: info.header_offset)
        return [Member(info.filename, info.file_size) for info in ordered]

    def read(self, member: str, limit_bytes: int) -> bytes:
        info = self._members.get(member)
        if info is None:
            raise _no_such_member(member)
        if info.flag_bits & 0x41:
            raise UnreadablePage(f"{member!r} needs a password", "encrypted", "decrypt the archive first")
        is_careful = info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        with self._zip.open(info) as stream:
            return _read_at_most(stream, limit_bytes + 1, _CAREFUL_CHUNK_BYTES if is_careful else _CHUNK_BYTES)


def _is_file(info: zipfile.ZipInfo) -> bool:
    return not info.is_dir() and not stat.S_ISLNK(info.external_attr >> 16)


def _read_at_most(stream: Any, count: int, chunk_bytes: int) -> bytes:
    chunks = []
    while count > 0 and (chunk := stream.read(min(count, chunk_bytes))):
        chunks.append(chunk)
        count -= len(chunk)
    return b"".join(chunks)


# ---- tar

_Unpacking = gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile


def _decompressor(path: str) -> Callable[[BinaryIO], _Unpacking] | None:
    name = path.lower()
    if name.endswith((".gz", ".tgz")):
        return lambda stream: gzip.GzipFile(fileobj=stream)
    if name.endswith(".bz2"):
        return bz2.BZ2File
    if name.endswith(".xz"):
        return lzma.LZMAFile
    return None


class _Tar:
    """The files of a tar, found in one pass.

    Attributes:
        members: name -> where it is, in the archive's order; the last of a name wins.
        error: what ended the pass before the end of the archive.
    """

    def __init__(self, stream: _Bounded) -> None:
        self.members: dict[str, tarfile.TarInfo] = {}
        self.error: Exception | None = None
        self._tar: tarfile.TarFile | None = None
        try:
            self._tar = tarfile.TarFile(fileobj=cast(BinaryIO, stream), mode="r")
            self._find_members()
            stream.check_end()
        except (*_DAMAGE, UnreadablePage) as error:
            self.error = error
        except OSError as error:
            if not _is_damage(error):
                raise
            self.error = error

    def _find_members(self) -> None:
        assert self._tar is not None
        count = 0
        while (info := self._tar.next()) is not None:
            self._tar.members.clear()  # type: ignore[attr-defined]  # it would keep all headers
            count += 1
            if count > _MOST_MEMBERS:
                raise tarfile.ReadError(f"more than {_MOST_MEMBERS} members")
            target = self.members.get(info.linkname) if info.islnk() else info  # a second name of a file before it
            if target is not None and target.isreg():
                self.members.pop(info.name, None)
                self.members[info.name] = target

    def listed(self) -> list[Member]:
        return [Member(name, info.size) for name, info in self.members.items()]

    def read(self, member: str, limit_bytes: int) -> bytes:
        info = self.members.get(member)
        if info is None or self._tar is None:
            raise _no_such_member(member)
        stream = self._tar.extractfile(info)
        assert stream is not None  # it is a regular file
        with stream:
            data = _read_at_most(stream, limit_bytes + 1, _CHUNK_BYTES)
        if len(data) < min(info.size, limit_bytes + 1):
            raise EOFError("the archive ends inside this member")
        return data


class _Bounded:
    """A stream that refuses to go beyond `most_bytes`, and to read a header that would not fit into memory."""

    def __init__(self, stream: BinaryIO, most_bytes: int | None) -> None:
        self._stream = stream
        self._most_bytes = most_bytes
        self._last = b""

    def read(self, size: int) -> bytes:
        if size > _LARGEST_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        self._last = self._stream.read(size)
        return self._last

    def check_end(self) -> None:
        """`tarfile` takes a broken header for the end of the archive; the real end is a block of zeros, or nothing."""
        if self._last.strip(b"\0"):
            raise tarfile.ReadError(f"no header at byte {self.tell() - len(self._last)}")

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if self._most_bytes is not None and whence == os.SEEK_SET and offset > self._most_bytes:
            raise _too_much(self._most_bytes)
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


def _most_bytes(path: str, packed: BinaryIO) -> int:
    size = packed.seek(0, os.SEEK_END)
    packed.seek(0)
    return _UNPACKED_FREELY_BYTES + _LARGEST_RATIO * size


def _too_much(most_bytes: int) -> UnreadablePage:
    return UnreadablePage(
        f"the archive unpacks to more than {most_bytes} bytes", "too-many-bytes", "unpack it, or pack it as a zip"
    )


def _unpacked(
    path: str, unpack: Callable[[BinaryIO], _Unpacking], packed: BinaryIO
) -> tuple[BinaryIO, Exception | None]:
    """The archive without its compression, in a file that vanishes when closed, and what stopped the unpacking."""
    most_bytes = _most_bytes(path, packed)
    spool = cast(BinaryIO, tempfile.TemporaryFile(prefix="pagemill-"))  # noqa: SIM115 - the caller closes it
    problem: Exception | None = None
    try:
        with _damage_told(path), unpack(packed) as stream:
            while chunk := stream.read1(_CHUNK_BYTES):  # `read` would lose what comes before a damaged place
                spool.write(chunk)
                if spool.tell() > most_bytes:
                    raise _too_much(most_bytes)
    except UnreadablePage as error:
        problem = error
    except BaseException:
        spool.close()
        raise
    spool.seek(0)
    return spool, problem

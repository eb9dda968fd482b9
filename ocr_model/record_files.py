"""Files of records, and the manifest that says which of them count.

A file is a gzip-compressed TFRecord file. `MANIFEST` of a folder is written when all files are there; readers take the
files from it, so that what a broken attempt left behind is never read.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c

from ocr_model.errors import BadInput
from ocr_model.examples import KINDS, SPLITS, VERSION, Kind, LineExample, PageExample, Split, parse_example

MANIFEST = "records.json"
MANIFEST_FORMAT, MANIFEST_VERSION = "pagemill-records", 1
_COMPRESSION_LEVEL = 1  # the pictures in the records are compressed already
_LARGEST_RECORD_BYTES = 2**30


# ---- one file


class RecordWriter:
    """Writes examples to a stream, which stays open. The same examples give the same bytes."""

    def __init__(self, stream: BinaryIO) -> None:
        self._gzip = gzip.GzipFile("", "wb", _COMPRESSION_LEVEL, stream, mtime=0)
        self.records = 0

    def write(self, example: bytes) -> None:
        length = struct.pack("<Q", len(example))
        self._gzip.write(length + _check(length))
        self._gzip.write(example)
        self._gzip.write(_check(example))
        self.records += 1

    def close(self) -> None:
        self._gzip.close()


def read_serialised(stream: BinaryIO, name: str) -> Iterator[bytes]:
    """The serialised examples of a file.

    Args:
        name: what messages call it.

    Raises:
        BadInput: it is no compressed TFRecord file, or it is damaged or cut short.
    """
    with gzip.GzipFile(fileobj=stream) as packed:
        try:
            while head := packed.read(12):
                yield _body(packed, head)
        except (OSError, EOFError, zlib.error, ValueError) as error:
            raise BadInput(
                f"{name} is damaged, or no compressed file of records: {error}", "ingest it again"
            ) from error


def _body(packed: gzip.GzipFile, head: bytes) -> bytes:
    if len(head) < 12 or head[8:] != _check(head[:8]):
        raise ValueError("a record's length is not what its checksum says")
    (size,) = struct.unpack("<Q", head[:8])
    if size > _LARGEST_RECORD_BYTES:
        raise ValueError(f"a record of {size} bytes")
    body = packed.read(size + 4)
    if len(body) < size + 4 or body[size:] != _check(body[:size]):
        raise ValueError("a record is not what its checksum says")
    return body[:size]


def _check(data: bytes) -> bytes:
    """TFRecord's masked CRC-32C."""
    crc = google_crc32c.value(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


# ---- the manifest


@dataclass(frozen=True, slots=True, order=True)
class RecordFile:
    """A file of records; `path` is relative to the folder of the manifest."""

    path: str
    kind: Kind
    split: Split
    records: int
    size: int
    sha256: str


@dataclass(frozen=True)
class RecordsManifest:
    """What a folder of records holds.

    Attributes:
        examples_version: of `ocr_model.examples`.
        code_version: of Pagemill.
        configuration: everything that the records depend on beside the inputs, plain JSON values.
        counts: pages and what became of them; records by kind and split; lines by what became of them.
        files: sorted by path.
        documents: of the alphabet and what else lies beside the records: path → SHA-256.
    """

    code_version: str
    configuration: Mapping[str, Any]
    counts: Mapping[str, Any]
    files: tuple[RecordFile, ...]
    documents: Mapping[str, str] = field(default_factory=dict)
    examples_version: int = VERSION

    def select(self, kind: Kind, split: Split | None = None) -> list[RecordFile]:
        return [file for file in self.files if file.kind == kind and split in (None, file.split)]

    def to_text(self) -> str:
        body = {"format": MANIFEST_FORMAT, "version": MANIFEST_VERSION, **asdict(self)}
        return json.dumps(body, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def manifest_from_text(text: str, name: str) -> RecordsManifest:
    """The manifest that `to_text` gave.

    Args:
        name: what messages call it.

    Raises:
        BadInput: it is something else, damaged, or of another version (both are named).
    """
    try:
        value = json.loads(text)
        if not isinstance(value, dict) or value.pop("format", None) != MANIFEST_FORMAT:
            raise BadInput(f"{name} is no manifest of records", "name the --output of `pagemill ingest`")
        _check_version(name, "manifest", value.pop("version", None), MANIFEST_VERSION)
        _check_version(name, "record", value.get("examples_version"), VERSION)
        files = tuple(_file(file) for file in value.pop("files"))
        return RecordsManifest(files=files, **value)
    except (ValueError, TypeError, KeyError) as error:
        raise BadInput(f"{name} is damaged: {error}", "run `pagemill ingest` again") from error


def _check_version(name: str, what: str, theirs: Any, ours: int) -> None:
    if theirs != ours:
        raise BadInput(
            f"{name} has {what} version {theirs}, this program reads version {ours}",
            "ingest again, or use the Pagemill version that wrote it",
        )


def _file(value: Mapping[str, Any]) -> RecordFile:
    file = RecordFile(**value)
    if file.kind not in KINDS or file.split not in SPLITS:
        raise ValueError(f"{file.path} is of kind {file.kind} and split {file.split}")
    if file.path.startswith("/") or ".." in file.path.split("/"):
        raise ValueError(f"{file.path} leads out of the folder")
    return file


# ---- a folder


def load_manifest(folder: Path) -> RecordsManifest:
    """The manifest of a local folder.

    Raises:
        BadInput: there is none, or it cannot be used.
    """
    path = folder / MANIFEST
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"no records in {folder}: cannot read {path}", "run `pagemill ingest` to its end") from error
    return manifest_from_text(text, str(path))


def read_records(folder: Path, kind: Kind, split: Split | None = None) -> Iterator[PageExample | LineExample]:
    """The examples of a local folder in the manifest's order; whole files are checked before any is given out.

    Raises:
        BadInput: the manifest or a file cannot be used, or a file is not the one that was written.
    """
    for file in load_manifest(folder).select(kind, split):
        yield from read_file(folder, file)


def read_file(folder: Path, file: RecordFile) -> Iterator[PageExample | LineExample]:
    """The examples of one file of a local folder, which is checked before any is given out.

    Raises:
        BadInput: it cannot be read, or is not the one that was written.
    """
    name = str(folder / file.path)
    try:
        with open(name, "rb") as stream:
            digest = hashlib.file_digest(stream, "sha256") if hasattr(hashlib, "file_digest") else _digest(stream)
            if digest.hexdigest() != file.sha256:
                raise BadInput(f"{name} has changed since it was written", "ingest it again")
            stream.seek(0)
            yield from read_examples(stream, name)
    except OSError as error:
        raise BadInput(f"cannot read {name}: {error.strerror}", "ingest it again") from error


def _digest(stream: BinaryIO) -> Any:
    digest = hashlib.sha256()
    while block := stream.read(2**20):
        digest.update(block)
    return digest


def read_examples(stream: BinaryIO, name: str) -> Iterator[PageExample | LineExample]:
    """The examples of a file.

    Raises:
        BadInput: as `read_serialised` and `parse_example`.
    """
    for number, data in enumerate(read_serialised(stream, name), 1):
        yield parse_example(data, f"record {number} of {name}")

import gzip
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest

from ocr_model.errors import BadInput
from ocr_model.examples import Kind, Split, write_line, write_page
from ocr_model.record_files import (
    MANIFEST,
    RecordFile,
    RecordsManifest,
    RecordWriter,
    load_manifest,
    manifest_from_text,
    read_records,
    read_serialised,
)
from tests.ocr_model.test_examples import LINE, PAGE


def written(*examples: bytes) -> bytes:
    stream = io.BytesIO()
    writer = RecordWriter(stream)
    for example in examples:
        writer.write(example)
    writer.close()
    assert writer.records == len(examples)
    return stream.getvalue()


def records(data: bytes) -> list[bytes]:
    return list(read_serialised(io.BytesIO(data), "some.gz"))


def test_records_are_read_as_they_were_written() -> None:
    examples = [b"", b"a", bytes(100_000)]
    assert records(written(*examples)) == examples
    assert records(written()) == []
    assert written(*examples) == written(*examples)


def test_tensorflow_reads_the_files_and_we_read_tensorflows(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    path = tmp_path / "a.gz"
    path.write_bytes(written(b"one", b"two"))
    assert [r.numpy() for r in tf.data.TFRecordDataset(str(path), compression_type="GZIP")] == [b"one", b"two"]
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        writer.write(b"three")
    assert records(path.read_bytes()) == [b"three"]


def damaged_files() -> list[bytes]:
    whole = written(b"one", b"two")
    plain = gzip.decompress(whole)
    flipped = bytearray(plain)
    flipped[13] ^= 1
    too_long = b"\xff" * 8 + b"\x29\x03\x98\x07"
    return [
        b"x",
        whole[:-9],
        gzip.compress(plain[:-1]),
        gzip.compress(plain[:5]),
        gzip.compress(bytes(flipped)),
        gzip.compress(too_long),
    ]


@pytest.mark.parametrize("data", damaged_files())
def test_damaged_file_is_named(data: bytes) -> None:
    with pytest.raises(BadInput, match=r"some\.gz is damaged"):
        records(data)


# The manifest.


def folder_with(root: Path, examples: dict[tuple[Kind, Split], bytes], **changes: Any) -> Path:
    files = []
    for (kind, split), example in examples.items():
        data = written(example)
        name = f"{kind}-{split}.gz"
        (root / name).write_bytes(data)
        files.append(RecordFile(name, kind, split, 1, len(data), hashlib.sha256(data).hexdigest()))
    text = RecordsManifest("1.0", {"a": 1}, {"pages": {}}, tuple(sorted(files))).to_text()
    (root / MANIFEST).write_text(json.dumps({**json.loads(text), **changes}))
    return root


def test_readers_take_the_files_of_the_manifest_and_no_others(tmp_path: Path) -> None:
    folder_with(tmp_path, {("page", "validation"): write_page(PAGE), ("line", "validation"): write_line(LINE)})
    (tmp_path / "line-train.gz").write_bytes(written(b"of an attempt that was broken off"))
    assert list(read_records(tmp_path, "page")) == [PAGE]
    assert list(read_records(tmp_path, "line", "validation")) == [LINE]
    assert list(read_records(tmp_path, "line", "train")) == []


def test_manifest_is_read_as_it_was_written() -> None:
    file = RecordFile("a.gz", "line", "train", 3, 10, "00")
    manifest = RecordsManifest("1.0", {"steps": ["deskew"]}, {"pages": {"read": 1}}, (file,), {"alphabet.json": "ab"})
    assert manifest_from_text(manifest.to_text(), "m") == manifest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 9}, "has manifest version 9, this program reads version 1"),
        ({"examples_version": 9}, "has record version 9, this program reads version 1"),
        ({"format": "somebody's"}, "is no manifest of records"),
        (
            {"files": [{"path": "../x", "kind": "line", "split": "train", "records": 1, "size": 1, "sha256": ""}]},
            "leads out",
        ),
        (
            {"files": [{"path": "x", "kind": "book", "split": "train", "records": 1, "size": 1, "sha256": ""}]},
            "kind book",
        ),
        ({"files": 3}, "is damaged"),
        ({"another": 3}, "is damaged"),
    ],
)
def test_foreign_newer_and_damaged_manifests_are_refused(tmp_path: Path, changes: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        load_manifest(folder_with(tmp_path, {}, **changes))


def test_folder_without_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no records in"):
        load_manifest(tmp_path)
    (tmp_path / MANIFEST).write_text("[]")
    with pytest.raises(BadInput, match="is no manifest"):
        load_manifest(tmp_path)


def test_file_that_was_changed_or_removed_is_refused(tmp_path: Path) -> None:
    folder_with(tmp_path, {("page", "train"): write_page(PAGE)})
    (tmp_path / "page-train.gz").write_bytes(written(write_page(PAGE), b"more"))
    with pytest.raises(BadInput, match="has changed since"):
        next(read_records(tmp_path, "page"))
    (tmp_path / "page-train.gz").unlink()
    with pytest.raises(BadInput, match="cannot read"):
        next(read_records(tmp_path, "page"))

"""Inputs in a bucket."""

import os
import zipfile
from pathlib import Path

import pytest
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from ocr_model.errors import BadInput
from pipelines.corpus import SourceFile, find_sources, read_bytes, read_source

pytestmark = pytest.mark.slow

FILES = ["in/a/1.jpg", "in/a/1.tif", "in/b/page 2 é.png", "in/.hidden.png", "in/notes.txt", "in/out/overlay/1.jpg"]
INPUTS = ["", "in", "in/**/*.jpg", "in/*/1*", "in/a/1.jpg", "list.csv", "list.jsonl", "in/box.zip", "in/a/"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, bucket: str) -> Path:
    """The same files in a folder here and in the bucket."""
    root = tmp_path_factory.mktemp("corpus")
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    with zipfile.ZipFile(root / "in/box.zip", "w", zipfile.ZIP_DEFLATED) as box:
        box.writestr("1901/7.png", b"seven" * 1000)
        box.writestr("../up.png", b"up")
    (root / "list.csv").write_text("path,page,language\nin/a/1.jpg,,en\nin/box.zip!1901/7.png,1,de\ngone.png,,\n")
    (root / "list.jsonl").write_text('{"path": "in/b/page 2 é.png", "document": "b"}\n')
    for path in root.rglob("*"):
        if path.is_file():
            target = f"{bucket}/{path.relative_to(root)}"
            with FileSystems.create(target, compression_type=CompressionTypes.UNCOMPRESSED) as stream:
                stream.write(path.read_bytes())
    return root


def described(sources: list[SourceFile], root: str) -> list[tuple[object, ...]]:
    """All that is to be equal, whichever place the files are in."""
    return [
        (os.path.relpath(s.path, root), s.stem, s.size, s.member, s.first_page, s.document, s.metadata, content(s))
        for s in sources
    ]


def content(source: SourceFile) -> bytes | None:
    try:
        return read_source(source, 10_000)
    except OSError:
        return None


@pytest.mark.parametrize("name", INPUTS)
def test_bucket_gives_the_same_sources_and_bytes_as_the_folder(corpus: Path, bucket: str, name: str) -> None:
    here = find_sources([f"{corpus}/{name}"], f"{corpus}/in/out")
    there = find_sources([f"{bucket}/{name}"], f"{bucket}/in/out")
    assert len(here) > 0
    assert described(there, bucket) == described(here, str(corpus))


def test_object_that_a_manifest_names_and_that_is_missing_is_an_error_of_reading(corpus: Path, bucket: str) -> None:
    (gone,) = [s for s in find_sources([f"{bucket}/list.csv"], "out") if s.stem == "gone"]
    with pytest.raises(OSError, match="404"):
        read_source(gone, 10)
    with pytest.raises(OSError, match="https"):
        read_bytes("https://example.invalid/scan.png", 10)


@pytest.mark.parametrize(
    "name", ["gs://no-such-bucket/in", "gs://no-such-bucket/in/*.jpg", "gs://no-such-bucket/1.jpg"]
)
def test_bucket_that_does_not_exist_is_named(bucket: str, name: str) -> None:
    with pytest.raises(BadInput, match=r"no such bucket: gs://no-such-bucket \(check the path\)"):
        find_sources([name], "out")


def test_bucket_alone_is_a_folder(corpus: Path, bucket: str) -> None:
    assert find_sources([bucket], "out") == find_sources([f"{bucket}/"], "out")


def test_missing_object_is_named(corpus: Path, bucket: str) -> None:
    with pytest.raises(BadInput, match=f"no such file or folder: {bucket}/nowhere.jpg"):
        find_sources([f"{bucket}/nowhere.jpg"], "out")


def test_output_folder_in_the_bucket_is_no_input(corpus: Path, bucket: str) -> None:
    with pytest.raises(BadInput, match="lies in the output folder"):
        find_sources([f"{bucket}/in/out/overlay"], f"{bucket}/in/out/")

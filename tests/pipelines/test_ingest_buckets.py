"""`ingest` from a bucket into a bucket gives the bytes that it gives here."""

import sys
from pathlib import Path

import pytest
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from ocr_model.errors import BadInput
from ocr_model.record_files import MANIFEST, manifest_from_text
from pipelines.inspect_records import read_path
from pipelines.outputs import open_to_read, read_text
from pipelines.supervise import supervise
from pipelines.verify import verify_output
from tests.pipelines.corpora import corpus_of, page_image, page_xml, put
from tests.pipelines.test_features import command, needs_transform

pytestmark = pytest.mark.slow
NO_BUCKET = "gs://no-such-bucket/out"


def upload(folder: Path, bucket: str) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            target = f"{bucket}/{path.relative_to(folder.parent)}"
            with FileSystems.create(target, compression_type=CompressionTypes.UNCOMPRESSED) as stream:
                stream.write(path.read_bytes())


def test_bucket_to_bucket_equals_folder_to_folder(tmp_path: Path, bucket: str) -> None:
    bad = {"x/bad.png": b"x", "x/bad.gt.txt": b"x", "x/alone.gt.txt": b"y", "x/7.png": page_image(7)}
    put(tmp_path / "in", {**corpus_of(20, lines=6), **bad, "x/7.xml": page_xml("7.png")})
    upload(tmp_path / "in", bucket)
    flags = ["--validation", "20%", "--no-transform"]
    for root in (str(tmp_path), bucket):
        assert command(f"{root}/in", "--output", f"{root}/out", *flags) == 3
    here, there = (read_text(f"{root}/out", MANIFEST) for root in (str(tmp_path), bucket))
    assert contents(bucket, there) == contents(str(tmp_path), here)
    assert manifest_from_text(there, "").counts == manifest_from_text(here, "").counts
    assert verify_output(f"{bucket}/out").problems == ()
    assert len(list(read_path(f"{bucket}/out"))) == len(list(read_path(f"{tmp_path}/out")))
    assert command(f"{bucket}/in", "--output", f"{bucket}/out", *flags) == 3  # nothing is done again
    assert read_text(f"{bucket}/out", MANIFEST) == there


def contents(root: str, manifest: str) -> list[bytes]:
    """Files of records, whatever they are called: units are named by a digest of paths."""
    files = manifest_from_text(manifest, "").files
    return sorted(open_to_read(f"{root}/out", file.path).read() for file in files)


@needs_transform
def test_features_are_made_in_a_bucket_too(tmp_path: Path, bucket: str) -> None:
    put(tmp_path / "features", corpus_of(4, lines=6))
    upload(tmp_path / "features", bucket)
    for root in (str(tmp_path), bucket):
        assert command(f"{root}/features", "--output", f"{root}/with", "--validation", "0") == 0
    for name in ("alphabet.json", "features.json", "statistics.json", "transform/transform_fn/saved_model.pb"):
        there = open_to_read(f"{bucket}/with", name).read()
        assert there
        if name.endswith(".json"):
            assert there == (tmp_path / "with" / name).read_bytes()
    assert (
        command(
            f"{bucket}/features", "--output", f"{bucket}/again", "--previous", f"{bucket}/with", "--validation", "0"
        )
        == 0
    )


def test_bucket_that_does_not_exist_is_named(bucket: str, tmp_path: Path) -> None:
    put(tmp_path / "in", corpus_of(1))
    for words in (["gs://no-such-bucket/in", "--output", f"{tmp_path}/out"], [f"{tmp_path}/in", "--output", NO_BUCKET]):
        with pytest.raises(BadInput, match="no such bucket: gs://no-such-bucket"):
            command(*words, "--no-transform")


def test_launcher_leaves_it_to_its_child_to_tell_of_a_bucket(bucket: str) -> None:
    assert supervise([], NO_BUCKET, 1, 1, (sys.executable, "-c", "import sys; sys.exit(2)")) == 2

"""`transcribe` from a bucket into a bucket gives what it gives here."""

from dataclasses import replace
from pathlib import Path

import pytest
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from pipelines.outputs import list_files, read_text
from pipelines.report import reconcile
from pipelines.transcribe import TranscribeOptions, as_begun, retry, run
from pipelines.verify import verify_output
from tests import scans
from tests.pipelines.readers import SizeReader

pytestmark = pytest.mark.slow


def put(bucket: str, name: str, data: bytes) -> None:
    with FileSystems.create(f"{bucket}/{name}", compression_type=CompressionTypes.UNCOMPRESSED) as stream:
        stream.write(data)


def test_bucket_to_bucket_equals_folder_to_folder(tmp_path: Path, bucket: str) -> None:
    files = {f"in/{n}.png": scans.encoded(scans.picture(20 + n, 20), "PNG") for n in range(20)}
    files["in/book.tif"] = scans.tiff([scans.picture(60, 20), scans.picture(61, 20)])
    files["in/bad.jpg"] = b"Dear Sir,"
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
        put(bucket, name, data)

    def options(root: str) -> TranscribeOptions:
        return TranscribeOptions((f"{root}/in",), f"{root}/out", formats=("txt", "tsv", "pdf"), load=SizeReader)

    here, there = run(options(str(tmp_path))), run(options(bucket))
    assert replace(here.counts, bytes_out=0) == replace(there.counts, bytes_out=0) and there.counts.dead == 1
    out = tmp_path / "out"
    for name in ("txt", "tsv", "pdf"):
        assert list_files(f"{bucket}/out", name) == {str(p.relative_to(out)) for p in (out / name).iterdir()}
    for file in sorted((out / "txt").iterdir()):
        assert read_text(f"{bucket}/out", f"txt/{file.name}") == file.read_text()
    assert verify_output(f"{bucket}/out").problems == ()

    assert run(options(bucket)).entries == there.entries  # nothing is done again
    put(bucket, "in/bad.jpg", files["in/0.png"])
    assert retry(replace(as_begun(f"{bucket}/out"), load=SizeReader)).counts.dead == 0
    assert reconcile(f"{bucket}/out").open_units == 0 and verify_output(f"{bucket}/out").problems == ()

from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to

from ocr_model.errors import BadArgument
from pipelines.transforms import ListPages, TranscribePages, WriteOutputs
from tests import scans
from tests.pipelines.readers import SizeReader


def test_own_pipeline_reads_and_writes_pages(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.png").write_bytes(scans.encoded(scans.picture(20, 20), "PNG"))
    (folder / "b.tif").write_bytes(scans.tiff([scans.picture(30, 20), scans.picture(31, 20)]))
    (folder / "bad.jpg").write_bytes(b"Dear Sir,")
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        read = pipeline | ListPages([str(folder)]) | TranscribePages(load=SizeReader)
        written = read.pages | WriteOutputs(str(tmp_path / "out"), formats=["txt", "page"])
        assert_that(read.dead_letters | beam.Map(lambda letter: letter.reason), equal_to(["not-an-image"]))
        stems = ["a", "b.page-0001", "b.page-0002"]
        wanted = [f"txt/{stem}.txt" for stem in stems] + [f"page/{stem}.xml" for stem in stems]
        assert_that(written, equal_to(wanted), label="written")
    assert (tmp_path / "out/txt/b.page-0002.txt").read_text() == "31x20\n"


def test_format_of_whole_units_is_refused() -> None:
    with pytest.raises(BadArgument, match="parquet is no format of single pages"):
        WriteOutputs("out", ["txt", "parquet"])

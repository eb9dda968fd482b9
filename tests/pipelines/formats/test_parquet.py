import io
import json
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocr_model.document import Box, Line, Page, Region, Word
from pipelines.formats.parquet import PARQUET, SCHEMA
from pipelines.formats.record import PageRecord, PageScan

NO_SCAN = PageScan(np.zeros((1, 1), np.uint8))
NAMES = (
    "page_id path document page width height dpi reduced_by quarter_turns skew_deg confidence text"
    " line_count word_count words metadata model precision version configuration"
)
ANY_TEXT = st.text(st.characters())  # with halves of surrogate pairs


def line_of(text: str, top: int = 10) -> Line:
    words = tuple(Word(word, Box(10 + n, top, 90 + n, top + 20), 0.92512) for n, word in enumerate(text.split(" ")))
    baseline, polygon = ((10.0, top + 15.0), (90.0, top + 15.0)), ((10, top), (90, top), (90, top + 20), (10, top + 20))
    return Line(words, Box(10, top, 90, top + 20), baseline, polygon, 0.9)


def page_of(*lines: str) -> Page:
    made = tuple(line_of(text, 10 + 25 * n) for n, text in enumerate(lines))
    provenance = {"model": "abc", "precision": "float32", "pagemill": "0.1.0"}
    return Page(100, 200, (Region(made, Box(10, 10, 90, 100)),) if made else (), 3, 0.256, provenance)


RECORD = PageRecord(
    "a/b.tif",
    7,
    page_of("Größe zwei", "drei"),
    dpi=300.0,
    reduced_by=2,
    page_id="00ff-0007",
    document="box 1",
    metadata={"year": "1938", "language": "de"},
    run={"configuration": "cafe"},
)


def written(*records: PageRecord) -> bytes:
    stream = io.BytesIO()
    writer = PARQUET.open(stream, "unit-1")
    for record in records:
        writer.add(record, NO_SCAN)
    writer.finish()
    return stream.getvalue()


def read(data: bytes) -> pa.Table:
    return pq.read_table(io.BytesIO(data))


def test_row_holds_what_is_known_of_the_page() -> None:
    (row,) = read(written(RECORD)).to_pylist()
    words = row.pop("words")
    assert row == {
        "page_id": "00ff-0007",
        "path": "a/b.tif",
        "document": "box 1",
        "page": 7,
        "width": 100,
        "height": 200,
        "dpi": 300.0,
        "reduced_by": 2,
        "quarter_turns": 3,
        "skew_deg": 0.26,
        "confidence": 0.925,
        "text": "Größe zwei\ndrei",
        "line_count": 2,
        "word_count": 3,
        "metadata": '{"language": "de", "year": "1938"}',
        "model": "abc",
        "precision": "float32",
        "version": "0.1.0",
        "configuration": "cafe",
    }
    assert words[1] == {
        "text": "zwei",
        "confidence": 0.925,
        "left": 11,
        "top": 10,
        "right": 91,
        "bottom": 30,
        "line": 1,
    }
    assert [word["line"] for word in words] == [1, 1, 2]


def test_file_has_the_schema_that_is_promised() -> None:
    file = pq.ParquetFile(io.BytesIO(written(RECORD)))
    assert file.schema_arrow.equals(SCHEMA) and " ".join(file.schema_arrow.names) == NAMES
    assert file.metadata.metadata[b"pagemill.schema_version"] == b"1"
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"


def test_what_is_unknown_is_null() -> None:
    (row,) = read(written(PageRecord("a", 1, Page(1, 1)))).to_pylist()
    unknown = {name for name, value in row.items() if value is None}
    assert unknown == {"dpi", "model", "precision", "version", "configuration"}
    assert row["words"] == [] and row["text"] == ""


def test_pages_that_could_not_be_read_have_no_row_and_the_stream_stays_open() -> None:
    stream = io.BytesIO()
    writer = PARQUET.open(stream, "unit-1")
    writer.skip(1)
    writer.add(RECORD, NO_SCAN)
    writer.skip(2)
    writer.finish()
    del writer
    assert read(stream.getvalue()).num_rows == 1
    stream.write(b"")


def test_unit_without_a_page_has_its_columns() -> None:
    table = read(written())
    assert table.num_rows == 0 and table.schema.equals(SCHEMA)


def test_same_pages_give_the_same_bytes() -> None:
    assert written(RECORD, RECORD) == written(RECORD, RECORD)


@settings(max_examples=50, deadline=None)
@given(ANY_TEXT, st.text(st.characters(), min_size=1).filter(lambda text: not any(c.isspace() for c in text)))
def test_hostile_strings_are_kept_as_far_as_unicode_holds_them(name: str, word: str) -> None:
    record = PageRecord(name, 1, page_of(word), document=name, metadata={name: name}, run={"configuration": name})
    (row,) = read(written(record)).to_pylist()
    escaped = name.encode("utf-8", "backslashreplace").decode()
    assert (row["path"], row["document"], row["configuration"]) == (escaped, escaped, escaped)
    assert row["words"][0]["text"] == word.encode("utf-8", "backslashreplace").decode()
    assert json.loads(row["metadata"]) == {name: name}


def test_half_a_surrogate_pair_is_escaped() -> None:
    (row,) = read(written(PageRecord("\udcff.tif", 1, Page(1, 1)))).to_pylist()
    assert row["path"] == "\\udcff.tif"


@pytest.mark.parametrize("pages, words, groups", [(1100, 1, 3), (5, 60_000, 3)])
def test_groups_are_bounded(pages: int, words: int, groups: int) -> None:
    record = PageRecord("a", 1, page_of(" ".join(["x"] * words)))
    file = pq.ParquetFile(io.BytesIO(written(*[record] * pages)))
    assert file.num_row_groups == groups and file.metadata.num_rows == pages


class Nowhere(io.RawIOBase):
    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        return len(data)  # type: ignore[arg-type]


def test_memory_does_not_grow_with_the_pages() -> None:
    def peak_bytes(pages: int) -> int:
        tracemalloc.start()
        before, peak = pa.total_allocated_bytes(), 0
        writer = PARQUET.open(Nowhere(), "unit")  # type: ignore[arg-type]
        for number in range(pages):
            writer.add(PageRecord("a", number, RECORD.page), NO_SCAN)
            peak = max(peak, pa.total_allocated_bytes() - before)
        writer.finish()
        peak += tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak_bytes(1)
    assert peak_bytes(4_000) < 1.5 * peak_bytes(1_100)

"""Parquet: a row a page, for BigQuery, DuckDB, pandas and the like.

BigQuery takes the files as they are: `bq load --source_format=PARQUET --parquet_enable_list_inference`, without which
`words` becomes `words.list.element`. The columns of the manifest are a JSON object in a string rather than a map: a map
becomes a repeated record of keys and values there, and `JSON_VALUE(metadata, '$.language')` is what one wants to write.
"""

from __future__ import annotations

import json
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.formats.record import Format, PageRecord, PageScan, encoded

SCHEMA_VERSION = "1"  # changes where a column changes its name, type or meaning; new ones may come at the end
WORD = pa.struct(
    [
        pa.field("text", pa.string()),
        pa.field("confidence", pa.float64()),  # 0 to 1
        *(pa.field(side, pa.int32()) for side in ("left", "top", "right", "bottom")),  # pixels
        pa.field("line", pa.int32()),  # of the page, from 1
    ]
)
SCHEMA = pa.schema(
    [
        pa.field("page_id", pa.string()),
        pa.field("path", pa.string()),
        pa.field("document", pa.string()),
        pa.field("page", pa.int32()),  # of the file, from 1
        pa.field("width", pa.int32()),  # pixels
        pa.field("height", pa.int32()),
        pa.field("dpi", pa.float64()),  # null if unknown
        pa.field("reduced_by", pa.int32()),
        pa.field("quarter_turns", pa.int32()),  # clockwise, that make the page upright
        pa.field("skew_deg", pa.float64()),
        pa.field("confidence", pa.float64()),  # 0 to 1
        pa.field("text", pa.string()),
        pa.field("line_count", pa.int32()),
        pa.field("word_count", pa.int32()),
        pa.field("words", pa.list_(WORD)),  # in reading order
        pa.field("metadata", pa.string()),  # the other columns of the manifest, a JSON object
        pa.field("model", pa.string()),  # what made the page; null if unknown
        pa.field("precision", pa.string()),
        pa.field("version", pa.string()),
        pa.field("configuration", pa.string()),
    ],
    metadata={"pagemill.schema_version": SCHEMA_VERSION},
)

_PAGES_IN_GROUP = 512
_WORDS_IN_GROUP = 100_000  # some 4 MB


def page_as_row(record: PageRecord) -> dict[str, Any]:
    """The page's values by column; half a surrogate pair is written as `\\udcff`."""
    page = record.page
    made_by = {**page.provenance, **record.run}
    words = [
        {
            "text": _text(word.text),
            "confidence": round(word.confidence, 3),
            **dict(zip(("left", "top", "right", "bottom"), word.box.as_list(), strict=True)),
            "line": number,
        }
        for number, line in enumerate(page.lines(), 1)
        for word in line.words
    ]
    return {
        "page_id": record.page_id,
        "path": _text(record.path),
        "document": _text(record.document),
        "page": record.number,
        "width": page.width,
        "height": page.height,
        "dpi": record.dpi,
        "reduced_by": record.reduced_by,
        "quarter_turns": page.quarter_turns,
        "skew_deg": round(page.skew_deg, 2),
        "confidence": round(page.confidence, 3),
        "text": _text(page.text),
        "line_count": sum(1 for _ in page.lines()),
        "word_count": len(words),
        "words": words,
        "metadata": _text(json.dumps(dict(record.metadata), ensure_ascii=False, sort_keys=True)),
        "model": _text_or_none(made_by.get("model")),
        "precision": _text_or_none(made_by.get("precision")),
        "version": _text_or_none(made_by.get("pagemill")),
        "configuration": _text_or_none(made_by.get("configuration")),
    }


def _text(text: str) -> str:
    return encoded(text).decode("utf-8")


def _text_or_none(value: object) -> str | None:
    return None if value is None else _text(str(value))


class ParquetWriter:
    """A row a page, in groups of some hundreds; pages that could not be read have none."""

    def __init__(self, stream: BinaryIO, title: str) -> None:
        self._file = pq.ParquetWriter(stream, SCHEMA, compression="zstd")
        self._pages: list[pa.RecordBatch] = []
        self._words = 0

    def add(self, record: PageRecord, scan: PageScan) -> None:
        row = page_as_row(record)
        self._pages.append(pa.RecordBatch.from_pylist([row], SCHEMA))  # a tenth of the row's size
        self._words += row["word_count"]
        if len(self._pages) >= _PAGES_IN_GROUP or self._words >= _WORDS_IN_GROUP:
            self._write_group()

    def skip(self, number: int) -> None:
        pass

    def finish(self) -> None:
        if self._pages:
            self._write_group()
        self._file.close()

    def _write_group(self) -> None:
        self._file.write_table(pa.Table.from_batches(self._pages, SCHEMA))
        self._pages, self._words = [], 0


PARQUET = Format("parquet", ".parquet", "unit", ParquetWriter)

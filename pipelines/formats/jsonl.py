"""JSON lines: all that is known of a page in one object."""

from __future__ import annotations

import json
from typing import BinaryIO

from ocr_model.document import page_to_json
from pipelines.formats.record import Format, PageRecord, PageScan, encoded


def page_as_json_line(record: PageRecord) -> str:
    """One line of JSON: `page_to_json` and where the page comes from."""
    origin = {
        "path": record.path,
        "page": record.number,
        "page_id": record.page_id,
        "document": record.document,
        "metadata": dict(record.metadata),
        "dpi": record.dpi,
        "reduced_by": record.reduced_by,
    }
    value = {**origin, **page_to_json(record.page)}
    value["provenance"] = {**record.page.provenance, **record.run}
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"


class JsonLinesWriter:
    """A line a page; pages that could not be read have none."""

    def __init__(self, stream: BinaryIO, title: str) -> None:
        self._stream = stream

    def add(self, record: PageRecord, scan: PageScan) -> None:
        self._stream.write(encoded(page_as_json_line(record)))

    def skip(self, number: int) -> None:
        pass

    def finish(self) -> None:
        pass


JSONL = Format("jsonl", ".jsonl", "document", JsonLinesWriter)

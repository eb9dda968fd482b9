"""Plain text: rows of print as lines, an empty line between blocks, a form feed between pages."""

from __future__ import annotations

from typing import BinaryIO

from pipelines.formats.record import Format, PageRecord, PageScan, encoded


class TextWriter:
    """Page n of a file stands after n - 1 form feeds, whether the pages before it could be read or not."""

    def __init__(self, stream: BinaryIO, title: str) -> None:
        self._stream = stream
        self._pages = 0

    def add(self, record: PageRecord, scan: PageScan) -> None:
        self.skip(record.number)
        text = record.page.text
        self._stream.write(encoded(f"{text}\n" if text else ""))

    def skip(self, number: int) -> None:
        self._stream.write(b"\f" if self._pages else b"")
        self._pages += 1

    def finish(self) -> None:
        pass


TXT = Format("txt", ".txt", "document", TextWriter)

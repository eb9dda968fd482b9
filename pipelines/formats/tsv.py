"""TSV with the columns of Tesseract's: a row for each page, block, paragraph, line and word, told apart by their level.

Fields are not quoted; in Python, read it with `csv.reader(file, "excel-tab", quoting=csv.QUOTE_NONE)`.

Spreadsheets take what begins with `=`, `+`, `-` or `@` for a formula, and what begins with a quotation mark for a cell
that goes on up to the next one. So a word that begins so gets an apostrophe before it, unless it is a number or a sign
alone; and so does one that begins with apostrophes and then so. Without its first apostrophe such a text is the word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from ocr_model.document import Box, Word
from pipelines.formats.record import Format, PageRecord, PageScan, encoded

COLUMNS = [
    "level",
    "page_num",
    "block_num",
    "par_num",
    "line_num",
    "word_num",
    "left",
    "top",
    "width",
    "height",
    "conf",
    "text",
]

_MISTAKEN = re.compile("""'*["=@+-]""")
_NUMBER = re.compile(r"[+-][\d.,]*%?", re.ASCII)
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def cell(text: str) -> str:
    """The word as a cell that no spreadsheet takes for a formula; characters that control something are U+FFFD.

    >>> [cell(text) for text in ("one", "=SUM(A1)", '"Yes"', "'+x", "-12,5", "-", "’s", "a\\tb")]
    ['one', "'=SUM(A1)", '\\'"Yes"', "''+x", '-12,5', '-', '’s', 'a�b']
    """
    clean = _CONTROLS.sub("\ufffd", text)
    return f"'{clean}" if _MISTAKEN.match(clean) and not _NUMBER.fullmatch(clean) else clean


def page_as_rows(record: PageRecord) -> Iterator[str]:
    """The page's rows; a block is a region and has one paragraph. The confidence is 0 to 100, or -1 but for words."""
    page, number = record.page, record.number
    yield _row((1, number, 0, 0, 0, 0), Box(0, 0, page.width, page.height))
    for block, region in enumerate((region for region in page.regions if region.lines), 1):
        yield _row((2, number, block, 0, 0, 0), region.box)
        yield _row((3, number, block, 1, 0, 0), region.box)
        for n, line in enumerate(region.lines, 1):
            yield _row((4, number, block, 1, n, 0), line.box)
            for m, word in enumerate(line.words, 1):
                yield _row((5, number, block, 1, n, m), word.box, word)


def _row(place: tuple[int, ...], box: Box, word: Word | None = None) -> str:
    confidence, text = (f"{100 * word.confidence:.2f}", cell(word.text)) if word else ("-1", "")
    return "\t".join([*map(str, (*place, box.left, box.top, box.width, box.height)), confidence, text]) + "\n"


class TsvWriter:
    """A line of column names, then the rows of the pages; pages that could not be read have none."""

    def __init__(self, stream: BinaryIO, title: str) -> None:
        self._stream = stream
        stream.write(encoded("\t".join(COLUMNS) + "\n"))

    def add(self, record: PageRecord, scan: PageScan) -> None:
        self._stream.write(encoded("".join(page_as_rows(record))))

    def skip(self, number: int) -> None:
        pass

    def finish(self) -> None:
        pass


TSV = Format("tsv", ".tsv", "document", TsvWriter)

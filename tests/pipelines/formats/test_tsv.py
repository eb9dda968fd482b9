import csv
import io
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_model.document import Box, Line, Page, Region, Word
from pipelines.formats.record import PageRecord, PageScan
from pipelines.formats.tsv import COLUMNS, TSV, cell

NO_SCAN = PageScan(np.zeros((1, 1), np.uint8))
WORDS = st.text(st.characters(), min_size=1, max_size=12).filter(lambda text: not any(c.isspace() for c in text))


def line_of(*words: str, top: int = 10) -> Line:
    box = Box(10, top, 90, top + 20)
    baseline, polygon = ((10.0, top + 15.0), (90.0, top + 15.0)), ((10, top), (90, top), (90, top + 20), (10, top + 20))
    return Line(tuple(Word(word, box, 0.925) for word in words), box, baseline, polygon, 0.9)


def page_of(*regions: list[list[str]]) -> Page:
    made = (Region(tuple(line_of(*words) for words in lines), Box(5, 6, 95, 96)) for lines in regions)
    return Page(100, 200, tuple(made))


def written(*pages: Page) -> bytes:
    stream = io.BytesIO()
    writer = TSV.open(stream, "scan")
    for number, page in enumerate(pages, 1):
        writer.add(PageRecord("scan.tif", number, page), NO_SCAN)
    writer.finish()
    return stream.getvalue()


def rows_of(data: bytes) -> list[list[str]]:
    """The rows, the same whether a reader minds quotation marks or not."""
    plain, quoted = (io.StringIO(data.decode("utf-8"), newline="") for _ in range(2))
    rows = list(csv.reader(plain, "excel-tab", quoting=csv.QUOTE_NONE))
    assert list(csv.reader(quoted, "excel-tab")) == rows
    return rows


def word_of(text: str) -> str:
    """What stands in a cell, as the module's docstring says."""
    return re.sub("""^'(?='*["=@+-])""", "", text)


def test_rows_are_those_of_tesseract() -> None:
    assert written(page_of([["Größe", "zwei"]])).decode().splitlines() == [
        "level\tpage_num\tblock_num\tpar_num\tline_num\tword_num\tleft\ttop\twidth\theight\tconf\ttext",
        "1\t1\t0\t0\t0\t0\t0\t0\t100\t200\t-1\t",
        "2\t1\t1\t0\t0\t0\t5\t6\t90\t90\t-1\t",
        "3\t1\t1\t1\t0\t0\t5\t6\t90\t90\t-1\t",
        "4\t1\t1\t1\t1\t0\t10\t10\t80\t20\t-1\t",
        "5\t1\t1\t1\t1\t1\t10\t10\t80\t20\t92.50\tGröße",
        "5\t1\t1\t1\t1\t2\t10\t10\t80\t20\t92.50\tzwei",
    ]


def test_blocks_and_pages_are_counted_and_unread_pages_have_no_row() -> None:
    stream = io.BytesIO()
    writer = TSV.open(stream, "scan")
    writer.skip(1)
    writer.add(PageRecord("scan.tif", 2, page_of([["a"]], [], [["b"], ["c"]])), NO_SCAN)
    writer.finish()
    places = [row[:6] for row in rows_of(stream.getvalue())[1:] if row[0] == "5"]
    assert places == [list("521111"), list("522111"), list("522121")]


@pytest.mark.parametrize("word", ["=1+1", "+cmd|'/C'!A0", "-2+3", "@SUM", '"open', '"=1+1"', "'=1", "''\"", "--", "-a"])
def test_nothing_is_a_formula_or_an_open_quotation(word: str) -> None:
    assert cell(word)[0] == "'" and word_of(cell(word)) == word


@pytest.mark.parametrize("word", ["-12,50", "+49", "-", "+3.5%", "a=b", "'tis", "1-2", "’"])
def test_numbers_and_plain_words_stay_as_they_are(word: str) -> None:
    assert cell(word) == word == word_of(cell(word))


@given(st.lists(st.lists(st.lists(WORDS, min_size=1, max_size=3), max_size=3), max_size=3))
def test_every_row_has_all_columns_whatever_the_words(regions: list[list[list[str]]]) -> None:
    rows = rows_of(written(page_of(*regions)))
    lines = [line for region in regions for line in region]
    words = [word for line in lines for word in line]
    blocks = sum(bool(region) for region in regions)
    assert {len(row) for row in rows} == {len(COLUMNS)}
    assert len(rows) == 1 + 1 + 2 * blocks + len(lines) + len(words)
    assert not any(re.match("""["=@]|[+-][^\\d.,%]""", row[-1]) for row in rows)


@given(WORDS)
def test_words_without_controls_are_read_back_exactly(word: str) -> None:
    (text,) = (row[-1] for row in rows_of(written(page_of([[word]]))) if row[0] == "5")
    if not re.search("[\x00-\x1f\x7f-\x9f\ud800-\udfff]", word):
        assert word_of(text) == word

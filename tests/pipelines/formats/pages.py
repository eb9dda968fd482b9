"""Pages to write, and what a format makes of them."""

import io
from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from ocr_model.document import Box, Line, Page, Region, Word
from pipelines.formats.record import Format, PageRecord, PageScan

NO_SCAN = PageScan(np.zeros((1, 1), np.uint8))
WORDS = st.text(min_size=1).filter(lambda word: not any(c.isspace() for c in word))


def line_of(text: str, top: int = 10) -> Line:
    """A line from x 10 to 90, 20 px high, its words side by side."""
    texts = text.split()
    step = 80 // max(len(texts), 1)
    words = tuple(
        Word(t, Box(10 + n * step, top, 10 + (n + 1) * step - 1, top + 20), 0.925) for n, t in enumerate(texts)
    )
    baseline = ((10.0, top + 14.0), (90.0, top + 18.0))
    return Line(
        words, Box(10, top, 90, top + 20), baseline, ((10, top), (90, top), (90, top + 20), (10, top + 20)), 0.9
    )


def region_of(*lines: str, top: int = 10, kind: str = "text") -> Region:
    made = tuple(line_of(text, top + 25 * n) for n, text in enumerate(lines))
    return Region(made, Box(10, top, 90, top - 5 + 25 * len(lines)), kind)


def page_of(*lines: str, quarter_turns: int = 0) -> Page:
    """A page of 100 x 200 px with one region, or none where there are no lines."""
    return Page(100, 200, (region_of(*lines),) if lines else (), quarter_turns)


def written(format: Format, records: Sequence[PageRecord | None], title: str = "a") -> bytes:
    """The file of those pages; None for one that could not be read."""
    stream = io.BytesIO()
    writer = format.open(stream, title)
    for number, record in enumerate(records, 1):
        if record is None:
            writer.skip(number)
        else:
            writer.add(record, NO_SCAN)
    writer.finish()
    return stream.getvalue()

"""hOCR 1.2: HTML in which every line and word carries its box. Written, and read as ground truth."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from importlib import metadata
from typing import Any, BinaryIO
from xml.sax.saxutils import escape, quoteattr

from lxml import etree

from ocr_model.document import Box, Line, Page, Point, Region, Word
from ocr_model.errors import UnreadablePage
from ocr_model.truth import (
    GroundTruthLine,
    GroundTruthPage,
    GroundTruthWord,
    LineGeometry,
    ground_truth_line,
    truth_text,
)
from pipelines.formats.record import Format, PageRecord, PageScan, encoded
from pipelines.formats.xml_input import MAX_BYTES, box_at, number, numbers, parse_html
from pipelines.formats.xml_text import xml_text

# ---- writing


def _escaped(text: str) -> str:
    return escape(xml_text(text))


def _attribute(value: str) -> str:
    return quoteattr(xml_text(value))


def hocr_head(title: str) -> str:
    """All that stands before the first page."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN"'
        ' "http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">\n'
        '<html xmlns="http://www.w3.org/1999/xhtml">\n<head>\n'
        f"<title>{_escaped(title)}</title>\n"
        '<meta http-equiv="Content-Type" content="text/html; charset=utf-8" />\n'
        f'<meta name="ocr-system" content="pagemill {metadata.version("pagemill")}" />\n'
        '<meta name="ocr-capabilities" content="ocr_page ocr_carea ocr_line ocrx_word ocrp_wconf" />\n'
        "</head>\n<body>\n"
    )


HOCR_FOOT = "</body>\n</html>\n"


def page_as_hocr(record: PageRecord, place: int) -> str:
    """The page's `div`; boxes are pixels of the picture that was read.

    Args:
        place: of the page in the document, from 1, which keeps its identifiers apart from those of other pages.
    """
    page = record.page
    title = f"image {_quoted(record.path)}; bbox 0 0 {page.width} {page.height}; ppageno {place - 1}"
    if record.dpi:
        title += f"; scan_res {round(record.dpi)} {round(record.dpi)}"
    areas = [_hocr_area(region, page, f"{place}_{n}") for n, region in enumerate(page.regions, 1) if region.lines]
    return f'<div class="ocr_page" id="page_{place}" title={_attribute(title)}>\n{"".join(areas)}</div>\n'


def _quoted(path: str) -> str:
    """A string in a hOCR title: in double quotes, which the name itself cannot hold."""
    return '"' + re.sub(r"\s", " ", path.replace('"', "'")) + '"'


def _hocr_area(region: Region, page: Page, name: str) -> str:
    lines = [_hocr_line(line, page, f"{name}_{n}") for n, line in enumerate(region.lines, 1)]
    return f'<div class="ocr_carea" id="block_{name}" title="{_bbox(region.box)}">\n{"".join(lines)}</div>\n'


def _hocr_line(line: Line, page: Page, name: str) -> str:
    along = f"textangle {90 * page.quarter_turns}" if page.quarter_turns else _hocr_baseline(line)
    words = " ".join(_hocr_word(word, f"{name}_{n}") for n, word in enumerate(line.words, 1))
    return f'<span class="ocr_line" id="line_{name}" title="{_bbox(line.box)}; {along}">{words}</span><br />\n'


def _hocr_baseline(line: Line) -> str:
    """Slope and offset from the lower left corner of the line's box, as hOCR counts them (y down).

    A line of a page that lies on its side has none: hOCR's baseline is a height over x.
    """
    (x0, y0), (x1, y1) = line.baseline[0], line.baseline[-1]
    slope = (y1 - y0) / (x1 - x0) if x1 > x0 and abs(y1 - y0) < x1 - x0 else 0.0
    offset = y0 + slope * (line.box.left - x0) - line.box.bottom
    return f"baseline {slope:.3f} {round(offset)}"


def _hocr_word(word: Word, name: str) -> str:
    certainty = math.floor(100 * word.confidence)
    title = f"{_bbox(word.box)}; x_wconf {certainty}"
    return f'<span class="ocrx_word" id="word_{name}" title="{title}">{_escaped(word.text)}</span>'


def _bbox(box: Box) -> str:
    return f"bbox {box.left} {box.top} {box.right} {box.bottom}"


class HocrWriter:
    """An `ocr_page` a page; pages that could not be read have none, and their numbers stay free."""

    def __init__(self, stream: BinaryIO, title: str) -> None:
        self._stream = stream
        self._place = 0
        stream.write(encoded(hocr_head(title)))

    def add(self, record: PageRecord, scan: PageScan) -> None:
        self._place += 1
        self._stream.write(encoded(page_as_hocr(record, self._place)))

    def skip(self, number: int) -> None:
        self._place += 1

    def finish(self) -> None:
        self._stream.write(encoded(HOCR_FOOT))


HOCR = Format("hocr", ".hocr", "document", HocrWriter)


# ---- reading

_LINE_CLASSES = frozenset({"ocr_line", "ocrx_line", "ocr_header", "ocr_footer", "ocr_caption", "ocr_textfloat"})
_PLAIN_LINES = frozenset({"ocr_line", "ocrx_line"})
_PROPERTY = re.compile(r"""\s*([a-zA-Z_]+)\s*((?:"[^"]*"|'[^']*'|[^;"'])*);?""")


def read_hocr(data: bytes, max_bytes: int = MAX_BYTES) -> list[GroundTruthPage]:
    """The pages of an hOCR file, XHTML or any HTML.

    Words that stand in no line become one line without geometry for each paragraph that they stand in, and the text of
    a page without lines and words becomes such lines as well.

    Raises:
        UnreadablePage: as `parse_html`; `foreign-schema` where there is no `ocr_page`.
    """
    return hocr_pages(parse_html(data, max_bytes))


def hocr_pages(root: Any) -> list[GroundTruthPage]:
    """The pages of a parsed file; see `read_hocr`."""
    pages = [_read_page(element) for element in _of_class(root, frozenset({"ocr_page"}))]
    if not pages:
        raise UnreadablePage("HTML without an ocr_page, so no hOCR", "foreign-schema")
    return pages


def _classes(element: Any) -> set[str]:
    return set((element.get("class") or "").split())


def _of_class(element: Any, names: frozenset[str]) -> Iterator[Any]:
    """The element itself and its descendants of one of those classes, in the order of the document."""
    return (e for e in element.iter(etree.Element) if names & _classes(e))


def properties(title: str) -> dict[str, str]:
    """The properties of a `title`: name -> value, as it stands there.

    >>> properties('image "a;b.png"; bbox 0 0 10 20; ppageno 0')
    {'image': '"a;b.png"', 'bbox': '0 0 10 20', 'ppageno': '0'}
    """
    return {match.group(1): match.group(2).strip() for match in _PROPERTY.finditer(title)}


def _properties(element: Any) -> dict[str, str]:
    return properties(element.get("title") or "")


def _box(element: Any) -> Box | None:
    values = numbers(_properties(element).get("bbox"))
    if len(values) != 4:
        return None
    left, top, right, bottom = values
    return box_at(left, top, right - left, bottom - top)


def _read_page(page: Any) -> GroundTruthPage:
    box = _box(page)
    width, height = (box.right, box.bottom) if box else (None, None)
    found = _lines(page)
    inside = frozenset(found)
    stray: dict[Any, list[str]] = {}  # where words without a line stand -> their texts
    for word in _of_class(page, frozenset({"ocrx_word"})):
        if inside.isdisjoint((word, *word.iterancestors())):
            stray.setdefault(word.getparent(), []).append(_content(word))
    lines = [_read_line(line, (width, height)) for line in found]
    for parent, texts in stray.items():
        lines.append(ground_truth_line(" ".join(texts), LineGeometry(), (width, height), region=_region(parent)))
    if not lines:
        rows = filter(str.strip, _content(page).splitlines())
        lines = [ground_truth_line(text, LineGeometry(), (width, height)) for text in rows]
    image = _properties(page).get("image", "").strip("\"'")
    return GroundTruthPage(width, height, tuple(lines), image, ordered=not stray)


def _lines(page: Any) -> list[Any]:
    """The elements that are one line; a header or a float that holds lines is a block of them."""
    candidates = list(_of_class(page, _LINE_CLASSES))
    known = frozenset(candidates)
    blocks = {next((e for e in line.iterancestors() if e in known), None) for line in candidates}
    return [line for line in candidates if line not in blocks]


def _content(element: Any) -> str:
    return "".join(element.itertext())


def _region(element: Any) -> str:
    """The id of the block around an element."""
    blocks = (e for e in (element, *element.iterancestors()) if {"ocr_carea", "ocrx_block"} & _classes(e))
    return next((e.get("id") or "" for e in blocks), "")


def _read_line(line: Any, page_size: tuple[int | None, int | None]) -> GroundTruthLine:
    words = [GroundTruthWord(_content(word), _box(word)) for word in _of_class(line, frozenset({"ocrx_word"}))]
    words = [word for word in words if truth_text(word.text)]
    content, joined = _content(line), " ".join(word.text for word in words)
    alike = re.sub(r"\s", "", content) == re.sub(r"\s", "", joined)  # files may part words by their spans alone
    box = _box(line)
    classes = _classes(line) & _LINE_CLASSES
    return ground_truth_line(
        joined if alike else content,
        LineGeometry(box, (), _read_baseline(_properties(line), box), words),
        page_size,
        kind="" if classes & _PLAIN_LINES else min(classes).removeprefix("ocr_"),
        region=_region(line),
    )


def _read_baseline(stated: dict[str, str], box: Box | None) -> tuple[Point, ...]:
    """Both ends of a straight baseline of an upright line; none for a curve or a turned line."""
    values = numbers(stated.get("baseline"))
    if box is None or len(values) != 2 or number(stated.get("textangle")):
        return ()
    slope, offset = values
    left = box.bottom + offset
    return ((float(box.left), left), (float(box.right), left + slope * box.width))

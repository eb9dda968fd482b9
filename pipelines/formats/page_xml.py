"""PAGE XML of 2019-07-15, the format of PRImA, OCR-D and Transkribus: written, and read as ground truth.

A file is one page. The schema demands two dates, which would make the files of every run differ: they are the date of
the run where the user gave it one, else the beginning of 1970.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, BinaryIO

from lxml import etree

from ocr_model.document import Box, Line, Page, Region, Word
from ocr_model.errors import UnreadablePage
from ocr_model.truth import GroundTruthLine, GroundTruthPage, GroundTruthWord, LineGeometry, ground_truth_line
from pipelines.formats.record import Format, PageRecord, PageScan
from pipelines.formats.xml_input import MAX_BYTES, local_name, number, parse_xml, points
from pipelines.formats.xml_text import corners, points_text, settings, whole_points, xml_text

_PREFIX = "http://schema.primaresearch.org/PAGE/gts/pagecontent/"
NAMESPACE = f"{_PREFIX}2019-07-15"
NAMESPACES = frozenset(f"{_PREFIX}{year}-07-15" for year in (2013, 2016, 2017, 2018, 2019))
EPOCH = "1970-01-01T00:00:00"

# The types of a text region; another kind is `other`, its name in `custom`.
_TYPES_OF_PRINT = "paragraph heading caption header footer page-number drop-capital credit floating signature-mark"
_TYPES_OF_NOTES = "catch-word marginalia footnote footnote-continued endnote TOC-entry list-label"
REGION_TYPES = frozenset([*_TYPES_OF_PRINT.split(), *_TYPES_OF_NOTES.split()])


# ---- writing


def _element(parent: Any, name: str, attributes: Mapping[str, str] | None = None) -> Any:
    cleaned = {key: xml_text(value) for key, value in (attributes or {}).items()}
    return etree.SubElement(parent, f"{{{NAMESPACE}}}{name}", cleaned)


def page_as_page_xml(record: PageRecord) -> bytes:
    """The file of a page."""
    root = etree.Element(f"{{{NAMESPACE}}}PcGts", nsmap={None: NAMESPACE})
    _add_metadata(root, record)
    page = record.page
    element = _element(root, "Page", _page_attributes(record))
    regions = [region for region in page.regions if region.lines]
    if regions:
        order = _element(_element(element, "ReadingOrder"), "OrderedGroup", {"id": "reading_order"})
        for n in range(len(regions)):
            _element(order, "RegionRefIndexed", {"index": str(n), "regionRef": f"region_{n + 1}"})
    for n, region in enumerate(regions, 1):
        _add_region(element, region, page, str(n))
    return bytes(etree.tostring(root, encoding="UTF-8", xml_declaration=True, pretty_print=True))


def _add_metadata(root: Any, record: PageRecord) -> None:
    metadata = _element(root, "Metadata")
    version = record.page.provenance.get("pagemill", "")
    _element(metadata, "Creator").text = xml_text(f"pagemill {version}".strip())
    date = _date(record.run.get("date"))
    _element(metadata, "Created").text = date
    _element(metadata, "LastChange").text = date
    step = _element(metadata, "MetadataItem", {"type": "processingStep", "name": "pagemill", "value": "recognition"})
    labels = _element(step, "Labels")
    for name, value in settings(record).items():
        _element(labels, "Label", {"type": name, "value": value})
    _element(metadata, "MetadataItem", {"type": "other", "name": "page", "value": str(record.number)})


def _date(value: Any) -> str:
    """An ISO date of the run in UTC, as the schema wants it; `EPOCH` for anything else.

    >>> _date("2024-05-06T07:08:09+02:00"), _date(None)
    ('2024-05-06T05:08:09', '1970-01-01T00:00:00')
    """
    try:
        date = datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    except ValueError:
        return EPOCH
    return (date.astimezone(timezone.utc) if date.tzinfo else date).replace(tzinfo=None).isoformat(timespec="seconds")


def _page_attributes(record: PageRecord) -> dict[str, str]:
    page = record.page
    attributes = {
        "imageFilename": record.path,
        "imageWidth": str(page.width),
        "imageHeight": str(page.height),
        "conf": f"{page.confidence:.3f}",
    }
    if record.dpi:
        attributes |= {f"image{axis}Resolution": f"{record.dpi:g}" for axis in "XY"}
        attributes["imageResolutionUnit"] = "PPI"
    if page.quarter_turns or page.skew_deg:
        attributes["orientation"] = f"{orientation_deg(page):.2f}"
    return attributes


def orientation_deg(page: Page) -> float:
    """The angle by which the page must be turned clockwise to stand straight, above -180 up to 180.

    >>> orientation_deg(Page(1, 1, quarter_turns=3)), orientation_deg(Page(1, 1, skew_deg=2.0))
    (-90.0, -2.0)
    """
    return 180.0 - math.fmod(540.0 - (90 * page.quarter_turns - page.skew_deg), 360.0)


def _add_region(parent: Any, region: Region, page: Page, name: str) -> None:
    attributes = {"id": f"region_{name}"}
    if region.kind in REGION_TYPES:
        attributes["type"] = region.kind
    elif region.kind != "text":
        attributes |= {"type": "other", "custom": f"structure {{type:{region.kind};}}"}
    element = _element(parent, "TextRegion", attributes)
    _add_coords(element, corners(region.box), page)
    for n, line in enumerate(region.lines, 1):
        _add_line(element, line, page, f"{name}_{n}")
    _add_text(element, region.text)


def _add_line(region: Any, line: Line, page: Page, name: str) -> None:
    element = _element(region, "TextLine", {"id": f"line_{name}"})
    _add_coords(element, line.polygon, page)
    _element(element, "Baseline", {"points": points_text(whole_points(line.baseline, page))})
    for n, word in enumerate(line.words, 1):
        _add_word(element, word, page, f"word_{name}_{n}")
    _add_text(element, line.text, line.confidence)


def _add_word(line: Any, word: Word, page: Page, name: str) -> None:
    element = _element(line, "Word", {"id": name})
    _add_coords(element, corners(word.box), page)
    _add_text(element, word.text, word.confidence)


def _add_coords(parent: Any, outline: Sequence[tuple[float, float]], page: Page) -> None:
    _element(parent, "Coords", {"points": points_text(whole_points(outline, page))})


def _add_text(parent: Any, text: str, confidence: float | None = None) -> None:
    equivalent = _element(parent, "TextEquiv", {} if confidence is None else {"conf": f"{confidence:.3f}"})
    _element(equivalent, "Unicode").text = xml_text(text)


class PageXmlWriter:
    """One page; nothing for a page that could not be read."""

    def __init__(self, stream: BinaryIO, title: str) -> None:
        self._stream = stream

    def add(self, record: PageRecord, scan: PageScan) -> None:
        self._stream.write(page_as_page_xml(record))

    def skip(self, number: int) -> None:
        pass

    def finish(self) -> None:
        pass


PAGE = Format("page", ".xml", "page", PageXmlWriter)


# ---- reading


def is_page_xml(root: Any) -> bool:
    """Whether this is the root of PAGE XML, 2013 to 2019."""
    name = etree.QName(root)
    return name.localname == "PcGts" and name.namespace in NAMESPACES


def read_page_xml(data: bytes, max_bytes: int = MAX_BYTES) -> GroundTruthPage:
    """The page of a PAGE XML file of the years 2013 to 2019.

    Lines come in the file's reading order, regions that it leaves out after the others, all in the order of the
    document if the file has no reading order; cells of a table row by row. A line's text is that of its `TextEquiv`
    with the lowest index, else of its words. Where only a region has text, its lines have no geometry.

    Raises:
        UnreadablePage: as `parse_xml`; `foreign-schema`.
    """
    return page_xml_page(parse_xml(data, max_bytes))


def page_xml_page(root: Any) -> GroundTruthPage:
    """The page of a parsed file; see `read_page_xml`."""
    if not is_page_xml(root):
        raise UnreadablePage(f"the root is {root.tag}, not PAGE of 2013 to 2019", "foreign-schema")
    page = root.find("{*}Page")
    if page is None:
        raise UnreadablePage("the file has no Page", "foreign-schema")
    width, height = _pixels(page.get("imageWidth")), _pixels(page.get("imageHeight"))
    regions, ordered = _regions_in_order(page)
    lines = tuple(line for region in regions for line in _region_lines(region, (width, height)))
    return GroundTruthPage(width, height, lines, (page.get("imageFilename") or "").strip(), ordered)


def _pixels(text: str | None) -> int | None:
    value = number(text)
    return round(value) if value is not None and value >= 1 else None


def _regions_in_order(page: Any) -> tuple[list[Any], bool]:
    """The regions that have lines or text, and whether the file gives the order of all of them."""
    ranks, ordered = _reading_order(page)
    document_order = {element: n for n, element in enumerate(page.iter(etree.Element))}
    regions = [element for element in document_order if _has_text(element)]
    last = len(ranks)

    def key(region: Any) -> tuple[int, int, int, int, int]:
        rank = next((ranks[e.get("id")] for e in (region, *region.iterancestors()) if e.get("id") in ranks), last)
        table = next(region.iterancestors("{*}TableRegion"), None)
        group = document_order[region if table is None else table]
        return (rank, group, *(_cell(region) if table is not None else (0, 0)), document_order[region])

    complete = all(key(region)[0] < last for region in regions)
    return sorted(regions, key=key), len(regions) <= 1 or (ordered and complete)


def _has_text(element: Any) -> bool:
    """Whether lines stand right in an element, or it is a region with a text of its own."""
    if element.find("{*}TextLine") is not None:
        return True
    return local_name(element) in ("TextRegion", "TableCell") and element.find("{*}TextEquiv") is not None


def _cell(region: Any) -> tuple[int, int]:
    """Row and column of a cell, as Transkribus or as PAGE 2019 writes them; 0, 0 for anything else."""
    role = region.find("{*}Roles/{*}TableCellRole")
    row, column = (
        (region.get("row"), region.get("col")) if role is None else (role.get("rowIndex"), role.get("columnIndex"))
    )
    return int(number(row) or 0), int(number(column) or 0)


def _reading_order(page: Any) -> tuple[dict[str, int], bool]:
    """Region's id -> place, and whether every group is ordered."""
    ranks: dict[str, int] = {}
    order = page.find("{*}ReadingOrder")
    if order is None:
        return ranks, False
    ordered = True
    waiting = list(order.iterchildren(etree.Element))[::-1]
    while waiting:
        element = waiting.pop()
        if element.get("regionRef"):
            ranks.setdefault(element.get("regionRef"), len(ranks))
        children = list(element.iterchildren(etree.Element))
        if local_name(element).startswith("UnorderedGroup"):
            ordered = ordered and len(children) <= 1
        else:
            children.sort(key=lambda child: number(child.get("index")) or 0.0)
        waiting += children[::-1]
    return ranks, ordered


def _region_lines(region: Any, page_size: tuple[int | None, int | None]) -> Iterator[GroundTruthLine]:
    """The region's own lines, or the lines of its text where it has no others, not even in regions inside."""
    kind = _structure(region) or region.get("type") or ""
    name = region.get("id") or ""
    found = False
    for line in region.iterfind("{*}TextLine"):
        found = True
        words = [GroundTruthWord(_text(word), _outline(word)) for word in line.iterfind("{*}Word")]
        text = _text(line) or " ".join(word.text for word in words)
        geometry = LineGeometry(None, _coords(line, "Coords"), _coords(line, "Baseline"), words)
        yield ground_truth_line(text, geometry, page_size, _line_kind(line, region), name, kind)
    if not found and next(region.iter("{*}TextLine"), None) is None:
        for text in filter(str.strip, _text(region).splitlines()):
            yield ground_truth_line(text, LineGeometry(), page_size, region.get("production") or "", name, kind)


def _line_kind(line: Any, region: Any) -> str:
    """What the file calls the line, else how it says that it was written: `printed`, `handwritten-cursive`, …"""
    return _structure(line) or line.get("production") or region.get("production") or ""


def _structure(element: Any) -> str:
    """The type in `custom`, where Transkribus keeps what the schema has no name for."""
    found = re.search(r"structure\s*\{[^{}]*?\btype:\s*([^;{}]*)", element.get("custom") or "")
    return found.group(1).strip() if found else ""


def _text(element: Any) -> str:
    """The `Unicode` of the `TextEquiv` with the lowest index; one without an index is the first."""
    equivalents = list(element.iterfind("{*}TextEquiv"))
    if not equivalents:
        return ""
    first = min(equivalents, key=lambda e: -1.0 if (index := number(e.get("index"))) is None else index)
    return first.findtext("{*}Unicode") or ""


def _coords(element: Any, name: str) -> tuple[tuple[float, float], ...]:
    child = element.find(f"{{*}}{name}")
    return points(child.get("points")) if child is not None else ()


def _outline(element: Any) -> Box | None:
    outline = _coords(element, "Coords")
    return Box.around(outline) if outline else None

"""ALTO 4.4, the Library of Congress's XML for text with its layout: written, and read as ground truth.

A file is one `Layout` with a `Page` each. A hyphen at the end of a line is written as part of its word: `HYP` would
say that it parts a word, which the reader of a page does not know, and the text of the strings is then `Page.text`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from lxml import etree

from ocr_model.document import Box, Line, Page, Region
from ocr_model.errors import UnreadablePage
from ocr_model.truth import GroundTruthLine, GroundTruthPage, GroundTruthWord, LineGeometry, ground_truth_line
from pipelines.formats.record import Format, PageRecord, PageScan, encoded
from pipelines.formats.xml_input import MAX_BYTES, box_at, local_name, number, numbers, parse_xml, points
from pipelines.formats.xml_text import points_text, settings, whole_points, xml_text

NAMESPACE = "http://www.loc.gov/standards/alto/ns-v4#"
NAMESPACES = frozenset(f"http://www.loc.gov/standards/alto/ns-v{version}#" for version in (2, 3, 4))

_ROOT = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    f'<alto xmlns="{NAMESPACE}" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
    f' xsi:schemaLocation="{NAMESPACE} http://www.loc.gov/standards/alto/v4/alto-4-4.xsd" SCHEMAVERSION="4.4">\n'
)
_FOOT = "</Layout>\n</alto>\n"


# ---- writing


def _element(parent: Any, name: str, attributes: Mapping[str, str] | None = None, text: str = "") -> Any:
    """A new last child. Elements have no namespace of their own: in the file they stand under the root's."""
    made = etree.SubElement(parent, name, {key: xml_text(value) for key, value in (attributes or {}).items()})
    made.text = xml_text(text) or None
    return made


def _serialised(element: Any) -> str:
    return str(etree.tostring(element, encoding="unicode", pretty_print=True))


def alto_head(record: PageRecord | None) -> str:
    """All that stands before the first page; the record of a page tells the image and what read it."""
    description = etree.Element("Description")
    _element(description, "MeasurementUnit", text="pixel")
    if record:
        source = _element(description, "sourceImageInformation")
        _element(source, "fileName", text=record.path)
    step = _element(description, "Processing", {"ID": "pagemill"})
    _element(step, "processingCategory", text="contentGeneration")
    _element(step, "processingStepDescription", text="text recognition")
    if record and settings(record):
        _element(step, "processingStepSettings", text=json.dumps(settings(record), ensure_ascii=False))
    software = _element(step, "processingSoftware")
    _element(software, "softwareName", text="pagemill")
    if record and "pagemill" in record.page.provenance:
        _element(software, "softwareVersion", text=str(record.page.provenance["pagemill"]))
    return f"{_ROOT}{_serialised(description)}<Layout>\n"


def page_as_alto(record: PageRecord, place: int) -> str:
    """The `Page` element; `place` in the document, from 1, keeps its identifiers apart from those of other pages."""
    page = record.page
    attributes = {
        "ID": f"page_{place}",
        "PHYSICAL_IMG_NR": str(place),
        "WIDTH": str(page.width),
        "HEIGHT": str(page.height),
        "PC": f"{page.confidence:.3f}",
        "PROCESSINGREFS": "pagemill",
    }
    if page.quarter_turns:
        attributes["ROTATION"] = str(90 * page.quarter_turns)  # of the text in the image, counterclockwise
    element = etree.Element("Page", attributes)
    regions = [region for region in page.regions if region.lines]
    space = _element(element, "PrintSpace", _place(_union(regions)) if regions else None)
    for n, region in enumerate(regions, 1):
        _add_region(space, region, page, f"{place}_{n}")
    return _serialised(element)


def _union(regions: list[Region]) -> Box:
    box = regions[0].box
    for region in regions[1:]:
        box = box.union(region.box)
    return box


def _place(box: Box) -> dict[str, str]:
    return {"HPOS": str(box.left), "VPOS": str(box.top), "WIDTH": str(box.width), "HEIGHT": str(box.height)}


def _add_region(parent: Any, region: Region, page: Page, name: str) -> None:
    """A block; around that of a special kind a `ComposedBlock` with its `TYPE`.

    Tags would have to be declared before the first page, when the kinds of the last are not known yet.
    """
    if region.kind != "text":
        parent = _element(parent, "ComposedBlock", {"ID": f"group_{name}", "TYPE": region.kind, **_place(region.box)})
    block = _element(parent, "TextBlock", {"ID": f"block_{name}", **_place(region.box)})
    for n, line in enumerate(region.lines, 1):
        _add_line(block, line, page, f"{name}_{n}")


def _add_line(block: Any, line: Line, page: Page, name: str) -> None:
    baseline = points_text(whole_points(line.baseline, page))
    element = _element(block, "TextLine", {"ID": f"line_{name}", "BASELINE": baseline, **_place(line.box)})
    shape = _element(element, "Shape")
    _element(shape, "Polygon", {"POINTS": points_text(whole_points(line.polygon, page))})
    for n, word in enumerate(line.words, 1):
        if n > 1:
            _element(element, "SP")
        attributes = {"ID": f"string_{name}_{n}", "CONTENT": word.text, "WC": f"{word.confidence:.3f}"}
        _element(element, "String", {**attributes, **_place(word.box)})
    if not line.words:
        _element(element, "String", {"CONTENT": ""})  # a line must have one


class AltoWriter:
    """A `Page` a page; that of a page that could not be read is empty and says so.

    The first page that was read tells the image's name and the model, so nothing is written before it.
    """

    def __init__(self, stream: BinaryIO, title: str) -> None:
        self._stream = stream
        self._place = 0
        self._begun = False

    def add(self, record: PageRecord, scan: PageScan) -> None:
        self._begin(record)
        self._place += 1
        self._stream.write(encoded(page_as_alto(record, self._place)))

    def skip(self, number: int) -> None:
        self._place += 1
        if self._begun:
            self._write_missing(self._place)

    def finish(self) -> None:
        self._begin(None)
        self._stream.write(encoded(_FOOT))

    def _begin(self, record: PageRecord | None) -> None:
        if self._begun:
            return
        self._begun = True
        self._stream.write(encoded(alto_head(record)))
        for place in range(1, self._place + 1):
            self._write_missing(place)

    def _write_missing(self, place: int) -> None:
        attributes = {"ID": f"page_{place}", "PHYSICAL_IMG_NR": str(place)}
        page = etree.Element("Page", {**attributes, "QUALITY": "Missing", "QUALITY_DETAIL": "could not be read"})
        self._stream.write(encoded(_serialised(page)))


# `.xml`, as eScriptorium, kraken and Tesseract name it: tools find the image by the stem, and `scan.alto` is none.
ALTO = Format("alto", ".xml", "document", AltoWriter)


# ---- reading


@dataclass(frozen=True)
class _Reading:
    """What holds for a whole file.

    Attributes:
        scale: pixels in a unit of measurement.
        labels: tag's ID -> its label.
        has_spaces: whether the file writes the spaces between words (`SP`); if not, every string is a word.
    """

    scale: float
    labels: Mapping[str, str]
    has_spaces: bool


def is_alto(root: Any) -> bool:
    """Whether this is the root of ALTO 2, 3 or 4."""
    name = etree.QName(root)
    return name.localname == "alto" and name.namespace in NAMESPACES


def image_name(root: Any) -> str:
    """The image's file as a parsed file names it; empty if it does not."""
    return str(next((element.text or "" for element in _all(root, "fileName")), "")).strip()


def read_alto(data: bytes, dpi: float | None = None, max_bytes: int = MAX_BYTES) -> list[GroundTruthPage]:
    """The pages of an ALTO file of version 2, 3 or 4, in pixels.

    Args:
        dpi: of the image, for files that measure in millimetres or inches.

    Raises:
        UnreadablePage: as `parse_xml`; `foreign-schema`, or `no-resolution` where `dpi` is needed and not given.
    """
    return alto_pages(parse_xml(data, max_bytes), dpi)


def alto_pages(root: Any, dpi: float | None = None) -> list[GroundTruthPage]:
    """The pages of a parsed file; see `read_alto`."""
    if not is_alto(root):
        raise UnreadablePage(f"the root is {root.tag}, not ALTO 2, 3 or 4", "foreign-schema")
    reading = _Reading(
        _scale(root, dpi),
        {tag.get("ID", ""): tag.get("LABEL", "") for tags in _all(root, "Tags") for tag in tags.iter(etree.Element)},
        any(True for _ in _all(root, "SP")),
    )
    reordered = any(True for _ in _all(root, "ReadingOrder")) or any(e.get("IDNEXT") for e in root.iter(etree.Element))
    name = image_name(root)
    return [_read_page(page, name, reading, not reordered) for page in _all(root, "Page")]


def _all(element: Any, name: str) -> Iterator[Any]:
    """The element's descendants of that name, in the order of the document."""
    return iter(element.iter(f"{{*}}{name}"))


def _scale(root: Any, dpi: float | None) -> float:
    """Pixels in a unit. A file that names no unit is taken to measure in pixels."""
    unit = next((element.text or "" for element in _all(root, "MeasurementUnit")), "").strip() or "pixel"
    units_per_inch = {"mm10": 254.0, "inch1200": 1200.0}
    if unit == "pixel":
        return 1.0
    if unit not in units_per_inch:
        raise UnreadablePage(f"unknown unit of measurement {unit!r}", "foreign-schema")
    if not dpi:
        raise UnreadablePage(f"the file measures in {unit}, and the image's resolution is unknown", "no-resolution")
    return dpi / units_per_inch[unit]


def _read_page(page: Any, name: str, reading: _Reading, ordered: bool) -> GroundTruthPage:
    """A page; the print space comes between the left and the right margin, which the schema puts before it."""
    size = tuple(_whole(page.get(key), reading.scale) for key in ("WIDTH", "HEIGHT"))
    ranks = {"TopMargin": 0, "LeftMargin": 1, "PrintSpace": 2, "RightMargin": 3, "BottomMargin": 4}
    spaces = sorted(page.iterchildren(etree.Element), key=lambda space: ranks.get(local_name(space), 5))
    lines = tuple(_read_line(line, (size[0], size[1]), reading) for space in spaces for line in _all(space, "TextLine"))
    return GroundTruthPage(size[0], size[1], lines, name, ordered)


def _whole(text: str | None, scale: float) -> int | None:
    value = number(text)
    return round(value * scale) if value is not None and value * scale >= 1 else None


def _read_line(line: Any, page_size: tuple[int | None, int | None], reading: _Reading) -> GroundTruthLine:
    block = next(line.iterancestors("{*}TextBlock"), None)
    words = _words(line, reading)
    polygon = next((points(p.get("POINTS"), reading.scale) for p in line.iterfind("{*}Shape/{*}Polygon")), ())
    box = _box(line, reading.scale)
    geometry = LineGeometry(box, polygon, _baseline(line, box, reading.scale), words)
    return ground_truth_line(
        " ".join(word.text for word in words),
        geometry,
        page_size,
        kind=_label(line, reading),
        region=block.get("ID", "") if block is not None else "",
        region_kind=_block_kind(block, reading) if block is not None else "",
    )


def _words(line: Any, reading: _Reading) -> list[GroundTruthWord]:
    """The printed words: strings that no space parts are one, and the hyphen belongs to the last.

    What a string stands for (`SUBS_CONTENT`: the whole word of a broken one, an abbreviation spelt out) is not printed.
    """
    words: list[GroundTruthWord] = []
    apart = True
    for element in line.iterchildren(etree.Element):
        name, content = local_name(element), element.get("CONTENT", "")
        if name == "SP":
            apart = True
        elif name == "String" and (apart or not words):
            words.append(GroundTruthWord(content, _box(element, reading.scale)))
            apart = not reading.has_spaces
        elif name == "String":
            words[-1] = _joined(words[-1], content, _box(element, reading.scale))
        elif name == "HYP" and words:
            hyphen = content.replace("\u00ad", "").strip() or "-"
            words[-1] = _joined(words[-1], hyphen, _box(element, reading.scale))
    return words


def _joined(word: GroundTruthWord, text: str, box: Box | None) -> GroundTruthWord:
    both = word.box.union(box) if word.box and box else word.box or box
    return GroundTruthWord(word.text + text, both)


def _box(element: Any, scale: float) -> Box | None:
    values = (number(element.get(key)) for key in ("HPOS", "VPOS", "WIDTH", "HEIGHT"))
    left, top, width, height = (None if value is None else value * scale for value in values)
    return box_at(left, top, width, height)


def _baseline(line: Any, box: Box | None, scale: float) -> tuple[tuple[float, float], ...]:
    """The baseline's points; before ALTO 4.2 it is one number, the height at which the line stands."""
    text = line.get("BASELINE")
    values = numbers(text)
    if len(values) == 1:
        y = values[0] * scale
        return ((float(box.left), y), (float(box.right), y)) if box else ()
    return points(text, scale)


def _label(element: Any, reading: _Reading) -> str:
    """The labels of the tags that an element refers to, parted by spaces."""
    names = (reading.labels.get(name, "") for name in (element.get("TAGREFS") or "").split())
    return " ".join(name for name in names if name)


def _block_kind(block: Any, reading: _Reading) -> str:
    """The kind of a block or of the nearest block around it that has one."""
    for element in (block, *block.iterancestors("{*}ComposedBlock")):
        kind = _label(element, reading) or (element.get("TYPE") or "").strip()
        if kind:
            return kind
    return ""

"""XML and HTML from elsewhere, parsed without trust: nothing is fetched or expanded, size and depth are limited."""

from __future__ import annotations

import math
import re
from typing import Any

from lxml import etree

from ocr_model.document import Box, Point
from ocr_model.errors import UnreadablePage

MAX_BYTES = 64 * 2**20

_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?")
_LARGEST = 1e7  # of a coordinate, in pixels: what is beyond is an error of the file, not a page


def parse_xml(data: bytes, max_bytes: int = MAX_BYTES) -> Any:
    """The root element.

    Raises:
        UnreadablePage: `empty-file`, `too-many-bytes`, `bad-xml` (not well-formed, nested more than 256 deep, or its
            entities grow without end) or `entity-declaration` (it declares entities; no ground-truth format needs any).
    """
    _check_size(data, max_bytes)
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        raise UnreadablePage(f"not XML: {error.msg}", "bad-xml") from error
    declared = root.getroottree().docinfo.internalDTD
    if declared is not None and any(True for _ in declared.iterentities()):
        raise UnreadablePage("the file declares entities", "entity-declaration", "write the characters themselves")
    return root


def parse_html(data: bytes, max_bytes: int = MAX_BYTES) -> Any:
    """The root element of XHTML or of HTML that is no XML; elements have no namespace, as in HTML.

    Raises:
        UnreadablePage: as `parse_xml`, except that what is not well-formed is read as a browser would.
    """
    _check_size(data, max_bytes)
    try:
        root = parse_xml(data, max_bytes)
    except UnreadablePage as error:
        if error.reason != "bad-xml":
            raise
        return _lenient_html(data)
    if any(isinstance(node, etree._Entity) for node in root.iter()):  # &nbsp; and the like: names of HTML, not of XML
        return _lenient_html(data)
    for element in root.iter(etree.Element):
        element.tag = etree.QName(element).localname
    return root


def _lenient_html(data: bytes) -> Any:
    parser = etree.HTMLParser(
        encoding="utf-8" if _is_utf8(data) else None,
        no_network=True,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(data, parser)
    except etree.LxmlSyntaxError as error:
        raise UnreadablePage(f"neither XML nor HTML: {error}", "bad-xml") from error
    if root is None:
        raise UnreadablePage("neither XML nor HTML", "bad-xml")
    if any("depth" in entry.message for entry in parser.error_log):  # libxml2 leaves out what lies deeper
        raise UnreadablePage("HTML nested more than 256 deep", "bad-xml")
    return root


def _check_size(data: bytes, max_bytes: int) -> None:
    if not data.strip():
        raise UnreadablePage("the file is empty", "empty-file")
    if len(data) > max_bytes:
        raise UnreadablePage(f"{len(data)} bytes, more than {max_bytes}", "too-many-bytes")


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def local_name(element: Any) -> str:
    """The element's name without its namespace."""
    return str(etree.QName(element).localname)


def number(text: str | None) -> float | None:
    """A finite number of a size that a coordinate can have; None for anything else.

    >>> number(" 12.5 "), number("1e99"), number("nan"), number(None)
    (12.5, None, None, None)
    """
    if text is None or not _NUMBER.fullmatch(text.strip()):
        return None
    value = float(text)
    return value if math.isfinite(value) and abs(value) <= _LARGEST else None


def numbers(text: str | None) -> list[float]:
    """All numbers of a list, parted by spaces or commas; none where one of them is no number.

    >>> numbers("1,2 3, 4"), numbers("1 x")
    ([1.0, 2.0, 3.0, 4.0], [])
    """
    found = [number(part) for part in re.split(r"[\s,]+", (text or "").strip())]
    kept = [value for value in found if value is not None]
    return kept if len(kept) == len(found) else []


def points(text: str | None, scale: float = 1.0) -> tuple[Point, ...]:
    """The points of a list of coordinates, times `scale`; none where the list is broken.

    >>> points("1,2 3,4") == points("1 2 3 4"), points("1,2 3")
    (True, ())
    """
    values = numbers(text)
    if len(values) % 2:
        return ()
    return tuple((x * scale, y * scale) for x, y in zip(values[::2], values[1::2], strict=True))


def box_at(left: float | None, top: float | None, width: float | None, height: float | None) -> Box | None:
    """The box of whole pixels around those edges; None where one is missing or nothing lies between them."""
    if left is None or top is None or width is None or height is None or width <= 0 or height <= 0:
        return None
    return Box.around([(left, top), (left + width, top + height)])

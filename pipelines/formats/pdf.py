"""Searchable PDF, and PDF/A-2b: the scans of a document with the text that was read laid under them, unseen.

A file is written as its pages come and no page is kept, whatever their number; `pdf_objects` tells why no library
does it. The same pages give the same bytes: there is no date in them, and the identifier is a digest.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache, partial
from typing import BinaryIO
from xml.sax.saxutils import escape

from PIL import ImageCms

from ocr_model.document import Page
from pipelines.formats.pdf_objects import ObjectStream, number, text_string
from pipelines.formats.pdf_picture import Picture, picture_of
from pipelines.formats.pdf_text import Codes, text_layer, write_font
from pipelines.formats.record import Format, PageRecord, PageScan, encoded
from pipelines.formats.xml_text import xml_text

DPI_IF_UNTOLD = 300.0
PRODUCER = "Pagemill"

_A4_POINTS = (595.28, 841.89)
_MIN_SIDE_POINTS, _MAX_SIDE_POINTS = 3.0, 14_400.0  # what PDF/A and Acrobat allow
_PAGES_IN_BRANCH = 64  # of the page tree
_MAX_TITLE = 1_000  # characters


def points_per_pixel(page: Page, dpi: float | None) -> float:
    """Points of a PDF to a pixel of the page: at `dpi`, or 300 where it is not known.

    A page that would be over 200 inches long is drawn smaller, as PDF has no larger ones.
    """
    scale = 72 / (dpi if dpi and dpi > 0 else DPI_IF_UNTOLD)
    return min(scale, _MAX_SIDE_POINTS / max(page.width, page.height))


class PdfWriter:
    """A page a page; where one could not be read stands an empty one of the size of the one before (else A4).

    Args:
        archival: whether the file is to be PDF/A-2b.
    """

    def __init__(self, stream: BinaryIO, title: str, archival: bool = False) -> None:
        self._objects = ObjectStream(stream)
        self._title = _speakable(title)[:_MAX_TITLE]
        self._archival = archival
        self._codes = Codes()
        self._profiles: dict[bytes, int] = {}
        self._font, self._root = self._objects.reserve(), self._objects.reserve()
        self._branches: list[tuple[int, list[int]]] = []
        self._sheet = f"/MediaBox [0 0 {number(_A4_POINTS[0])} {number(_A4_POINTS[1])}]"

    def add(self, record: PageRecord, scan: PageScan) -> None:
        page = record.page
        scale = points_per_pixel(page, record.dpi)
        picture = picture_of(scan, page.width, page.height, cmyk=not self._archival)
        image = self._objects.write_stream(f"{picture.entries} /ColorSpace {self._space(picture)}", picture.data)
        content = _picture_layer(picture, page, scale) + text_layer(page, scale, self._codes)
        drawing = self._objects.write_deflated("", content)
        self._sheet = _sheet(page, scale)
        resources = f"<</XObject <</I {image} 0 R>> /Font <</F {self._font} 0 R>>>>"
        self._leaf(f"/Resources {resources} /Contents {drawing} 0 R")

    def _space(self, picture: Picture) -> str:
        """The picture's colour space; a profile that many pages have is written once."""
        if not picture.profile:
            return {1: "/DeviceGray", 3: "/DeviceRGB", 4: "/DeviceCMYK"}[picture.components]
        digest = hashlib.sha256(picture.profile).digest()
        if digest not in self._profiles:
            self._profiles[digest] = self._objects.write_deflated(f"/N {picture.components}", picture.profile)
        return f"[/ICCBased {self._profiles[digest]} 0 R]"

    def skip(self, number: int) -> None:
        self._leaf("/Resources <<>>")

    def _leaf(self, entries: str) -> None:
        if not self._branches or len(self._branches[-1][1]) == _PAGES_IN_BRANCH:
            self._branches.append((self._objects.reserve(), []))
        branch, leaves = self._branches[-1]
        leaves.append(self._objects.write(f"<</Type /Page /Parent {branch} 0 R {self._sheet} {entries}>>"))

    def finish(self) -> None:
        objects = self._objects
        for branch, leaves in self._branches:
            objects.write(
                f"<</Type /Pages /Parent {self._root} 0 R /Kids [{_references(leaves)}] /Count {len(leaves)}>>", branch
            )
        count = sum(len(leaves) for _, leaves in self._branches)
        branches = _references([branch for branch, _ in self._branches])
        objects.write(f"<</Type /Pages /Kids [{branches}] /Count {count}>>", self._root)
        write_font(objects, self._codes, self._font)
        metadata = objects.write_stream("/Type /Metadata /Subtype /XML", xmp(self._title, self._archival))
        intent = _write_output_intent(objects) if self._archival else ""
        catalog = objects.write(f"<</Type /Catalog /Pages {self._root} 0 R /Metadata {metadata} 0 R{intent}>>")
        objects.finish(
            catalog, objects.write(f"<</Title {text_string(self._title)} /Producer {text_string(PRODUCER)}>>")
        )


def _references(objects: list[int]) -> str:
    return " ".join(f"{n} 0 R" for n in objects)


def _sheet(page: Page, scale: float) -> str:
    """Size of the sheet, that of the picture as it is given, and the turns that show it upright."""
    width, height = (max(side * scale, _MIN_SIDE_POINTS) for side in (page.width, page.height))
    turned = f" /Rotate {90 * page.quarter_turns}" if page.quarter_turns else ""
    return f"/MediaBox [0 0 {number(width, 4)} {number(height, 4)}]{turned}"


def _picture_layer(picture: Picture, page: Page, scale: float) -> bytes:
    width, height = page.width * scale, page.height * scale
    a, b, c, d, e, f = picture.upright
    matrix = (a * width, b * height, c * width, d * height, e * width, f * height)
    return f"q {' '.join(number(value, 4) for value in matrix)} cm /I Do Q\n".encode("ascii")


def _speakable(title: str) -> str:
    """The title as PDF and XML can hold it: half a surrogate pair as `\\udcff`, other control characters left out."""
    return re.sub(r"\s", " ", xml_text(encoded(title).decode("utf-8")))


def xmp(title: str, archival: bool) -> bytes:
    """The metadata packet."""
    part = "<pdfaid:part>2</pdfaid:part><pdfaid:conformance>B</pdfaid:conformance>\n" if archival else ""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\n'
        '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"'
        ' xmlns:pdf="http://ns.adobe.com/pdf/1.3/" xmlns:pdfaid="http://www.aiim.org/pdfa/ns/id/">\n'
        "<dc:format>application/pdf</dc:format>\n"
        f'<dc:title><rdf:Alt><rdf:li xml:lang="x-default">{escape(title)}</rdf:li></rdf:Alt></dc:title>\n'
        f"<pdf:Producer>{PRODUCER}</pdf:Producer>\n{part}"
        '</rdf:Description></rdf:RDF></x:xmpmeta>\n<?xpacket end="r"?>'
    ).encode()


def _write_output_intent(objects: ObjectStream) -> str:
    """The entry of the catalog that tells what the colours mean."""
    profile = objects.write_deflated("/N 3", srgb_profile())
    return (
        " /OutputIntents [<</Type /OutputIntent /S /GTS_PDFA1 /OutputConditionIdentifier (sRGB)"
        f" /Info (sRGB IEC61966-2.1) /DestOutputProfile {profile} 0 R>>]"
    )


@cache
def srgb_profile() -> bytes:
    """An ICC profile of sRGB, version 4.2 as PDF 1.7 knows it, always the same."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[8:12] = bytes((4, 0x20, 0, 0))
    profile[24:36] = bytes((7, 208, 0, 1, 0, 1)) + bytes(6)  # the moment of its making: 2000-01-01
    profile[84:100] = bytes(16)  # its digest, which may be left out
    return bytes(profile)


PDF = Format("pdf", ".pdf", "document", PdfWriter, shows_scan=True)
PDFA = Format("pdfa", ".pdf", "document", partial(PdfWriter, archival=True), shows_scan=True)

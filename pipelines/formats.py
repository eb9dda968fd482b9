"""Page -> text, JSON lines, hOCR and a picture. Pure functions: writing the files is `transcribe`'s business."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr_model.document import Box, Line, Page, Region, Word, page_to_json
from ocr_model.overlay import draw_page


@dataclass(frozen=True)
class PageRecord:
    """A page that was read, and where it comes from.

    Attributes:
        path: the file.
        number: of the page in its file, from 1.
        dpi: of the picture that was read, if the file tells.
        reduced_by: how many times smaller than in the file that picture was.
    """

    path: str
    number: int
    page: Page
    dpi: float | None = None
    reduced_by: int = 1


def _nothing(_: int) -> str:
    return ""


@dataclass(frozen=True)
class TextFormat:
    """A format of one file a document, written page after page.

    Attributes:
        extension: of the file, with its dot.
        page: a page that was read.
        missing: what stands for page `number` where it could not be read.
        head, foot: what the file begins and ends with; the head is given the file's path.
    """

    extension: str
    page: Callable[[PageRecord], str]
    missing: Callable[[int], str] = _nothing
    head: Callable[[str], str] = lambda path: ""
    foot: str = ""


def page_break(number: int) -> str:
    """A form feed before every page but the first, so that page n stands after n - 1 of them, read or not."""
    return "\f" if number > 1 else ""


def page_as_text(record: PageRecord) -> str:
    text = record.page.text
    return page_break(record.number) + (f"{text}\n" if text else "")


def page_as_json_line(record: PageRecord) -> str:
    """One line of JSON: `page_to_json` and where the page comes from."""
    origin = {"path": record.path, "page": record.number, "dpi": record.dpi, "reduced_by": record.reduced_by}
    return json.dumps({**origin, **page_to_json(record.page)}, ensure_ascii=False, separators=(",", ":")) + "\n"


# What XML 1.0 cannot hold, however it is escaped.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _xml(text: str) -> str:
    return escape(_NOT_XML.sub("", text))


def _attribute(value: str) -> str:
    return quoteattr(_NOT_XML.sub("", value))


def hocr_head(path: str) -> str:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN"'
        ' "http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">\n'
        '<html xmlns="http://www.w3.org/1999/xhtml">\n<head>\n'
        f"<title>{_xml(path)}</title>\n"
        '<meta http-equiv="Content-Type" content="text/html; charset=utf-8" />\n'
        '<meta name="ocr-system" content="pagemill" />\n'
        '<meta name="ocr-capabilities" content="ocr_page ocr_carea ocr_line ocrx_word" />\n'
        "</head>\n<body>\n"
    )


HOCR_FOOT = "</body>\n</html>\n"


def page_as_hocr(record: PageRecord) -> str:
    """The page's `div`; boxes are pixels of the picture that was read."""
    page, number = record.page, record.number
    title = f"image {_quoted(record.path)}; bbox 0 0 {page.width} {page.height}; ppageno {number - 1}"
    if record.dpi:
        title += f"; scan_res {round(record.dpi)} {round(record.dpi)}"
    areas = [_hocr_area(region, page, f"{number}_{n}") for n, region in enumerate(page.regions, 1) if region.lines]
    return f'<div class="ocr_page" id="page_{number}" title={_attribute(title)}>\n{"".join(areas)}</div>\n'


def _quoted(path: str) -> str:
    """A string in a hOCR title: in double quotes, which the name itself cannot hold."""
    return '"' + re.sub(r"\s", " ", path.replace('"', "'")) + '"'


def _hocr_area(region: Region, page: Page, name: str) -> str:
    lines = [_hocr_line(line, page, f"{name}_{n}") for n, line in enumerate(region.lines, 1)]
    return f'<div class="ocr_carea" id="block_{name}" title="{_bbox(region.box)}">\n{"".join(lines)}</div>\n'


def _hocr_line(line: Line, page: Page, name: str) -> str:
    title = f"{_bbox(line.box)}; {_hocr_baseline(line)}"
    if page.quarter_turns:
        title += f"; textangle {90 * page.quarter_turns}"
    words = " ".join(_hocr_word(word, f"{name}_{n}") for n, word in enumerate(line.words, 1))
    return f'<span class="ocr_line" id="line_{name}" title="{title}">{words}</span><br />\n'


def _hocr_baseline(line: Line) -> str:
    """Slope and offset from the lower left corner of the line's box, as hOCR counts them (y down)."""
    (x0, y0), (x1, y1) = line.baseline[0], line.baseline[-1]
    slope = (y1 - y0) / (x1 - x0) if x1 > x0 and abs(y1 - y0) < x1 - x0 else 0.0
    offset = y0 + slope * (line.box.left - x0) - line.box.bottom
    return f"baseline {slope:.3f} {round(offset)}"


def _hocr_word(word: Word, name: str) -> str:
    certainty = math.floor(100 * word.confidence)
    title = f"{_bbox(word.box)}; x_wconf {certainty}"
    return f'<span class="ocrx_word" id="word_{name}" title="{title}">{_xml(word.text)}</span>'


def _bbox(box: Box) -> str:
    return f"bbox {box.left} {box.top} {box.right} {box.bottom}"


def page_as_picture(image: NDArray[np.uint8], page: Page) -> bytes:
    """`draw_page` as a JPEG file."""
    done, data = cv2.imencode(".jpg", draw_page(image, page)[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    if not done:
        raise ValueError(f"a picture of {page.width} x {page.height} pixels cannot be encoded")
    return data.tobytes()


TEXT_FORMATS: dict[str, TextFormat] = {
    "txt": TextFormat(".txt", page_as_text, missing=page_break),
    "jsonl": TextFormat(".jsonl", page_as_json_line),
    "hocr": TextFormat(".hocr", page_as_hocr, head=hocr_head, foot=HOCR_FOOT),
}
OVERLAY = "overlay"
FORMATS = (*TEXT_FORMATS, OVERLAY)


def overlay_name(stem: str, number: int, page_count: int) -> str:
    """Where the picture of a page goes.

    >>> overlay_name("a/scan", 1, 1), overlay_name("a/book", 7, 300)
    ('a/scan.jpg', 'a/book.page-0007.jpg')
    """
    return f"{stem}.jpg" if page_count == 1 else f"{stem}.page-{number:04}.jpg"

"""The text of a page as PDF draws it unseen, and the font that it is set in.

The font has no shapes: every character is an empty box half an em wide, stretched until its word is as wide as on the
scan. What it stands for is told by a table from codes to Unicode, so that any script can be laid under a scan. The
codes are given out as the characters come, and the font is written when all of them are known.
"""

from __future__ import annotations

import math
import struct
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ocr_model.document import Line, Page, Point, Word
from pipelines.formats.pdf_objects import ObjectStream, number

EM = 1000
ADVANCE = 500  # of every character
ASCENT, DESCENT = 1000, -250  # of the font: its size is the height of a line above its baseline

_MAX_STAIRS = math.sin(math.radians(2))
_MIN_GAP = 0.2  # between words, in heights of the line above its baseline
_MAX_CODE = 65_535
_CODES_IN_STRING = 8_000  # a string of PDF/A has at most 32,767 bytes
_CODES_IN_BLOCK = 100  # a block of a CMap has at most that many


class Codes:
    """The codes of the characters of a document, two bytes each, from 1 in the order in which they come."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {"\ufffd": 1}

    def __len__(self) -> int:
        return len(self._codes)

    def __iter__(self) -> Iterator[tuple[int, str]]:
        return ((code, character) for character, code in self._codes.items())

    def code(self, character: str) -> int:
        """Its code. U+FFFD stands for what no text holds: controls, halves of surrogate pairs, and noncharacters.

        So it does for new characters from the 65,536th on.
        """
        known = self._codes.get(character)
        if known is None:
            if _is_no_text(character) or len(self._codes) == _MAX_CODE:
                return 1
            known = self._codes[character] = len(self._codes) + 1
        return known

    def strings(self, text: str) -> str:
        """The operand of PDF's `Tj` or, for very long texts, of several of them."""
        codes = [self.code(character) for character in text]
        parts = (codes[n : n + _CODES_IN_STRING] for n in range(0, len(codes), _CODES_IN_STRING))
        return " ".join("<" + "".join(f"{code:04x}" for code in part) + "> Tj" for part in parts)


def _is_no_text(character: str) -> bool:
    """Whether it is a control, half a surrogate pair or a noncharacter.

    >>> [_is_no_text(c) for c in "a\\x07\\udc80\\ufffe"]
    [False, True, True, True]
    """
    is_nothing = ord(character) & 0xFFFE == 0xFFFE or character == "\ufeff"
    return is_nothing or unicodedata.category(character) in ("Cc", "Cs")


@dataclass(frozen=True)
class _Course:
    """How a line runs over the image: the coordinates of its direction (x along it, y across it, downwards).

    Attributes:
        along, across: unit vector of the direction, in pixels of the image.
        above, below: of the baseline to the ends of the line's outline, at least a pixel together.
        baseline: x, ascending, and y of its points.
    """

    along: float
    across: float
    above: float
    below: float
    baseline: tuple[tuple[float, ...], tuple[float, ...]]

    def back(self, x: float, y: float) -> Point:
        """A point in the line's coordinates as one of the image."""
        return x * self.along - y * self.across, x * self.across + y * self.along

    def baseline_at(self, x: float) -> float:
        return float(np.interp(x, *self.baseline))

    def begin_of(self, line: Line) -> float:
        """Where another line begins, along this one."""
        course = _course(line)
        begin, _ = course.span(line.words[0])
        return _turned(course.back(begin, course.baseline_at(begin)), (self.along, self.across))[0]

    def span(self, word: Word) -> tuple[float, float]:
        """Where the word begins, and its length: that of the slanting strip around which its box stands."""
        cosine, sine = abs(self.along), abs(self.across)
        side = word.box.width if cosine >= sine else word.box.height
        more, less = max(cosine, sine), min(cosine, sine)
        length = max((side - less * (self.above + self.below)) / more, side / more / 2, 0.01)
        middle = (word.box.left + word.box.right) / 2, (word.box.top + word.box.bottom) / 2
        centre, _ = _turned(middle, (self.along, self.across))
        return centre - length / 2, length


def _course(line: Line) -> _Course:
    direction = _direction(line)
    level = sum(_turned(point, direction)[1] for point in line.baseline) / len(line.baseline)
    offsets = [_turned(point, direction)[1] for point in line.polygon]
    height = max(max(offsets) - min(offsets), 1.0)
    above = min(max(level - min(offsets), height / 2), height)  # a baseline outside its outline is none
    straightened = _straightened(direction)
    x, y = zip(*sorted(_turned(point, straightened) for point in line.baseline), strict=True)
    return _Course(*straightened, above, height - above, (x, y))


def _direction(line: Line) -> Point:
    """The unit vector from the line's begin to its end."""
    (x0, y0), (x1, y1) = line.baseline[0], line.baseline[-1]
    length = math.hypot(x1 - x0, y1 - y0)
    return ((x1 - x0) / length, (y1 - y0) / length) if length > 0 else (1.0, 0.0)


def _straightened(direction: Point) -> Point:
    """The direction along the image if it is nearly that; the line's words go up or down like stairs then.

    PDF.js takes each word of slanting text for a line of its own, if it is stretched otherwise than the one before.

    >>> _straightened((0.0, -1.0)), _straightened((0.9998, 0.02)), _straightened((0.8, 0.6))
    ((0.0, -1.0), (1.0, 0.0), (0.8, 0.6))
    """
    along, across = direction
    return (float(round(along)), float(round(across))) if min(abs(along), abs(across)) < _MAX_STAIRS else direction


def _turned(point: Point, direction: Point) -> Point:
    """A point of the image in the coordinates of a direction."""
    (x, y), (along, across) = point, direction
    return x * along + y * across, y * along - x * across


def text_layer(page: Page, points_per_pixel: float, codes: Codes) -> bytes:
    """The operators that write the page's text, invisible, on a PDF page of its size; empty where there is none.

    Each word begins and ends with its box and stands on its line's baseline. A space follows it, unless it ends a line,
    or a table's row.
    """
    rows = [[line for line in row if line.words] for region in page.regions for row in region.rows()]
    pairs = [pair for row in rows for pair in zip(row, [*row[1:], None], strict=True)]
    lines = [_line(line, after, page.height, points_per_pixel, codes) for line, after in pairs]
    return f"BT 3 Tr\n{''.join(lines)}ET\n".encode("ascii") if lines else b""


def _line(line: Line, after: Line | None, page_height_px: int, scale: float, codes: Codes) -> str:
    """The operators of a line: where it begins, then each word with the space after it.

    Args:
        after: the cell beside it in a table's row, if there is one.

    Word and space are drawn by one operator: PDFium parts what stands alone in one.
    """
    course = _course(line)
    size = max(course.above * scale, 0.01)
    spans = [course.span(word) for word in line.words]
    end = [] if after is None else [(course.begin_of(after), 0.0)]
    spans = _parted([*spans, *end], _MIN_GAP * course.above)[: len(spans)]
    origin_x, origin_y = spans[0][0], course.baseline_at(spans[0][0])
    x, y = course.back(origin_x, origin_y)
    along, across = number(course.along, 5), number(course.across, 5)
    place = f"{number(x * scale)} {number((page_height_px - y) * scale)}"
    parts = [f"/F {number(size)} Tf {along} {number(-course.across, 5)} {across} {along} {place} Tm"]
    last_x, last_y = 0.0, 0.0
    for n, (word, (begin, length)) in enumerate(zip(line.words, spans, strict=True), 1):
        word_x = round((begin - origin_x) * scale, 2)
        word_y = round((origin_y - course.baseline_at(begin + length / 2)) * scale, 2)
        if (word_x, word_y) != (last_x, last_y):
            parts.append(f"{number(word_x - last_x)} {number(word_y - last_y)} Td")
        last_x, last_y = word_x, word_y
        text = word.text if after is None and n == len(spans) else f"{word.text} "
        parts.append(f"{_stretch(length * scale, size, len(word.text))} Tz {codes.strings(text)}")
    return " ".join(parts) + "\n"


def _parted(spans: Sequence[tuple[float, float]], gap: float) -> list[tuple[float, float]]:
    """Begins and lengths of words, those shortened that come too close to the next one to be told from it.

    >>> _parted([(0, 50), (50, 20), (90, 10)], gap=3)
    [(0, 47), (50, 20), (90, 10)]
    """
    begins = [begin for begin, _ in spans[1:]]
    shortened = [
        (begin, max(min(length, after - gap - begin), length / 2))
        for (begin, length), after in zip(spans, begins, strict=False)
    ]
    return [*shortened, *spans[-1:]]


def _stretch(width: float, size: float, characters: int) -> str:
    """Per cent by which so many characters are to be widened to fill the width."""
    return number(max(100 * width / (characters * size * ADVANCE / EM), 0.01))


def write_font(objects: ObjectStream, codes: Codes, font_number: int) -> None:
    """Writes the font with all codes that were given out."""
    program = glyphless_font()
    data = objects.write_deflated(f"/Length1 {len(program)}", program)
    descriptor = objects.write(
        f"<</Type /FontDescriptor /FontName /Glyphless /Flags 5 /FontBBox [0 {DESCENT} {ADVANCE} {ASCENT}]"
        f" /ItalicAngle 0 /Ascent {ASCENT} /Descent {DESCENT} /CapHeight {ASCENT} /StemV 80 /FontFile2 {data} 0 R>>"
    )
    glyphs = objects.write_deflated("", b"\0\0" + b"\0\1" * len(codes))  # every code is the one empty glyph
    descendant = objects.write(
        "<</Type /Font /Subtype /CIDFontType2 /BaseFont /Glyphless"
        " /CIDSystemInfo <</Registry (Adobe) /Ordering (Identity) /Supplement 0>>"
        f" /FontDescriptor {descriptor} 0 R /DW {ADVANCE} /CIDToGIDMap {glyphs} 0 R>>"
    )
    unicode = objects.write_deflated("", to_unicode(codes).encode("ascii"))
    objects.write(
        "<</Type /Font /Subtype /Type0 /BaseFont /Glyphless /Encoding /Identity-H"
        f" /DescendantFonts [{descendant} 0 R] /ToUnicode {unicode} 0 R>>",
        font_number,
    )


def to_unicode(codes: Codes) -> str:
    """The CMap from codes to UTF-16."""
    rows = [f"<{code:04x}> <{character.encode('utf-16-be').hex()}>" for code, character in codes]
    blocks = [rows[n : n + _CODES_IN_BLOCK] for n in range(0, len(rows), _CODES_IN_BLOCK)]
    body = "".join(f"{len(block)} beginbfchar\n" + "\n".join(block) + "\nendbfchar\n" for block in blocks)
    return (
        "/CIDInit /ProcSet findresource begin\n12 dict begin\nbegincmap\n"
        "/CIDSystemInfo <</Registry (Adobe) /Ordering (UCS) /Supplement 0>> def\n"
        "/CMapName /Adobe-Identity-UCS def\n/CMapType 2 def\n"
        f"1 begincodespacerange\n<0000> <ffff>\nendcodespacerange\n{body}"
        "endcmap\nCMapName currentdict /CMap defineresource pop\nend\nend\n"
    )


def glyphless_font() -> bytes:
    """A TrueType font of two empty glyphs, with the tables that PDF wants of an embedded one."""
    # Two contours of a point each, the corners of the box. They draw nothing, but PDFium drops what has no extent, and
    # viewers mark by it what is selected.
    box = struct.pack(
        ">hhhhhHHHBBhhhh", 2, 0, DESCENT, ADVANCE, ASCENT, 0, 1, 0, 1, 1, 0, ADVANCE, DESCENT, EM - DESCENT
    )
    head = struct.pack(
        ">IIIIHHqqhhhhHHhhh", 0x10000, 0x10000, 0, 0x5F0F3CF5, 0, EM, 0, 0, 0, DESCENT, ADVANCE, ASCENT, 0, 8, 2, 0, 0
    )
    hhea = struct.pack(">IhhhHhhhhhhhhhhhH", 0x10000, ASCENT, DESCENT, 0, ADVANCE, 0, 0, 0, 1, *[0] * 7, 2)
    tables = {
        b"glyf": box,
        b"head": head,
        b"hhea": hhea,
        b"hmtx": struct.pack(">HhHh", ADVANCE, 0, ADVANCE, 0),
        b"loca": struct.pack(">HHH", 0, 0, len(box) // 2),
        b"maxp": struct.pack(">IH13H", 0x10000, 2, 2, 2, 0, 0, 1, *[0] * 8),
    }
    font = _packed(tables)
    at = font.index(head) + 8  # the adjustment, which makes the sum of the whole font a fixed one
    return font[:at] + struct.pack(">I", (0xB1B0AFBA - _checksum(font)) & 0xFFFFFFFF) + font[at + 4 :]


def _packed(tables: dict[bytes, bytes]) -> bytes:
    """The tables behind a directory of them, in the order given, which is that of their tags."""
    power = len(tables).bit_length() - 1
    directory = struct.pack(">IHHHH", 0x10000, len(tables), 16 << power, power, 16 * len(tables) - (16 << power))
    place, body = 12 + 16 * len(tables), b""
    for tag, table in tables.items():
        directory += struct.pack(">4sIII", tag, _checksum(table), place + len(body), len(table))
        body += table + bytes(-len(table) % 4)
    return directory + body


def _checksum(table: bytes) -> int:
    padded = table + bytes(-len(table) % 4)
    return sum(struct.unpack(f">{len(padded) // 4}I", padded)) & 0xFFFFFFFF

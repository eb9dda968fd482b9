"""Synthetic pages with the exact place of every line: what the line finder learns layout from.

`draw_page` decides everything (a `PagePlan` is plain data), `render` carries it out: the same plan gives the same
pixels. NumPy, OpenCV and Pillow only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Protocol

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ocr_model.document import Point
from trainer.synthesis.fonts import FontFace, coverage, load

ENGLISH_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip


class Texts(Protocol):
    """Where the words come from; `trainer.synthesis.text.TextSource` is one."""

    def paragraph(self, rng: np.random.Generator) -> str: ...


@dataclass(frozen=True)
class TrueLine:
    """Where a line of text is.

    Attributes:
        baseline: at least two points from left to right, px.
        x_height, ascender, descender: px; the last two are what the glyphs reach above and below the baseline, at
            least what the font's own ascenders and descenders reach, so they do not depend on the letters that happen
            to stand in the line.
    """

    baseline: tuple[Point, ...]
    x_height: float
    ascender: float
    descender: float

    def moved(self, matrix: np.ndarray) -> TrueLine:
        """The line after a similarity transform, [2, 3] float."""
        points = np.asarray(self.baseline) @ matrix[:, :2].T + matrix[:, 2]
        scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
        heights = (self.x_height * scale, self.ascender * scale, self.descender * scale)
        return TrueLine(tuple((float(x), float(y)) for x, y in points), *heights)


# --- What stands on a page: plain data -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Print:
    """How text is set: face, size and distance of the baselines in px, ink 0 to 1, typist's unevenness in px."""

    face: FontFace
    size_px: int
    leading_px: float
    ink: float = 1.0
    uneven_px: float = 0.0
    tracking_px: float = 0.0


@dataclass(frozen=True)
class Text:
    """One line: its start on the baseline, the width of a gap between words.

    `paper` prints in the paper's colour on a bar, `underline` is the typist's, and `ornament` (a row of dashes or
    stars) is no line that anyone wants to read.
    """

    x: float
    y: float
    text: str
    style: Print
    gap_px: float
    seed: int
    paper: bool = False
    underline: bool = False
    ornament: bool = False


@dataclass(frozen=True)
class Bar:
    """A filled rectangle, a rule where it is thin. Ink 0 to 1."""

    left: float
    top: float
    right: float
    bottom: float
    ink: float = 1.0


@dataclass(frozen=True)
class Stroke:
    """A curve of a pen: points, thickness in px."""

    points: tuple[Point, ...]
    thickness_px: int
    ink: float


@dataclass(frozen=True)
class Picture:
    """Something in a box that is not text; `kind` is one of `PICTURES`."""

    left: int
    top: int
    right: int
    bottom: int
    kind: str
    seed: int


@dataclass(frozen=True)
class Stamp:
    """A round or square stamp with slanted letters that nobody is asked to read."""

    x: float
    y: float
    radius_px: float
    angle_deg: float
    words: str
    face: FontFace
    ink: float
    round: bool


# kind → share
PICTURES = {"photograph": 0.3, "halftone": 0.2, "drawing": 0.25, "black": 0.05, "bilevel": 0.1, "logo": 0.1}

Item = Text | Bar | Stroke | Picture | Stamp


@dataclass(frozen=True)
class Damage:
    """What happened to the sheet and in the scanner; zero is nothing.

    Attributes:
        skew_deg: turns the sheet, positive where lines fall to the right.
        bow_px: lines bend by so much in their middle; `wave_px`: and by this sine along the page.
        paper, ink: grey levels.
        texture, light, stains, bleed: strengths 0 to 1.
        borders_px: dark scanner border left, top, right, bottom.
        holes: centres and radii of punched holes, px.
        blur_px: sigma; noise: sigma in grey levels; jpeg: quality, 0 for none.
        bilevel: threshold 0 to 1 between paper and ink, 0 for grey.
        thicken: kernel in px, positive for ink spread, negative for eroded strokes.
        specks: number of dark specks; as many as a quarter of them are larger and lie along the edges.
        seed: of the noise and the texture.
    """

    skew_deg: float = 0.0
    bow_px: float = 0.0
    wave_px: float = 0.0
    paper: float = 255.0
    ink: float = 0.0
    texture: float = 0.0
    light: float = 0.0
    stains: float = 0.0
    bleed: float = 0.0
    borders_px: tuple[int, int, int, int] = (0, 0, 0, 0)
    holes: tuple[tuple[float, float, float], ...] = ()
    blur_px: float = 0.0
    noise: float = 0.0
    jpeg: int = 0
    bilevel: float = 0.0
    thicken: int = 0
    specks: int = 0
    seed: int = 0


@dataclass(frozen=True)
class PagePlan:
    """All that `render` needs."""

    kind: str
    width: int
    height: int
    items: tuple[Item, ...]
    damage: Damage


# --- Measures of a font ----------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=4096)
def _extents(face: FontFace, size_px: int) -> tuple[float, float, float]:
    """(x-height, ascender, descender) of a face in px, from its own letters."""
    font = load(face, size_px)
    x_height = -font.getbbox("x", anchor="ls")[1]
    ascender = -min(font.getbbox(c, anchor="ls")[1] for c in "bdhkl")
    descender = max(font.getbbox(c, anchor="ls")[3] for c in "gpqy")
    return float(max(x_height, 2)), float(max(ascender, 3)), float(max(descender, 1))


@functools.lru_cache(maxsize=1024)
def is_for_running_text(face: FontFace) -> bool:
    """Whether the face has the letters of a page in the proportions of text: symbols and small capitals do not."""
    x_height, ascender, descender = _extents(face, 40)
    return (
        len(coverage(face)) >= 60 and 11 < x_height < 25 and ascender > 1.15 * x_height and descender > 0.15 * x_height
    )


@functools.lru_cache(maxsize=65536)
def _word_width(face: FontFace, size_px: int, word: str, tracking_px: float) -> float:
    return float(load(face, size_px).getlength(word)) + tracking_px * len(word)


def _space(style: Print) -> float:
    return _word_width(style.face, style.size_px, " ", style.tracking_px)


def _width(style: Print, text: str) -> float:
    words = text.split(" ")
    widths = (_word_width(style.face, style.size_px, word, style.tracking_px) for word in words)
    return sum(widths) + _space(style) * (len(words) - 1)


# --- Drawing a plan --------------------------------------------------------------------------------------------------


@dataclass
class Sheet:
    """A page that is being composed: the rng, what to set it in, and the items so far."""

    rng: np.random.Generator
    fonts: dict[str, list[FontFace]]
    texts: Texts
    width: int
    height: int
    items: list[Item] = field(default_factory=list)

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def between(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def style(self, kind: str, size_px: float, leading: float = 1.3, **more: float) -> Print:
        """A face of a kind at a size, the distance of baselines as a multiple of it."""
        faces = self.fonts.get(kind) or next(iter(self.fonts.values()))
        face = faces[int(self.rng.integers(len(faces)))]
        size = max(8, round(size_px))
        return Print(face, size, size * leading, **more)

    def set(self, x: float, y: float, text: str, style: Print, gap_px: float | None = None, **more: bool) -> float:
        """Puts a line with its baseline at y; returns its right end."""
        known = coverage(style.face)
        text = " ".join("".join(c for c in text if c in known).split())
        gap = _space(style) if gap_px is None else gap_px
        words = text.split(" ")
        width = sum(_word_width(style.face, style.size_px, w, style.tracking_px) for w in words) + gap * (
            len(words) - 1
        )
        if text and -0.1 * width < x and x + width < self.width * 1.02 and 0 < y < self.height:
            self.items.append(Text(x, y, text, style, gap, int(self.rng.integers(2**31)), **more))
        return x + width

    def set_right(self, right: float, y: float, text: str, style: Print) -> None:
        self.set(right - _width(style, text), y, text, style)

    def set_centred(self, middle: float, y: float, text: str, style: Print) -> None:
        self.set(middle - _width(style, text) / 2, y, text, style)

    def words(self, low: int, high: int) -> str:
        """A few words in a row from the text source."""
        words = self.texts.paragraph(self.rng).split()
        count = int(self.rng.integers(low, high + 1))
        start = int(self.rng.integers(max(1, len(words) - count)))
        return " ".join(words[start : start + count]) or "page"

    def flow(
        self,
        left: float,
        right: float,
        top: float,
        bottom: float,
        style: Print,
        justify: bool = True,
        indent: float = 1.5,
        paragraph_gap: float = 0.0,
        paragraphs: int = 1000,
    ) -> float:
        """Running text from the first baseline at `top` down to `bottom`; returns the y of the next baseline."""
        y, space, room = top, _space(style), right - left
        for _ in range(paragraphs):
            line: list[str] = []
            used = start = indent * style.size_px
            for word in [*self.texts.paragraph(self.rng).split(), None]:
                width = 0.0 if word is None else _word_width(style.face, style.size_px, word, style.tracking_px)
                if line and (word is None or used + width > room):
                    if y > bottom:
                        return y
                    gaps = len(line) - 1
                    full = justify and word is not None and gaps > 0
                    gap = space + (room - (used - space)) / gaps if full else space
                    self.set(left + start, y, " ".join(line), style, gap)
                    y, line, used, start = y + style.leading_px, [], 0.0, 0.0
                if word is not None:
                    if width > room:
                        continue
                    line.append(word)
                    used += width + space
            y += paragraph_gap * style.leading_px
            if y > bottom:
                break
        return y

    def rule(self, left: float, top: float, right: float, bottom: float, thickness: float = 1.0) -> None:
        """A horizontal or vertical rule; the other extent is the thickness."""
        ink = self.between(0.5, 1.0)
        if right - left > bottom - top:
            self.items.append(Bar(left, top, right, top + thickness, ink))
        else:
            self.items.append(Bar(left, top, left + thickness, bottom, ink))

    def picture(self, left: float, top: float, right: float, bottom: float, kind: str | None = None) -> None:
        kind = kind or str(self.rng.choice(list(PICTURES), p=list(PICTURES.values())))
        self.items.append(Picture(int(left), int(top), int(right), int(bottom), kind, int(self.rng.integers(2**31))))

    def scribble(self, x: float, y: float, length: float, height: float) -> None:
        """A signature or a note by hand."""
        if length < 4 or height < 1:
            return
        count = int(self.rng.integers(6, 24))
        t = np.linspace(0, 1, count)
        xs = x + t * length + self.rng.normal(0, length / count, count)
        ys = y + self.rng.normal(0, height / 2, count) + self.between(-0.3, 0.1) * length * t
        points = _smooth(np.stack([xs, ys], axis=1))
        self.items.append(Stroke(points, int(self.rng.integers(1, 4)), self.between(0.4, 1.0)))

    def amount(self) -> str:
        """A sum of money or a count, as tables and receipts have them."""
        value = 10 ** self.between(-0.5, 4.5)
        pattern = str(
            self.rng.choice(["{:.2f}", "{:,.2f}", "{:.0f}", "{:,.0f}", "${:.2f}", "({:,.1f})", "{:.1f}%", "£{:.2f}"])
        )
        return pattern.format(value)

    def number(self) -> str:
        """A page, file or telephone number."""
        a, b, c = (int(v) for v in self.rng.integers([1, 10, 1000], [400, 1000, 99999]))
        patterns = [
            "{0}",
            "- {0} -",
            "-{0}-",
            "No. {2}",
            "{1}-{2}",
            "{0}/{1}/{2}",
            "({0})",
            "{0}.",
            "{2}",
            "[{0}]",
            "{0}:{1}",
        ]
        return str(self.rng.choice(patterns)).format(a, b, c)

    def folio(self) -> str:
        """A page number, as short as they come."""
        number = int(10 ** self.between(0, 2.6))
        pattern = str(
            self.rng.choice(
                ["{}", "{}", "{}.", "-{}-", "-{}-", "- {} -", "- {} -", "({})", "[{}]", "Page {}", "/{}", "{}a"]
            )
        )
        return pattern.format(number)

    def sign(self) -> str:
        """A letter, a digit or two that stand alone: a quantity, a mark, a line number."""
        if self.chance(0.7):
            return str(int(10 ** self.between(0, 1.5)))
        return str(self.rng.choice(list("ABCDEFGHKLMNPQRSTVXZabcx*#")))

    def date(self) -> str:
        month = str(self.rng.choice(ENGLISH_MONTHS))
        day, year = int(self.rng.integers(1, 29)), int(self.rng.integers(1880, 2020))
        form = str(self.rng.choice(["{1} {0}, {2}", "{0}. {1} {2}", "{0} {1} {2}", "{1} {0}, {2}.", "{0}/{3}/{2}"]))
        return form.format(day, month, year, int(self.rng.integers(1, 13)))


def _smooth(points: np.ndarray) -> tuple[Point, ...]:
    """Catmull-Rom through the points, [N, 2] → about 8 points for each stretch."""
    p = np.concatenate([points[:1], points, points[-1:]])
    t = np.linspace(0, 1, 8, endpoint=False)[:, None]
    pieces = []
    for a, b, c, d in zip(p, p[1:], p[2:], p[3:], strict=False):
        pieces.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3))
    return tuple((float(x), float(y)) for x, y in np.concatenate(pieces))


def _book(s: Sheet) -> None:
    """Running head, text in one column, perhaps a chapter heading, footnotes, a picture, marginalia, a drop cap."""
    left, right = s.width * s.between(0.04, 0.16), s.width * s.between(0.84, 0.96)
    top, bottom = s.height * s.between(0.05, 0.12), s.height * s.between(0.84, 0.95)
    lines = s.between(22, 55)
    leading = (bottom - top) / lines
    body = s.style("book", leading / s.between(1.05, 1.6))
    body = Print(body.face, body.size_px, leading)
    notes = s.chance(0.25)
    margin = s.chance(0.12)
    if margin:
        right -= s.width * 0.14
    head = Print(body.face, max(8, round(body.size_px * s.between(0.7, 1.0))), leading)
    title = s.words(2, 5).upper() if s.chance(0.7) else s.words(2, 5)
    if s.chance(0.8):
        s.set_centred((left + right) / 2, top, title, head)
        if s.chance(0.8):
            folio = str(int(s.rng.integers(1, 600)))
            s.set(left, top, folio, head) if s.chance(0.5) else s.set_right(right, top, folio, head)
        if s.chance(0.2):
            s.rule(left, top + leading * 0.4, right, top + leading * 0.4, s.between(1, 3))
        top += leading * s.between(1.3, 2.5)
    if s.chance(0.25):
        large = s.style("book", body.size_px * s.between(1.1, 2.5))
        top += large.leading_px * s.between(0.5, 4)
        for _ in range(int(s.rng.integers(1, 4))):
            text = s.words(1, 5)
            s.set_centred((left + right) / 2, top, text.upper() if s.chance(0.6) else text, large)
            top += large.leading_px * s.between(1.0, 1.8)
        if s.chance(0.3):
            s.rule((left * 2 + right) / 3, top, (left + right * 2) / 3, top)
        top += leading
    if notes:
        small = Print(body.face, max(8, round(body.size_px * 0.75)), leading * 0.8)
        first = bottom - s.between(2, 8) * small.leading_px
        if s.chance(0.6):
            s.rule(left, first - small.leading_px * 1.2, left + (right - left) * s.between(0.2, 1), first)
        s.flow(left, right, first, bottom, small)
        bottom = first - leading * 1.8
    y = top
    if s.chance(0.08):
        cap = s.style("book", leading * 2.4)
        width = s.set(left, y + leading, s.words(1, 1)[:1].upper(), cap) - left + cap.size_px * 0.15
        first = s.flow(left + width, right, y, y + leading * 1.1, body, indent=0)
        y = max(first, y + 2 * leading)
    while y < bottom:
        if s.chance(0.12) and bottom - y > leading * 8:
            height = leading * s.between(4, 12)
            edge = (right - left) * s.between(0, 0.25)
            s.picture(left + edge, y - leading * 0.5, right - edge, min(y + height, bottom))
            y += height + leading * 1.2
            if s.chance(0.7):
                s.set_centred((left + right) / 2, y, s.words(3, 9), head)
                y += leading * 1.5
        elif s.chance(0.1):
            y = _verse(s, left + (right - left) * s.between(0.1, 0.3), y, bottom, body)
        else:
            y = s.flow(left, right, y, bottom, body, s.chance(0.9), s.between(0, 2.5), 0.0, int(s.rng.integers(1, 6)))
            if s.chance(0.1):
                y += leading * s.between(0.3, 1.5)
    if margin:
        note = s.style("book", max(8, body.size_px * 0.7))
        y = top + leading * s.between(0, 5)
        while y < bottom:
            y = s.flow(right + body.size_px, s.width * 0.98, y, y + 3 * note.leading_px, note, False, 0)
            y += leading * s.between(2, 12)
    if s.chance(0.2):
        s.set_centred((left + right) / 2, min(bottom + 2 * leading, s.height * 0.98), s.number(), head)


def _verse(s: Sheet, left: float, y: float, bottom: float, style: Print) -> float:
    for _ in range(int(s.rng.integers(3, 12))):
        if y > bottom:
            break
        s.set(left + s.between(0, 3) * style.size_px, y, s.words(3, 7), style)
        y += style.leading_px
    return y + style.leading_px * 0.5


def _typed(s: Sheet, lines: float) -> Print:
    pitch = s.height * 0.9 / lines
    ink = s.between(0.35, 1.0)
    uneven = s.between(0, 0.06) * pitch if s.chance(0.7) else 0.0
    style = s.style("typewriter", pitch / s.between(1.0, 2.1))
    return Print(style.face, style.size_px, pitch, ink, uneven)


def _typescript(s: Sheet) -> None:
    """A typed page: number at the top, paragraphs, underlined headings, notes by hand."""
    style = _typed(s, s.between(24, 68))
    left, right = s.width * s.between(0.06, 0.2), s.width * s.between(0.85, 0.97)
    y, bottom = s.height * s.between(0.04, 0.15), s.height * s.between(0.6, 0.97)
    if s.chance(0.6):
        s.set_centred(s.width * s.between(0.45, 0.55), y, s.folio() if s.chance(0.8) else s.number(), style)
        y += style.leading_px * s.between(1.2, 3)
    for _ in range(int(s.rng.integers(0, 4))):
        text = s.words(1, 7)
        spaced = Print(
            style.face, style.size_px, style.leading_px, style.ink, style.uneven_px, style.size_px * 0.6 * s.chance(0.2)
        )
        x = s.between(left, left + (right - left) * 0.4)
        s.set(x, y, text.upper() if s.chance(0.4) else text, spaced, underline=s.chance(0.5))
        y += style.leading_px * s.between(1, 2.2)
    while y < bottom:
        gap = float(s.rng.choice([0.0, 0.0, 0.5, 1.0]))
        inset = float(s.rng.choice([0.0, 0.0, 0.0, 0.08])) * (right - left)
        y = s.flow(left + inset, right, y, bottom, style, False, s.between(0, 5), gap, int(s.rng.integers(1, 5)))
        if s.chance(0.25) and y < bottom:
            s.set(left, y, s.words(1, 6), style, underline=s.chance(0.6))
            y += style.leading_px * s.between(1, 2)
        if s.chance(0.15) and y < bottom - 6 * style.leading_px:
            y = _grid(s, left, right, y, style, int(s.rng.integers(2, 5)), int(s.rng.integers(3, 9)), s.chance(0.15))
    if s.chance(0.3):
        s.set(s.between(left, s.width * 0.7), min(y + 2 * style.leading_px, s.height * 0.98), s.words(1, 3), style)
    for _ in range(int(s.rng.integers(0, 3)) if s.chance(0.3) else 0):
        s.scribble(
            s.between(0, s.width * 0.8), s.between(0, s.height), s.between(0.03, 0.25) * s.width, s.height * 0.02
        )


def _letter(s: Sheet) -> None:
    """Letterhead, date at the right, address, salutation, body, close, signature by hand."""
    kind = str(s.rng.choice(["typewriter", "typewriter", "modern", "book"]))
    style = _typed(s, s.between(28, 55))
    if kind != "typewriter":
        style = s.style(kind, style.leading_px / 1.3)
    left, right = s.width * s.between(0.08, 0.17), s.width * s.between(0.83, 0.93)
    y, step = s.height * s.between(0.04, 0.1), style.leading_px
    if s.chance(0.7):
        head = s.style(str(s.rng.choice(["book", "modern"])), style.size_px * s.between(0.7, 2.2))
        middle = s.width * float(s.rng.choice([0.2, 0.5, 0.5, 0.75]))
        for _ in range(int(s.rng.integers(1, 5))):
            text = s.words(1, 5)
            s.set_centred(middle, y, text.upper() if s.chance(0.6) else text, head)
            y += head.leading_px * s.between(0.9, 1.3)
            head = Print(head.face, max(8, round(head.size_px * s.between(0.6, 1))), head.leading_px)
        y += step * s.between(0.5, 2)
    if s.chance(0.8):
        s.set_right(right - s.between(0, 0.2) * s.width, y, f"{s.words(1, 2)}, {s.date()}", style)
        y += step * float(s.rng.choice([0, 1, 2]))
    ladder = s.between(0.5, 5) * style.size_px if s.chance(0.3) else 0.0
    for i in range(int(s.rng.integers(1, 6))):
        s.set(left + i * ladder, y, s.words(1, 4), style)
        y += step
    y += step * s.between(0.5, 1.5)
    s.set(left, y, f"Dear {s.words(1, 2)}:", style)
    bottom = s.height * s.between(0.55, 0.8)
    y = s.flow(
        left, right, y + step * s.between(1, 2), bottom, style, s.chance(0.3), s.between(0, 5), s.between(0, 1), 4
    )
    x = s.between(left, s.width * 0.6)
    for _ in range(int(s.rng.integers(1, 4))):
        s.set(x, y, s.words(1, 3), style)
        y += step * s.between(1, 2)
        x += ladder
    if s.chance(0.7):
        s.scribble(x, y + step, s.between(0.15, 0.35) * s.width, step * s.between(1, 2.5))
        s.set(x, y + step * s.between(1.5, 3.5), s.words(1, 3), style)
    if s.chance(0.4):
        for i in range(int(s.rng.integers(1, 4))):
            s.set(left, y + step * (4 + i), s.number(), style)


def _newspaper(s: Sheet) -> None:
    """Columns of small print with thin rules or narrow gutters, headlines over one or all columns."""
    columns = int(s.rng.choice([1, 2, 3, 4, 5], p=[0.15, 0.3, 0.3, 0.15, 0.1]))
    _columns(s, "book", columns, s.between(30, 80), s.chance(0.5), s.between(0.012, 0.03), headlines=0.3)


def _report(s: Sheet) -> None:
    """Modern print in one to three columns with headings, bars with white text, a table or a chart."""
    kind = str(s.rng.choice(["modern", "modern", "book"]))
    columns = int(s.rng.choice([1, 2, 3], p=[0.25, 0.5, 0.25]))
    _columns(s, kind, columns, s.between(35, 95), s.chance(0.15), s.between(0.015, 0.05), headlines=0.5)


def _columns(s: Sheet, kind: str, columns: int, lines: float, rules: bool, gutter: float, headlines: float) -> None:
    clipping = s.chance(0.2)
    margin = 0.005 if clipping else s.between(0.03, 0.09)
    left, right = s.width * margin, s.width * (1 - margin)
    y, bottom = (
        s.height * (0.03 if clipping else s.between(0.04, 0.1)),
        s.height * (0.995 if clipping else s.between(0.88, 0.97)),
    )
    leading = (bottom - y) / (s.between(10, 30) if clipping else lines)
    leading = min(leading, (right - left) / columns / 9)
    body = s.style(kind, leading / s.between(1.05, 1.45))
    body = Print(body.face, body.size_px, leading, s.between(0.6, 1.0))
    gutter_px = max(s.width * gutter, body.size_px * s.between(0.7, 2))
    if not clipping and s.chance(0.8):
        for _ in range(int(s.rng.integers(1, 4))):
            head = s.style(str(s.rng.choice(["book", "modern"])), body.size_px * s.between(0.9, 3.5))
            text = _shortened(s.words(2, 9), head, right - left)
            if s.chance(0.2):
                s.items.append(Bar(left, y - head.size_px * 0.4, right, y + head.leading_px, s.between(0.6, 1.0)))
                s.set(left + head.size_px * 0.4, y + head.size_px * 0.6, text, head, paper=True)
                y += head.leading_px * 1.4
            else:
                y += head.leading_px * 0.5
                s.set(left, y, text, head) if s.chance(0.5) else s.set_centred((left + right) / 2, y, text, head)
                y += head.leading_px * s.between(0.6, 1)
        if s.chance(0.3):
            s.rule(left, y - leading * 0.3, right, y, s.between(1, 4))
        y += leading
    shares = s.rng.dirichlet(np.full(columns, 30.0 if s.chance(0.7) else 4.0)) if columns > 1 else np.ones(1)
    shares = np.maximum(shares, 0.6 / columns)
    widths = (right - left - gutter_px * (columns - 1)) * shares / shares.sum()
    x = left
    for i, width in enumerate(widths):
        if i and rules:
            s.rule(x - gutter_px / 2, y - leading, x - gutter_px / 2, bottom, s.between(1, 2))
        _column(
            s,
            x,
            x + width,
            y + leading * s.between(0, 1) * s.chance(0.3),
            bottom * s.between(0.8, 1) ** s.chance(0.4),
            body,
            kind,
            headlines,
        )
        x += width + gutter_px
    if s.chance(0.5) and not clipping:
        foot = Print(body.face, max(8, round(body.size_px * 0.8)), leading)
        where = min(bottom + 2 * leading, s.height * 0.985)
        s.set(left, where, s.words(2, 6), foot) if s.chance(0.5) else s.set_centred(
            s.width / 2, where, s.number(), foot
        )


def _shortened(text: str, style: Print, room: float) -> str:
    words = text.split()
    while len(words) > 1 and _width(style, " ".join(words)) > room:
        words.pop()
    return " ".join(words)


def _column(
    s: Sheet, left: float, right: float, y: float, bottom: float, body: Print, kind: str, headlines: float
) -> None:
    step, justify = body.leading_px, s.chance(0.7)
    indent = s.between(0, 1.5)
    while y < bottom - step:
        if s.chance(headlines * 0.4):
            head = s.style(str(s.rng.choice([kind, "modern"])), body.size_px * s.between(1.0, 2.0))
            y += step * s.between(0.3, 1)
            for _ in range(int(s.rng.integers(1, 4))):
                text = _shortened(s.words(1, 6), head, right - left)
                y += head.leading_px * 0.5
                if y < bottom:
                    s.set_centred((left + right) / 2, y, text, head) if s.chance(0.4) else s.set(left, y, text, head)
                y += head.leading_px * 0.5
            y += step * s.between(0.2, 0.8)
        elif s.chance(0.06) and bottom - y > 8 * step:
            height = step * s.between(4, 14)
            s.picture(left, y - step * 0.4, right, min(y + height, bottom))
            y += height + step * 1.5
        elif s.chance(0.06) and bottom - y > 8 * step and right - left > 14 * body.size_px:
            y = _grid(
                s,
                left,
                right,
                y + step * 0.5,
                body,
                int(s.rng.integers(2, 5)),
                int(s.rng.integers(3, 10)),
                s.chance(0.4),
            )
            y += step
        else:
            gap = s.between(0.2, 1.0) if s.chance(0.3) else 0.0
            y = s.flow(left, right, y, bottom, body, justify, indent, gap, int(s.rng.integers(1, 4)))
            if s.chance(0.1) and y < bottom:
                s.rule(left + (right - left) * 0.3, y, right - (right - left) * 0.3, y)
                y += step


def _grid(s: Sheet, left: float, right: float, y: float, style: Print, columns: int, rows: int, ruled: bool) -> float:
    """A table: words in the first column, figures in the others."""
    step = style.leading_px * s.between(1.0, 1.5)
    edges = (
        np.concatenate([[0.0], np.sort(s.rng.uniform(0.35, 0.85, columns - 2)), [1.0]])
        if columns > 2
        else np.array([0.0, 1.0])
    )
    edges = np.concatenate([[0.0], np.linspace(0.45, 1.0, columns)]) if np.min(np.diff(edges)) < 0.15 else edges
    xs = left + (right - left) * edges
    wordy = s.chance(0.25)
    top = y - step * 0.75
    first = y
    for row in range(rows):
        if y > s.height * 0.97:
            break
        for i, (a, b) in enumerate(pairwise(xs)):
            room = b - a - style.size_px * 1.2
            if s.chance(0.08) or room < style.size_px:
                continue
            if i > 0 and s.chance(0.12):
                text = s.sign()
            elif i == 0 or row == 0 or (wordy and s.chance(0.7)):
                text = _shortened(s.words(1, 5), style, room)
            else:
                text = s.amount() if s.chance(0.8) else s.number()
            if _width(style, text) < room:
                s.set(a + style.size_px * 0.5, y, text, style) if i == 0 or wordy else s.set_right(
                    b - style.size_px * 0.4, y, text, style
                )
        if ruled or (row == 0 and s.chance(0.5)):
            s.rule(left, y + step * 0.32, right, y + step * 0.32, s.between(1, 2))
        y += step
    if ruled and s.chance(0.7):
        s.rule(left, top, right, top)
        for x in xs:
            s.rule(x, top, x, top + (y - first), s.between(1, 2))
    return y + step * 0.5


def _table(s: Sheet) -> None:
    """A page that is mostly a table or a form, perhaps with a heading."""
    kind = str(s.rng.choice(["modern", "typewriter", "book"]))
    rows = s.between(20, 75)
    leading = s.height * 0.9 / rows
    style = s.style(kind, leading / s.between(1.1, 1.7))
    style = Print(style.face, style.size_px, leading, s.between(0.5, 1.0))
    left, right = s.width * s.between(0.03, 0.1), s.width * s.between(0.9, 0.97)
    y = s.height * s.between(0.04, 0.12)
    for _ in range(int(s.rng.integers(0, 4))):
        head = s.style(kind, style.size_px * s.between(0.9, 2))
        y += head.leading_px
        s.set_centred(s.width / 2, y, _shortened(s.words(2, 8), head, right - left), head)
    y += leading * 2
    while y < s.height * 0.93:
        if s.chance(0.3):
            y = s.flow(left, right, y, s.height * 0.95, style, s.chance(0.5), 0, 0, 1) + leading
        elif s.chance(0.3):
            y = _form(s, left, right, y, style)
        else:
            y = (
                _grid(s, left, right, y, style, int(s.rng.integers(2, 8)), int(s.rng.integers(4, 30)), s.chance(0.45))
                + leading
            )


def _form(s: Sheet, left: float, right: float, y: float, style: Print) -> float:
    for _ in range(int(s.rng.integers(3, 9))):
        if y > s.height * 0.95:
            break
        x = left
        while x < right - style.size_px * 8:
            end = s.set(x, y, s.words(1, 3) + ":", style)
            to = min(right, end + style.size_px * s.between(4, 16))
            if s.chance(0.6):
                s.rule(end + style.size_px * 0.4, y + 2, to, y + 2)
            if s.chance(0.3):
                s.scribble(end + style.size_px, y - 2, (to - end) * 0.7, style.size_px * 0.7)
            x = to + style.size_px * s.between(1, 4)
        y += style.leading_px * s.between(1.2, 2)
    return y


def _receipt(s: Sheet) -> None:
    """A till roll: centred head, items with the amount at the right edge, totals, thanks."""
    style = s.style(
        str(s.rng.choice(["typewriter", "typewriter", "modern"])), s.width / s.between(17, 30), s.between(1.0, 1.7)
    )
    style = Print(style.face, style.size_px, style.leading_px, s.between(0.3, 1.0))
    left, right = s.width * s.between(0.03, 0.14), s.width * s.between(0.86, 0.97)
    room, middle = right - left, (left + right) / 2
    y = s.height * s.between(0.03, 0.12)
    if s.chance(0.25):
        height = style.leading_px * s.between(2, 7)
        s.picture(left + room * s.between(0, 0.3), y, right - room * s.between(0, 0.3), y + height, "logo")
        y += height + style.leading_px * 1.5
    for _ in range(int(s.rng.integers(3, 8))):
        large = Print(
            style.face,
            round(style.size_px * (s.between(1.1, 2.0) if s.chance(0.2) else 1)),
            style.leading_px,
            style.ink,
        )
        text = s.words(1, 5) if s.chance(0.7) else f"TEL {s.number()} {s.number()}"
        text = _shortened(text.upper() if s.chance(0.7) else text, large, room)
        s.set_centred(middle, y, text, large)
        y += max(large.size_px * 1.1, style.leading_px)
    bottom = s.height * s.between(0.7, 0.97)
    while y < bottom:
        roll = s.rng.random()
        if roll < 0.08:
            if s.chance(0.5):
                s.rule(left, y - style.size_px * 0.3, right, y, s.between(1, 2))
            else:
                signs = str(s.rng.choice(["-", "=", "*", "- ", "_", "."])) * int(
                    room / _width(style, "-") * s.between(0.2, 0.9)
                )
                s.set(left, y, signs[: len(signs) if s.chance(0.7) else 8], style, ornament=True)
        elif roll < 0.1:
            height = style.leading_px * s.between(1, 3)
            s.picture(left + room * 0.15, y, right - room * 0.15, y + height, str(s.rng.choice(["barcode", "logo"])))
            y += height + style.leading_px * 0.5
        elif roll < 0.2:
            s.set_centred(middle, y, _shortened(s.words(1, 6).upper(), style, room), style)
        elif roll < 0.35:
            s.set(left, y, _shortened(f"{s.words(1, 2)}: {s.number()} {s.date()}", style, room), style)
        elif roll < 0.41:
            s.set(left, y, s.sign(), style)
            s.set(left + room * s.between(0.08, 0.2), y, _shortened(s.words(1, 3), style, room * 0.4), style)
            s.set_right(right, y, s.sign() if s.chance(0.3) else s.amount(), style)
        elif roll < 0.48:
            for at, text in ((0.0, s.number()), (0.34, s.amount()), (0.68, s.amount())):
                if _width(style, text) < room * 0.28:
                    s.set(left + at * room, y, text, style)
        else:
            large = Print(
                style.face,
                round(style.size_px * (s.between(1.2, 2.0) if s.chance(0.08) else 1)),
                style.leading_px,
                style.ink,
            )
            y += large.size_px - style.size_px
            text = s.words(1, 4)
            end = s.set(left, y, _shortened(text.upper() if s.chance(0.7) else text, large, room * 0.6), large)
            sum_ = s.amount() + (" SR" if s.chance(0.1) else "")
            if end + large.size_px < right - _width(large, sum_):
                s.set_right(right, y, sum_, large)
        y += style.leading_px * (s.between(1.2, 2) if s.chance(0.15) else 1.0)
    for _ in range(int(s.rng.integers(0, 3)) if s.chance(0.4) else 0):
        s.scribble(
            s.between(0, 0.7) * s.width, s.between(0, 1) * s.height, s.between(0.1, 0.5) * s.width, style.size_px * 2
        )


def _filing(s: Sheet) -> None:
    """A court filing: stamped head, a caption with the parties at the left, numbers down the margin, wide leading."""
    style = s.style(str(s.rng.choice(["book", "modern", "typewriter"])), s.height / s.between(45, 75))
    left, right = s.width * s.between(0.12, 0.2), s.width * s.between(0.85, 0.92)
    y = s.height * s.between(0.03, 0.06)
    head = s.style("modern", style.size_px * s.between(0.7, 1))
    if s.chance(0.7):
        s.set(
            left * s.between(0.4, 1),
            y,
            _shortened(f"Case {s.number()} {s.words(2, 3)} {s.date()} Page {s.number()}", head, right - left),
            head,
        )
    y = s.height * s.between(0.08, 0.12)
    if s.chance(0.5):
        for _ in range(int(s.rng.integers(1, 4))):
            s.set_centred(s.width / 2, y, s.words(2, 6).upper(), style)
            y += style.leading_px
        y += style.leading_px
        for i in range(int(s.rng.integers(4, 9))):
            s.set(left, y, _shortened(s.words(1, 4), style, s.width * 0.3), style)
            if s.chance(0.8):
                s.set(s.width * 0.5, y, ")", style)
            if i % 2 and s.chance(0.7):
                s.set(s.width * 0.55, y, _shortened(s.words(1, 4), style, s.width * 0.3), style)
            y += style.leading_px
        y += style.leading_px
    double = Print(style.face, style.size_px, style.leading_px * s.between(1.0, 2.0))
    bottom = s.height * 0.92
    if s.chance(0.4):
        rows = int((bottom - s.height * 0.1) / double.leading_px)
        for i in range(min(rows, 28)):
            s.set_right(left - style.size_px * 1.2, s.height * 0.1 + i * double.leading_px, str(i + 1), style)
        if s.chance(0.7):
            s.rule(left - style.size_px * 0.7, 0, left - style.size_px * 0.7, s.height)
    while y < bottom:
        y = s.flow(left, right, y, bottom, double, s.chance(0.4), s.between(0, 3), 0.0, 2)
        if s.chance(0.3):
            inset = (right - left) * 0.12
            y = s.flow(left + inset, right - inset, y, bottom, style, True, 0, 0, 1) + style.leading_px
    s.set_centred(s.width / 2, s.height * 0.955, s.number(), style)


def _chart(s: Sheet) -> None:
    """Boxes with words in them and lines between: a diagram."""
    style = s.style("modern", s.height / s.between(45, 90))
    if s.chance(0.7):
        s.set_centred(
            s.width / 2, s.height * 0.06, s.words(2, 6), Print(style.face, round(style.size_px * 1.5), style.leading_px)
        )
    across = int(s.rng.integers(2, 5))
    down = int(s.rng.integers(3, 8))
    for i in range(down):
        for j in range(across):
            if s.chance(0.35):
                continue
            x, y = s.width * (j + 0.5) / across, s.height * (0.12 + 0.82 * (i + 0.5) / down)
            half, tall = s.width / across * s.between(0.25, 0.42), s.height * 0.82 / down * s.between(0.25, 0.4)
            if s.chance(0.8):
                corners = [(x - half, y - tall), (x + half, y - tall), (x + half, y + tall), (x - half, y + tall)]
                if s.chance(0.2):
                    corners = [(x, y - tall * 1.3), (x + half, y), (x, y + tall * 1.3), (x - half, y)]
                s.items.append(Stroke((*corners, corners[0]), int(s.rng.integers(1, 3)), 1.0))
                if i + 1 < down and s.chance(0.7):
                    s.items.append(Stroke(((x, y + tall), (x, y + s.height * 0.82 / down - tall)), 1, 1.0))
            count = int(np.clip(tall * 2 / style.leading_px - 0.5, 1, 4))
            for k in range(count):
                at = y + (k - (count - 1) / 2) * style.leading_px + style.size_px * 0.35
                s.set_centred(x, at, _shortened(s.words(1, 4), style, half * 1.7), style)


def _slide(s: Sheet) -> None:
    """Large print in few lines, light on dark more often than not."""
    dark = s.chance(0.6)
    if dark:
        s.items.append(Bar(0, 0, s.width, s.height, s.between(0.7, 1.0)))
    kind = str(s.rng.choice(["modern", "book"]))
    style = s.style(kind, s.height / s.between(14, 34), s.between(1.2, 1.8))
    y = s.height * s.between(0.08, 0.2)
    head = Print(style.face, round(style.size_px * s.between(1.1, 1.8)), style.leading_px)
    s.set(s.width * s.between(0.04, 0.3), y, _shortened(s.words(1, 6), head, s.width * 0.6), head, paper=dark)
    y += head.size_px * s.between(1.2, 2)
    while y < s.height * 0.93:
        left = s.width * s.between(0.05, 0.12)
        words = s.words(3, 40).split()
        while words and y < s.height * 0.95:
            text = _shortened(" ".join(words[:20]), style, s.width * 0.93 - left)
            words = words[len(text.split()) :]
            s.set(left, y, text, style, paper=dark)
            y += style.leading_px
        y += style.leading_px * s.between(0, 1)


def _blank(s: Sheet) -> None:
    """No text: an empty leaf, perhaps with a picture, a rule or a scribble."""
    if s.chance(0.3):
        s.picture(s.width * 0.2, s.height * 0.2, s.width * 0.8, s.height * s.between(0.4, 0.8))
    if s.chance(0.2):
        s.rule(s.width * 0.2, s.height * 0.1, s.width * 0.8, s.height * 0.1)
    if s.chance(0.3):
        s.scribble(s.width * 0.3, s.height * 0.3, s.width * 0.3, s.height * 0.03)


# kind → (composer, share of pages, height over width: lowest and highest)
KINDS: dict[str, tuple[Callable[[Sheet], None], float, float, float]] = {
    "book": (_book, 0.15, 1.2, 1.8),
    "typescript": (_typescript, 0.16, 1.2, 1.75),
    "letter": (_letter, 0.08, 1.2, 1.45),
    "newspaper": (_newspaper, 0.13, 0.7, 2.2),
    "report": (_report, 0.14, 1.0, 1.5),
    "table": (_table, 0.11, 0.7, 1.5),
    "receipt": (_receipt, 0.11, 1.6, 3.2),
    "filing": (_filing, 0.05, 1.25, 1.45),
    "chart": (_chart, 0.03, 0.7, 1.45),
    "slide": (_slide, 0.03, 0.6, 1.0),
    "blank": (_blank, 0.04, 1.0, 1.6),
}


def draw_page(
    rng: np.random.Generator,
    fonts: Sequence[FontFace],
    texts: Texts,
    kind: str | None = None,
    area_px: float | None = None,
) -> PagePlan:
    """A page's plan.

    Args:
        kind: one of `KINDS`; None draws one by its share.
        area_px: width times height; None draws 1.2 to 2.2 megapixels.
    """
    names = list(KINDS)
    shares = np.array([KINDS[name][1] for name in names])
    kind = kind or str(rng.choice(names, p=shares / shares.sum()))
    compose, _, low, high = KINDS[kind]
    area = area_px or rng.uniform(1.2e6, 2.2e6)
    aspect = rng.uniform(low, high)
    width = round(float(np.sqrt(area / aspect)))
    by_kind: dict[str, list[FontFace]] = {}
    for face in filter(is_for_running_text, fonts):
        by_kind.setdefault(face.kind, []).append(face)
    sheet = Sheet(rng, by_kind, texts, width, round(width * aspect))
    compose(sheet)
    if sheet.chance(0.12):
        _stamp(sheet)
    if kind != "blank" and sheet.chance(0.4):
        _loose_signs(sheet)
    return PagePlan(kind, sheet.width, sheet.height, tuple(sheet.items), _draw_damage(sheet))


def _loose_signs(s: Sheet) -> None:
    """A page number at the head or the foot, perhaps numbers or marks down the margin, where the text leaves room."""
    texts = [item for item in s.items if isinstance(item, Text)]
    if not texts:
        return
    style = texts[int(s.rng.integers(len(texts)))].style
    tops, lefts = min(t.y for t in texts), min(t.x for t in texts)
    if tops > style.leading_px * 2.2:
        x = s.width * float(s.rng.choice([0.08, 0.5, 0.5, 0.92]))
        s.set_centred(x, s.between(style.leading_px, tops - style.leading_px * 1.1), s.folio(), style)
    lowest = max(t.y for t in texts)
    if s.height - lowest > style.leading_px * 2.5 and s.chance(0.6):
        y = s.between(lowest + style.leading_px * 1.4, s.height - style.leading_px * 0.6)
        s.set_centred(s.width * float(s.rng.choice([0.1, 0.5, 0.5, 0.9])), y, s.folio(), style)
    if lefts > style.size_px * 3 and s.chance(0.4):
        column = [t for t in texts if t.x < lefts + style.size_px * 4][:: int(s.rng.integers(1, 6))]
        for i, text in enumerate(column):
            s.set_right(lefts - style.size_px * 1.2, text.y, str(i + 1) if s.chance(0.8) else s.sign(), style)


def _stamp(s: Sheet) -> None:
    faces = s.fonts.get("modern") or next(iter(s.fonts.values()))
    face = faces[int(s.rng.integers(len(faces)))]
    radius = s.width * s.between(0.04, 0.11)
    x, y = s.between(0.1, 0.9) * s.width, s.between(0.05, 0.95) * s.height
    angle = s.between(8, 40) * (1 if s.chance(0.5) else -1)
    s.items.append(Stamp(x, y, radius, angle, s.words(2, 4).upper(), face, s.between(0.3, 0.9), s.chance(0.6)))


def _draw_damage(s: Sheet) -> Damage:
    """Half of the pages are scans in grey, a quarter bilevel, the rest as good as born digital."""
    rng, seed = s.rng, int(s.rng.integers(2**31))
    state = str(rng.choice(["clean", "bilevel", "grey"], p=[0.2, 0.25, 0.55]))
    if state == "clean":
        return Damage(
            paper=s.between(225, 255), ink=s.between(0, 90), blur_px=s.between(0, 0.8) * s.chance(0.5), seed=seed
        )
    skew = float(np.clip(rng.normal(0, 1.0), -4, 4)) * s.chance(0.8)
    bow, wave = s.between(-6, 6) * s.chance(0.25), s.between(0, 4) * s.chance(0.2)
    scanned = Damage(
        skew_deg=skew,
        bow_px=bow,
        wave_px=wave,
        blur_px=s.between(0.3, 1.5) * s.chance(0.6),
        thicken=int(rng.choice([-2, 0, 0, 2, 3], p=[0.1, 0.4, 0.25, 0.2, 0.05])),
        specks=int(s.between(0, 200) * s.chance(0.25)),
        seed=seed,
    )
    if s.chance(0.3):
        left, top, right, bottom = (int(s.between(0, 0.06) * s.width) if s.chance(0.5) else 0 for _ in range(4))
        scanned = replace(scanned, borders_px=(left, top, right, bottom))
    if s.chance(0.2):
        count, radius = int(rng.integers(1, 5)), s.width * s.between(0.006, 0.014)
        x = s.width * s.between(0.02, 0.06)
        holes = tuple((x + s.between(-3, 3), s.height * s.between(0.1, 0.9), radius) for _ in range(count))
        scanned = replace(scanned, holes=holes)
    if state == "bilevel":
        noise = s.between(5, 45)
        ink, threshold, light = s.between(10, 110), s.between(0.35, 0.65), s.between(0, 0.4)
        return replace(scanned, paper=230, ink=ink, noise=noise, bilevel=threshold, light=light)
    paper = s.between(120, 250)
    return replace(
        scanned,
        paper=paper,
        ink=s.between(0.1, 0.7) * paper * s.between(0.5, 1),
        texture=s.between(0, 1) * s.chance(0.6),
        light=s.between(0, 0.8) * s.chance(0.5),
        stains=s.between(0, 1) * s.chance(0.2),
        bleed=s.between(0.05, 0.3) * s.chance(0.25),
        noise=s.between(0, 12) * s.chance(0.7),
        jpeg=int(rng.integers(15, 90)) * s.chance(0.5),
    )


# --- Carrying a plan out ---------------------------------------------------------------------------------------------


def render(plan: PagePlan) -> tuple[np.ndarray, list[TrueLine]]:
    """The page: [height, width] uint8 grey, and its lines."""
    layer = Image.new("L", (plan.width, plan.height), 0)
    draw = ImageDraw.Draw(layer)
    lines: list[TrueLine] = []
    for item in plan.items:
        match item:
            case Text():
                line = _render_text(draw, item)
                if not item.ornament:
                    lines.append(line)
            case Bar():
                draw.rectangle(
                    (item.left, item.top, max(item.left, item.right - 1), max(item.top, item.bottom - 1)),
                    _level(item.ink),
                )
            case Stroke():
                draw.line(item.points, _level(item.ink), item.thickness_px, joint="curve")
            case Picture():
                layer.paste(Image.fromarray(_render_picture(item)), (item.left, item.top))
            case Stamp():
                _render_stamp(layer, item)
    return _worn(np.asarray(layer), lines, plan.damage)


def _level(ink: float) -> int:
    return int(np.clip(ink, 0, 1) * 255)


def _render_text(draw: ImageDraw.ImageDraw, item: Text) -> TrueLine:
    style = item.style
    font = load(style.face, style.size_px)
    x_height, ascender, descender = _extents(style.face, style.size_px)
    level = 0 if item.paper else _level(style.ink)
    x = item.x
    if style.uneven_px or style.tracking_px:
        end = _render_by_letter(draw, item, font, level)
    else:
        words = item.text.split(" ")
        for word in words:
            draw.text((x, item.y), word, level, font, anchor="ls")
            x += _word_width(style.face, style.size_px, word, 0.0) + item.gap_px
        end = x - item.gap_px
    if item.underline:
        draw.rectangle((item.x, item.y + descender * 0.5, end, item.y + descender * 0.5 + 1), level)
    _, top, _, bottom = font.getbbox(item.text, anchor="ls")
    return TrueLine(((item.x, item.y), (end, item.y)), x_height, max(ascender, -top), max(descender, bottom))


def _render_by_letter(draw: ImageDraw.ImageDraw, item: Text, font: ImageFont.FreeTypeFont, level: int) -> float:
    style, rng = item.style, np.random.default_rng(item.seed)
    x = item.x
    for character in item.text:
        if character == " ":
            x += item.gap_px
            continue
        dx, dy = rng.normal(0, style.uneven_px, 2)
        draw.text((x + dx * 0.5, item.y + dy), character, int(level * rng.uniform(0.7, 1.0)), font, anchor="ls")
        x += _word_width(style.face, style.size_px, character, style.tracking_px)
    return x


def _render_picture(item: Picture) -> np.ndarray:
    """Ink of a picture, [height, width] uint8."""
    rng = np.random.default_rng(item.seed)
    height, width = max(item.bottom - item.top, 8), max(item.right - item.left, 8)
    if item.kind == "black":
        return np.full((height, width), 235, np.uint8)
    if item.kind == "barcode":
        widths = rng.integers(1, 4, width)
        bars = np.repeat(np.arange(width) % 2, widths)[:width].astype(np.uint8) * 240
        return np.repeat(bars[None], height, axis=0)
    if item.kind == "logo":
        return _render_logo(rng, height, width)
    if item.kind == "drawing":
        canvas = np.zeros((height, width), np.uint8)
        for _ in range(int(rng.integers(4, 25))):
            a, b = rng.integers(0, [width, height]), rng.integers(0, [width, height])
            if rng.random() < 0.5:
                cv2.line(canvas, a.tolist(), b.tolist(), 255, int(rng.integers(1, 4)))
            else:
                axes = np.maximum(np.abs(a - b) // 2, 2)
                cv2.ellipse(
                    canvas,
                    a.tolist(),
                    axes.tolist(),
                    float(rng.uniform(0, 180)),
                    0,
                    float(rng.uniform(90, 360)),
                    255,
                    int(rng.integers(1, 3)),
                )
        return canvas
    tone = np.zeros((height, width), np.float32)
    for cells in (3, 7, 17, 40):
        tone += (
            cv2.resize(
                rng.normal(0, 1, (cells, cells)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
            )
            / cells**0.6
        )
    tone = np.clip((tone - tone.min()) / max(float(np.ptp(tone)), 1e-6) * rng.uniform(0.7, 1.4), 0, 1)
    if item.kind == "bilevel":
        tone = (tone + rng.normal(0, 0.12, tone.shape) > rng.uniform(0.25, 0.75)).astype(np.float32)
    if item.kind == "halftone":
        pitch = rng.uniform(3, 6)
        ys, xs = np.mgrid[:height, :width].astype(np.float32)
        screen = 0.5 + 0.25 * (
            np.sin((xs + ys) * 2 * np.pi / pitch / 1.4) + np.sin((xs - ys) * 2 * np.pi / pitch / 1.4)
        )
        tone = (tone > screen).astype(np.float32)
    return (tone * 255).astype(np.uint8)


def _render_logo(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A dark shape with light shapes in it, or the other way round."""
    canvas = np.full((height, width), 255 * int(rng.random() < 0.6), np.uint8)
    for _ in range(int(rng.integers(3, 12))):
        colour = int(rng.random() < 0.5) * 255
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        axes = (int(rng.uniform(0.03, 0.3) * width) + 1, int(rng.uniform(0.05, 0.45) * height) + 1)
        if rng.random() < 0.5:
            cv2.ellipse(canvas, centre, axes, float(rng.uniform(0, 180)), 0, 360, colour, int(rng.choice([-1, 2, 4])))
        else:
            corner = (centre[0] + axes[0], centre[1] + axes[1])
            cv2.rectangle(canvas, centre, corner, colour, int(rng.choice([-1, 2])))
    return canvas


def _render_stamp(layer: Image.Image, item: Stamp) -> None:
    size = int(item.radius_px * 2.4)
    small = Image.new("L", (size, size), 0)
    draw = ImageDraw.Draw(small)
    level, edge = _level(item.ink), size * 0.05
    if item.round:
        draw.ellipse((edge, edge, size - edge, size - edge), outline=level, width=3)
        draw.ellipse((edge * 4, edge * 4, size - edge * 4, size - edge * 4), outline=level, width=1)
    else:
        draw.rectangle((edge, size * 0.3, size - edge, size * 0.7), outline=level, width=3)
    font = load(item.face, max(8, int(size / 9)))
    for i, word in enumerate(item.words.split()[:3]):
        draw.text((size / 2, size * (0.42 + 0.13 * i)), word[:10], level, font, anchor="ms")
    turned = small.rotate(item.angle_deg, Image.Resampling.BILINEAR)
    place = (int(item.x - size / 2), int(item.y - size / 2))
    layer.paste(turned, place, turned)


def _worn(ink: np.ndarray, lines: list[TrueLine], damage: Damage) -> tuple[np.ndarray, list[TrueLine]]:
    """The sheet with its damage: ink [H, W] uint8 (255 is full) → grey [H, W] uint8, and the lines where they went."""
    rng = np.random.default_rng(damage.seed)
    height, width = ink.shape
    if damage.thicken:
        kernel = np.ones((abs(damage.thicken),) * 2, np.uint8)
        ink = (
            cv2.dilate(ink, kernel) if damage.thicken > 0 else cv2.addWeighted(ink, 0.4, cv2.erode(ink, kernel), 0.6, 0)
        )
    if damage.bleed:
        ink = np.maximum(ink, (cv2.GaussianBlur(ink[:, ::-1], (0, 0), 1.5) * damage.bleed).astype(np.uint8))
    if damage.skew_deg or damage.bow_px or damage.wave_px:
        ink, lines = _warped(ink, lines, damage)
    grey = damage.paper - (damage.paper - damage.ink) / 255 * ink.astype(np.float32)
    if damage.texture:
        for cells in (9, 60):
            field_ = cv2.resize(
                rng.normal(0, 1, (cells, cells)).astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR
            )
            grey += field_ * (6 * damage.texture)
    if damage.light:
        grey *= _light(rng, height, width, damage.light)
    if damage.stains:
        for _ in range(int(rng.integers(1, 5))):
            spot = np.zeros((height // 8 + 1, width // 8 + 1), np.float32)
            centre = (int(rng.integers(spot.shape[1])), int(rng.integers(spot.shape[0])))
            cv2.circle(
                spot,
                centre,
                int(rng.uniform(0.02, 0.15) * spot.shape[1]) + 1,
                float(rng.uniform(0.1, 0.45) * damage.stains),
                -1,
            )
            grey *= 1 - cv2.resize(cv2.GaussianBlur(spot, (0, 0), 2), (width, height))
    _scanner_marks(grey, rng, damage)
    if damage.blur_px > 0.2:
        grey = cv2.GaussianBlur(grey, (0, 0), damage.blur_px)
    if damage.noise:
        noise = np.empty((height, width), np.int16)
        cv2.setRNGSeed(damage.seed % (2**31))
        cv2.randn(noise, 0, damage.noise)
        grey += noise
    if damage.bilevel:
        threshold = damage.ink + (damage.paper - damage.ink) * damage.bilevel
        grey = np.where(grey > threshold, 255, 0)
    image = np.clip(grey, 0, 255).astype(np.uint8)
    if damage.jpeg:
        _, coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, damage.jpeg])
        image = cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE)
    return image, lines


def _light(rng: np.random.Generator, height: int, width: int, strength: float) -> np.ndarray:
    """Uneven light, [H, W] float32 about 1: a slope, and a shadow along one edge as at a book's spine."""
    corners = rng.uniform(1 - 0.4 * strength, 1, (3, 3)).astype(np.float32)
    field_ = cv2.resize(corners, (width, height), interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.3:
        fall = 1 - 0.7 * strength * np.exp(-np.arange(width, dtype=np.float32) / (width * rng.uniform(0.02, 0.1)))
        field_ = field_ * (fall if rng.random() < 0.5 else fall[::-1])
    return field_


def _scanner_marks(grey: np.ndarray, rng: np.random.Generator, damage: Damage) -> None:
    """Dark borders, holes and specks, in place."""
    height, width = grey.shape
    left, top, right, bottom = damage.borders_px
    dark = float(rng.uniform(0, 70))
    slant = int(rng.uniform(-1, 1) * 12)
    for size, corners in (
        (left, [(0, 0), (left, 0), (max(0, left + slant), height), (0, height)]),
        (right, [(width, 0), (width - right, 0), (width - max(0, right + slant), height), (width, height)]),
        (top, [(0, 0), (0, top), (width, max(0, top + slant)), (width, 0)]),
        (bottom, [(0, height), (0, height - bottom), (width, height - max(0, bottom + slant)), (width, height)]),
    ):
        if size:
            cv2.fillPoly(grey, [np.array(corners, np.int32)], dark)
    for x, y, radius in damage.holes:
        cv2.circle(grey, (int(x), int(y)), int(radius), dark if rng.random() < 0.8 else 255.0, -1)
    for _ in range(damage.specks // 4):
        along, off = rng.random(), float(rng.exponential(0.02))
        x, y = [(off, along), (1 - off, along), (along, off), (along, 1 - off)][int(rng.integers(4))]
        axes = (int(rng.exponential(0.006) * width) + 1, int(rng.exponential(0.003) * width) + 1)
        cv2.ellipse(grey, (int(x * width), int(y * height)), axes, float(rng.uniform(0, 180)), 0, 360, dark, -1)
    for _ in range(damage.specks):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        cv2.circle(grey, centre, int(rng.integers(1, 3)), float(rng.uniform(0, 120)), -1)


def _warped(ink: np.ndarray, lines: list[TrueLine], damage: Damage) -> tuple[np.ndarray, list[TrueLine]]:
    """Skew, bow and wave in one resampling."""
    height, width = ink.shape
    angle = np.deg2rad(damage.skew_deg)

    def displacement(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        u, v = x - width / 2, y - height / 2
        bend = damage.bow_px * (1 - (2 * u / width) ** 2) * (2 * v / height) + damage.wave_px * np.sin(
            x * 6 / width + damage.seed % 7
        )
        return u * (np.cos(angle) - 1) - v * np.sin(angle), u * np.sin(angle) + v * (np.cos(angle) - 1) + bend

    # A coarse grid is enough for so smooth a field. Its nodes are the centres of cells, as cv2.resize takes them; the
    # inverse is a fixed point.
    cells = 65
    xs, ys = np.meshgrid(
        (np.arange(cells) + 0.5) * width / cells - 0.5, (np.arange(cells) + 0.5) * height / cells - 0.5
    )
    dx, dy = np.zeros_like(xs), np.zeros_like(ys)
    for _ in range(5):
        dx, dy = displacement(xs - dx, ys - dy)
    map_x = np.arange(width, dtype=np.float32)[None, :] - cv2.resize(dx.astype(np.float32), (width, height))
    map_y = np.arange(height, dtype=np.float32)[:, None] - cv2.resize(dy.astype(np.float32), (width, height))
    moved = []
    for line in lines:
        (x0, y0), (x1, y1) = line.baseline[0], line.baseline[-1]
        count = max(2, int((x1 - x0) / 40))
        x, y = np.linspace(x0, x1, count), np.linspace(y0, y1, count)
        dx, dy = displacement(x, y)
        points = tuple(zip((x + dx).tolist(), (y + dy).tolist(), strict=True))
        moved.append(TrueLine(points, line.x_height, line.ascender, line.descender))
    return cv2.remap(ink, map_x, map_y, cv2.INTER_LINEAR), moved

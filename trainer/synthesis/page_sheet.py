"""A synthetic page while it is composed: where words, dates and sums come from, and how they are set."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ocr_model.document import Point
from trainer.synthesis.fonts import FontFace, coverage
from trainer.synthesis.page_plan import (
    PICTURES,
    Bar,
    Item,
    Picture,
    Print,
    Stroke,
    Text,
    space_width,
    text_width,
    word_width,
)

ENGLISH_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip


class Texts(Protocol):
    """Where the words come from; `trainer.synthesis.text.TextSource` is one."""

    def paragraph(self, rng: np.random.Generator) -> str: ...


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
        gap = space_width(style) if gap_px is None else gap_px
        words = text.split(" ")
        width = sum(word_width(style.face, style.size_px, w, style.tracking_px) for w in words) + gap * (len(words) - 1)
        if text and -0.1 * width < x and x + width < self.width * 1.02 and 0 < y < self.height:
            self.items.append(Text(x, y, text, style, gap, int(self.rng.integers(2**31)), **more))
        return x + width

    def set_right(self, right: float, y: float, text: str, style: Print) -> None:
        self.set(right - text_width(style, text), y, text, style)

    def set_centred(self, middle: float, y: float, text: str, style: Print) -> None:
        self.set(middle - text_width(style, text) / 2, y, text, style)

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
        y, space, room = top, space_width(style), right - left
        for _ in range(paragraphs):
            line: list[str] = []
            used = start = indent * style.size_px
            for word in [*self.texts.paragraph(self.rng).split(), None]:
                width = 0.0 if word is None else word_width(style.face, style.size_px, word, style.tracking_px)
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
        points = smooth_curve(np.stack([xs, ys], axis=1))
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


def smooth_curve(points: np.ndarray) -> tuple[Point, ...]:
    """Catmull-Rom through the points, [N, 2] → about 8 points for each stretch."""
    p = np.concatenate([points[:1], points, points[-1:]])
    t = np.linspace(0, 1, 8, endpoint=False)[:, None]
    pieces = []
    for a, b, c, d in zip(p, p[1:], p[2:], p[3:], strict=False):
        pieces.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3))
    return tuple((float(x), float(y)) for x, y in np.concatenate(pieces))

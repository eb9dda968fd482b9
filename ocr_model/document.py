"""What a page of text is: Page, Region, Line, Word and Box.

All are frozen and checked once, when made; everything later may trust them. Coordinates are pixels of the image as it
was given, origin top left, x to the right, y down. `right` and `bottom` are exclusive.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Box:
    """An upright rectangle in pixels.

    >>> Box(10, 20, 30, 50).width, Box(10, 20, 30, 50).height
    (20, 30)
    """

    left: int
    top: int
    right: int
    bottom: int

    def __post_init__(self) -> None:
        if self.right < self.left or self.bottom < self.top:
            raise ValueError(f"box ends before it begins: {self.left, self.top, self.right, self.bottom}")

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def area(self) -> int:
        return self.width * self.height

    def union(self, other: Box) -> Box:
        """The smallest box around both."""
        return Box(
            min(self.left, other.left),
            min(self.top, other.top),
            max(self.right, other.right),
            max(self.bottom, other.bottom),
        )

    def intersection_area(self, other: Box) -> int:
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0, width) * max(0, height)

    def iou(self, other: Box) -> float:
        """Intersection over union, 0 to 1; 0 for two empty boxes."""
        shared = self.intersection_area(other)
        union = self.area + other.area - shared
        return shared / union if union else 0.0

    def clipped(self, width: int, height: int) -> Box:
        """The part of the box inside an image of that size."""

        def clip(value: int, limit: int) -> int:
            return min(max(value, 0), limit)

        return Box(clip(self.left, width), clip(self.top, height), clip(self.right, width), clip(self.bottom, height))

    @classmethod
    def around(cls, points: Iterable[Point]) -> Box:
        """The smallest box of whole pixels that holds the points.

        >>> Box.around([(1.5, 2.0), (7.2, 3.9)])
        Box(left=1, top=2, right=8, bottom=4)
        """
        pairs = list(points)
        xs, ys = [x for x, _ in pairs], [y for _, y in pairs]
        return cls(int(min(xs) // 1), int(min(ys) // 1), int(-(-max(xs) // 1)), int(-(-max(ys) // 1)))

    def as_list(self) -> list[int]:
        return [self.left, self.top, self.right, self.bottom]


def _check_confidence(value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"confidence {value} is not between 0 and 1")


@dataclass(frozen=True, slots=True)
class Word:
    """A run of characters without a space. `confidence` is the mean over its characters, 0 to 1."""

    text: str
    box: Box
    confidence: float

    def __post_init__(self) -> None:
        _check_confidence(self.confidence)
        if self.text.split() != [self.text]:
            raise ValueError(f"a word has characters and no space: {self.text!r}")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text. Its text is its words joined by one space.

    Attributes:
        words: from left to right as read.
        box: the smallest upright box around the polygon.
        baseline: at least two points, in reading direction.
        polygon: the outline, at least three points.
        confidence: mean over the characters, 0 to 1.
    """

    words: tuple[Word, ...]
    box: Box
    baseline: tuple[Point, ...]
    polygon: tuple[Point, ...]
    confidence: float

    def __post_init__(self) -> None:
        _check_confidence(self.confidence)
        if len(self.baseline) < 2 or len(self.polygon) < 3:
            raise ValueError("a line needs a baseline of two points and a polygon of three")

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)


@dataclass(frozen=True, slots=True)
class Region:
    """Lines that belong together (a column, a heading), in reading order."""

    lines: tuple[Line, ...]
    box: Box
    kind: str = "text"

    def rows(self) -> list[list[Line]]:
        """The lines, those that stand beside each other (the cells of a table's row) together."""
        rows: list[list[Line]] = []
        for line in self.lines:
            if rows and _beside(rows[-1][-1], line):
                rows[-1].append(line)
            else:
                rows.append([line])
        return rows

    @property
    def text(self) -> str:
        """A row a line, its cells parted by tabs."""
        return "\n".join("\t".join(line.text for line in row) for row in self.rows())


def _beside(left: Line, right: Line) -> bool:
    """Whether the second line goes on at the height of the first, after its end, in its own direction of reading.

    Judged by points to a tenth of a pixel, which is what is left of them in JSON: the text is to be the same there.
    """
    ((x0, y0), (x1, y1)), right_begin = _points((left.baseline[0], left.baseline[-1])), _points(right.baseline[:1])[0]
    length = max(math.hypot(x1 - x0, y1 - y0), 1e-6)
    along, across = (x1 - x0) / length, (y1 - y0) / length

    def height(line: Line) -> float:
        offsets = [y * along - x * across for x, y in _points(line.polygon)]
        return max(offsets) - min(offsets)

    gap_x, gap_y = right_begin[0] - x1, right_begin[1] - y1
    smaller = min(height(left), height(right))
    return gap_x * along + gap_y * across >= -0.25 * smaller and abs(gap_y * along - gap_x * across) < 0.4 * smaller


@dataclass(frozen=True, slots=True)
class Page:
    """One page in reading order.

    Attributes:
        width, height: pixels of the image as given.
        regions: in reading order.
        quarter_turns: how many times the image must be turned by 90 degrees clockwise to stand upright, 0 to 3.
        skew_deg: angle of the text lines against the horizontal of the upright image, positive where lines fall to
            the right.
        provenance: what made the page (model hash, code version, …), plain JSON values.
    """

    width: int
    height: int
    regions: tuple[Region, ...] = ()
    quarter_turns: int = 0
    skew_deg: float = 0.0
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(f"a page has at least one pixel, not {self.width} x {self.height}")
        if self.quarter_turns not in (0, 1, 2, 3):
            raise ValueError(f"quarter_turns is 0, 1, 2 or 3, not {self.quarter_turns}")

    def lines(self) -> Iterator[Line]:
        for region in self.regions:
            yield from region.lines

    @property
    def text(self) -> str:
        """One row of print a line, an empty line between regions; no line end at the end.

        >>> Page(10, 10).text
        ''
        """
        return "\n\n".join(region.text for region in self.regions if region.lines)

    def resized(self, width: int, height: int) -> Page:
        """The page as it lies on the same picture at another size, in pixels.

        >>> Page(10, 20).resized(20, 40).height
        40
        """
        if (width, height) == (self.width, self.height):
            return self
        x, y = width / self.width, height / self.height
        regions = tuple(
            replace(
                region, box=_resized_box(region.box, x, y), lines=tuple(_resized_line(n, x, y) for n in region.lines)
            )
            for region in self.regions
        )
        return replace(self, width=width, height=height, regions=regions)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from ocr_model.notebook import page_as_html

        return page_as_html(self)

    @property
    def confidence(self) -> float:
        """Mean confidence over the characters, 0 to 1; 1 for an empty page."""
        weights = [(len(word.text), word.confidence) for line in self.lines() for word in line.words]
        total = sum(n for n, _ in weights)
        return sum(n * c for n, c in weights) / total if total else 1.0


def _resized_box(box: Box, x: float, y: float) -> Box:
    return Box.around([(box.left * x, box.top * y), (box.right * x, box.bottom * y)])


def _resized_line(line: Line, x: float, y: float) -> Line:
    return replace(
        line,
        words=tuple(replace(word, box=_resized_box(word.box, x, y)) for word in line.words),
        box=_resized_box(line.box, x, y),
        baseline=tuple((px * x, py * y) for px, py in line.baseline),
        polygon=tuple((px * x, py * y) for px, py in line.polygon),
    )


def _points(points: Sequence[Point]) -> list[list[float]]:
    return [[round(x, 1), round(y, 1)] for x, y in points]


def page_to_json(page: Page) -> dict[str, Any]:
    """Plain values for JSON; `page_from_json` gives an equal page back (points to a tenth of a pixel)."""
    return {
        "width": page.width,
        "height": page.height,
        "quarter_turns": page.quarter_turns,
        "skew_deg": round(page.skew_deg, 2),
        "confidence": round(page.confidence, 3),
        "text": page.text,
        "regions": [
            {
                "kind": region.kind,
                "box": region.box.as_list(),
                "lines": [
                    {
                        "text": line.text,
                        "box": line.box.as_list(),
                        "confidence": round(line.confidence, 3),
                        "baseline": _points(line.baseline),
                        "polygon": _points(line.polygon),
                        "words": [
                            {"text": w.text, "box": w.box.as_list(), "confidence": round(w.confidence, 3)}
                            for w in line.words
                        ],
                    }
                    for line in region.lines
                ],
            }
            for region in page.regions
        ],
        "provenance": page.provenance,
    }


def page_from_json(value: dict[str, Any]) -> Page:
    """The page that `page_to_json` wrote."""
    regions = []
    for region in value["regions"]:
        lines = tuple(
            Line(
                words=tuple(Word(w["text"], Box(*w["box"]), w["confidence"]) for w in line["words"]),
                box=Box(*line["box"]),
                baseline=tuple((x, y) for x, y in line["baseline"]),
                polygon=tuple((x, y) for x, y in line["polygon"]),
                confidence=line["confidence"],
            )
            for line in region["lines"]
        )
        regions.append(Region(lines, Box(*region["box"]), region["kind"]))
    return Page(
        value["width"],
        value["height"],
        tuple(regions),
        value["quarter_turns"],
        value["skew_deg"],
        value.get("provenance", {}),
    )

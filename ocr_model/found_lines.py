"""What the line finder finds: lines, regions of lines, pages; and what counts as one.

All coordinates are pixels of the upright image: `np.rot90(image, -quarter_turns)`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ocr_model.document import Box, Point


@dataclass(frozen=True)
class LayoutConfig:
    """What counts as a line, as one line, and as a column. Heights are ascender + descender of the lines concerned.

    Attributes:
        page_area_px: area of the canvas that a page is reduced to; never enlarged.
        largest_area_px: of the second pass, which a page of small print gets.
        small_x_height_px, wanted_x_height_px: below the first a second pass is made, at a scale that gives the second.
        core, end: thresholds of the probabilities.
        confidence: least mean probability of a line's core.
        thin: a line's ascender is not more than so many times as high as its core.
        faint_core, faint_confidence, faint_thin: the same above the first long line and below the last one, where a
            page number may stand by itself: the network is not sure of those.
        faint_width: in heights, of a line that is too long for a page number.
        contrast: of a line's pixels, least share of what is usual on the page.
        ink_height: a line's ink reaches over this share of its height; a row of dashes does not.
        margin: added to ascender and descender, as a share of them.
        join_gap: pieces of one line nearer than so many heights are joined, unless an end and a start lie between.
        join_gap_open: and nearer than this, where nothing is marked between them.
        room_before, room_after: a line is lengthened by so many ascenders, for quotes, hyphens and stops that the core
            leaves out, but by no more than 0.45 of the gap to its neighbour.
        orientation: probability from which a turned page is believed.
        column_width: least width of a column in heights.
        prose_width: a line of so many heights is prose rather than a cell of a table.
        column_lines: least number of lines on either side of a gutter.
        column_fill: least share of a column's width that its lines fill, in the median.
        paragraph_gap: a distance of baselines beyond so many times the usual one begins a region.
    """

    page_area_px: float = 765_000
    largest_area_px: float = 2_500_000
    small_x_height_px: float = 5.0
    wanted_x_height_px: float = 7.0
    core: float = 0.5
    end: float = 0.5
    confidence: float = 0.65
    thin: float = 5.0
    faint_core: float = 0.35
    faint_confidence: float = 0.45
    faint_thin: float = 8.0
    faint_width: float = 10.0
    contrast: float = 0.25
    ink_height: float = 0.2
    margin: float = 0.1
    join_gap: float = 0.4
    join_gap_open: float = 1.0
    room_before: float = 0.3
    room_after: float = 0.8
    orientation: float = 0.9
    column_width: float = 4.5
    prose_width: float = 6.0
    column_lines: int = 3
    column_fill: float = 0.5
    paragraph_gap: float = 1.7


@dataclass(frozen=True, slots=True)
class FoundLine:
    """A line of text by its baseline and how far its glyphs reach from it, a small margin included.

    Attributes:
        baseline: at least two points from left to right.
        ascender_px, descender_px: above and below the baseline.
        is_faint: it is a line only if it can be read well.
    """

    baseline: tuple[Point, ...]
    ascender_px: float
    descender_px: float
    is_faint: bool = False

    @property
    def polygon(self) -> tuple[Point, ...]:
        """The outline, clockwise from the top left."""
        above = [(x, y - self.ascender_px) for x, y in self.baseline]
        below = [(x, y + self.descender_px) for x, y in reversed(self.baseline)]
        return (*above, *below)

    @property
    def box(self) -> Box:
        return Box.around(self.polygon)

    @property
    def height_px(self) -> float:
        return self.ascender_px + self.descender_px

    @property
    def slope(self) -> float:
        """dy over dx from end to end."""
        (x0, y0), (x1, y1) = self.baseline[0], self.baseline[-1]
        return (y1 - y0) / max(x1 - x0, 1e-6)


@dataclass(frozen=True, slots=True)
class FoundRegion:
    """Lines that are read one after the other: a paragraph, a heading, the rows of a table."""

    lines: tuple[FoundLine, ...]

    @property
    def box(self) -> Box:
        boxes = [line.box for line in self.lines]
        whole = boxes[0]
        for box in boxes[1:]:
            whole = whole.union(box)
        return whole


@dataclass(frozen=True, slots=True)
class FoundPage:
    """The lines of a page in reading order.

    Attributes:
        regions: in reading order; coordinates in `np.rot90(image, -quarter_turns)`.
        quarter_turns: clockwise turns that make the image upright.
        skew_deg: of the lines in the upright image, positive where they fall to the right.
        orientation_probability: of 0 to 3 quarter turns, as the network sees it.
        is_coarse: the print is so small that `find` takes a closer look, which this time it did not.
    """

    regions: tuple[FoundRegion, ...] = ()
    quarter_turns: int = 0
    skew_deg: float = 0.0
    orientation_probability: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
    is_coarse: bool = False

    def lines(self) -> Iterator[FoundLine]:
        for region in self.regions:
            yield from region.lines

"""From the line finder's maps to lines in reading order. OpenCV and NumPy only.

The maps come from any callable (a keras model, an exported signature), so nothing here knows TensorFlow. All
coordinates are pixels of the upright image: `np.rot90(image, -quarter_turns)`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import cv2
import numpy as np

from ocr_model.document import Box, Point

Maps = Mapping[str, np.ndarray]

PAGE_MULTIPLE_PX = 32
END_BAR_HEIGHTS = 0.28  # thickness of the bars that the network is taught, in heights of the line
ASCENDER_X_HEIGHTS = 1.6  # about; only used to judge whether text is too small


@dataclass(frozen=True)
class LayoutConfig:
    """What counts as a line, as one line, and as a column. Heights are ascender + descender of the lines concerned.

    Attributes:
        page_area_px: area of the canvas that a page is reduced to; never enlarged.
        largest_area_px: of the second pass, which a page of small print gets.
        small_x_height_px, wanted_x_height_px: below the first a second pass is made, at a scale that gives the second.
        core, end: thresholds of the probabilities.
        confidence: least mean probability of a line's core.
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
    """

    baseline: tuple[Point, ...]
    ascender_px: float
    descender_px: float

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


class LineFinder:
    """Finds the lines of pages.

    Args:
        maps: from [1, H, W, 1] uint8 images, H and W multiples of 32, to `core`, `ends` (probabilities), `ascender`,
            `descender` (px of the input), all [1, H/2, W/2] float32, and `orientation` [1, 4] probabilities.
    """

    def __init__(self, maps: Callable[[np.ndarray], Maps], config: LayoutConfig | None = None) -> None:
        self.maps = maps
        self.config = config or LayoutConfig()

    def find(self, image: np.ndarray, quarter_turns: int | None = None, upright_from: float = 0.0) -> FoundPage:
        """The lines of a page, [H, W] uint8 grey, 0 is black.

        Args:
            quarter_turns: clockwise turns to take for granted; None asks the network.
            upright_from: probability of the orientation, below which no second pass is made: print that lies on its
                side looks small.
        """
        turns = quarter_turns or 0
        upright = np.rot90(image, -turns)
        scale, canvas = fitting(upright.shape, self.config.page_area_px)
        small, maps = self._seen(upright, scale, canvas)
        probability = tuple(float(p) for p in np.roll(maps["orientation"], turns))
        if quarter_turns is None:
            turns = int(np.argmax(probability))
            if turns and probability[turns] >= self.config.orientation:
                upright = np.rot90(image, -turns)
                scale, canvas = fitting(upright.shape, self.config.page_area_px)
                small, maps = self._seen(upright, scale, canvas)
            else:
                turns = 0
        lines = self._lines(small, maps, scale)
        finer = self._finer_scale(lines, scale, image.size)
        is_coarse = finer > scale and probability[turns] < upright_from
        if finer > scale and not is_coarse:
            lines = self._lines(*self._seen(upright, finer, None), finer)
        skew = skew_of(lines)
        roomy = dict(zip(lines, with_room(lines, self.config), strict=True))
        ordered = in_reading_order(lines, skew, self.config)
        regions = tuple(FoundRegion(tuple(roomy[line] for line in group)) for group in ordered)
        return FoundPage(regions, turns, skew, probability, is_coarse)  # type: ignore[arg-type]

    def _seen(self, image: np.ndarray, scale: float, canvas: tuple[int, int] | None) -> tuple[np.ndarray, Maps]:
        small = reduced(image, scale)
        maps = self.maps(padded(small, canvas)[None, :, :, None])
        return small, {name: np.asarray(value)[0] for name, value in maps.items()}

    def _lines(self, small: np.ndarray, maps: Maps, scale: float) -> list[FoundLine]:
        return with_letters(lines_from_maps(maps, scale, self.config), small, scale, self.config)

    def _finer_scale(self, lines: Sequence[FoundLine], scale: float, size: int) -> float:
        """The scale of a second pass, or the same scale where the print is large enough or the image has no more."""
        if not lines or scale >= 1:
            return scale
        ascender = float(np.median([line.ascender_px for line in lines])) * scale / (1 + self.config.margin)
        x_height = ascender / ASCENDER_X_HEIGHTS
        if x_height >= self.config.small_x_height_px:
            return scale
        finer = min(
            1.0, scale * self.config.wanted_x_height_px / x_height, float(np.sqrt(self.config.largest_area_px / size))
        )
        return finer if finer > 1.15 * scale else scale


def reduced(image: np.ndarray, scale: float) -> np.ndarray:
    """[H, W] uint8 → about [H * scale, W * scale], scale at most 1."""
    if scale >= 1:
        return image
    height, width = image.shape
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_AREA))


@functools.cache
def canvases(area_px: float) -> tuple[tuple[int, int], ...]:
    """Heights and widths, multiples of 32, that hold about so many pixels: each up to an eighteenth wider than the one
    before, so that a page fills 0.96 of its canvas or more.

    Pages are fitted into these few sizes, because the processor's code for the network is made anew for each size,
    which takes as long as half a page and 4 MB.
    """
    widths, width = [], 7
    while width * width * PAGE_MULTIPLE_PX**2 < 12 * area_px:  # up to twelve times as wide as high, and as high as wide
        widths.append(width)
        width = max(width + 1, round(width * 18 / 17))
    heights = [max(1, round(area_px / (width * PAGE_MULTIPLE_PX**2))) for width in widths]
    pairs = zip(heights, widths, strict=True)
    return tuple((height * PAGE_MULTIPLE_PX, width * PAGE_MULTIPLE_PX) for height, width in pairs)


def fitting(shape: tuple[int, ...], area_px: float) -> tuple[float, tuple[int, int] | None]:
    """The scale, at most 1, at which an image of that shape is seen largest in a canvas, and the canvas.

    >>> fitting((3072, 2208), 750_000), fitting((300, 200), 750_000)
    ((0.3333333333333333, (1024, 736)), (1.0, None))
    """
    height, width = shape
    if height * width <= area_px:
        return 1.0, None
    scales = [min(1.0, rows / height, columns / width) for rows, columns in canvases(area_px)]
    best = max(range(len(scales)), key=scales.__getitem__)
    return scales[best], canvases(area_px)[best]


def padded(image: np.ndarray, canvas: tuple[int, int] | None = None) -> np.ndarray:
    """White on the right and at the bottom up to a canvas, by default to sides that are multiples of 32 and few: a
    function of the image's own size alone."""
    height, width = image.shape
    rows, columns = canvas or (_side(height), _side(width))
    return np.pad(image, ((0, rows - height), (0, columns - width)), constant_values=255)


def _side(side_px: int) -> int:
    """
    >>> [_side(side) for side in (1, 500, 520, 1100)]
    [32, 512, 576, 1152]
    """
    step = PAGE_MULTIPLE_PX
    while side_px > 16 * step:
        step *= 2
    return -(-side_px // step) * step


# --- Maps to lines ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Piece:
    """A connected piece of a line in map pixels: the baseline's points, ascender and descender."""

    x: np.ndarray
    y: np.ndarray
    ascender: float
    descender: float

    @property
    def height(self) -> float:
        return self.ascender + self.descender


def lines_from_maps(maps: Maps, scale: float, config: LayoutConfig) -> list[FoundLine]:
    """The lines of one image, unordered, in pixels of the page.

    Args:
        maps: `core`, `ends`, `ascender`, `descender`, each [h, w] float32 at half of the reduced image's resolution.
        scale: reduced image over page.
    """
    ends = maps["ends"]
    cut = _cut(maps["core"] > config.core, ends > config.end)
    stride = 2.0  # of the maps against the reduced image
    edges: list[_Edge] = []
    _, labels, stats, _ = cv2.connectedComponentsWithStats(cut, connectivity=8)
    for i, (left, top, width, height, area) in enumerate(stats[1:].tolist(), 1):
        if area < 4 or width < 2:
            continue
        window = (slice(top, top + height), slice(left, left + width))
        edges += _edges(labels[window] == i, window, maps, stride, config)
    joined = _levelled_words(_joined(_pieces(edges), ends, config))
    return [_to_line(piece, stride / scale, config) for piece in joined]


def _cut(core: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The core without the end bars, [h, w] uint8; a single letter is left whole, the bars would take all of it."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(core.astype(np.uint8), connectivity=8)
    short = stats[:, cv2.CC_STAT_WIDTH] < 4 * stats[:, cv2.CC_STAT_HEIGHT]
    both = core & ends
    cut = core.astype(np.uint8)
    cut[both] = short[labels[both]]
    return cut


def _levelled_words(pieces: Sequence[_Piece]) -> list[_Piece]:
    """Gives pieces too short to tell their own slope that of the long ones."""
    slopes = [(p.y[-1] - p.y[0]) / (p.x[-1] - p.x[0]) for p in pieces if p.x[-1] - p.x[0] > 8 * p.height]
    slope = float(np.median(slopes)) if slopes else 0.0

    def levelled(p: _Piece) -> _Piece:
        if p.x[-1] - p.x[0] > 3 * p.height:
            return p
        x, middle = p.x[[0, -1]], (p.x[0] + p.x[-1]) / 2
        return replace(p, x=x, y=float(np.interp(middle, p.x, p.y)) + slope * (x - middle))

    return [levelled(p) for p in pieces]


@dataclass(frozen=True, eq=False)
class _Edge:
    """The lower edge of a connected piece of a core, a point a column, in map pixels; how thick the core is."""

    x: np.ndarray
    y: np.ndarray
    thickness: float
    ascender: float
    descender: float


def _edges(
    mask: np.ndarray, window: tuple[slice, slice], maps: Maps, stride: float, config: LayoutConfig, depth: int = 0
) -> list[_Edge]:
    """The edge of a component, or those of its parts where it holds two lines that touch.

    Args:
        mask: [h, w] bool, of connected pixels: every column has some.
    """
    core = maps["core"][window]
    if core[mask].mean() < config.confidence:
        return []
    ascender = _median(maps["ascender"][window][mask]) / stride
    descender = _median(maps["descender"][window][mask]) / stride
    columns = np.arange(mask.shape[1])
    bottoms = mask.shape[0] - 1 - np.argmax(mask[::-1], axis=0)
    heights = bottoms - np.argmax(mask, axis=0) + 1
    thickness = _median(heights)
    if depth < 3 and _holds_two(mask, heights):
        return _split(mask, window, maps, stride, config, depth)
    if len(columns) * 1.0 < 0.35 * ascender or not 0.5 < ascender / thickness < 5:
        return []
    inside = core[bottoms, columns]
    row_below = np.minimum(bottoms + 1, core.shape[0] - 1)
    below = np.where(bottoms + 1 < core.shape[0], core[row_below, columns], 0.0)
    part = np.clip((inside - config.core) / np.maximum(inside - below, 1e-3), 0, 1)
    x = columns + window[1].start + 0.5
    y = bottoms + window[0].start + 0.5 + part
    return [_Edge(x, y, thickness, ascender, descender)]


def _median(values: np.ndarray) -> float:
    """As `np.median`, which spends most of its time on checks where the array is small."""
    middle = np.partition(values, ((len(values) - 1) // 2, len(values) // 2))
    return 0.5 * (float(middle[(len(values) - 1) // 2]) + float(middle[len(values) // 2]))


def _quantile(values: np.ndarray, share: float) -> float:
    """As `np.quantile`, likewise."""
    below, part = divmod(share * (len(values) - 1), 1)
    ordered = np.sort(values)
    low, high = float(ordered[int(below)]), float(ordered[min(int(below) + 1, len(values) - 1)])
    return low + part * (high - low)


def _holds_two(mask: np.ndarray, heights: np.ndarray) -> bool:
    """Whether many columns of a component have a hole: two lines hang together somewhere."""
    return bool(np.mean(np.count_nonzero(mask, axis=0) < heights) > 0.15)


def _split(
    mask: np.ndarray, window: tuple[slice, slice], maps: Maps, stride: float, config: LayoutConfig, depth: int
) -> list[_Edge]:
    """Takes a component apart at a higher threshold; at the last resort by opening the bridges."""
    core = maps["core"][window]
    if depth < 2:
        harder = mask & (core > (0.7, 0.88)[depth])
    else:
        harder = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((1, 9), np.uint8)) > 0
    edges: list[_Edge] = []
    _, labels, stats, _ = cv2.connectedComponentsWithStats(harder.astype(np.uint8), connectivity=4)
    for i, (left, top, width, height, area) in enumerate(stats[1:].tolist(), 1):
        if area < 4 or width < 2:
            continue
        inner = (slice(top, top + height), slice(left, left + width))
        outer = (
            slice(window[0].start + top, window[0].start + top + height),
            slice(window[1].start + left, window[1].start + left + width),
        )
        edges += _edges(labels[inner] == i, outer, maps, stride, config, depth + 1)
    return edges


_STRETCHES = 40  # of an edge, whose means are as good as all columns, and few enough to be quick
_DEGREES = ((2, 0), (14, 1), (40, 2), (np.inf, 3))  # of the curve, below a length in thicknesses


def _pieces(edges: Sequence[_Edge]) -> list[_Piece]:
    """The pieces with curves through their edges: polynomials, the degree by the length, robust against stretches that
    stick out. All are fitted together, which is quicker by far than one by one.
    """
    if not edges:
        return []
    count = len(edges)
    x, y, share = np.zeros((3, count, _STRETCHES))  # means of each stretch, and its number of columns: 0 where none is
    for i, edge in enumerate(edges):
        stretches = min(len(edge.x), _STRETCHES)
        starts = (np.arange(stretches) * (len(edge.x) / stretches)).astype(int)
        columns = np.diff(starts, append=len(edge.x))
        x[i, :stretches] = np.add.reduceat(edge.x, starts) / columns
        y[i, :stretches] = np.add.reduceat(edge.y, starts) / columns
        share[i, :stretches] = columns
    first, last, thickness = np.array([(edge.x[0], edge.x[-1], edge.thickness) for edge in edges]).T
    length = last - first + 1
    degree = np.select([length < limit * thickness for limit, _ in _DEGREES], [degree for _, degree in _DEGREES])
    middle, half = (first + last) / 2, np.maximum(length / 2, 1.0)
    fit = _robust_fit((x - middle[:, None]) / half[:, None], y, share, degree)
    points = np.linspace(first - 0.5, last + 0.5, 9, axis=1)  # [count, 9]
    at = (points - middle[:, None]) / half[:, None]
    values = ((fit[:, 3:] * at + fit[:, 2:3]) * at + fit[:, 1:2]) * at + fit[:, :1]
    chord = np.linspace(values[:, 0], values[:, -1], 9, axis=1)
    straight = np.abs(values - chord).max(axis=1) < 0.3
    pieces = []
    for i, edge in enumerate(edges):
        taken = (0, -1) if straight[i] else slice(None)
        pieces.append(_Piece(points[i, taken], values[i, taken], edge.ascender, edge.descender))
    return pieces


def _robust_fit(x: np.ndarray, y: np.ndarray, share: np.ndarray, degree: np.ndarray) -> np.ndarray:
    """[curves, 4] coefficients of curves through points [curves, points], those of higher powers than `degree` 0.

    Args:
        x: from -1 to 1; share: what a point counts, 0 where there is none.
    """
    powers = x[..., None] ** np.arange(4) * (np.arange(4) <= degree[:, None])[:, None, :]  # [curves, points, 4]
    transposed = powers.transpose(0, 2, 1)
    there = share > 0
    number = there.sum(axis=1)
    rows = np.arange(len(x))
    total = share.sum(axis=1)
    weights = share / (total / number)[:, None]
    ridge = (1e-9 * total)[:, None, None] * np.eye(4)  # of too few points for the degree the flattest curve is taken
    for _ in range(4):
        weighted = transposed * weights[:, None, :]
        fit = np.linalg.solve(weighted @ powers + ridge, weighted @ y[..., None])
        deviation = np.abs(y - (powers @ fit)[..., 0])
        ordered = np.sort(np.where(there, deviation, np.inf), axis=1)
        usual = 0.5 * (ordered[rows, (number - 1) // 2] + ordered[rows, number // 2])
        weights = share / np.maximum(1.0, deviation / np.maximum(0.25, usual * 1.5)[:, None])
    return np.asarray(fit[..., 0])


def _joined(pieces: Sequence[_Piece], ends: np.ndarray, config: LayoutConfig) -> list[_Piece]:
    """Joins the pieces of one line: words that the core map left apart."""
    if not pieces:
        return []
    todo = sorted(pieces, key=lambda piece: float(piece.x[0]))
    start_x = np.array([piece.x[0] for piece in todo])
    start_y = np.array([piece.y[0] for piece in todo])
    free = np.ones(len(todo), bool)
    done: list[_Piece] = []
    for i, piece in enumerate(todo):
        if not free[i]:
            continue
        free[i] = False
        while True:
            gap, fall = start_x - piece.x[-1], start_y - piece.y[-1]
            near = (
                (gap > -0.5 * piece.height)
                & (gap < config.join_gap_open * piece.height)
                & (np.abs(fall) < 0.5 * piece.height)
            )
            following = next((j for j in (near & free).nonzero()[0] if _belong(piece, todo[j], ends, config)), None)
            if following is None:
                break
            free[following] = False
            piece = _merged(piece, todo[following])
        done.append(piece)
    return done


def _belong(a: _Piece, b: _Piece, ends: np.ndarray, config: LayoutConfig) -> bool:
    """Whether b goes on where a stops."""
    height = min(a.height, b.height)
    gap = float(b.x[0] - a.x[-1])
    if not -0.5 * height < gap < config.join_gap_open * height or max(a.height, b.height) > 1.6 * height:
        return False
    slope_a = (a.y[-1] - a.y[-2]) / max(a.x[-1] - a.x[-2], 1.0)
    if abs(a.y[-1] + slope_a * gap - b.y[0]) > 0.22 * height:
        return False
    y = round(float(a.y[-1] + b.y[0]) / 2)
    x0, x1 = max(0, round(float(a.x[-1])) - 1), round(float(b.x[0])) + 1
    marks = ends[max(0, y - max(2, round(0.4 * a.ascender))) : max(1, y), x0:x1].mean(axis=0)
    if gap < config.join_gap * height:
        return float(marks.sum()) < 1.5 * END_BAR_HEIGHTS * height  # two bars side by side: an end and a start
    return bool(marks.max(initial=0.0) < 0.3)


def _merged(a: _Piece, b: _Piece) -> _Piece:
    width_a, width_b = a.x[-1] - a.x[0], b.x[-1] - b.x[0]
    share = float(width_a / max(width_a + width_b, 1e-6))
    keep = b.x > a.x[-1]
    keep[-1] = True
    x, y = np.concatenate([a.x, b.x[keep]]), np.concatenate([a.y, b.y[keep]])
    order = np.argsort(x, kind="stable")
    return _Piece(
        x[order],
        y[order],
        share * a.ascender + (1 - share) * b.ascender,
        share * a.descender + (1 - share) * b.descender,
    )


def _to_line(piece: _Piece, factor: float, config: LayoutConfig) -> FoundLine:
    """A piece in pixels of the page. The ends are moved out by what the line's end bars took, and a little more."""
    out = 0.22 * piece.ascender
    x, y = piece.x.tolist(), piece.y.tolist()
    first, last = max(0.0, x[0] - out), x[-1] + out
    y[0] += (y[1] - y[0]) / max(x[1] - x[0], 1e-6) * (first - x[0])
    y[-1] += (piece.y[-1].item() - piece.y[-2].item()) / max(x[-1] - x[-2], 1e-6) * out
    x[0], x[-1] = first, last
    points = tuple((px * factor, py * factor) for px, py in zip(x, y, strict=True))
    more = (1 + config.margin) * factor
    return FoundLine(points, piece.ascender * more, piece.descender * more)


def with_room(lines: Sequence[FoundLine], config: LayoutConfig) -> list[FoundLine]:
    """The lines, lengthened at both ends as far as their neighbours on the same level allow."""
    if not lines:
        return []
    boxes = np.array([line.box.as_list() for line in lines], np.float64)  # [N, 4] left, top, right, bottom
    heights = boxes[:, 3] - boxes[:, 1]
    roomy = []
    for i, line in enumerate(lines):
        shared = np.minimum(boxes[:, 3], boxes[i, 3]) - np.maximum(boxes[:, 1], boxes[i, 1])
        level = shared > 0.3 * np.minimum(heights, heights[i])
        level[i] = False
        gaps_after = (boxes[:, 0] - boxes[i, 2])[level & (boxes[:, 0] + boxes[:, 2] > boxes[i, 0] + boxes[i, 2])]
        gaps_before = (boxes[i, 0] - boxes[:, 2])[level & (boxes[:, 0] + boxes[:, 2] <= boxes[i, 0] + boxes[i, 2])]
        after = min(config.room_after * line.ascender_px, 0.45 * max(0.0, gaps_after.min(initial=np.inf)))
        before = min(config.room_before * line.ascender_px, 0.45 * max(0.0, gaps_before.min(initial=np.inf)))
        roomy.append(_lengthened(line, before, after))
    return roomy


def _lengthened(line: FoundLine, before_px: float, after_px: float) -> FoundLine:
    (x0, y0), (x1, y1) = line.baseline[0], line.baseline[-1]
    start = max(0.0, x0 - before_px)
    first = (start, y0 + line.slope * (start - x0))
    last = (x1 + after_px, y1 + line.slope * after_px)
    return replace(line, baseline=(first, *line.baseline[1:-1], last))


def with_letters(lines: Sequence[FoundLine], image: np.ndarray, scale: float, config: LayoutConfig) -> list[FoundLine]:
    """The lines that have ink as letters have it: not bare paper, not a rule or a row of dashes.

    Args:
        image: [H, W] uint8, the reduced page; scale: reduced page over page.
    """
    patches = [_patch(line, image, scale) for line in lines]
    contrasts = np.array([float(np.ptp(patch)) if patch.size else 0.0 for patch in patches])
    least = config.contrast * float(np.median(contrasts)) if len(lines) else 0.0
    return [
        line
        for line, patch, contrast in zip(lines, patches, contrasts, strict=True)
        if contrast > least and _ink_height(patch) >= config.ink_height * line.height_px * scale
    ]


def _patch(line: FoundLine, image: np.ndarray, scale: float) -> np.ndarray:
    """The pixels from well above the baseline to a little below it; neighbouring lines do not reach there."""
    ys = [y for _, y in line.baseline]
    top = round((min(ys) - 0.85 * line.ascender_px) * scale)
    bottom = round((max(ys) + 0.4 * line.descender_px) * scale) + 1
    left, right = round(line.baseline[0][0] * scale), round(line.baseline[-1][0] * scale) + 1
    return image[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]


def _ink_height(patch: np.ndarray) -> int:
    """Rows from the first to the last with ink; ink is what there is less of, dark or light."""
    dark = patch < (int(patch.min()) + int(patch.max())) / 2
    ink = dark if dark.mean() < 0.5 else ~dark
    rows = np.nonzero(ink.any(axis=1))[0]
    return int(rows[-1] - rows[0] + 1) if rows.size else 0


def skew_of(lines: Sequence[FoundLine]) -> float:
    """The median slope of the lines in degrees, long ones counting more; 0 for none."""
    if not lines:
        return 0.0
    widths = np.array([line.baseline[-1][0] - line.baseline[0][0] for line in lines])
    slopes = np.array([line.slope for line in lines])
    order = np.argsort(slopes)
    heavy = np.cumsum(widths[order])
    middle = order[int(np.searchsorted(heavy, heavy[-1] / 2))]
    return float(np.degrees(np.arctan(slopes[middle])))


# --- Reading order ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Level:
    """Lines in a frame without skew: arrays [N] of left, right, baseline y, height."""

    left: np.ndarray
    right: np.ndarray
    y: np.ndarray
    height: np.ndarray


def in_reading_order(lines: Sequence[FoundLine], skew_deg: float, config: LayoutConfig) -> list[list[FoundLine]]:
    """Regions of lines in the order in which a page is read: column after column, headings between them."""
    if not lines:
        return []
    level = _levelled(lines, skew_deg)
    regions = []
    for block in _blocks(np.arange(len(lines)), level, config):
        regions += _paragraphs(block, level, config)
    return [[lines[i] for i in region] for region in regions]


def _levelled(lines: Sequence[FoundLine], skew_deg: float) -> _Level:
    angle = -np.radians(skew_deg)
    cos, sin = np.cos(angle), np.sin(angle)
    first = np.array([line.baseline[0] for line in lines])
    last = np.array([line.baseline[-1] for line in lines])
    middle = (first + last) / 2
    return _Level(
        first[:, 0] * cos - first[:, 1] * sin,
        last[:, 0] * cos - last[:, 1] * sin,
        middle[:, 0] * sin + middle[:, 1] * cos,
        np.array([line.height_px for line in lines]),
    )


def _blocks(chosen: np.ndarray, level: _Level, config: LayoutConfig) -> list[list[int]]:
    """The chosen lines as blocks, each in order: XY-cut (Nagy & Seth 1984) with gutters that headings may cross."""
    cut = _best_gutter(chosen, level, config)
    if cut is None:
        return [_in_rows(chosen, level)]
    left, right, band = cut
    blocks: list[list[int]] = []
    for number in np.unique(band):
        members = band == number
        in_left, in_right = chosen[members & left], chosen[members & right]
        if number % 2 == 0 and _are_columns(in_left, in_right, level, config):
            blocks += _blocks(in_left, level, config) + _blocks(in_right, level, config)
        else:
            rest = chosen[members]
            # lines that cross the gutter, or a band too thin for columns: it may still have columns elsewhere
            blocks += _blocks(rest, level, config) if len(rest) < len(chosen) else [_in_rows(rest, level)]
    return blocks


def _best_gutter(
    chosen: np.ndarray, level: _Level, config: LayoutConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """The gutter that has most lines in columns beside it.

    Returns:
        Masks of the lines left and right of it, and the number of each line's band: lines that lie across the gutter
        and alone on their row (headings) have odd numbers, the bands between them even ones. None where there are no
        columns.
    """
    if len(chosen) < 2 * config.column_lines:
        return None
    left_edge, right_edge, y = level.left[chosen], level.right[chosen], level.y[chosen]
    height = _median(level.height[chosen])
    tolerance = 0.25 * height
    alone = _on_row(y, y, 0.5 * level.height[chosen]).sum(axis=1) == 1
    best, best_score = None, 0.0
    order = np.argsort(y, kind="stable")
    for x in np.unique(np.round(left_edge / (0.5 * height))) * 0.5 * height:
        across = (right_edge > x + tolerance) & (left_edge < x - tolerance)
        left = np.where(across, (left_edge + right_edge) / 2 < x, right_edge <= x + tolerance)
        heading = across & alone
        right = ~left & ~heading
        left &= ~heading
        if min(left.sum(), right.sum()) < config.column_lines:
            continue
        band = np.zeros(len(chosen), int)
        band[order] = np.cumsum(np.diff(heading[order].astype(int), prepend=0) != 0)
        score = -0.5 * float((across & ~heading).sum())
        for number in range(0, int(band.max()) + 1, 2):
            members = band == number
            if _are_columns(chosen[members & left], chosen[members & right], level, config):
                score += members.sum()
        if score > best_score:
            best, best_score = (left, right, band), score
    return best


def _on_row(a: np.ndarray, b: np.ndarray, within: np.ndarray | float) -> np.ndarray:
    """Which baselines of b are level with which of a: [len(a), len(b)] bool."""
    return np.asarray(np.abs(a[:, None] - b[None, :]) < np.reshape(within, (-1, 1)))


def _are_columns(left: np.ndarray, right: np.ndarray, level: _Level, config: LayoutConfig) -> bool:
    """Whether two groups of lines, one beside the other, are columns of text and not the cells of a table.

    Cells are short, leave much of their column empty and stand on the rows of their neighbours.
    """
    if min(len(left), len(right)) < config.column_lines:
        return False
    fills, long_shares = [], []
    for side in (left, right):
        widths = level.right[side] - level.left[side]
        extent = _quantile(level.right[side], 0.9) - _quantile(level.left[side], 0.1)
        height = _median(level.height[side])
        if extent < config.column_width * height:
            return False
        level_lines = _on_row(level.y[side], level.y[side], 0.5 * height)  # the side may hold columns itself
        fills.append(_median(level_lines @ widths) / max(extent, 1e-6))
        long_shares.append(float(np.mean(widths >= config.prose_width * height)))
    top = max(level.y[left].min(), level.y[right].min())
    bottom = min(level.y[left].max(), level.y[right].max())
    if bottom - top < 0.4 * min(np.ptp(level.y[left]), np.ptp(level.y[right])):
        return False
    within = 0.15 * float(np.median(level.height[right]))
    on_rows = float(np.mean(_on_row(level.y[right], level.y[left], within).any(axis=1)))
    if min(long_shares) >= 0.5:
        return min(fills) >= config.column_fill and (max(fills) >= 0.6 or on_rows < 0.8)
    prose = int(np.argmax(long_shares))  # a column of prose beside short lines: a list, a table, a drawing
    return long_shares[prose] >= 0.7 and len((left, right)[prose]) >= 5 and fills[prose] >= 0.6 and on_rows < 0.6


def _in_rows(chosen: np.ndarray, level: _Level) -> list[int]:
    """From top to bottom, and from left to right on a common baseline."""
    rows: list[list[int]] = []
    for i in chosen[np.argsort(level.y[chosen], kind="stable")]:
        if rows:
            first = rows[-1][0]
            if level.y[i] - level.y[first] < 0.3 * min(level.height[i], level.height[first]):
                rows[-1].append(int(i))
                continue
        rows.append([int(i)])
    return [i for row in rows for i in sorted(row, key=lambda i: float(level.left[i]))]


def _paragraphs(block: Sequence[int], level: _Level, config: LayoutConfig) -> list[list[int]]:
    """A block cut where the baselines are far apart or the size of the print changes."""
    steps = np.array([level.y[b] - level.y[a] for a, b in pairwise(block)])
    down = steps[steps > 0.3 * np.median(level.height[list(block)])] if len(steps) else steps
    usual = float(np.median(down)) if len(down) else 0.0
    regions: list[list[int]] = [[block[0]]]
    for previous, i, step in zip(block, block[1:], steps, strict=False):
        larger, smaller = max(level.height[previous], level.height[i]), min(level.height[previous], level.height[i])
        if step > config.paragraph_gap * usual or (larger > 1.45 * smaller and step > 0.3 * larger):
            regions.append([])
        regions[-1].append(i)
    return regions

"""From the line finder's maps to lines: connected pieces of cores, curves through their lower edges, pieces joined.

OpenCV and NumPy only; the maps come from any callable. All coordinates are pixels of the upright image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from ocr_model.found_lines import FoundLine, LayoutConfig
from ocr_model.order_statistics import median

Maps = Mapping[str, np.ndarray]

MAP_STRIDE_PX = 2.0  # of the maps against the reduced image

END_BAR_HEIGHTS = 0.28  # thickness of the bars that the network is taught, in heights of the line


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
    stride = MAP_STRIDE_PX
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
    ascender = median(maps["ascender"][window][mask]) / stride
    descender = median(maps["descender"][window][mask]) / stride
    columns = np.arange(mask.shape[1])
    bottoms = mask.shape[0] - 1 - np.argmax(mask[::-1], axis=0)
    heights = bottoms - np.argmax(mask, axis=0) + 1
    thickness = median(heights)
    if depth < 3 and _holds_two(mask, heights):
        return _split(mask, window, maps, stride, config, depth)
    if len(columns) * 1.0 < 0.35 * ascender or not 0.5 < ascender / thickness < config.thin:
        return []
    inside = core[bottoms, columns]
    row_below = np.minimum(bottoms + 1, core.shape[0] - 1)
    below = np.where(bottoms + 1 < core.shape[0], core[row_below, columns], 0.0)
    part = np.clip((inside - config.core) / np.maximum(inside - below, 1e-3), 0, 1)
    x = columns + window[1].start + 0.5
    y = bottoms + window[0].start + 0.5 + part
    return [_Edge(x, y, thickness, ascender, descender)]


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

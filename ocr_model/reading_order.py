"""Lines in reading order: columns found by the gutters between them, rows of a table read as rows.

Coordinates are pixels of the upright image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ocr_model.found_lines import FoundLine, LayoutConfig
from ocr_model.order_statistics import median, quantile


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
    height = median(level.height[chosen])
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
        extent = quantile(level.right[side], 0.9) - quantile(level.left[side], 0.1)
        height = median(level.height[side])
        if extent < config.column_width * height:
            return False
        level_lines = _on_row(level.y[side], level.y[side], 0.5 * height)  # the side may hold columns itself
        fills.append(median(level_lines @ widths) / max(extent, 1e-6))
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

"""Truth and picture brought together: sizes compared, lines put on the picture, and cut out of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr_model.affine import Affine
from ocr_model.document import Box, Point
from ocr_model.errors import UnreadablePage
from ocr_model.examples import moved
from ocr_model.line_images import cut_line
from ocr_model.truth import GroundTruthLine, GroundTruthPage, LineGeometry, ground_truth_line

Grey = NDArray[np.uint8]

CONTEXT = 0.35  # of the line's height, kept around it so that training can draw other crops
_SMALLEST_LINE_PX = 4
_LARGEST_LINE_IMAGE_PX = 300  # high; what has one line of text and is higher than half its width is a page


@dataclass(frozen=True)
class LineCrop:
    """A line cut out of a page.

    Attributes:
        pixels: [height, width] uint8, the line with some of its surroundings, its baseline level.
        margins: pixels of these surroundings left, top, right and bottom.
        back: from the crop's coordinates to those of the page.
    """

    pixels: Grey
    margins: tuple[int, int, int, int]
    back: Affine


def is_line_image(truth: GroundTruthPage, width: int, height: int) -> bool:
    """Whether a picture whose truth is plain text shows one line of print and nothing else.

    >>> one = GroundTruthPage(None, None, (GroundTruthLine("a"),))
    >>> is_line_image(one, 900, 60), is_line_image(one, 2000, 3000)
    (True, False)
    """
    lines = [line for line in truth.lines if line.text]
    is_plain = all(line.box is None and line.problem in ("", "no-geometry") for line in lines)
    return len(lines) == 1 and is_plain and (height <= _LARGEST_LINE_IMAGE_PX or width >= 2 * height)


def whole_image_line(truth: GroundTruthPage, width: int, height: int) -> GroundTruthLine:
    """The text of the truth as one line that fills the picture.

    Raises:
        UnreadablePage: `no-text`.
    """
    text = " ".join(line.text for line in truth.lines if line.text)
    line = ground_truth_line(text, LineGeometry(Box(0, 0, width, height)), (width, height))
    if line.problem:
        raise UnreadablePage("the truth has no text", line.problem)
    return line


# ---- sizes


def placed(truth: GroundTruthPage, width: int, height: int) -> GroundTruthPage:
    """The truth in pixels of a picture of that size; lines outside of it have the problem `outside-page`.

    A truth that was made on a larger or smaller copy of the same picture is scaled.

    Raises:
        UnreadablePage: `other-size`: it was made on a picture of other proportions.
    """
    way = Affine()
    if truth.width and truth.height and (truth.width, truth.height) != (width, height):
        if not same_proportions((truth.width, truth.height), (width, height)):
            raise UnreadablePage(
                f"the truth is of a picture of {truth.width} x {truth.height} pixels, this one has {width} x {height}",
                "other-size",
                "give the picture that the truth was made on",
            )
        way = Affine.scale(width / truth.width, height / truth.height)
    lines = tuple(_on_picture(line, way, width, height) for line in truth.lines)
    return replace(truth, width=width, height=height, lines=lines)


def same_proportions(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether one size is the other at some scale, rounded to whole pixels.

    >>> same_proportions((2481, 3508), (1241, 1754)), same_proportions((2481, 3508), (3508, 2481))
    (True, False)
    """
    low = max((b - 0.5) / a for a, b in zip(one, other, strict=True))
    high = min((b + 0.5) / a for a, b in zip(one, other, strict=True))
    return low <= high


def _on_picture(line: GroundTruthLine, way: Affine, width: int, height: int) -> GroundTruthLine:
    """The line moved, and checked against the picture anew."""
    there = line if way == Affine() else moved(line, way)
    own = line.problem if line.problem not in ("no-text", "no-geometry", "outside-page") else ""
    geometry = LineGeometry(there.box, there.polygon or (), there.baseline or (), there.words)
    checked = ground_truth_line(line.text, geometry, (width, height), line.kind, line.region, line.region_kind, own)
    if line.problem in ("no-geometry", "outside-page"):  # what is left tells less than the file did
        checked = replace(checked, problem=line.problem)
    return replace(checked, clipped=checked.clipped or line.clipped)


# ---- cutting


def cut_truth_line(page: Grey, line: GroundTruthLine, highest_px: int | None = None) -> LineCrop:
    """The line with its surroundings.

    Along its baseline where that is curved or falls by more than a tenth of the line's height, else its box.

    Args:
        page: [height, width] uint8.
        line: with a box, in pixels of the page.
        highest_px: a line that is higher is scaled down, the surroundings not counted.

    Raises:
        UnreadablePage: `too-small`: no letter can be read in it.
    """
    box = line.box
    assert box is not None
    baseline, above, below = _reach(line, box)
    if above + below < _SMALLEST_LINE_PX or math.dist(baseline[0], baseline[-1]) < _SMALLEST_LINE_PX:
        raise UnreadablePage(f"the line is {box.width} x {box.height} pixels", "too-small")
    pad = round(CONTEXT * (above + below))
    strip, matrix = cut_line(page, _lengthened(baseline, pad), above + pad, below + pad)
    a, b, c, d, e, f = (float(x) for x in matrix.ravel())
    back = Affine.shift(0.5, 0.5).after(Affine(a, b, c, d, e, f)).after(Affine.shift(-0.5, -0.5))
    return _no_higher(LineCrop(np.ascontiguousarray(strip), (pad, pad, pad, pad), back), highest_px)


def _reach(line: GroundTruthLine, box: Box) -> tuple[list[Point], float, float]:
    """(baseline, how far the line reaches above it, and below)"""
    level: list[Point] = [(box.left, box.bottom), (box.right, box.bottom)]
    points = list(line.baseline or level)
    length = math.dist(points[0], points[-1])
    if length < _SMALLEST_LINE_PX:
        return level, box.height, 0.0
    across = _across(points, points)
    fall = abs(points[-1][1] - points[0][1])
    if max(across) - min(across) <= 0.1 * box.height and fall <= 0.1 * box.height and points[0][0] < points[-1][0]:
        return level, box.height, 0.0
    if line.polygon:
        along, offsets = _along(points, line.polygon), _across(points, line.polygon)
        own_along, own = _along(points, points), across
        order = np.argsort(own_along)
        base = np.interp(along, np.asarray(own_along)[order], np.asarray(own)[order])
        distances = np.asarray(offsets) - base
        return points, max(1.0, float(-distances.min())), max(0.0, float(distances.max()))
    middle = 0.5 * (points[0][1] + points[-1][1])
    slope_fall = fall * box.width / max(1.0, abs(points[-1][0] - points[0][0]))
    above = max(0.4 * box.height, middle - box.top - slope_fall / 2)
    return points, above, max(0.15 * box.height, box.bottom - middle - slope_fall / 2)


def _along(baseline: Sequence[Point], points: Sequence[Point]) -> list[float]:
    """How far along the baseline's chord each point lies, in pixels."""
    (x0, y0), (x1, y1) = baseline[0], baseline[-1]
    length = math.dist((x0, y0), (x1, y1))
    cos, sin = (x1 - x0) / length, (y1 - y0) / length
    return [(x - x0) * cos + (y - y0) * sin for x, y in points]


def _across(baseline: Sequence[Point], points: Sequence[Point]) -> list[float]:
    """How far below the baseline's chord each point lies, in pixels."""
    (x0, y0), (x1, y1) = baseline[0], baseline[-1]
    length = math.dist((x0, y0), (x1, y1))
    cos, sin = (x1 - x0) / length, (y1 - y0) / length
    return [(y - y0) * cos - (x - x0) * sin for x, y in points]


def _lengthened(baseline: Sequence[Point], by_px: float) -> list[Point]:
    """The baseline with so much more at both ends, in the direction of its chord.

    >>> _lengthened([(10, 5), (20, 5)], 3)
    [(7.0, 5.0), (10, 5), (20, 5), (23.0, 5.0)]
    """
    (x0, y0), (x1, y1) = baseline[0], baseline[-1]
    length = math.dist((x0, y0), (x1, y1))
    dx, dy = by_px * (x1 - x0) / length, by_px * (y1 - y0) / length
    return [(x0 - dx, y0 - dy), *baseline, (x1 + dx, y1 + dy)]


def _no_higher(crop: LineCrop, highest_px: int | None) -> LineCrop:
    height, width = crop.pixels.shape
    own = height - crop.margins[1] - crop.margins[3]
    if highest_px is None or own <= highest_px:
        return crop
    scale = highest_px / own
    new_width, new_height = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(crop.pixels, (new_width, new_height), interpolation=cv2.INTER_AREA)
    left, top, right, bottom = (round(margin * scale) for margin in crop.margins)
    back = crop.back.after(Affine.scale(width / new_width, height / new_height))
    return LineCrop(np.asarray(small, np.uint8), (left, top, right, bottom), back)

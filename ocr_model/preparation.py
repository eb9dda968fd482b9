"""Pages made easier to read, one step at a time: cut, turned upright, straightened, evened out, cleaned, made bilevel.

Every step is a function of the picture alone. Those that move pixels give the map back to the picture that they were
given, so that any place on the prepared page is known on the original one. Pictures are [height, width] uint8, 0 black.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr_model.affine import IDENTITY, Affine
from ocr_model.errors import BadArgument

Grey = NDArray[np.uint8]

_SMALL_AREA_PX = 600_000  # what skew and orientation are measured at
_STEEPEST_DEG = 7.0
_SMALLEST_TURN_DEG = 0.05
_DARK = 80  # a scanner's lid, or the table beside the page
_SAUVOLA_K, _SAUVOLA_R = 0.2, 128.0


@dataclass(frozen=True)
class Prepared:
    """A page after some steps.

    Attributes:
        pixels: [height, width] uint8.
        back: from its coordinates to those of the page before the first step.
        steps: each with its name and what it found, plain JSON values.
    """

    pixels: Grey
    back: Affine = IDENTITY
    steps: tuple[Mapping[str, Any], ...] = ()


def parse_steps(text: str) -> tuple[str, ...]:
    """The steps in the order in which they are done.

    >>> parse_steps("binarise,deskew"), parse_steps("")
    (('deskew', 'binarise'), ())

    Raises:
        BadArgument: an unknown step.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in STEPS]
    if unknown:
        raise BadArgument(f"--prepare: no such step: {unknown[0]}", f"choose from {', '.join(STEPS)}")
    return tuple(name for name in STEPS if name in names)


def prepare(page: Grey, steps: Iterable[str]) -> Prepared:
    """The page after the steps, in the order given."""
    prepared = Prepared(page)
    for name in steps:
        done = STEPS[name](prepared.pixels)
        prepared = Prepared(done.pixels, prepared.back.after(done.back), (*prepared.steps, *done.steps))
    return prepared


def _done(name: str, pixels: Grey, back: Affine = IDENTITY, **found: Any) -> Prepared:
    return Prepared(np.ascontiguousarray(pixels), back, ({"step": name, **found},))


# ---- orientation


def turn_upright(page: Grey) -> Prepared:
    """The page turned by quarters so that Latin text stands upright."""
    turns = quarter_turns_of(page)
    return _done(
        "orient", np.rot90(page, -turns), turned_back(page.shape[1], page.shape[0], turns), quarter_turns=turns
    )


def turned_back(width: int, height: int, turns: int) -> Affine:
    """From a page turned clockwise by so many quarters to the page of that size that it was.

    >>> turned_back(30, 20, 1).point((20.0, 0.0))
    (0.0, 0.0)
    """
    size = width, height
    back = Affine()
    for _ in range(turns % 4):
        back = back.after(Affine(0, 1, 0, -1, 0, size[1]))  # (x, y) of the turned one → (y, height - x)
        size = size[1], size[0]
    return back


def quarter_turns_of(page: Grey) -> int:
    """How often the page must be turned by 90 degrees clockwise to stand upright; 0 where nothing tells.

    Rows of print alternate with gaps, columns do not: that tells lying from standing. Above the small letters stand
    more strokes (b, d, f, h, k, l, t, capitals, figures) than below them (g, j, p, q, y), which tells up from down
    (after Caprari, Algorithm for text page up/down orientation determination, 2000).
    """
    ink = _ink(_small(page)[0])
    lies = _alternation(ink.T) > 1.15 * _alternation(ink)
    upright = np.rot90(ink, -1) if lies else ink
    turns = 1 if lies else 0
    return turns + 2 if _ascent(upright) < -0.015 else turns


def _ink(page: Grey) -> NDArray[np.float32]:
    """[height, width] float32, 1 where there is ink: darker than its surroundings, and no border of the scan."""
    side = max(15, min(page.shape) // 20) | 1
    local = cv2.boxFilter(page.astype(np.float32), -1, (side, side), borderType=cv2.BORDER_REFLECT)
    return np.asarray((page < local - 18) & (local > _DARK), np.float32)


def _alternation(ink: NDArray[np.float32]) -> float:
    """How strongly rows differ from those next to them, against what they hold, at the skew where they do most."""
    held = max(float(np.square(ink.sum(axis=1)).sum()), 1.0)
    return max(_sharpness(ink, angle) for angle in np.arange(-_STEEPEST_DEG, _STEEPEST_DEG + 1, 1.0)) / held


def _ascent(ink: NDArray[np.float32]) -> float:
    """Ink above the bands of small letters minus ink below, as a share of the ink in the bands; skew is taken out."""
    level = _turned_ink(ink, _skew_of_ink(ink))
    above = below = inside = 0.0
    for left in range(0, level.shape[1], max(1, level.shape[1] // 3)):  # columns of print need not be level with others
        rows = level[:, left : left + max(1, level.shape[1] // 3)].sum(axis=1)
        for start, end in _bands(rows):
            reach = max(2, round(0.6 * (end - start)))
            inside += float(rows[start:end].sum())
            above += float(rows[max(0, start - reach) : start].sum())
            below += float(rows[end : end + reach].sum())
    return (above - below) / inside if inside else 0.0


def _bands(rows: NDArray[np.float32]) -> list[tuple[int, int]]:
    """First row and end of the runs that hold over half of what the fullest rows hold."""
    if not rows.any():
        return []
    full = rows > 0.5 * np.percentile(rows[rows > 0], 90)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], full.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a >= 3]


# ---- skew


def deskew(page: Grey) -> Prepared:
    """The page turned so that its lines are level; the picture grows so that nothing is lost, new corners are pale."""
    angle = skew_of(page)
    if abs(angle) < _SMALLEST_TURN_DEG:
        return _done("deskew", page, skew_deg=0.0)
    height, width = page.shape
    turn = Affine.turn(-angle)
    corners = turn.points([(0, 0), (width, 0), (0, height), (width, height)])
    left, top = min(x for x, _ in corners), min(y for _, y in corners)
    new_width = int(np.ceil(max(x for x, _ in corners) - left))
    new_height = int(np.ceil(max(y for _, y in corners) - top))
    forth = Affine.shift(-left, -top).after(turn)
    paper = float(np.percentile(page[::4, ::4], 90))
    turned = cv2.warpAffine(
        page, forth.for_opencv(), (new_width, new_height), flags=cv2.INTER_LINEAR, borderValue=paper
    )
    return _done("deskew", np.asarray(turned, np.uint8), forth.inverse(), skew_deg=round(angle, 3))


def skew_of(page: Grey) -> float:
    """Degrees by which the lines fall to the right, within ±7; 0 where there are none.

    The angle at which the rows' ink differs most between neighbours (Postl, Detection of linear oblique structures and
    skew scan in digitized documents, 1986).
    """
    return _skew_of_ink(_ink(_small(page)[0]))


def _skew_of_ink(ink: NDArray[np.float32]) -> float:
    if ink.sum() < 50:
        return 0.0
    best = 0.0
    for step, reach in ((1.0, _STEEPEST_DEG), (0.25, 1.0), (0.05, 0.25)):
        angles = np.arange(best - reach, best + reach + step / 2, step)
        best = float(max(angles, key=lambda angle: _sharpness(ink, float(angle))))
    return best if _sharpness(ink, best) > 1.02 * _sharpness(ink, 0.0) else 0.0


def _sharpness(ink: NDArray[np.float32], angle_deg: float) -> float:
    """Of the rows when each column is moved up by what a line of that angle has fallen there."""
    height, width = ink.shape
    strips = np.linspace(0, width, min(width, 65)).astype(int)
    falls = np.tan(np.radians(angle_deg)) * (0.5 * (strips[:-1] + strips[1:]) - width / 2)
    sums = _strip_sums(ink, strips)
    rows = np.arange(height)
    total = np.zeros(height)
    for fall, column in zip(falls, sums, strict=True):
        total += np.interp(rows + fall, rows, column, left=0.0, right=0.0)
    return float(np.square(np.diff(total)).sum())


def _strip_sums(ink: NDArray[np.float32], strips: NDArray[np.int_]) -> NDArray[np.float64]:
    """[strips, height]: the ink of each row between the borders."""
    cumulated = np.concatenate([np.zeros((ink.shape[0], 1)), np.cumsum(ink, axis=1, dtype=np.float64)], axis=1)
    return np.asarray((cumulated[:, strips[1:]] - cumulated[:, strips[:-1]]).T)


def _turned_ink(ink: NDArray[np.float32], angle_deg: float) -> NDArray[np.float32]:
    height, width = ink.shape
    middle = Affine.shift(width / 2, height / 2)
    forth = middle.after(Affine.turn(-angle_deg)).after(Affine.shift(-width / 2, -height / 2))
    return np.asarray(cv2.warpAffine(ink, forth.for_opencv(), (width, height), flags=cv2.INTER_LINEAR), np.float32)


def _small(page: Grey) -> tuple[Grey, float]:
    """(the page at no more than `_SMALL_AREA_PX`, the scale)"""
    scale = min(1.0, float(np.sqrt(_SMALL_AREA_PX / page.size)))
    if scale == 1.0:
        return page, 1.0
    return np.asarray(cv2.resize(page, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8), scale


# ---- borders


def crop_border(page: Grey) -> Prepared:
    """The page without the dark border that a scanner leaves around it; at least half of each side stays."""
    left, top, right, bottom = border_of(page)
    height, width = page.shape
    cut = page[top : height - bottom, left : width - right]
    return _done("crop", cut, Affine.shift(left, top), border_px=[left, top, right, bottom])


def border_of(page: Grey) -> tuple[int, int, int, int]:
    """Pixels of dark border left, top, right and bottom."""
    dark = page < _DARK
    rows, columns = dark.mean(axis=1) > 0.6, dark.mean(axis=0) > 0.6
    top, bottom = _run(rows), _run(rows[::-1])
    # A border on two sides darkens the ends of the others' rows: columns are looked at without the rows that go.
    inner = dark[top : page.shape[0] - bottom]
    columns = inner.mean(axis=0) > 0.6
    left, right = _run(columns), _run(columns[::-1])
    return left, top, right, bottom


def _run(is_border: NDArray[np.bool_]) -> int:
    """Length of the border at the beginning, a quarter of all at most: what is longer is a dark page.

    >>> _run(np.array([True, True] + 8 * [False])), _run(np.array([False, True])), _run(np.array(9 * [True]))
    (2, 0, 0)
    """
    clear = np.flatnonzero(~is_border)
    length = int(clear[0]) if clear.size else len(is_border)
    return length if length <= len(is_border) // 4 else 0


# ---- light, noise, black and white


def flatten(page: Grey) -> Prepared:
    """The page as if it were lit evenly: divided by its paper, which is what remains when the print is closed over."""
    small, _ = _small(page)
    side = max(9, min(small.shape) // 30) | 1
    paper = cv2.dilate(small, np.ones((side, side), np.uint8))
    paper = cv2.medianBlur(np.asarray(paper, np.uint8), min(2 * side + 1, 255))
    full = cv2.resize(paper, (page.shape[1], page.shape[0]), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    level = float(np.median(full))
    even = np.clip(page.astype(np.float32) * (max(level, 1.0) / np.maximum(full, 1.0)), 0, 255)
    return _done("flatten", np.asarray(np.rint(even), np.uint8), paper=round(level))


def denoise(page: Grey) -> Prepared:
    """The page without grain, by non-local means as strong as the grain; a page without any stays as it is."""
    sigma = noise_of(page)
    if sigma < 1.5:
        return _done("denoise", page, sigma=round(sigma, 2))
    strength = min(1.2 * sigma, 30.0)
    return _done(
        "denoise",
        np.asarray(cv2.fastNlMeansDenoising(page, None, strength, 3, 11), np.uint8),
        sigma=round(sigma, 2),
    )


def noise_of(page: Grey) -> float:
    """Standard deviation of the grain, in grey levels.

    The median of what a Laplacian leaves, which edges hardly change (after Immerkær, Fast noise variance
    estimation, 1996).
    """
    if min(page.shape) < 3:
        return 0.0
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    left = cv2.filter2D(page.astype(np.float32), -1, kernel)[1:-1, 1:-1]
    return float(np.median(np.abs(left)) / 0.6745 / 6.0)


def binarise(page: Grey) -> Prepared:
    """The page in black and white, 0 and 255, by a threshold of its own for every pixel.

    Sauvola and Pietikäinen, Adaptive document image binarization, 2000.
    """
    side = max(15, min(page.shape) // 40) | 1
    grey = page.astype(np.float64)
    mean = cv2.boxFilter(grey, -1, (side, side), borderType=cv2.BORDER_REFLECT)
    square = cv2.boxFilter(grey * grey, -1, (side, side), borderType=cv2.BORDER_REFLECT)
    deviation = np.sqrt(np.maximum(square - mean * mean, 0))
    threshold = mean * (1 + _SAUVOLA_K * (deviation / _SAUVOLA_R - 1))
    return _done("binarise", np.where(grey > threshold, 255, 0).astype(np.uint8), window_px=side)


STEPS: dict[str, Callable[[Grey], Prepared]] = {
    "crop": crop_border,
    "orient": turn_upright,
    "deskew": deskew,
    "flatten": flatten,
    "denoise": denoise,
    "binarise": binarise,
}

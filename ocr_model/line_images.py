"""From a page to what the recogniser takes: lines cut along their baselines, 40 px high, ink 1 on paper 0."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from ocr_model.document import Point

Grey = npt.NDArray[np.uint8]

LINE_HEIGHT_PX = 40
STRIDE_PX = 4
MIN_CONTRAST = 40.0
MAX_WIDTH_PX = 4096


def bucket_width(width_px: int) -> int:
    """The width that a line is padded to, a function of its own width alone: a result never depends on batch mates.

    Multiples of 32 up to 256, of 64 up to 512 and so on: beyond 256 px at most a fifth is padding.

    >>> [bucket_width(w) for w in (4, 100, 256, 257, 1000, 4096)]
    [32, 128, 256, 320, 1024, 4096]
    """
    step = 32
    while width_px > 8 * step:
        step *= 2
    return -(-width_px // step) * step


def cut_line(
    image: Grey, baseline: Sequence[Point], ascender_px: float, descender_px: float
) -> tuple[Grey, npt.NDArray[np.float64]]:
    """The strip of a page around a baseline, turned so that the baseline is level.

    Args:
        image: [height, width] uint8.
        baseline: at least two points from left to right, pixels of the image.
        ascender_px, descender_px: how far the strip reaches above and below the baseline.

    Returns:
        The strip, [round(ascender + descender), length of the baseline] uint8, and the 2 x 3 matrix that takes
        (x, y, 1) of the strip back to the image (for a curved baseline: along its chord).
    """
    points = np.asarray(baseline, dtype=np.float64)
    (x0, y0), (x1, y1) = points[[0, -1]].tolist()
    angle = math.atan2(y1 - y0, x1 - x0)
    cos, sin = math.cos(angle), math.sin(angle)
    length = max(1, round(math.hypot(x1 - x0, y1 - y0)))
    height = max(1, round(ascender_px + descender_px))
    back = np.array([[cos, -sin, x0 + sin * ascender_px], [sin, cos, y0 - cos * ascender_px]])
    along = (points[:, 0] - x0) * cos + (points[:, 1] - y0) * sin
    across = (points[:, 1] - y0) * cos - (points[:, 0] - x0) * sin
    if np.abs(across).max() <= 0.06 * height:
        if abs(y1 - y0) < 0.5 and x0 < x1:  # level already: a plain crop, no interpolation
            left, top = round(x0), round(y0 - ascender_px)
            return _crop(image, left, top, length, height), np.array([[1.0, 0.0, left], [0.0, 1.0, top]])
        strip = cv2.warpAffine(
            image,
            back,
            (length, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return np.asarray(strip, np.uint8), back
    offsets = np.interp(np.arange(length), along, across)
    columns, rows = np.meshgrid(np.arange(length, dtype=np.float64), np.arange(height, dtype=np.float64))
    rows = rows + offsets[None, :]
    map_x = (back[0, 0] * columns + back[0, 1] * rows + back[0, 2]).astype(np.float32)
    map_y = (back[1, 0] * columns + back[1, 1] * rows + back[1, 2]).astype(np.float32)
    return np.asarray(cv2.remap(image, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8), back


def _crop(image: Grey, left: int, top: int, width: int, height: int) -> Grey:
    """A rectangle that may reach over the edge, where the edge's pixels are repeated."""
    page_height, page_width = image.shape
    before_x, after_x = max(0, -left), max(0, left + width - page_width)
    before_y, after_y = max(0, -top), max(0, top + height - page_height)
    inside = image[max(0, top) : max(0, top + height), max(0, left) : max(0, left + width)]
    if not (before_x or after_x or before_y or after_y):
        return inside
    if inside.size == 0:
        return np.full((height, width), 255, np.uint8)
    return np.pad(
        inside,
        ((before_y, height - inside.shape[0] - before_y), (before_x, width - inside.shape[1] - before_x)),
        "edge",
    )


def normalised_width(width: int, height: int) -> int:
    """Width in pixels of a strip when it is 40 px high, a multiple of 4.

    >>> normalised_width(100, 20), normalised_width(1, 40), normalised_width(10_000, 40)
    (200, 4, 4096)
    """
    scale = LINE_HEIGHT_PX / height
    return min(MAX_WIDTH_PX, max(STRIDE_PX, round(width * scale / STRIDE_PX) * STRIDE_PX))


def normalise_line_image(strip: Grey) -> Grey:
    """A strip as the recogniser takes it: 40 px high, ink 255 on paper 0 whatever the print's colours were.

    The contrast is stretched between the strip's own paper (the 90th percentile) and ink (the 1st), white print on a
    dark ground is inverted. A strip without contrast stays pale instead of having its noise blown up.

    Args:
        strip: [height, width] uint8, at least one pixel.

    Returns:
        [40, width'] uint8, width' a multiple of 4 in proportion to the strip's (longer than 4096: squeezed).
    """
    height, width = strip.shape
    scale = LINE_HEIGHT_PX / height
    new_width = normalised_width(width, height)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = np.asarray(cv2.resize(strip, (new_width, LINE_HEIGHT_PX), interpolation=method), np.uint8)
    counts = cv2.calcHist([small], [0], None, [256], [0, 256])
    levels = np.cumsum(counts.ravel(), dtype=np.float64) / small.size
    low, dark, middle, light, high = np.searchsorted(levels, (0.01, 0.10, 0.5, 0.90, 0.99)).astype(float)
    grey = np.arange(256, dtype=np.float32)  # every level once: a table is quicker than a float for every pixel
    if middle < 0.5 * (low + high) and high - low > MIN_CONTRAST:
        paper, ink = dark, high
        contrast = max(MIN_CONTRAST, ink - paper)
        table = (grey - np.float32(paper)) * np.float32(255.0 / contrast)
    else:
        paper, ink = light, low
        contrast = max(MIN_CONTRAST, paper - ink)
        table = (np.float32(paper) - grey) * np.float32(255.0 / contrast)
    return np.asarray(cv2.LUT(small, np.clip(table, 0.0, 255.0).astype(np.uint8)), np.uint8)

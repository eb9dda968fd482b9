"""A picture of what was read: the page with its lines outlined, and beside it the text where it stands."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr_model.document import Line, Page, Point

_OUTLINE = (0, 130, 60)
_BASELINE = (30, 90, 220)
_REGION = (200, 120, 0)
_SURE, _UNSURE = (0, 0, 0), (190, 30, 30)
_UNSURE_BELOW = 0.8
_WEIGHT = 400  # of the strokes, as in CSS


def draw_page(image: NDArray[np.uint8], page: Page, longest_side: int = 2200) -> NDArray[np.uint8]:
    """The page, dimmed, with outlines (green), baselines (blue) and regions (brown); to its right the read text.

    Words of low confidence are red. A page that lies on its side is turned upright.

    Args:
        image: [height, width] uint8, as it was read.
        longest_side: pixels of the longer side of the drawn page.

    Returns:
        [height', 2 * width', 3] uint8 RGB.

    Raises:
        ValueError: the image is not the one that the page was read from.
    """
    if image.shape != (page.height, page.width):
        raise ValueError(f"the image is {image.shape[::-1]} pixels, the page {(page.width, page.height)}")
    upright = np.rot90(image, -page.quarter_turns)
    scale = min(1.0, longest_side / max(upright.shape))
    size = (max(1, round(upright.shape[1] * scale)), max(1, round(upright.shape[0] * scale)))
    small = cv2.resize(np.ascontiguousarray(upright), size, interpolation=cv2.INTER_AREA)
    left = cv2.cvtColor(255 - (255 - small) // 2, cv2.COLOR_GRAY2RGB)
    right = np.full_like(left, 255)
    for region in page.regions:
        box = region.box
        corners = [(box.left, box.top), (box.right, box.top), (box.right, box.bottom), (box.left, box.bottom)]
        cv2.polylines(left, [_placed(corners, page, scale)], True, _REGION, 1, cv2.LINE_AA)
    for line in page.lines():
        cv2.polylines(left, [_placed(line.polygon, page, scale)], True, _OUTLINE, 1, cv2.LINE_AA)
        cv2.polylines(left, [_placed(line.baseline, page, scale)], False, _BASELINE, 1, cv2.LINE_AA)
        _write_line(right, line, page, scale)
    cv2.line(right, (0, 0), (0, size[1]), (160, 160, 160), 1)
    return np.concatenate([left, right], axis=1)


def _placed(points: Iterable[Point], page: Page, scale: float) -> NDArray[np.int32]:
    """Points of the page as given -> pixels of the upright drawing, [n, 1, 2]."""
    xy = np.asarray(list(points), np.float64)
    for turn in range(page.quarter_turns):
        height = page.width if turn % 2 else page.height
        xy = np.stack([height - xy[:, 1], xy[:, 0]], axis=1)  # a quarter turn clockwise
    return np.rint(xy * scale).astype(np.int32)[:, None]


def _write_line(canvas: NDArray[np.uint8], line: Line, page: Page, scale: float) -> None:
    """The line's words, each in its confidence's colour, from the left end of its box and as wide as the box."""
    outline = _placed(line.polygon, page, scale)[:, 0]
    baseline = _placed(line.baseline, page, scale)[:, 0]
    x, right = int(outline[:, 0].min()), int(outline[:, 0].max())
    height = int(np.ptp(outline[:, 1]))
    font = cv2.FontFace("sans")  # ships with OpenCV 5 and has the whole alphabet
    size = max(7, min(round(0.75 * height), 60))
    width = _text_width(line.text, font, size)
    if width > right - x > 0:
        size = max(7, int(size * (right - x) / width))
    y = int(baseline[:, 1].mean())
    for word in line.words:
        colour = _SURE if word.confidence >= _UNSURE_BELOW else _UNSURE
        cv2.putText(canvas, word.text, (x, y), colour, font, size, _WEIGHT)
        x += _text_width(word.text + " ", font, size)


def _text_width(text: str, font: cv2.FontFace, size: int) -> int:
    """Pixels from the start of the text to where the next would begin; a space at the end counts."""
    (_, _, width, _) = cv2.getTextSize((0, 0), text.rstrip(" "), (0, 0), font, size, _WEIGHT)
    return int(width) + round(0.28 * size) * text.endswith(" ")

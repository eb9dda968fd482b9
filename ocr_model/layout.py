"""The line finder: a page in, its lines in reading order out. OpenCV and NumPy only.

The network's maps come from any callable (a keras model, an exported signature), so nothing here knows TensorFlow.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import cv2
import numpy as np

from ocr_model.document import Box
from ocr_model.found_lines import FoundLine, FoundPage, FoundRegion, LayoutConfig
from ocr_model.line_maps import MAP_STRIDE_PX, Maps, lines_from_maps, with_letters, with_room
from ocr_model.reading_order import in_reading_order, skew_of

PAGE_MULTIPLE_PX = 32
ASCENDER_X_HEIGHTS = 1.6  # about; only used to judge whether text is too small


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
            scale = finer
            small, maps = self._seen(upright, scale, None)
            lines = self._lines(small, maps, scale)
        above, below = self._outside(lines, small, maps, scale)
        skew = skew_of(lines)
        lines_of_page = [*above, *lines, *below]
        roomy = dict(zip(lines_of_page, with_room(lines_of_page, self.config), strict=True))
        ordered = [[line] for line in above] + in_reading_order(lines, skew, self.config) + [[line] for line in below]
        regions = tuple(FoundRegion(tuple(roomy[line] for line in group)) for group in ordered)
        return FoundPage(regions, turns, skew, probability, is_coarse)  # type: ignore[arg-type]

    def _seen(self, image: np.ndarray, scale: float, canvas: tuple[int, int] | None) -> tuple[np.ndarray, Maps]:
        small = reduced(image, scale)
        maps = self.maps(padded(small, canvas)[None, :, :, None])
        return small, {name: np.asarray(value)[0] for name, value in maps.items()}

    def _lines(self, small: np.ndarray, maps: Maps, scale: float) -> list[FoundLine]:
        return with_letters(lines_from_maps(maps, scale, self.config), small, scale, self.config)

    def _outside(
        self, lines: Sequence[FoundLine], small: np.ndarray, maps: Maps, scale: float
    ) -> tuple[list[FoundLine], list[FoundLine]]:
        """The faint lines above all long lines of a page and below them, from top to bottom; none without lines."""
        if not lines:
            return [], []
        config = self.config
        easier = replace(config, core=config.faint_core, confidence=config.faint_confidence, thin=config.faint_thin)
        boxes = [line.box for line in lines]
        long = [box for box, line in zip(boxes, lines, strict=True) if self._is_long(box, line)] or boxes
        to_map, rows = scale / MAP_STRIDE_PX, maps["core"].shape[0]
        first = max(0, int(min(box.top for box in long) * to_map))
        last = min(rows, math.ceil(max(box.bottom for box in long) * to_map))
        found: list[list[FoundLine]] = []
        for begin, end in ((0, first), (last, rows)):
            part = {name: values[begin:end] for name, values in maps.items() if name != "orientation"}
            if not (part["core"] > config.faint_core).any():
                found.append([])
                continue
            faint = [
                replace(line, baseline=tuple((x, y + begin / to_map) for x, y in line.baseline), is_faint=True)
                for line in lines_from_maps(part, scale, easier)
            ]
            new = [
                line
                for line in with_letters(faint, small, scale, config)
                if not (self._is_long(line.box, line) or any(line.box.intersection_area(box) for box in boxes))
            ]
            found.append(sorted(new, key=lambda line: line.baseline[0][::-1]))
        above, below = found
        return above, below

    def _is_long(self, box: Box, line: FoundLine) -> bool:
        return box.width >= self.config.faint_width * line.height_px

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

"""Rendered lines that say what real lines say, set and cut like them: what differs then is their look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from trainer.collection import RealLine
from trainer.synthesis.fonts import FontCase, FontFace
from trainer.synthesis.glyphs import glyph_set
from trainer.synthesis.lines import LineParameters, render
from trainer.wear.lines import Array, CleanLine, Grey, Rng, at_line_height, guessed_ink

FACES_TRIED = 10
LEAST_CORRELATION = 0.7  # of the blurred ink of both lines: what is below was not found to stand at the same place
_STOP_AT = 1e-4


@dataclass(frozen=True)
class MatchedLine:
    """A real line and the rendered line in its place.

    Attributes:
        real: [40, width] uint8; clean: ink of the same size and text.
        source, document: where the real line is from.
        correlation: of the blurred ink of both, 1 where they are alike.
    """

    real: Grey
    clean: CleanLine
    source: str
    document: str
    correlation: float


def matched(rng: Rng, line: RealLine, fonts: FontCase) -> MatchedLine | None:
    """The line drawn in the best of some faces and laid over the real one, or None if it does not fit.

    Where the print stands (height, left, width, slope, slant) is found by registration (Evangelidis & Psarakis 2008) of
    the blurred ink. What else the crop shows, parts of neighbours and rules, is taken over from the real line's ink.
    """
    real = _closely_cut(line)
    width = real.shape[1] // 4 * 4
    if width < 64 or len(line.text) < 4:
        return None
    real = np.ascontiguousarray(real[:, :width])
    wanted = guessed_ink(real)
    best: tuple[float, Array, float] | None = None
    for face in _faces(rng, line, fonts):
        found = _laid_over(line.text, face, wanted)
        if found is not None and (best is None or found[0] > best[0]):
            best = found
    if best is None or best[0] < LEAST_CORRELATION:
        return None
    correlation, ink, scale = best
    boxes = np.zeros((len(line.text), 4))
    clean = CleanLine(np.maximum(ink, _beside(wanted, ink)), line.text, boxes, scale)
    return MatchedLine(real, clean, line.source, line.document, correlation)


def is_typed(source: str) -> bool:
    """Whether the source's name says that it is of typescripts; it is of print otherwise."""
    return "typed" in source


def _closely_cut(line: RealLine) -> Grey:
    """At 40 px, cut at the line's box with a margin of a tenth of its height where it has been boxed."""
    left, top, right, bottom = line.margins
    height, width = line.image.shape
    if any(line.margins):
        loose = round(0.1 * (height - top - bottom))
        top, bottom = max(0, top - loose), max(0, bottom - loose)
    return np.asarray(at_line_height(line.image[top : height - bottom, left : width - right]), np.uint8)


def _faces(rng: Rng, line: RealLine, fonts: FontCase) -> list[FontFace]:
    """Of the kind of print that the source's name tells, those that have all letters."""
    if is_typed(line.source):
        drawers = [fonts.drawer("typewriter", False)]
    else:
        drawers = [fonts.drawer("book", False), fonts.drawer("book", True)]
    able = [[f for f in drawer if not any(glyph_set(f).lacks(c) for c in set(line.text))] for drawer in drawers]
    share = FACES_TRIED // len(able)
    return [faces[int(i)] for faces in able for i in rng.permutation(len(faces))[:share]]


def _laid_over(text: str, face: FontFace, wanted: Array) -> tuple[float, Array, float] | None:
    """Correlation, ink [40, width] and size of the print (1 where an em is 40 px)."""
    drawn = render(LineParameters(text, face, 40)).ink
    start = _placed_by_extent(drawn, wanted)
    if start is None:
        return None
    to_wanted = start
    goal = cv2.GaussianBlur(wanted, (0, 0), 2.0)
    for blur, rounds in ((4.0, 20), (1.5, 30)):
        stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, rounds, _STOP_AT)
        soft_goal, soft = cv2.GaussianBlur(wanted, (0, 0), blur), cv2.GaussianBlur(drawn, (0, 0), 1.0)
        try:
            _, to_wanted = cv2.findTransformECC(soft_goal, soft, to_wanted, cv2.MOTION_AFFINE, stop, None, 1)
        except cv2.error:  # it does not converge
            break
    best: tuple[float, Array, float] | None = None
    for transform in (start, to_wanted):
        ink = _moved(drawn, transform, wanted.shape)
        soft = cv2.GaussianBlur(ink, (0, 0), 2.0)
        correlation = float(np.corrcoef(soft.ravel(), goal.ravel())[0, 1]) if ink.any() else -1.0
        if best is None or correlation > best[0]:
            best = correlation, ink, 1 / float(abs(transform[1, 1]))
    return best


def _placed_by_extent(drawn: Array, wanted: Array) -> np.ndarray | None:
    """[2, 3] float32 from places in the wanted line to those in the drawn one: ends of the ink, middle and spread."""
    rows, columns = [], []
    for ink in (wanted, drawn):
        if ink.sum() < 20:
            return None
        across, down = ink.sum(0), ink.sum(1)
        share = np.cumsum(across) / across.sum()
        columns.append((float(np.searchsorted(share, 0.01)), float(np.searchsorted(share, 0.99))))
        places = np.arange(len(down))
        middle = float((places * down).sum() / down.sum())
        rows.append((middle, float(np.sqrt((((places - middle) ** 2) * down).sum() / down.sum()))))
    (left, right), (drawn_left, drawn_right) = columns
    (middle, deviation), (drawn_middle, drawn_deviation) = rows
    if right - left < 20 or drawn_right - drawn_left < 8:
        return None
    by_x, by_y = (drawn_right - drawn_left) / (right - left), drawn_deviation / max(deviation, 1.0)
    return np.array([[by_x, 0, drawn_left - by_x * left], [0, by_y, drawn_middle - by_y * middle]], np.float32)


def _moved(drawn: Array, transform: np.ndarray, shape: tuple[int, ...]) -> Array:
    """At twice the size and then shrunk, so that thin strokes stay smooth."""
    finer = transform.copy()
    finer[:, :2] /= 2
    large = cv2.warpAffine(
        drawn, finer, (2 * shape[1], 2 * shape[0]), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderValue=0.0
    )
    return np.asarray(np.clip(cv2.resize(large, (shape[1], shape[0]), interpolation=cv2.INTER_AREA), 0, 1), np.float32)


def _beside(wanted: Array, ink: Array) -> Array:
    """Of the real line's ink what touches the crop's upper or lower edge, or is a rule, and is not the text's own."""
    strong = (wanted > 0.5).astype(np.uint8)
    count, labels, measures, _ = cv2.connectedComponentsWithStats(strong, connectivity=8)
    text = cv2.dilate(ink, np.ones((3, 3), np.uint8)) > 0.3
    kept = np.zeros(count, bool)
    for i in range(1, count):
        _, top, width, height, area = measures[i]
        at_edge = top == 0 or top + height == wanted.shape[0]
        is_rule = width > 40 and height <= 6
        kept[i] = (at_edge or is_rule) and text[labels == i].sum() < 0.15 * area
    mask = cv2.dilate(kept[labels].astype(np.float32), np.ones((3, 3), np.uint8))
    return np.asarray(wanted * mask, np.float32)


def matched_lines(
    rng: Rng, lines: Sequence[RealLine], fonts: FontCase, width_px: int, at_most: int
) -> list[MatchedLine]:
    """Of each source at most so many lines, any of them, that are wide enough and can be matched."""
    found: list[MatchedLine] = []
    taken: Counter[str] = Counter()
    for i in rng.permutation(len(lines)):
        line = lines[int(i)]
        match = matched(rng, line, fonts) if taken[line.source] < at_most else None
        if match is not None and match.real.shape[1] >= width_px:
            found.append(match)
            taken[line.source] += 1
    return found

"""The line renderer: text × font → a line image with the box of every character, and the crop that a reader would get.

`draw_line` chooses, `render` draws clean ink, `cut` draws only what a line finder would cut out, and `make_line` adds
the damage. Same seed, same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from trainer.synthesis.damage import Damage, apply_damage, coarse_noise, draw_damage, moved_boxes
from trainer.synthesis.fonts import KINDS, MASTER_PX, FontCase, FontFace
from trainer.synthesis.glyphs import SMALL_CAPITALS, Glyph, covers, glyph_set
from trainer.synthesis.text import TextSource, with_long_s

Rng = np.random.Generator
Image = npt.NDArray[np.float32]
Ink = npt.NDArray[np.uint8]
Boxes = npt.NDArray[np.float64]
Window = tuple[int, int, int, int]

SIZES_PX = (26, 32, 38, 46, 56)
_MARGIN = 0.6  # em around the line that `render` draws
_ROUNDING_PX = 0.01
_FACES_TRIED = 24  # at random, before all faces are searched for one that has the letters


@dataclass(frozen=True)
class LineParameters:
    """Everything that decides how a line looks before damage.

    Attributes:
        text: tabs are wide gaps.
        above, below: text of the neighbouring lines, may be empty.
        size_px: em size.
        kerned: whether pairs of characters are set closer as the font says.
        tracking: extra space after each character, in em.
        word_space: factor on the width of a space; gap_em: width of a tab in em.
        leading: distance between baselines in units of ascender + descender.
        jitter: vertical disorder of the characters in em (typewriters); strike: how unevenly they are inked, 0 to 1;
            side: how much weaker one side of each is struck, 0 to 1.
        stretch: horizontal scale.
        small_caps: lower-case letters are set as capitals of this size (of `glyphs.SMALL_CAPITALS`), 0 for none; the
            text keeps its lower case.
        broken, clogged: share of the letters that lack a piece, and whose counters are filled with ink. On a typewriter
            it is the same letter every time.
        underline: thickness in em, 0 for none.
        rule: thickness in em of the table rules that stand in wide gaps, 0 for none; they are no part of the text.
        form_rule: thickness in em of the line of a form that the text stands on, from edge to edge, 0 for none.
        border: thickness in em of a frame's side at one end of the line, 0 for none.
        stamp: ink of a round stamp that overlaps the line, 0 to 1.
        crop_top, crop_bottom, crop_left, crop_right: margins of the crop in em, measured from the font's box
            (`crop_to_ink` false) or from the ink (true); negative cuts into it.
        seed: of the disorder.
        text_kind, text_files: where the text comes from, see `text.DrawnText`.
        other_face: whether the face that was drawn first lacked a character of the text.
        left_out: characters of the drawn text that no face has.
    """

    text: str
    face: FontFace
    size_px: int
    above: str = ""
    below: str = ""
    kerned: bool = False
    tracking: float = 0.0
    word_space: float = 1.0
    gap_em: float = 3.0
    leading: float = 1.2
    jitter: float = 0.0
    strike: float = 0.0
    stretch: float = 1.0
    underline: float = 0.0
    rule: float = 0.0
    crop_to_ink: bool = False
    crop_top: float = 0.1
    crop_bottom: float = 0.1
    crop_left: float = 0.2
    crop_right: float = 0.2
    seed: int = 0
    side: float = 0.0
    small_caps: float = 0.0
    broken: float = 0.0
    clogged: float = 0.0
    form_rule: float = 0.0
    border: float = 0.0
    stamp: float = 0.0
    text_kind: str = ""
    text_files: tuple[str, ...] = ()
    other_face: bool = False
    left_out: str = ""


@dataclass(frozen=True)
class Mixture:
    """How often what is drawn.

    Attributes:
        kinds: share of each of `fonts.KINDS`, whatever fonts the machine has.
        slanted: share of italics; small_caps: share of lines in small capitals, among those that are not typed.
        damaged: share of the lines that get damage; the others are clean black on white.
    """

    kinds: dict[str, float] = field(
        default_factory=lambda: {"typewriter": 0.36, "book": 0.36, "modern": 0.28, "fraktur": 0.0}
    )
    slanted: float = 0.17
    small_caps: float = 0.03
    damaged: float = 1.0


DEFAULT_MIXTURE = Mixture()


@dataclass(frozen=True)
class RenderedLine:
    """Clean ink with its truth.

    Attributes:
        ink: [height, width] float32, 0 paper to 1 ink.
        characters: of the truth, tabs as spaces.
        boxes: [characters, 4] float, left, top, right, bottom of each character's ink in pixels; zero area for spaces.
        baseline_px: row of the baseline; ascender_px, descender_px: the font's, above and below it.
    """

    ink: Image
    characters: str
    boxes: Boxes
    baseline_px: float
    ascender_px: float
    descender_px: float


# ---- layout, in pixels at `MASTER_PX`: x from the pen's start, y from the baseline


class _Layout(NamedTuple):
    """A text's letters, [letters] positions of the pen, and its length."""

    letters: list[Glyph]
    pens: npt.NDArray[np.float64]
    length: float


def _set(p: LineParameters, text: str) -> _Layout:
    letters = glyph_set(p.face)
    glyphs = [letters.glyph(c, p.small_caps) for c in text]
    advances = np.array([g.advance for g in glyphs], np.float64) + p.tracking * MASTER_PX
    for i, c in enumerate(text):
        if c == "\t":
            advances[i] = p.gap_em * MASTER_PX
        elif c == " ":
            advances[i] += (p.word_space - 1.0) * glyphs[i].advance
        elif p.kerned and i + 1 < len(text) and text[i + 1] not in " \t":
            advances[i] += letters.kerning(text[i : i + 2])
    ends = np.cumsum(advances)
    return _Layout(glyphs, ends - advances, float(ends[-1]) if len(ends) else 0.0)


def _boxes(layout: _Layout, shifts: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """[letters, 4] of the ink; zero area where there is none."""
    glyphs = layout.letters
    inked = [g.mask is not None for g in glyphs]
    sizes = np.array([g.mask.shape if g.mask is not None else (0, 0) for g in glyphs], np.int64).reshape(-1, 2)
    left = np.rint(layout.pens).astype(np.int64) + [g.left for g in glyphs]
    top = np.where(inked, np.rint(shifts), 0).astype(np.int64) + [g.top for g in glyphs]
    return np.stack([left, top, left + sizes[:, 1], top + sizes[:, 0]], axis=1)


def _shifts(p: LineParameters, rng: Rng, count: int) -> npt.NDArray[np.float64]:
    return rng.normal(0, p.jitter * MASTER_PX, count) if p.jitter else np.zeros(count)


def _window(boxes: Boxes, p: LineParameters, em: float, above: float, below: float, stretch: float) -> Window:
    """Left, top, right, bottom of the crop.

    Args:
        boxes: of the characters.
        em: in the units of the boxes; stretch: that they have not had yet.
        above, below: top and bottom of the font's box.
    """
    inked = boxes[boxes[:, 2] > boxes[:, 0]]
    left, right = (inked[:, 0].min(), inked[:, 2].max()) if len(inked) else (0.0, em)
    top, bottom = (inked[:, 1].min(), inked[:, 3].max()) if p.crop_to_ink and len(inked) else (above, below)
    first = math.floor(left - p.crop_left * em / stretch), math.floor(top - p.crop_top * em)
    last = math.ceil(right + p.crop_right * em / stretch), math.ceil(bottom + p.crop_bottom * em)
    return (*first, max(last[0], first[0] + 4), max(last[1], first[1] + 4))


# ---- painting


def _paint(
    ink: Ink,
    glyphs: Sequence[Glyph],
    boxes: npt.NDArray[np.int64],
    window: Window,
    wear: _Wear,
    only: int | None = None,
) -> None:
    """Adds the letters, or one of them, to the ink of the window; the darker wins."""
    height, width = ink.shape
    placed = boxes - np.array([window[0], window[1], window[0], window[1]])
    ends = np.clip(placed, 0, (width, height, width, height))
    seen = np.flatnonzero((ends[:, 0] < ends[:, 2]) & (ends[:, 1] < ends[:, 3]))
    places, parts = placed.tolist(), ends.tolist()
    for i in seen.tolist() if only is None else {only}.intersection(seen.tolist()):
        mask = wear.worn(i, glyphs[i].mask)
        (left, top, right, bottom), (le, t, r, b) = places[i], parts[i]
        if (le, t, r, b) != (left, top, right, bottom):
            mask = mask[t - top : b - top, le - left : r - left]
        there = ink[t:b, le:r]
        np.maximum(there, mask, out=there)


class _Wear:
    """How each letter of a text is struck."""

    def __init__(self, p: LineParameters, text: str, rng: Rng) -> None:
        self._p = p
        count = len(text)
        self._strikes = (1 - p.strike * rng.random(count) ** 2).tolist() if p.strike else [1.0] * count
        self._ramp = float(rng.choice((-1, 1))) * p.side
        self._defects: list[int] = [0] * count
        if p.broken or p.clogged:
            keys: Sequence[str | int] = text if p.face.kind == "typewriter" else range(count)
            chances = {key: float(rng.random()) for key in dict.fromkeys(keys)}
            self._defects = [self._defect(chances[key]) for key in keys]

    def _defect(self, chance: float) -> int:
        """0 for none, -1 for a clogged letter, else the number of a kind of break."""
        if chance < self._p.broken:
            return 1 + int(chance * 9973) % 6
        return -1 if chance < self._p.broken + self._p.clogged else 0

    def worn(self, i: int, mask: Ink | None) -> Ink:
        assert mask is not None
        if self._defects[i] < 0:
            mask = _clogged(mask)
        elif self._defects[i]:
            mask = _broken(mask, self._defects[i])
        if self._ramp:
            ends = (1 - self._ramp, 1.0) if self._ramp > 0 else (1.0, 1 + self._ramp)
            ramp = np.linspace(*ends, mask.shape[1], dtype=np.float32)
            mask = (mask * ramp).astype(np.uint8)
        if self._strikes[i] < 0.98:
            mask = np.asarray(cv2.convertScaleAbs(np.ascontiguousarray(mask), alpha=self._strikes[i]), np.uint8)
        return mask


_CLOG_PX = 9
_CLOG = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_CLOG_PX, _CLOG_PX))


def _clogged(mask: Ink) -> Ink:
    """The letter with ink in its narrow places."""
    height, width = mask.shape
    wide = cv2.copyMakeBorder(mask, _CLOG_PX, _CLOG_PX, _CLOG_PX, _CLOG_PX, cv2.BORDER_CONSTANT, value=0)
    filled = cv2.morphologyEx(wide, cv2.MORPH_CLOSE, _CLOG)
    return np.ascontiguousarray(filled[_CLOG_PX : _CLOG_PX + height, _CLOG_PX : _CLOG_PX + width])


def _broken(mask: Ink, kind: int) -> Ink:
    """The letter without a piece: a band across, a corner, or one side."""
    height, width = mask.shape
    mask = mask.copy()
    if kind <= 2:
        row = int(height * (0.3 if kind == 1 else 0.65))
        mask[row : row + max(1, height // 8)] = 0
    elif kind <= 4:
        rows = slice(0, int(0.35 * height)) if kind == 3 else slice(int(0.65 * height), height)
        mask[rows, : int(0.5 * width)] = 0
    else:
        columns = slice(0, max(1, width // 5)) if kind == 5 else slice(width - max(1, width // 5), width)
        mask[:, columns] = mask[:, columns] // 5
    return mask


def _draw_marks(ink: Ink, p: LineParameters, layout: _Layout, boxes: Boxes, window: Window, rng: Rng) -> None:
    """Underline, rules, frame and stamp."""
    left, top = window[0], window[1]
    height, width = ink.shape

    def bar(x0: float, y0: float, x1: float, y1: float) -> None:
        rows = slice(max(0, int(y0) - top), max(0, int(y1) - top))
        ink[rows, max(0, int(x0) - left) : max(0, int(x1) - left)] = 255

    def thickness(em: float) -> int:
        return max(2, round(em * MASTER_PX))

    inked = boxes[boxes[:, 2] > boxes[:, 0]]
    if p.underline and len(inked):
        below = round(0.12 * MASTER_PX)
        bar(inked[:, 0].min(), below, inked[:, 2].max(), below + thickness(p.underline))
    if p.rule:
        for c, pen in zip(p.text, layout.pens.tolist(), strict=True):
            if c == "\t":
                x = pen + p.gap_em * MASTER_PX * float(rng.uniform(0.3, 0.7))
                bar(x, top, x + thickness(p.rule), top + height)
    if p.form_rule:
        y = MASTER_PX * float(rng.uniform(0.1, 0.35))
        bar(left, y, left + width, y + thickness(p.form_rule))
    if p.border:
        x = left + MASTER_PX * float(rng.uniform(0.0, 0.12))
        x = x if rng.random() < 0.5 else 2 * left + width - x - thickness(p.border)
        bar(x, top, x + thickness(p.border), top + height)
    if p.stamp:
        _draw_stamp(ink, p, rng)


def _draw_stamp(ink: Ink, p: LineParameters, rng: Rng) -> None:
    """Two rings and some slanted capitals between them, no part of the text."""
    height, width = ink.shape
    stamp = np.zeros_like(ink)
    radius = MASTER_PX * float(rng.uniform(1.0, 2.6))
    centre = float(rng.uniform(0, width)), height / 2 + radius * float(rng.uniform(-0.9, 0.9))
    for share, thick in ((1.0, 3), (0.68, 2)):
        cv2.circle(stamp, (round(centre[0]), round(centre[1])), round(radius * share), 255, thick, cv2.LINE_AA)
    letters = glyph_set(p.face)
    for angle in np.arange(float(rng.uniform(0, 0.5)), 2 * math.pi, 0.42).tolist():
        mask = letters.glyph("ABCDEGHIMNORSTUX"[int(rng.integers(16))]).mask
        if mask is None:
            continue
        small = cv2.resize(mask, None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA)
        x = round(centre[0] + 0.84 * radius * math.cos(angle)) - small.shape[1] // 2
        y = round(centre[1] + 0.84 * radius * math.sin(angle)) - small.shape[0] // 2
        if min(x, y) >= 0 and x + small.shape[1] <= width and y + small.shape[0] <= height:
            stamp[y : y + small.shape[0], x : x + small.shape[1]] = small
    np.maximum(ink, cv2.convertScaleAbs(stamp, alpha=p.stamp), out=ink)


def _drawn(p: LineParameters, whole: bool, only: int | None = None) -> RenderedLine:
    """The line, all of it or what the crop shows; or nothing but one of its letters."""
    rng = np.random.default_rng(p.seed)
    letters = glyph_set(p.face)
    ascent, descent = letters.ascent, letters.descent
    layout = _set(p, p.text)
    boxes = _boxes(layout, _shifts(p, rng, len(p.text)))
    wear = _Wear(p, p.text, rng)
    if whole:
        margin = round(_MARGIN * MASTER_PX)
        window = (-margin, -ascent - margin, int(layout.length) + margin, descent + margin)
    else:
        window = _window(boxes.astype(np.float64), p, MASTER_PX, -ascent, descent, p.stretch)
    ink = np.zeros((window[3] - window[1], window[2] - window[0]), np.uint8)
    _paint(ink, layout.letters, boxes, window, wear, only)
    if only is not None:
        return _scaled(p, ink, boxes, window, ascent, descent)
    step = p.leading * (ascent + descent)
    for text, y in ((p.above, -step), (p.below, step)):
        x = -int(rng.integers(0, 2 * MASTER_PX))
        if text and y - 1.1 * ascent < window[3] and y + 1.3 * descent > window[1]:
            neighbour = _set(p, text)
            where = _boxes(neighbour, _shifts(p, rng, len(text)) + y) + np.array([x, 0, x, 0])
            _paint(ink, neighbour.letters, where, window, _Wear(p, text, rng))
    _draw_marks(ink, p, layout, boxes.astype(np.float64), window, rng)
    return _scaled(p, ink, boxes, window, ascent, descent)


def _scaled(
    p: LineParameters, ink: Ink, boxes: npt.NDArray[np.int64], window: Window, ascent: float, descent: float
) -> RenderedLine:
    """What was drawn at `MASTER_PX`, at the size and stretch of the line."""
    height, width = ink.shape
    scale = p.size_px / MASTER_PX
    size = max(4, round(width * scale * p.stretch)), max(4, round(height * scale))
    if (size[0] < width) != (size[1] < height):  # by area, OpenCV shrinks only if it need not enlarge
        smaller = min(size[0], width), min(size[1], height)
        ink = np.asarray(cv2.resize(ink, smaller, interpolation=cv2.INTER_AREA), np.uint8)
    if size != ink.shape[::-1]:
        ink = np.asarray(cv2.resize(ink, size, interpolation=cv2.INTER_AREA), np.uint8)
    by = np.array([size[0] / width, size[1] / height] * 2)
    moved = (boxes - np.array([window[0], window[1], window[0], window[1]])) * by
    # Enlarged ink may reach over the edge of a pixel by what its weights are rounded to.
    moved[boxes[:, 2] > boxes[:, 0]] += _ROUNDING_PX * np.array([-1, -1, 1, 1]) * (by > 1)
    grey = ink.astype(np.float32)
    grey *= np.float32(1 / 255)
    text = p.text.replace("\t", " ")
    return RenderedLine(grey, text, moved, -window[1] * by[1], ascent * by[1], descent * by[1])


def render(p: LineParameters) -> RenderedLine:
    """Clean ink of the line with its neighbours, before the crop."""
    return _drawn(p, whole=True)


def cut(p: LineParameters, only: int | None = None) -> RenderedLine:
    """Clean ink of the crop; boxes may reach over its edges where the crop cuts into letters.

    Args:
        only: number of a character: no other ink is drawn, and what is seen of it is its own.
    """
    return _drawn(p, whole=False, only=only)


def crop_window(line: RenderedLine, p: LineParameters) -> Window:
    """Left, top, right, bottom of the crop of a line that `render` drew, inside the ink's array."""
    above, below = line.baseline_px - line.ascender_px, line.baseline_px + line.descender_px
    window = _window(line.boxes, p, p.size_px, above, below, 1.0)
    height, width = line.ink.shape
    left, top = int(np.clip(window[0], 0, width - 4)), int(np.clip(window[1], 0, height - 4))
    return left, top, int(np.clip(window[2], left + 4, width)), int(np.clip(window[3], top + 4, height))


# ---- drawing lots


def draw_line(
    rng: Rng, texts: TextSource, fonts: FontCase, mixture: Mixture = DEFAULT_MIXTURE, must: str = ""
) -> LineParameters:
    """Chooses text, font and layout. The font covers the text: another is drawn where one lacks a glyph.

    Args:
        must: characters that the text has, whatever else is drawn.
    """
    between, chance = rng.uniform, rng.random
    max_chars = int(rng.integers(4, 25)) if chance() < 0.3 else int(rng.integers(20, 95))
    drawn = texts.drawn(rng, max_chars, must)
    text = drawn.text
    shares = np.cumsum([mixture.kinds.get(kind, 0.0) for kind in KINDS])
    kind = KINDS[int(np.searchsorted(shares, chance() * shares[-1], side="right"))]
    if kind == "fraktur" and chance() < 0.8:
        text = with_long_s(text)
    pool = fonts.drawer(kind, bool(chance() < mixture.slanted))
    face, text, other, left_out = _face_for(rng, text, pool, fonts, kind)
    typed = face.kind == "typewriter"
    crowded = chance() < 0.55
    loose = chance() < 0.3
    above, below = (texts.prose(rng, max_chars) if crowded and chance() < 0.8 else "" for _ in range(2))
    to_ink = bool(chance() < 0.4)
    vertical = (0.0, 0.28) if to_ink else (-0.08, 0.16)
    if loose:
        vertical = (vertical[0], vertical[1] + 0.3)
    small = not typed and chance() < mixture.small_caps
    worn = typed and chance() < 0.5
    return LineParameters(
        text=text,
        face=face,
        size_px=SIZES_PX[int(rng.integers(len(SIZES_PX)))],
        kerned=bool(not typed and chance() < 0.35),
        above=_within(face, above),
        below=_within(face, below),
        tracking=float(between(-0.02, 0.03) if chance() < 0.8 else between(0.03, 0.25)),
        word_space=float(between(0.7, 1.3) if chance() < 0.7 else between(1.0, 2.2)),
        gap_em=float(between(0.5, 1.5) if chance() < 0.35 else between(1.2, 5)),
        leading=float(between(0.82, 1.5)),
        jitter=float(between(0, 0.035)) if typed and chance() < 0.7 else 0.0,
        strike=float(between(0, 0.75)) if typed and chance() < 0.7 else float(between(0, 0.2)),
        side=float(between(0, 0.6)) if worn and chance() < 0.3 else 0.0,
        stretch=float(between(0.78, 1.18)),
        small_caps=float(SMALL_CAPITALS[int(rng.integers(1, len(SMALL_CAPITALS)))]) if small else 0.0,
        broken=float(between(0, 0.12)) if chance() < (0.25 if worn else 0.05) else 0.0,
        clogged=float(between(0, 0.3)) if chance() < (0.3 if worn else 0.04) else 0.0,
        underline=float(between(0.03, 0.08)) if chance() < 0.05 else 0.0,
        rule=float(between(0.02, 0.08)) if chance() < 0.2 else 0.0,
        form_rule=float(between(0.02, 0.06)) if chance() < 0.03 else 0.0,
        border=float(between(0.02, 0.08)) if chance() < 0.03 else 0.0,
        stamp=float(between(0.2, 0.6)) if chance() < 0.015 else 0.0,
        crop_to_ink=to_ink,
        crop_top=float(between(*vertical)),
        crop_bottom=float(between(*vertical)),
        crop_left=float(between(-0.03, 0.5)),
        crop_right=float(between(-0.03, 0.5)),
        seed=int(rng.integers(2**31)),
        text_kind=drawn.kind,
        text_files=drawn.files,
        other_face=other,
        left_out=left_out,
    )


def _face_for(
    rng: Rng, text: str, pool: Sequence[FontFace], fonts: FontCase, kind: str
) -> tuple[FontFace, str, bool, str]:
    """(a face, the text that it has all glyphs for, whether it is another than the one first drawn, what was left out)

    Some faces are tried at random, those of the pool first; then all are searched; at last the characters that keep
    the text from being set are left out.
    """
    needed = frozenset(text) - {"\t"}
    face = pool[int(rng.integers(len(pool)))]
    if covers(face, needed):
        return face, text, False, ""
    own = [f for f in fonts.faces if f.kind == kind] or fonts.faces
    for attempt in range(_FACES_TRIED):
        among = pool if attempt < _FACES_TRIED // 2 else own
        other = among[int(rng.integers(len(among)))]
        if covers(other, needed):
            return other, text, True, ""
    able = [f for f in own if covers(f, needed)] or [f for f in fonts.faces if covers(f, needed)]
    if able:
        return able[int(rng.integers(len(able)))], text, True, ""
    kept = _within(face, text).strip()
    left_out = "".join(sorted(needed - set(kept)))
    return face, "\t".join(" ".join(cell.split()) for cell in kept.split("\t") if cell.strip()) or "a", False, left_out


def _within(face: FontFace, text: str) -> str:
    letters = glyph_set(face)
    return "".join(c for c in text if not letters.lacks(c))


def make_line(p: LineParameters, damage: Damage) -> tuple[npt.NDArray[np.uint8], str, Boxes]:
    """The damaged crop, its text and its characters' boxes in pixels of the crop.

    The boxes go where the damage takes the ink (slope, curve, fold); what spread and blur add around it is not counted.

    Returns:
        Image [height, width] uint8, text without tabs, boxes [characters, 4].
    """
    line = cut(p)
    return apply_damage(line.ink, damage), line.characters, moved_boxes(line.boxes, damage, line.ink.shape[1])


def sample_lines(
    rng: Rng, texts: TextSource, fonts: FontCase, takes: int = 2, mixture: Mixture = DEFAULT_MIXTURE
) -> list[tuple[npt.NDArray[np.uint8], str]]:
    """The same rendered line with `takes` independent damages, and its text."""
    p = draw_line(rng, texts, fonts, mixture)
    line = cut(p)
    return [(apply_damage(line.ink, draw_line_damage(rng, p, mixture)), line.characters) for _ in range(takes)]


def draw_line_damage(rng: Rng, p: LineParameters, mixture: Mixture = DEFAULT_MIXTURE) -> Damage:
    """Damage for the line: radii and resolutions follow its size."""
    if rng.random() >= mixture.damaged:
        return Damage(seed=int(rng.integers(2**31)))
    return draw_damage(rng, p.size_px / 40)


def sample_non_text(rng: Rng) -> npt.NDArray[np.uint8]:
    """A crop without text, as a line finder may hand over by mistake: bare paper, rules, blots, halftone."""
    height, width = int(rng.integers(24, 70)), int(rng.integers(30, 700))
    ink = np.zeros((height, width), np.float32)
    kind = int(rng.integers(4))
    if kind == 1:
        for _ in range(int(rng.integers(1, 3))):
            y, thickness = int(rng.integers(0, height)), int(rng.integers(1, 6))
            ink[y : y + thickness, int(rng.integers(0, width // 3)) :] = 1.0
    elif kind == 2:
        noise = coarse_noise(rng, (height, width), float(rng.uniform(5, 40)))
        ink = np.asarray(np.clip(noise - rng.uniform(0.5, 1.5), 0, 1), np.float32)
    elif kind == 3:
        pitch = float(rng.uniform(3, 8))
        rows, columns = np.mgrid[0:height, 0:width]
        dots = np.sin(rows * 2 * np.pi / pitch) * np.sin(columns * 2 * np.pi / pitch)
        shade = coarse_noise(rng, (height, width), 60)
        ink = np.asarray(dots + shade > 0.3, np.float32)
    return apply_damage(ink, draw_damage(rng))

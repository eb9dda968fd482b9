"""The line renderer: text × font → a line image with the box of every character, and the crop that a reader would get.

`draw_line` chooses, `render` draws clean ink, `crop` cuts it as a line finder would, and `make_line` does all with
damage. Same seed, same bytes.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.synthesis.damage import Damage, apply_damage, coarse_noise, draw_damage
from trainer.synthesis.fonts import FontCase, FontFace, coverage, load
from trainer.synthesis.text import TextSource

Rng = np.random.Generator
Image = npt.NDArray[np.float32]

SIZES_PX = (26, 32, 38, 46, 56)  # few, so that glyphs are drawn once; the stretch and the crop vary them


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
        jitter: vertical disorder of the characters in em (typewriters); strike: how unevenly they are inked, 0 to 1.
        stretch: horizontal scale.
        underline: thickness in em, 0 for none.
        rule: thickness in em of the table rules that stand in wide gaps, 0 for none; they are no part of the text.
        crop_top, crop_bottom, crop_left, crop_right: margins of the crop in em, measured from the font's box
            (`crop_to_ink` false) or from the ink (true); negative cuts into it.
        seed: of the disorder.
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
    boxes: npt.NDArray[np.float64]
    baseline_px: float
    ascender_px: float
    descender_px: float


@functools.lru_cache(maxsize=60_000)
def _glyph(face: FontFace, size_px: int, character: str) -> tuple[Image | None, int, int, float]:
    """Mask (0 to 1, None where blank), offset of its left edge from the pen, of its top from the baseline, advance."""
    font = load(face, size_px)
    advance = float(font.getlength(character))
    if character in " \t":
        return None, 0, 0, advance
    mask, (x, y) = font.getmask2(character, mode="L", anchor="ls")
    width, height = mask.size
    if width == 0 or height == 0:
        return None, 0, 0, advance
    grey = np.frombuffer(bytes(mask), np.uint8).reshape(height, width)
    rows, columns = np.flatnonzero(grey.any(axis=1)), np.flatnonzero(grey.any(axis=0))
    if rows.size == 0:
        return None, 0, 0, advance
    inked = grey[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32) / np.float32(255)
    return inked, int(x) + int(columns[0]), int(y) + int(rows[0]), advance


@functools.lru_cache(maxsize=60_000)
def _kerning(face: FontFace, size_px: int, pair: str) -> float:
    font = load(face, size_px)
    return float(font.getlength(pair) - font.getlength(pair[0]) - font.getlength(pair[1]))


def _place(p: LineParameters, text: str) -> tuple[list[tuple[str, float]], float]:
    """Pen positions of the characters and the length of the line, in pixels before the stretch."""
    placed, pen = [], 0.0
    for i, character in enumerate(text):
        if character == "\t":
            placed.append((character, pen))
            pen += p.gap_em * p.size_px
            continue
        placed.append((character, pen))
        pen += _glyph(p.face, p.size_px, character)[3] * (p.word_space if character == " " else 1.0)
        pen += p.tracking * p.size_px
        if p.kerned and i + 1 < len(text) and text[i + 1] != "\t" and character != " " and text[i + 1] != " ":
            pen += _kerning(p.face, p.size_px, character + text[i + 1])
    return placed, pen


def _paint(ink: Image, p: LineParameters, text: str, x0: float, baseline: float, rng: Rng) -> npt.NDArray[np.float64]:
    """Adds the text to the ink (the darker wins) and returns the boxes of its characters."""
    height, width = ink.shape
    placed, _ = _place(p, text)
    boxes = np.zeros((len(placed), 4))
    shifts = rng.normal(0, p.jitter * p.size_px, len(placed)) if p.jitter else np.zeros(len(placed))
    strikes = 1 - p.strike * rng.random(len(placed)) ** 2 if p.strike else np.ones(len(placed))
    for i, (character, pen) in enumerate(placed):
        mask, dx, dy, _ = _glyph(p.face, p.size_px, character)
        left, top = round(x0 + pen) + dx, round(baseline + shifts[i]) + dy
        if mask is None:
            boxes[i] = (x0 + pen, baseline, x0 + pen, baseline)
            continue
        bottom, right = top + mask.shape[0], left + mask.shape[1]
        boxes[i] = (left, top, right, bottom)
        t, b, le, r = max(0, top), min(height, bottom), max(0, left), min(width, right)
        if t < b and le < r:
            part = mask[t - top : b - top, le - left : r - left]
            np.maximum(ink[t:b, le:r], part * np.float32(strikes[i]), out=ink[t:b, le:r])
    return boxes


def render(p: LineParameters) -> RenderedLine:
    """Clean ink of the line with its neighbours, before the crop."""
    import cv2

    rng = np.random.default_rng(p.seed)
    ascent, descent = load(p.face, p.size_px).getmetrics()
    margin = round(0.6 * p.size_px)
    step = p.leading * (ascent + descent)
    height = 2 * margin + ascent + descent
    baseline = margin + ascent
    _, length = _place(p, p.text)
    width = int(length) + 2 * margin
    ink = np.zeros((height, width), np.float32)
    boxes = _paint(ink, p, p.text, margin, baseline, rng)
    for text, y in ((p.above, baseline - step), (p.below, baseline + step)):
        if text:
            _paint(ink, p, text, margin - float(rng.integers(0, 2 * p.size_px)), y, rng)
    if p.underline:
        top = baseline + round(0.12 * p.size_px)
        inked = boxes[boxes[:, 2] > boxes[:, 0]]
        start, end = (int(inked[:, 0].min()), int(inked[:, 2].max())) if len(inked) else (0, 0)
        ink[top : top + max(1, round(p.underline * p.size_px)), max(0, start) : end] = 1.0
    if p.rule:
        for character, pen in _place(p, p.text)[0]:
            if character == "\t":
                x = round(margin + pen + p.gap_em * p.size_px * float(rng.uniform(0.3, 0.7)))
                ink[:, x : x + max(1, round(p.rule * p.size_px))] = 1.0
    if p.stretch != 1.0:
        new_width = max(1, round(width * p.stretch))
        ink = np.asarray(cv2.resize(ink, (new_width, height), interpolation=cv2.INTER_AREA), np.float32)
        boxes[:, [0, 2]] *= new_width / width
    return RenderedLine(ink, p.text.replace("\t", " "), boxes, float(baseline), float(ascent), float(descent))


def crop_window(line: RenderedLine, p: LineParameters) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the crop, inside the ink's array."""
    inked = line.boxes[line.boxes[:, 2] > line.boxes[:, 0]]
    left, right = (inked[:, 0].min(), inked[:, 2].max()) if len(inked) else (0.0, float(line.ink.shape[1]))
    if p.crop_to_ink and len(inked):
        top, bottom = inked[:, 1].min(), inked[:, 3].max()
    else:
        top, bottom = line.baseline_px - line.ascender_px, line.baseline_px + line.descender_px
    height, width = line.ink.shape
    left = int(np.clip(left - p.crop_left * p.size_px, 0, width - 4))
    right = int(np.clip(right + p.crop_right * p.size_px, left + 4, width))
    top = int(np.clip(top - p.crop_top * p.size_px, 0, height - 4))
    bottom = int(np.clip(bottom + p.crop_bottom * p.size_px, top + 4, height))
    return left, top, right, bottom


def draw_line(rng: Rng, texts: TextSource, fonts: FontCase) -> LineParameters:
    """Chooses text, font and layout. The font covers the text: another is drawn where one lacks a glyph.

    Kinds of print have fixed shares (typewriter 0.36, book 0.36, modern 0.28) whatever fonts the machine has.
    """
    max_chars = int(rng.choice((rng.integers(4, 25), rng.integers(20, 95)), p=(0.3, 0.7)))
    text = texts.line(rng, max_chars)
    kinds = ("typewriter", "book", "modern")
    kind = kinds[int(rng.choice(3, p=(0.36, 0.36, 0.28)))]
    pool = fonts.drawer(kind, bool(rng.random() < 0.17))
    face = pool[int(rng.integers(len(pool)))]
    needed = set(text) - {"\t"}
    for _ in range(24):
        if needed <= coverage(face):
            break
        face = fonts.faces[int(rng.integers(len(fonts.faces)))]
    else:
        text = "".join(c for c in text if c in coverage(face) or c == "\t").strip() or "a"
        text = " ".join(text.split(" "))
    typed = face.kind == "typewriter"
    crowded = rng.random() < 0.55
    loose = rng.random() < 0.3
    above, below = (texts.prose(rng, max_chars) if crowded and rng.random() < 0.8 else "" for _ in range(2))
    to_ink = bool(rng.random() < 0.4)
    vertical = (0.0, 0.28) if to_ink else (-0.08, 0.16)
    if loose:
        vertical = (vertical[0], vertical[1] + 0.3)
    return LineParameters(
        text=text,
        face=face,
        size_px=int(rng.choice(SIZES_PX)),
        kerned=bool(not typed and rng.random() < 0.35),
        above="".join(c for c in above if c in coverage(face)),
        below="".join(c for c in below if c in coverage(face)),
        tracking=float(rng.uniform(-0.02, 0.03) if rng.random() < 0.8 else rng.uniform(0.03, 0.25)),
        word_space=float(rng.uniform(0.7, 1.3) if rng.random() < 0.7 else rng.uniform(1.0, 2.2)),
        gap_em=float(rng.uniform(0.5, 1.5) if rng.random() < 0.35 else rng.uniform(1.2, 5)),
        leading=float(rng.uniform(0.82, 1.5)),
        jitter=float(rng.uniform(0, 0.035)) if typed and rng.random() < 0.7 else 0.0,
        strike=float(rng.uniform(0, 0.75)) if typed and rng.random() < 0.7 else float(rng.uniform(0, 0.2)),
        stretch=float(rng.uniform(0.78, 1.18)),
        underline=float(rng.uniform(0.03, 0.08)) if rng.random() < 0.05 else 0.0,
        rule=float(rng.uniform(0.02, 0.08)) if rng.random() < 0.2 else 0.0,
        crop_to_ink=to_ink,
        crop_top=float(rng.uniform(*vertical)),
        crop_bottom=float(rng.uniform(*vertical)),
        crop_left=float(rng.uniform(-0.03, 0.5)),
        crop_right=float(rng.uniform(-0.03, 0.5)),
        seed=int(rng.integers(2**31)),
    )


def make_line(p: LineParameters, damage: Damage) -> tuple[npt.NDArray[np.uint8], str, npt.NDArray[np.float64]]:
    """The damaged crop, its text and its characters' boxes in pixels of the crop.

    Returns:
        Image [height, width] uint8, text without tabs, boxes [characters, 4].
    """
    line = render(p)
    left, top, right, bottom = crop_window(line, p)
    ink = np.ascontiguousarray(line.ink[top:bottom, left:right])
    boxes = line.boxes - np.array([left, top, left, top])
    return apply_damage(ink, damage), line.characters, boxes


def sample_lines(
    rng: Rng, texts: TextSource, fonts: FontCase, takes: int = 2
) -> list[tuple[npt.NDArray[np.uint8], str]]:
    """The same rendered line with `takes` independent damages, and its text."""
    p = draw_line(rng, texts, fonts)
    line = render(p)
    left, top, right, bottom = crop_window(line, p)
    ink = np.ascontiguousarray(line.ink[top:bottom, left:right])
    scale = p.size_px / 40
    return [(apply_damage(ink, draw_damage(rng, scale)), line.characters) for _ in range(takes)]


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

"""What a synthetic page is made of, as plain data: text, rules, strokes, pictures, stamps, damage, true lines."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from ocr_model.document import Point
from trainer.synthesis.fonts import FontFace, coverage, load


@dataclass(frozen=True)
class TrueLine:
    """Where a line of text is.

    Attributes:
        baseline: at least two points from left to right, px.
        x_height, ascender, descender: px; the last two are what the glyphs reach above and below the baseline, at
            least what the font's own ascenders and descenders reach, so they do not depend on the letters that happen
            to stand in the line.
    """

    baseline: tuple[Point, ...]
    x_height: float
    ascender: float
    descender: float

    def moved(self, matrix: np.ndarray) -> TrueLine:
        """The line after a similarity transform, [2, 3] float."""
        points = np.asarray(self.baseline) @ matrix[:, :2].T + matrix[:, 2]
        scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
        heights = (self.x_height * scale, self.ascender * scale, self.descender * scale)
        return TrueLine(tuple((float(x), float(y)) for x, y in points), *heights)


@dataclass(frozen=True)
class Print:
    """How text is set: face, size and distance of the baselines in px, ink 0 to 1, typist's unevenness in px."""

    face: FontFace
    size_px: int
    leading_px: float
    ink: float = 1.0
    uneven_px: float = 0.0
    tracking_px: float = 0.0


@dataclass(frozen=True)
class Text:
    """One line: its start on the baseline, the width of a gap between words.

    `paper` prints in the paper's colour on a bar, `underline` is the typist's, and `ornament` (a row of dashes or
    stars) is no line that anyone wants to read.
    """

    x: float
    y: float
    text: str
    style: Print
    gap_px: float
    seed: int
    paper: bool = False
    underline: bool = False
    ornament: bool = False


@dataclass(frozen=True)
class Bar:
    """A filled rectangle, a rule where it is thin. Ink 0 to 1."""

    left: float
    top: float
    right: float
    bottom: float
    ink: float = 1.0


@dataclass(frozen=True)
class Stroke:
    """A curve of a pen: points, thickness in px."""

    points: tuple[Point, ...]
    thickness_px: int
    ink: float


@dataclass(frozen=True)
class Picture:
    """Something in a box that is not text; `kind` is one of `PICTURES`."""

    left: int
    top: int
    right: int
    bottom: int
    kind: str
    seed: int


@dataclass(frozen=True)
class Stamp:
    """A round or square stamp with slanted letters that nobody is asked to read."""

    x: float
    y: float
    radius_px: float
    angle_deg: float
    words: str
    face: FontFace
    ink: float
    round: bool


# kind → share
PICTURES = {"photograph": 0.3, "halftone": 0.2, "drawing": 0.25, "black": 0.05, "bilevel": 0.1, "logo": 0.1}

Item = Text | Bar | Stroke | Picture | Stamp


@dataclass(frozen=True)
class Damage:
    """What happened to the sheet and in the scanner; zero is nothing.

    Attributes:
        skew_deg: turns the sheet, positive where lines fall to the right.
        bow_px: lines bend by so much in their middle; `wave_px`: and by this sine along the page.
        paper, ink: grey levels.
        texture, light, stains, bleed: strengths 0 to 1.
        borders_px: dark scanner border left, top, right, bottom.
        holes: centres and radii of punched holes, px.
        blur_px: sigma; noise: sigma in grey levels; jpeg: quality, 0 for none.
        bilevel: threshold 0 to 1 between paper and ink, 0 for grey.
        thicken: kernel in px, positive for ink spread, negative for eroded strokes.
        specks: number of dark specks; as many as a quarter of them are larger and lie along the edges.
        seed: of the noise and the texture.
    """

    skew_deg: float = 0.0
    bow_px: float = 0.0
    wave_px: float = 0.0
    paper: float = 255.0
    ink: float = 0.0
    texture: float = 0.0
    light: float = 0.0
    stains: float = 0.0
    bleed: float = 0.0
    borders_px: tuple[int, int, int, int] = (0, 0, 0, 0)
    holes: tuple[tuple[float, float, float], ...] = ()
    blur_px: float = 0.0
    noise: float = 0.0
    jpeg: int = 0
    bilevel: float = 0.0
    thicken: int = 0
    specks: int = 0
    seed: int = 0


@dataclass(frozen=True)
class PagePlan:
    """All that `render` needs."""

    kind: str
    width: int
    height: int
    items: tuple[Item, ...]
    damage: Damage


@functools.lru_cache(maxsize=4096)
def extents(face: FontFace, size_px: int) -> tuple[float, float, float]:
    """(x-height, ascender, descender) of a face in px, from its own letters."""
    font = load(face, size_px)
    x_height = -font.getbbox("x", anchor="ls")[1]
    ascender = -min(font.getbbox(c, anchor="ls")[1] for c in "bdhkl")
    descender = max(font.getbbox(c, anchor="ls")[3] for c in "gpqy")
    return float(max(x_height, 2)), float(max(ascender, 3)), float(max(descender, 1))


@functools.lru_cache(maxsize=1024)
def is_for_running_text(face: FontFace) -> bool:
    """Whether the face has the letters of a page in the proportions of text: symbols and small capitals do not."""
    x_height, ascender, descender = extents(face, 40)
    return (
        len(coverage(face)) >= 60 and 11 < x_height < 25 and ascender > 1.15 * x_height and descender > 0.15 * x_height
    )


@functools.lru_cache(maxsize=65536)
def word_width(face: FontFace, size_px: int, word: str, tracking_px: float) -> float:
    return float(load(face, size_px).getlength(word)) + tracking_px * len(word)


def space_width(style: Print) -> float:
    return word_width(style.face, style.size_px, " ", style.tracking_px)


def text_width(style: Print, text: str) -> float:
    words = text.split(" ")
    widths = (word_width(style.face, style.size_px, word, style.tracking_px) for word in words)
    return sum(widths) + space_width(style) * (len(words) - 1)

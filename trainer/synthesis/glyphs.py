"""The letters of a face, each drawn once at `MASTER_PX` and kept: what lines are set from.

What was used last is kept, about 50 MB of it, whatever number of faces and characters there are.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from trainer.synthesis.fonts import MASTER_PX, FontFace, load

SMALL_CAPITALS = (0.0, 0.7, 0.76, 0.82)  # of the capitals' size; few, so that they are drawn once
_GLYPHS_KEPT, _PAIRS_KEPT = 40_000, 20_000
_KERNED_PAIRS = ("AV", "To", "Te", "Wa", "Ty", "VA", "LT", "P.", "r.", "f'")
_MISSING = ("\U0010fffe", "\uffff")


class Glyph(NamedTuple):
    """A letter at `MASTER_PX`.

    Attributes:
        mask: [height, width] uint8, 0 paper to 255 ink, cut to its ink; None where nothing is drawn.
        left, top: of the mask, from the pen and from the baseline (negative is above), pixels.
        advance: of the pen, pixels.
    """

    mask: npt.NDArray[np.uint8] | None
    left: int
    top: int
    advance: float


class GlyphSet:
    """The letters of one face.

    Attributes:
        ascent, descent: the font's own, pixels above and below the baseline.
    """

    def __init__(self, face: FontFace) -> None:
        self.face = face
        font = load(face, MASTER_PX)
        self.ascent, self.descent = font.getmetrics()
        self._missing = {bytes(font.getmask(c)) for c in _MISSING}
        self._known: dict[str, bool] = {" ": True, "\t": True}
        self._kerns: bool | None = None

    def lacks(self, character: str) -> bool:
        """Whether the face draws nothing, or its box for missing glyphs."""
        known = self._known.get(character)
        if known is None:
            self.glyph(character)
            known = self._known[character]
        return not known

    def glyph(self, character: str, small: float = 0.0) -> Glyph:
        """The letter.

        Args:
            small: size of small capitals, which lower-case letters are then set in; 0 is none.
        """
        return _kept_glyph(self, character, small)

    def drawn(self, character: str) -> Glyph:
        """The letter, drawn anew."""
        font = load(self.face, MASTER_PX)
        try:
            advance = float(font.getlength(character))
            if character in " \t":
                return Glyph(None, 0, 0, advance)
            mask, (x, y) = font.getmask2(character, mode="L", anchor="ls")
        except OSError:  # this one glyph of the file is damaged
            self._known[character] = False
            return Glyph(None, 0, 0, MASTER_PX / 2)
        data = bytes(mask)
        width, height = mask.size
        grey = np.frombuffer(data, np.uint8).reshape(height, width)
        rows, columns = np.flatnonzero(grey.any(axis=1)), np.flatnonzero(grey.any(axis=0))
        self._known[character] = bool(rows.size) and data not in self._missing
        if rows.size == 0:
            return Glyph(None, 0, 0, advance)
        inked = np.ascontiguousarray(grey[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
        return Glyph(inked, int(x) + int(columns[0]), int(y) + int(rows[0]), advance)

    def drawn_small(self, character: str, small: float) -> Glyph:
        """The small capital of a lower-case letter, made anew; other characters are as they are."""
        capital = character.upper()
        if len(capital) != 1 or capital == character or capital.lower() != character or self.lacks(capital):
            return self.glyph(character)
        whole = self.glyph(capital)
        if whole.mask is None:
            return whole
        height, width = (max(1, round(side * small)) for side in whole.mask.shape)
        mask = np.asarray(cv2.resize(whole.mask, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        return Glyph(mask, round(whole.left * small), round(whole.top * small), whole.advance * small)

    def kerning(self, pair: str) -> float:
        """How much the pen moves less (negative) or more between two letters, pixels."""
        if self._kerns is None:
            self._kerns = any(self.measured_kerning(known) for known in _KERNED_PAIRS)
        if not self._kerns:
            return 0.0
        return _kept_kerning(self, pair)

    def measured_kerning(self, pair: str) -> float:
        """As `kerning`, measured anew."""
        both = float(load(self.face, MASTER_PX).getlength(pair))
        return both - self.glyph(pair[0]).advance - self.glyph(pair[1]).advance


@functools.lru_cache(maxsize=_GLYPHS_KEPT)
def _kept_glyph(letters: GlyphSet, character: str, small: float) -> Glyph:
    return letters.drawn_small(character, small) if small else letters.drawn(character)


@functools.lru_cache(maxsize=_PAIRS_KEPT)
def _kept_kerning(letters: GlyphSet, pair: str) -> float:
    return letters.measured_kerning(pair)


@functools.lru_cache(maxsize=2048)
def glyph_set(face: FontFace) -> GlyphSet:
    """The letters of the face, kept for all lines of the process."""
    return GlyphSet(face)


def covers(face: FontFace, characters: frozenset[str]) -> bool:
    """Whether the face has all of the characters."""
    letters = glyph_set(face)
    return not any(letters.lacks(c) for c in characters)

import cv2
import numpy as np
import pytest

from ocr_model.errors import BadInput
from tests.figures.matched_lines import matched, matched_lines
from trainer.collection import RealLine
from trainer.synthesis.fonts import FontCase, find_fonts
from trainer.synthesis.lines import LineParameters, cut


@pytest.fixture(scope="module")
def fonts() -> FontCase:
    try:
        return FontCase(find_fonts())
    except BadInput:
        pytest.skip("no fonts installed")


def typed(fonts: FontCase, text: str, document: str = "d") -> RealLine:
    """A typescript on grey paper, a little slanted and askew, with part of a neighbour at its lower edge."""
    face = fonts.drawer("typewriter", False)[0]
    ink = cut(LineParameters(text, face, 52, below="HIP", leading=1.0, crop_top=0.2, crop_bottom=0.25)).ink
    height, width = ink.shape
    moved = cv2.warpAffine(ink, np.float32([[1, -0.08, 3], [0.004, 1, -2]]), (width, height))
    grey = 200 - 120 * moved + np.random.default_rng(1).normal(0, 4, ink.shape)
    return RealLine(np.clip(grey, 0, 255).astype(np.uint8), (0, 0, 0, 0), text, "letters_typed", document)


def test_a_rendered_line_is_laid_over_the_real_one(fonts: FontCase) -> None:
    real = typed(fonts, "Paris, le 12 mars 1938")
    match = matched(np.random.default_rng(1), real, fonts)
    assert match is not None and match.correlation > 0.75
    assert match.clean.ink.shape == match.real.shape and match.real.shape[0] == 40
    dark, inked = match.real < 140, match.clean.ink > 0.5
    assert (dark & cv2.dilate(inked.astype(np.uint8), np.ones((3, 3))).astype(bool)).sum() > 0.8 * dark.sum()


def test_a_line_that_says_something_else_is_not_matched(fonts: FontCase) -> None:
    real = typed(fonts, "Paris, le 12 mars 1938")
    other = RealLine(real.image, real.margins, "wholly different words, and many more of them than there are", "", "d")
    assert matched(np.random.default_rng(1), other, fonts) is None


def test_of_a_source_so_many_lines_are_taken(fonts: FontCase) -> None:
    lines = [typed(fonts, f"Seite {n} von zwanzig", f"d{n}") for n in range(4)]
    found = matched_lines(np.random.default_rng(1), lines, fonts, 64, 2)
    assert len(found) == len({line.document for line in found}) == 2
    assert not matched_lines(np.random.default_rng(1), lines[:1], fonts, 4000, 2)

"""Synthetic pages: replayable, and true."""

from __future__ import annotations

import numpy as np
import pytest

from ocr_model.errors import BadInput
from trainer.synthesis.fonts import find_fonts
from trainer.synthesis.page_kinds import KINDS
from trainer.synthesis.page_plan import Damage, PagePlan, Print, Text, is_for_running_text
from trainer.synthesis.page_render import render
from trainer.synthesis.pages import draw_page


class Words:
    def paragraph(self, rng: np.random.Generator) -> str:
        return "the quick brown fox jumps over a lazy dog and goes on " * int(rng.integers(2, 8))


@pytest.fixture(scope="module")
def fonts():
    try:
        found = find_fonts()
    except BadInput:
        pytest.skip("no fonts on this machine")
    return [face for face in found[:: max(1, len(found) // 8)] if is_for_running_text(face)]


def draw(fonts, seed: int, kind: str, area: float = 2e5) -> PagePlan:
    return draw_page(np.random.default_rng(seed), fonts, Words(), kind, area)


def test_same_seed_same_page(fonts):
    one, other = draw(fonts, 3, "book"), draw(fonts, 3, "book")
    assert one == other
    np.testing.assert_array_equal(render(one)[0], render(other)[0])
    assert draw(fonts, 4, "book") != one


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "blank"])
def test_every_kind_has_lines_inside_the_page(fonts, kind: str):
    plan = draw(fonts, 1, kind)
    image, lines = render(plan)
    assert image.shape == (plan.height, plan.width) and image.dtype == np.uint8
    assert lines
    for line in lines:
        assert line.x_height < line.ascender and line.descender > 0
        assert line.baseline[0][0] < line.baseline[-1][0]


def test_a_blank_page_has_no_lines(fonts):
    assert render(draw(fonts, 2, "blank"))[1] == []


def one_line(fonts, damage: Damage, text: str = "nun bad hog") -> PagePlan:
    return PagePlan("test", 400, 200, (Text(40, 110, text, Print(fonts[0], 40, 60), 12.0, 0),), damage)


def test_the_truth_holds_the_ink(fonts):
    image, (line,) = render(one_line(fonts, Damage()))
    rows, columns = (image < 128).nonzero()
    (x0, y), (x1, _) = line.baseline
    assert y - line.ascender - 1 <= rows.min() and rows.max() <= y + line.descender + 1
    assert x0 - 3 <= columns.min() and columns.max() <= x1 + 3
    assert rows.min() < y - line.x_height


@pytest.mark.parametrize(
    "damage", [Damage(skew_deg=3.0), Damage(bow_px=6.0), Damage(wave_px=4.0)], ids=["skew", "bow", "wave"]
)
def test_the_baseline_moves_with_the_ink(fonts, damage: Damage):
    book = [face for face in fonts if face.kind == "book"]  # a screen font's letters may float above the baseline
    image, (line,) = render(one_line(book or fonts, damage, "nunnnnnnunnnn"))
    points = np.asarray(line.baseline)
    for x in np.linspace(points[0, 0] + 10, points[-1, 0] - 10, 7):
        column = image[:, int(x) - 6 : int(x) + 7].min(axis=1)
        lowest = (column < 128).nonzero()[0].max()
        assert lowest + 1 == pytest.approx(np.interp(x, points[:, 0], points[:, 1]), abs=2.0)


def test_heights_do_not_depend_on_the_letters(fonts):
    (low,) = render(one_line(fonts, Damage(), "nun"))[1]
    (tall,) = render(one_line(fonts, Damage(), "bad hog"))[1]
    assert (low.x_height, low.ascender, low.descender) == pytest.approx(
        (tall.x_height, tall.ascender, tall.descender), abs=1.5
    )

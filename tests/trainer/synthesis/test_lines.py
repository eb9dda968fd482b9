import numpy as np
import pytest

from ocr_model.alphabet import DEFAULT_ALPHABET
from ocr_model.errors import BadInput
from trainer.synthesis.damage import Damage, apply_damage, draw_damage
from trainer.synthesis.fonts import FontCase, FontFace, coverage, find_fonts
from trainer.synthesis.lines import (
    LineParameters,
    crop_window,
    draw_line,
    make_line,
    render,
    sample_lines,
    sample_non_text,
)
from trainer.synthesis.text import TextSource


@pytest.fixture(scope="module")
def fonts() -> FontCase:
    try:
        return FontCase(find_fonts()[:12])
    except BadInput:
        pytest.skip("no font of the renderer is installed")


@pytest.fixture(scope="module")
def texts() -> TextSource:
    return TextSource.load(None)


def face_of(fonts: FontCase) -> FontFace:
    return next(f for f in fonts.faces if set("Hgx,4 ") <= coverage(f))


def test_same_seed_same_bytes(fonts: FontCase, texts: TextSource) -> None:
    first, second = (sample_lines(np.random.default_rng(7), texts, fonts) for _ in range(2))
    for (a, text_a), (b, text_b) in zip(first, second, strict=True):
        assert text_a == text_b
        np.testing.assert_array_equal(a, b)


def test_every_box_holds_its_glyphs_ink(fonts: FontCase) -> None:
    face = face_of(fonts)
    whole = render(LineParameters("Hgx, 4", face, 38, seed=3, jitter=0.02))
    for i, character in enumerate(whole.characters):
        alone = np.zeros_like(whole.ink)
        left, top, right, bottom = whole.boxes[i].round().astype(int)
        alone[top:bottom, left:right] = whole.ink[top:bottom, left:right]
        assert (alone.max() > 0.9) == (character != " ")
    covered = np.zeros_like(whole.ink, bool)
    for left, top, right, bottom in whole.boxes.round().astype(int):
        covered[top:bottom, left:right] = True
    assert whole.ink[~covered].max() == 0  # no ink outside of the boxes


def test_a_tab_is_a_wide_gap_and_one_space_of_truth(fonts: FontCase) -> None:
    near = render(LineParameters("H 4", face_of(fonts), 32))
    far = render(LineParameters("H\t4", face_of(fonts), 32, gap_em=5))
    assert far.characters == near.characters == "H 4"
    assert far.boxes[2, 0] - far.boxes[0, 2] > 3 * (near.boxes[2, 0] - near.boxes[0, 2])


def test_a_crop_to_the_ink_without_margin_is_its_bounding_box(fonts: FontCase) -> None:
    p = LineParameters(
        "Hxg", face_of(fonts), 38, crop_to_ink=True, crop_top=0, crop_bottom=0, crop_left=0, crop_right=0
    )
    line = render(p)
    rows, columns = np.nonzero(line.ink)
    left, top, right, bottom = crop_window(line, p)
    assert (left, top, right, bottom) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_a_font_that_lacks_a_glyph_is_not_used_for_it(fonts: FontCase, texts: TextSource) -> None:
    rng = np.random.default_rng(5)
    for _ in range(60):
        p = draw_line(rng, texts, fonts)
        assert set(p.text) - {"\t"} <= coverage(p.face)


def test_drawn_texts_stay_within_the_alphabet_and_have_no_outer_space(texts: TextSource) -> None:
    rng = np.random.default_rng(2)
    for _ in range(300):
        text = texts.line(rng)
        assert DEFAULT_ALPHABET.covers(text.replace("\t", " "))
        assert text == text.strip()


def test_the_alphabet_is_covered_by_what_is_drawn(texts: TextSource) -> None:
    rng = np.random.default_rng(3)
    seen: set[str] = set()
    for _ in range(4000):
        seen |= set(texts.line(rng))
    assert len(set(DEFAULT_ALPHABET.characters) - seen) < 0.05 * len(DEFAULT_ALPHABET.characters)


def test_no_damage_leaves_clean_black_on_white() -> None:
    ink = np.zeros((20, 30), np.float32)
    ink[5:15, 10:20] = 1
    np.testing.assert_array_equal(apply_damage(ink, Damage(seed=1)), np.where(ink > 0, 0, 255))


def test_damage_keeps_the_size_and_can_be_replayed() -> None:
    rng = np.random.default_rng(4)
    ink = (rng.random((30, 90)) < 0.2).astype(np.float32)
    for _ in range(40):
        damage = draw_damage(rng)
        first = apply_damage(ink, damage)
        assert first.shape == ink.shape
        assert first.dtype == np.uint8
        np.testing.assert_array_equal(first, apply_damage(ink, damage))


def test_bleed_through_is_fainter_than_the_print() -> None:
    ink = np.zeros((30, 60), np.float32)
    ink[10:20, 5:15] = 1
    image = apply_damage(ink, Damage(seed=3, bleed=0.4))
    outside = image[ink == 0]
    assert outside.min() >= 255 * 0.6 - 1
    assert outside.min() < 240


def test_a_crop_without_text_has_a_size_and_a_seed() -> None:
    a, b = (sample_non_text(np.random.default_rng(6)) for _ in range(2))
    np.testing.assert_array_equal(a, b)
    assert a.size > 0


def test_boxes_move_with_the_crop(fonts: FontCase) -> None:
    p = LineParameters(
        "Hx", face_of(fonts), 38, crop_left=0.0, crop_to_ink=True, crop_top=0, crop_bottom=0, crop_right=0
    )
    image, text, boxes = make_line(p, Damage(seed=1))
    assert text == "Hx"
    assert boxes[0, 0] == 0
    assert boxes[1, 2] == image.shape[1]

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ocr_model.alphabet import DEFAULT_ALPHABET, Alphabet
from ocr_model.errors import BadInput
from trainer.synthesis.damage import Damage, apply_damage, displaced, draw_damage, shift_of
from trainer.synthesis.fonts import FontCase, FontFace, coverage, find_fonts, fonts_in, kind_of, readable
from trainer.synthesis.glyphs import covers, glyph_set
from trainer.synthesis.lines import (
    LineParameters,
    Mixture,
    crop_window,
    cut,
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


def outward(box: np.ndarray) -> tuple[int, int, int, int]:
    left, top, right, bottom = (*np.floor(box[:2]).astype(int), *np.ceil(box[2:]).astype(int))
    return left, top, right, bottom


SAMPLED = """
import hashlib, sys
import numpy as np
from trainer.synthesis.fonts import FontCase, find_fonts
from trainer.synthesis.lines import sample_lines
from trainer.synthesis.text import TextSource
texts, fonts, digest = TextSource.load(None), FontCase(find_fonts()[:12]), hashlib.sha256()
for number in range(int(sys.argv[1])):
    for image, text in sample_lines(np.random.default_rng([7, number]), texts, fonts):
        digest.update(image.tobytes() + text.encode())
print(digest.hexdigest())
"""


def test_another_process_draws_the_same_bytes(fonts: FontCase, texts: TextSource) -> None:
    other = subprocess.run(
        [sys.executable, "-c", SAMPLED, "40"], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3]
    )
    digest = hashlib.sha256()
    for number in reversed(range(40)):  # what was drawn before does not matter either
        sample_lines(np.random.default_rng([7, number]), texts, fonts)
    for number in range(40):
        for image, text in sample_lines(np.random.default_rng([7, number]), texts, fonts):
            digest.update(image.tobytes() + text.encode())
    assert other.stdout.strip() == digest.hexdigest()


@pytest.mark.parametrize("size_px, stretch", [(38, 1.0), (48, 1.0), (56, 1.1), (56, 0.83), (26, 1.18), (44, 1.3)])
def test_every_box_holds_its_glyphs_ink(fonts: FontCase, size_px: int, stretch: float) -> None:
    face = face_of(fonts)
    whole = render(LineParameters("Hgx, 4", face, size_px, seed=3, jitter=0.02, stretch=stretch, tracking=0.1))
    covered = np.zeros_like(whole.ink, bool)
    for character, box in zip(whole.characters, whole.boxes, strict=True):
        left, top, right, bottom = outward(box)
        if character == " ":
            assert box[0] == box[2]
            continue
        covered[top:bottom, left:right] = True
        assert whole.ink[top:bottom, left:right].max() > 0.9
    assert whole.ink[~covered].max() == 0  # no ink outside of the boxes


def test_boxes_hold_the_ink_of_glyphs_drawn_apart_through_all_that_moves_it(fonts: FontCase) -> None:
    rng = np.random.default_rng(8)
    texts = TextSource.load(None)
    for _ in range(12):
        p = replace(draw_line(rng, texts, fonts), text="Hgx, j4", crop_top=0.5, crop_bottom=0.5, face=face_of(fonts))
        damage = Damage(
            seed=1,
            slope=float(rng.normal(0, 0.03)),
            wave_px=float(rng.uniform(0, 4)),
            phase=float(rng.random()),
            fold_shift_px=float(rng.normal(0, 3)),
            fold_at=float(rng.random()),
        )
        _, text, boxes = make_line(p, damage)
        for i, character in enumerate(text):
            ink = displaced(cut(p, only=i).ink, shift_of(damage, cut(p).ink.shape[1]))
            if character == " ":
                assert ink.max() == 0
                continue
            left, top, right, bottom = outward(boxes[i])
            inside = ink[max(0, top) : bottom, max(0, left) : right]
            assert inside.sum() == pytest.approx(ink.sum(), abs=1e-3)
            assert inside.max() > 0.2
            rows = np.flatnonzero(ink.max(axis=1) > 0.02)
            within = abs(damage.slope) * (right - left) + abs(damage.fold_shift_px)  # what moves inside of the box
            assert max(rows[0] - top, bottom - rows[-1]) < 5 + within  # and hardly more than the ink


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


def test_what_the_crop_shows_is_what_the_whole_line_shows_there(fonts: FontCase) -> None:
    p = LineParameters("Hx 4", face_of(fonts), 48, above="gyp", below="HEX", leading=0.9, rule=0.05, underline=0.05)
    line, shown = render(p), cut(p)
    left, top, right, bottom = crop_window(line, p)
    np.testing.assert_array_equal(shown.ink, line.ink[top:bottom, left:right])
    np.testing.assert_allclose(shown.boxes, line.boxes - np.array([left, top, left, top]))


def test_a_character_that_no_face_has_is_left_out_and_told(fonts: FontCase, texts: TextSource) -> None:
    face = face_of(fonts)
    drawn = [
        draw_line(np.random.default_rng(n), texts, FontCase([face]), Mixture(), must="\ue123" + "a") for n in range(3)
    ]
    assert {p.left_out for p in drawn} == {""}  # it is outside of the alphabet: no such text is drawn
    odd = replace(texts, alphabet=Alphabet(DEFAULT_ALPHABET.characters + "\ue123"))
    p = draw_line(np.random.default_rng(1), odd, FontCase([face]), must="\ue123")
    assert "\ue123" in p.left_out and "\ue123" not in p.text and p.text


def test_another_face_is_taken_and_told_where_the_first_lacks_a_glyph(fonts: FontCase, texts: TextSource) -> None:
    faces = find_fonts()
    rich = max(faces, key=lambda face: covers(face, frozenset("ſğ№")))
    poor = [face for face in faces if not covers(face, frozenset("ſğ№"))][:3]
    if not poor or not covers(rich, frozenset("ſğ№")):
        pytest.skip("the fonts of this machine all have these letters, or none has")
    told = set()
    for n in range(12):
        p = draw_line(np.random.default_rng(n), texts, FontCase([*poor, rich]), must="ſğ№")
        assert set(p.text) - {"\t"} <= coverage(p.face) or p.left_out
        assert "ſğ№" in p.text or p.left_out
        told.add(p.other_face)
    assert True in told


def test_glyph_sets_know_what_a_face_lacks(fonts: FontCase) -> None:
    for face in fonts.faces[:4]:
        letters = glyph_set(face)
        assert {c for c in DEFAULT_ALPHABET.characters if not letters.lacks(c)} == coverage(face)
        assert covers(face, frozenset("Ha")) and not covers(face, frozenset("\ue123"))


def test_small_capitals_keep_the_texts_lower_case(fonts: FontCase) -> None:
    face = face_of(fonts)
    plain, small = (render(LineParameters("Hx", face, 48, small_caps=s)) for s in (0.0, 0.76))
    assert small.characters == "Hx"
    heights = small.boxes[:, 3] - small.boxes[:, 1]
    assert heights[1] == pytest.approx(0.76 * heights[0], abs=1.5)
    assert outward(small.boxes[1]) != outward(plain.boxes[1])


def test_a_broken_letter_of_a_typewriter_is_broken_every_time(fonts: FontCase) -> None:
    typed = next(face for face in fonts.faces if face.kind == "typewriter")
    p = LineParameters("HxHxHx", typed, 48, broken=1.0, seed=2)
    line, whole = render(p), render(replace(p, broken=0.0))
    letters = [line.ink[t:b, le:r] for le, t, r, b in (outward(box) for box in line.boxes)]
    for i in (2, 4):
        np.testing.assert_array_equal(letters[i], letters[0])
    assert line.ink.sum() < 0.95 * whole.ink.sum()


@pytest.mark.parametrize(
    "mark", [{"underline": 0.06}, {"form_rule": 0.05}, {"border": 0.05}, {"stamp": 0.5}, {"clogged": 1.0}]
)
def test_marks_add_ink_and_leave_the_boxes(fonts: FontCase, mark: dict[str, float]) -> None:
    p = LineParameters("Hea xg", face_of(fonts), 40, crop_top=0.4, crop_bottom=0.4, seed=5)
    plain, marked = cut(p), cut(replace(p, **mark))
    assert marked.ink.sum() > plain.ink.sum()
    np.testing.assert_array_equal(marked.boxes, plain.boxes)


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


def test_what_must_be_in_a_line_is_in_it(texts: TextSource) -> None:
    for number, character in enumerate(DEFAULT_ALPHABET.characters[1:]):
        assert character in texts.drawn(np.random.default_rng(number), 12, must=character).text


def test_text_files_are_named_with_what_is_drawn_from_them(tmp_path: Path) -> None:
    (tmp_path / "en_a.txt").write_text("aaa aaa aaa aaa aaa aaa\n" * 20)
    (tmp_path / "de_b.txt").write_text("bbb bbb bbb bbb bbb bbb\n" * 20)
    texts = TextSource.load(tmp_path)
    kinds = set()
    for number in range(60):
        drawn = texts.drawn(np.random.default_rng(number), 60)
        kinds.add(drawn.kind)
        if drawn.kind == "prose":
            assert drawn.files == (("en_a.txt",) if "a" in drawn.text.lower() else ("de_b.txt",))
    assert {"prose", "table_row", "receipt"} <= kinds


def test_text_files_that_cannot_be_read_and_characters_outside_the_alphabet_are_told(tmp_path: Path) -> None:
    (tmp_path / "en_good.txt").write_text("plain text\nαβγ greek text\n", encoding="utf-8")
    (tmp_path / "en_bad.txt").write_bytes(b"caf\xe9 is no UTF-8\n")
    texts = TextSource.load(tmp_path)
    assert texts.paragraphs == ("plain text",) and texts.left_out == 1
    assert set(texts.unreadable) == {"en_bad.txt"}
    assert texts.unknown == {"α": 1, "β": 1, "γ": 1}
    (tmp_path / "en_good.txt").unlink()
    with pytest.raises(BadInput, match=r"en_bad\.txt"):
        TextSource.load(tmp_path)


def test_a_font_that_cannot_be_read_is_named_and_left_out(fonts: FontCase, tmp_path: Path) -> None:
    sound = fonts.faces[0]
    (tmp_path / sound.path.name).write_bytes(sound.path.read_bytes())
    (tmp_path / "Torn.ttf").write_bytes(sound.path.read_bytes()[:300])
    faces = fonts_in(tmp_path)
    kept, unreadable = readable(faces)
    assert [face.path.name for face in kept] == [sound.path.name]
    assert [Path(name).name for name in unreadable] == ["Torn.ttf"]
    (tmp_path / "DejaVuSans-Torn.ttf").write_bytes(sound.path.read_bytes()[:300])
    assert [face.path.name for face in find_fonts((tmp_path,))] == [sound.path.name]
    with pytest.raises(BadInput, match="Torn"):
        readable([face for face in faces if face.path.name == "Torn.ttf"])


def test_fonts_of_ones_own_are_book_print_if_unknown(tmp_path: Path) -> None:
    for name in ("Mine.ttf", "LiberationMono-Regular.ttf", "Blankenburg_UNZ1A.ttf"):
        (tmp_path / name).write_bytes(b"")
    assert [face.kind for face in fonts_in(tmp_path)] == ["fraktur", "typewriter", "book"]
    assert kind_of("Mine.ttf") is None
    with pytest.raises(BadInput, match="no font of modern"):
        fonts_in(tmp_path, ("modern",))


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


EACH_DAMAGE = {
    "ribbon": 0.7,
    "fold": 0.8,
    "stain": 0.5,
    "fibres": 1.0,
    "shadow": 0.6,
    "motion_px": 3.0,
    "noise": 9.0,
    "scratches": 2,
    "mottle": 0.5,
    "holes": 0.1,
    "bleed": 0.4,
    "specks": 3.0,
    "gradient": 40.0,
    "texture": 9.0,
    "dots_px": 3.0,
    "spread_px": 1.0,
    "resolution": 0.5,
    "jpeg": 20,
    "blur_px": 1.0,
}


@pytest.mark.parametrize("name", EACH_DAMAGE)
def test_each_damage_changes_the_picture_and_keeps_the_print(name: str) -> None:
    ink = np.zeros((40, 200), np.float32)
    ink[10:30, 20:180:12] = ink[10:30, 21:180:12] = ink[10:30, 22:180:12] = 1
    clean = apply_damage(ink, Damage(seed=3)).astype(float)
    worn = apply_damage(ink, Damage(seed=3, **{name: EACH_DAMAGE[name]})).astype(float)
    assert np.abs(worn - clean).max() > 12
    assert np.corrcoef(worn.ravel(), clean.ravel())[0, 1] > 0.5


def test_film_grain_is_clumped() -> None:
    ink = np.zeros((60, 200), np.float32)
    fine, film = (
        apply_damage(ink, Damage(seed=3, paper=128, noise=12, grain_px=g)).astype(float) - 128 for g in (0.0, 1.5)
    )
    alike = [np.corrcoef(grey[:, :-1].ravel(), grey[:, 1:].ravel())[0, 1] for grey in (fine, film)]
    assert abs(alike[0]) < 0.1 and alike[1] > 0.6


def test_an_adaptive_threshold_gives_two_levels_in_uneven_light() -> None:
    ink = np.zeros((40, 200), np.float32)
    ink[15:25, 20:180:9] = 1
    image = apply_damage(ink, Damage(seed=3, paper=180, ink=60, gradient=150, threshold=0.5, adaptive=True))
    assert set(np.unique(image)) == {0, 255}
    assert (image[:, :20] == 255).mean() > 0.95 and (image[:, 180:] == 255).mean() > 0.95


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


def test_no_listed_font_prints_boxes_for_letters() -> None:
    assert [kind_of(f"{name}.otf") for name in ("OCRB", "OCRBX", "LinLibertine_I")] == ["typewriter", None, None]
    try:
        faces = find_fonts()
    except BadInput:
        pytest.skip("no fonts installed")
    for face in faces:
        mask = glyph_set(face).glyph("o").mask
        if mask is not None:  # a face without small letters is not asked for them
            assert mask[[0, 0, -1, -1], [0, -1, 0, -1]].max() < 128, face.name

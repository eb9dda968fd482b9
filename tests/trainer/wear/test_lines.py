import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from ocr_model.alphabet import Alphabet
from ocr_model.errors import BadInput
from tests.tiny_bundle import AB, drawn, write_lines
from trainer.synthesis.fonts import FontCase, find_fonts
from trainer.synthesis.text import TextSource
from trainer.wear.lines import (
    CleanLine,
    CleanWindow,
    RealStrip,
    WearData,
    batches,
    clean_line,
    clean_window,
    guessed_ink,
    labels_of,
    load_strips,
    long_enough,
    thinned,
)


def fonts() -> FontCase:
    try:
        return FontCase(find_fonts())
    except BadInput:
        pytest.skip("no fonts installed")


def noise_strips(count: int, width: int = 200) -> list[RealStrip]:
    rng = np.random.default_rng(1)
    return [RealStrip(rng.integers(0, 255, (40, width), dtype=np.uint8), f"s{i % 2}", f"d{i}") for i in range(count)]


# ---- real lines


def test_lines_are_taken_with_and_without_texts_and_out_of_any_folder(tmp_path: Path) -> None:
    write_lines(tmp_path, ["ab", "ba"])
    (tmp_path / "letters").mkdir()
    cv2.imwrite(str(tmp_path / "letters" / "one.png"), cv2.resize(drawn("abba"), None, fx=2, fy=2))
    cv2.imwrite(str(tmp_path / "two.jpg"), drawn("b"))
    (tmp_path / "letters" / "broken.png").write_bytes(b"no image")
    strips = load_strips(tmp_path)
    assert sorted((s.collection, s.pixels.shape) for s in strips) == [
        ("letters", (40, 104)),
        ("marks", (40, 56)),
        ("marks", (40, 56)),
        (tmp_path.name, (40, 32)),
    ]
    assert [s.collection for s in load_strips(tmp_path, exclude=("marks", "letters"))] == [tmp_path.name]


def test_boxed_lines_of_pages_are_cut_out(tmp_path: Path) -> None:
    folder = tmp_path / "book" / "pages"
    folder.mkdir(parents=True)
    page = np.full((300, 400), 255, np.uint8)
    page[100:130, 50:350] = 60
    cv2.imwrite(str(folder / "p.png"), page)
    (folder / "p.lines.json").write_text(json.dumps([{"bbox": [50, 100, 350, 130], "text": "a"}]))
    (strip,) = load_strips(tmp_path)
    assert strip.collection == "book"
    assert strip.pixels.shape[0] == 40 and strip.pixels.shape[1] > 250
    assert strip.pixels[20].mean() < 130


@pytest.mark.slow
def test_pages_without_boxes_are_cut_by_the_finder(tmp_path: Path) -> None:
    page = np.full((700, 1000), 245, np.uint8)
    for row in range(6):
        text = "The quick brown fox jumps over the lazy dog"
        cv2.putText(page, text, (60, 100 + 90 * row), cv2.FONT_HERSHEY_COMPLEX, 1.1, 20, 2, cv2.LINE_AA)
    cv2.imwrite(str(tmp_path / "scan.png"), page)
    strips = load_strips(tmp_path)
    assert 5 <= len(strips) <= 7
    assert all(strip.pixels.shape[0] == 40 and strip.pixels.shape[1] > 500 for strip in strips)


def test_a_folder_without_lines_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no folder"):
        load_strips(tmp_path / "none")
    (tmp_path / "x.png").write_bytes(b"nothing")
    with pytest.raises(BadInput, match=r"no line in .*left out: 1 × unreadable image"):
        load_strips(tmp_path)


def test_pages_without_a_line_are_counted_and_told_with_the_least_number(tmp_path: Path) -> None:
    for number in range(2):
        cv2.imwrite(str(tmp_path / f"blank{number}.png"), np.full((400, 300), 240, np.uint8))
    with pytest.raises(BadInput, match=r"no line in .*left out: 2 × page without a line"):
        load_strips(tmp_path)
    cv2.imwrite(str(tmp_path / "line.png"), np.zeros((40, 200), np.uint8))
    left_out: Counter[str] = Counter()
    strips = load_strips(tmp_path, left_out=left_out)
    assert left_out == {"page without a line": 2}
    with pytest.raises(BadInput, match=r"1 of 1 real lines.*2 × page without a line.*from 200 such lines"):
        long_enough(strips, 192, left_out=left_out)


def test_too_few_lines_are_told_with_both_numbers() -> None:
    with pytest.raises(BadInput, match=r"5 of 8 real lines are at least 192 px wide.*from 200 such lines"):
        long_enough([*noise_strips(5), *noise_strips(3, 100)], 192)
    assert len(long_enough(noise_strips(5), 192, at_least=5)) == 5


def test_a_small_collection_is_not_drowned() -> None:
    strips = [RealStrip(np.zeros((40, 8), np.uint8), "big" if i < 900 else "small", str(i)) for i in range(1000)]
    kept = thinned(np.random.default_rng(1), strips, 200)
    small = sum(strip.collection == "small" for strip in kept)
    assert len(kept) == 200 and 30 < small < 90
    assert thinned(np.random.default_rng(1), strips[:9], 200) == strips[:9]


def test_the_ink_of_a_real_line_is_found_on_dark_and_dirty_paper() -> None:
    clean = drawn("abba")
    rng = np.random.default_rng(1)
    grey = np.clip(150 - 0.4 * (255.0 - clean) + rng.normal(0, 5, clean.shape), 0, 255).astype(np.uint8)
    grey[2, 3] = 0  # a speck
    ink = guessed_ink(grey)
    assert (np.abs(ink - (clean == 0)) > 0.5).mean() < 0.03
    assert ink[2, 3] < 0.1
    assert guessed_ink(grey, 1.0).sum() > ink.sum() > guessed_ink(grey, -1.0).sum()


# ---- clean lines


def clean(text: str, pitch: int = 20) -> CleanLine:
    """A line whose characters are 16 px wide blocks."""
    ink = np.zeros((40, pitch * len(text)), np.float32)
    boxes = np.zeros((len(text), 4))
    for i, character in enumerate(text):
        boxes[i] = (i * pitch, 30, i * pitch, 30)
        if character != " ":
            boxes[i] = (i * pitch + 2, 10, i * pitch + 18, 30)
            ink[10:30, i * pitch + 2 : i * pitch + 18] = 1
    return CleanLine(ink, text, boxes)


def test_a_window_has_the_words_that_lie_in_it_whole() -> None:
    line = clean("abc de fgh ij")
    window = clean_window(line, 30, 150)  # from the middle of b to the middle of h
    assert window.text == "de"
    # from the middle of the space before (c ends at 58, d begins at 82) to that after (118 to 142)
    assert (window.first, window.last) == (10, 25)
    assert window.ink.shape == (40, 150)
    np.testing.assert_array_equal(window.ink, line.ink[:, 30:180])


def test_a_window_of_a_whole_line_has_its_text() -> None:
    window = clean_window(clean("ab ba"), 0, 128)
    assert (window.text, window.first, window.last) == ("ab ba", 0, 25)
    assert window.ink[:, 100:].max() == 0


def test_a_window_without_a_whole_word_has_none() -> None:
    window = clean_window(clean("abcdefgh"), 20, 64)
    assert (window.text, window.first, window.last) == ("", 0, 0)


def test_only_what_can_be_read_is_labelled() -> None:
    ink = np.zeros((40, 64), np.float32)
    windows = [CleanWindow(ink, t, 2, last) for t, last in (("ab", 8), ("", 0), ("aaaaa", 8), ("xy", 8))]
    made = labels_of(windows, AB)
    assert made["lengths"].tolist() == [2, 0, 0, 0]
    assert made["seen"].sum(axis=1).tolist() == [6, 0, 0, 0]
    assert made["seen"][0].tolist() == [0] * 2 + [1] * 6 + [0] * 8
    assert made["labels"].shape == (4, 16)


def test_boxes_of_a_clean_line_hold_its_ink() -> None:
    rng, case, texts = np.random.default_rng(3), fonts(), TextSource.load(None)
    for _ in range(5):
        line = clean_line(rng, texts, case)
        assert line.ink.shape[0] == 40 and line.ink.max() > 0.5
        assert len(line.boxes) == len(line.text)
        inked = line.boxes[line.boxes[:, 2] > line.boxes[:, 0]]
        left, right = inked[:, 0].min(), inked[:, 2].max()
        columns = np.flatnonzero(line.ink[12:28].max(axis=0) > 0.6)
        assert columns.size == 0 or (columns.min() >= left - 12 and columns.max() <= right + 12)


# ---- batches


def test_batches_follow_from_seed_and_place() -> None:
    data = WearData(Path("unused"), batch=2, crop_width_px=96)
    alphabet = Alphabet(" abcdefghijklmnopqrstuvwxyz")
    source = (data, noise_strips(4), TextSource.load(None), fonts(), alphabet, 3)
    stream = batches(*source)
    (_, place), (second, _) = next(stream), next(stream)
    again, _ = next(batches(*source, place))
    assert place == {"number": 1}
    for name, values in second.items():
        np.testing.assert_array_equal(values, again[name])
    assert second["ink"].shape == second["real"].shape == second["guessed"].shape == (2, 40, 96, 1)
    assert second["noise"].shape == (2, 40, 96, 2) and second["style"].shape == (2, 3)
    assert second["labels"].shape == second["seen"].shape == (2, 24)

import cv2
import numpy as np
import pytest

from ocr_model.alphabet import DEFAULT_CHARACTERS
from ocr_model.document import Box, Line, Page, Region, Word
from ocr_model.overlay import draw_page


def page_of(text: str, width: int = 300, height: int = 100, confidence: float = 1.0, quarter_turns: int = 0) -> Page:
    box = Box(20, 30, 280, 60) if quarter_turns % 2 == 0 else Box(30, 20, 60, 280)
    corners = ((box.left, box.top), (box.right, box.top), (box.right, box.bottom), (box.left, box.bottom))
    words = tuple(Word(w, box, confidence) for w in text.split())
    line = Line(words, box, ((box.left, box.bottom - 6), (box.right, box.bottom - 6)), corners, confidence)
    return Page(width, height, (Region((line,), box),), quarter_turns)


def test_page_is_left_and_text_is_right() -> None:
    drawn = draw_page(np.full((100, 300), 255, np.uint8), page_of("Größe"))
    assert drawn.shape == (100, 600, 3)
    assert drawn.dtype == np.uint8
    left, right = drawn[:, :300], drawn[:, 301:]
    assert (left[30] != 255).any(axis=1).sum() > 200  # the outline's upper edge
    ink = np.argwhere((right < 128).all(axis=2))
    assert ink[:, 0].min() >= 28 and ink[:, 0].max() <= 60
    assert ink[:, 1].min() >= 18


def test_unsure_words_are_red() -> None:
    blank = np.full((100, 300), 255, np.uint8)
    sure, unsure = (draw_page(blank, page_of("word", confidence=c))[:, 301:] for c in (0.9, 0.3))
    assert not (sure[..., 0] > sure[..., 1].astype(int) + 100).any()
    assert (unsure[..., 0] > unsure[..., 1].astype(int) + 100).any()


def test_big_page_is_drawn_smaller() -> None:
    assert draw_page(np.zeros((1000, 500), np.uint8), Page(500, 1000), longest_side=100).shape == (100, 100, 3)


@pytest.mark.parametrize("turns", [1, 3])
def test_page_on_its_side_is_turned_upright(turns: int) -> None:
    image = np.full((300, 100), 255, np.uint8)
    drawn = draw_page(image, page_of("word", 100, 300, quarter_turns=turns))
    assert drawn.shape == (100, 600, 3)
    assert (drawn[:, 301:] < 128).any()


def test_ink_stays_inside_its_outline_when_turned() -> None:
    image = np.full((300, 100), 255, np.uint8)
    image[20:280, 30:60] = 0
    left = draw_page(image, page_of("word", 100, 300, quarter_turns=1))[:, :300]
    rows, columns = np.nonzero((left[..., 0] == left[..., 1]) & (left[..., 0] < 200))
    outline = np.argwhere(left[..., 1] > left[..., 0].astype(int) + 40)
    assert abs(rows.min() - outline[:, 0].min()) <= 2
    assert abs(columns.max() - outline[:, 1].max()) <= 2


def test_page_without_lines_is_drawn() -> None:
    assert draw_page(np.zeros((1, 1), np.uint8), Page(1, 1)).shape == (1, 2, 3)


def test_image_of_another_page_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(5, 4\) pixels, the page \(5, 5\)"):
        draw_page(np.zeros((4, 5), np.uint8), Page(5, 5))


def test_font_has_the_whole_alphabet() -> None:
    def drawn(character: str) -> bytes:
        canvas = np.full((60, 80), 255, np.uint8)
        cv2.putText(canvas, character, (10, 40), (0,), cv2.FontFace("sans"), 30, 400)
        return canvas.tobytes()

    missing = {drawn("\u0fff"), drawn("\ue123")}
    assert [c for c in DEFAULT_CHARACTERS if drawn(c) in missing] == ["?"]

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_model.document import Box, Line, Page, Region, Word, page_from_json, page_to_json

coordinates = st.integers(-50, 50)
boxes = st.builds(
    lambda x, y, w, h: Box(x, y, x + w, y + h), coordinates, coordinates, st.integers(0, 40), st.integers(0, 40)
)


def a_line(text: str, top: int = 0) -> Line:
    words = tuple(Word(w, Box(10 * i, top, 10 * i + 8, top + 5), 0.5) for i, w in enumerate(text.split()))
    box = Box(0, top, 10 * len(words), top + 5)
    return Line(words, box, ((0.0, top + 4.0), (9.0, top + 4.0)), ((0.0, top), (9.0, top), (9.0, top + 5.0)), 0.5)


def test_a_box_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(ValueError, match="ends before it begins"):
        Box(5, 0, 4, 1)


@given(boxes, boxes)
def test_iou_is_symmetric_and_between_0_and_1(a: Box, b: Box) -> None:
    assert a.iou(b) == b.iou(a)
    assert 0 <= a.iou(b) <= 1


@given(boxes, boxes)
def test_a_union_holds_both(a: Box, b: Box) -> None:
    union = a.union(b)
    assert union.intersection_area(a) == a.area
    assert union.intersection_area(b) == b.area


def test_iou_of_half_covered_squares() -> None:
    assert Box(0, 0, 2, 2).iou(Box(1, 0, 3, 2)) == pytest.approx(1 / 3)


@pytest.mark.parametrize("text", ["", "two words", "tab\t"])
def test_a_word_has_characters_and_no_space(text: str) -> None:
    with pytest.raises(ValueError, match="no space"):
        Word(text, Box(0, 0, 1, 1), 1.0)


@pytest.mark.parametrize("confidence", [-0.1, 1.1, float("nan")])
def test_a_confidence_outside_0_to_1_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match="confidence"):
        Word("a", Box(0, 0, 1, 1), confidence)


def test_regions_are_separated_by_an_empty_line() -> None:
    first = Region((a_line("one two"), a_line("three", 10)), Box(0, 0, 20, 15))
    page = Page(100, 100, (first, Region((a_line("four", 50),), Box(0, 50, 10, 55))))
    assert page.text == "one two\nthree\n\nfour"


def test_cells_of_one_row_are_one_line_of_text() -> None:
    def cell(text: str, left: int, top: int) -> Line:
        box = Box(left, top, left + 30, top + 10)
        outline = ((left, top), (left + 30, top), (left + 30, top + 10))
        return Line((Word(text, box, 1.0),), box, ((left, top + 8), (left + 30, top + 8)), outline, 1.0)

    lines = (cell("Bread", 0, 0), cell("2.40", 100, 2), cell("Butter", 0, 12), cell("3.15", 100, 13))
    assert Region(lines, Box(0, 0, 130, 23)).text == "Bread\t2.40\nButter\t3.15"


def test_text_of_a_page_is_the_same_after_json() -> None:
    def cell(text: str, left: float, level: float) -> Line:
        outline = ((left, 0.0), (left + 30, 0.0), (left + 30, 10.0))
        return Line(
            (Word(text, Box(0, 0, 1, 1), 1.0),), Box(0, 0, 1, 1), ((left, level), (left + 30, level)), outline, 1.0
        )

    pages = [
        Page(100, 80, (Region((cell("a", 0, 8), cell("b", 40, 8 + 4 + step / 100)), Box(0, 0, 1, 1)),))
        for step in range(-20, 20)
    ]
    assert {len(page.text.splitlines()) for page in pages} == {1, 2}
    assert [page_from_json(page_to_json(page)).text for page in pages] == [page.text for page in pages]


def test_page_confidence_weighs_words_by_their_characters() -> None:
    words = (Word("aaa", Box(0, 0, 1, 1), 1.0), Word("b", Box(0, 0, 1, 1), 0.0))
    line = Line(words, Box(0, 0, 1, 1), ((0, 1), (1, 1)), ((0, 0), (1, 0), (1, 1)), 0.5)
    assert Page(1, 1, (Region((line,), Box(0, 0, 1, 1)),)).confidence == pytest.approx(0.75)


def test_a_page_survives_json() -> None:
    page = Page(100, 80, (Region((a_line("one two"),), Box(0, 0, 20, 5)),), 1, -0.5, {"model": "x"})
    assert page_from_json(page_to_json(page)) == page

import pytest

from ocr_model.document import Box
from ocr_model.truth import GroundTruthPage, GroundTruthWord, LineGeometry, ground_truth_line

PAGE = (100, 200)
INSIDE = LineGeometry(Box(10, 20, 60, 30))


@pytest.mark.parametrize(
    ("geometry", "box"),
    [
        (LineGeometry(Box(1, 2, 3, 4), [(5, 5), (9, 5), (9, 9)]), Box(1, 2, 3, 4)),
        (LineGeometry(Box(1, 2, 1, 4), [(5, 5), (9, 5), (9, 9)]), Box(5, 5, 9, 9)),
        (LineGeometry(None, [(5, 5), (9, 5)]), None),
        (
            LineGeometry(None, [], [], [GroundTruthWord("a", Box(1, 2, 3, 4)), GroundTruthWord("b", None)]),
            Box(1, 2, 3, 4),
        ),
        (LineGeometry(None, [], [(1, 1), (9, 1)]), None),
    ],
    ids=["own", "empty, so the polygon's", "two points", "words", "baseline"],
)
def test_box_is_the_first_that_holds_something(geometry: LineGeometry, box: Box | None) -> None:
    assert ground_truth_line("a b", geometry, PAGE).box == box


@pytest.mark.parametrize(
    ("text", "geometry", "stated", "problem"),
    [
        ("x", INSIDE, "", ""),
        (" \u200b", INSIDE, "", "no-text"),
        ("x", LineGeometry(), "", "no-geometry"),
        ("x", LineGeometry(Box(100, 0, 110, 9)), "", "outside-page"),
        ("x", LineGeometry(Box(-20, 0, -10, 9)), "", "outside-page"),
        ("x", INSIDE, "skip-text", "skip-text"),
    ],
)
def test_line_that_cannot_be_used_says_why(text: str, geometry: LineGeometry, stated: str, problem: str) -> None:
    line = ground_truth_line(text, geometry, PAGE, problem=stated)
    assert line.problem == problem


def test_geometry_is_cut_off_at_the_edges() -> None:
    geometry = LineGeometry(Box(-5, 20, 110, 30), [(-5, 20), (110, 20), (110, 30)], [(-5, 28.5), (110, 28.5)])
    line = ground_truth_line("x", geometry, PAGE)
    assert (line.box, line.clipped) == (Box(0, 20, 100, 30), True)
    assert line.polygon == ((0.0, 20), (100.0, 20), (100.0, 30)) and line.baseline == ((0.0, 28.5), (100.0, 28.5))


def test_nothing_is_cut_off_where_the_page_has_no_size() -> None:
    line = ground_truth_line("x", LineGeometry(Box(-5, 20, 110, 30)), (None, None))
    assert (line.box, line.clipped) == (Box(-5, 20, 110, 30), False)


@pytest.mark.parametrize(
    ("texts", "kept"), [(["e\u0301a", "b"], ["éa", "b"]), (["éa b"], []), (["éa"], []), (["éa", "c"], [])]
)
def test_words_are_all_of_the_text_or_none(texts: list[str], kept: list[str]) -> None:
    words = [GroundTruthWord(text, None) for text in texts]
    line = ground_truth_line("éa b", LineGeometry(Box(1, 2, 3, 4), words=words), PAGE)
    assert [word.text for word in line.words] == kept


def test_page_counts_what_cannot_be_used() -> None:
    lines = (
        ground_truth_line("one", INSIDE, PAGE),
        ground_truth_line("two", LineGeometry(), PAGE),
        ground_truth_line("", INSIDE, PAGE),
        ground_truth_line("four", LineGeometry(Box(90, 0, 110, 9)), PAGE),
    )
    page = GroundTruthPage(100, 200, lines)
    assert page.problems() == {"no-geometry": 1, "no-text": 1, "clipped": 1}
    assert [line.text for line in page.usable()] == ["one", "four"]
    assert page.text == "one\ntwo\nfour"

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from ocr_model.metrics import Score, comparable, order_free_edits, score, total

LINES = st.lists(st.text("abc ", max_size=12), max_size=5)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("‘a’ “b” «c» ''d''", '\'a\' "b" "c" "d"'),
        ("a–b — c -- d ‒― e⸗f", "a-b - c - d - e-f"),
        ("e\u0301 ﬃ ﬆ … ＡＢ　Ｃ\u200b", "é ffi st ... AB C"),
        (" a\tb\n\n\fc ", "a b c"),
        ("", ""),
    ],
)
def test_what_may_be_set_in_several_forms_is_made_one(text: str, plain: str) -> None:
    assert comparable(text) == plain


def test_case_and_long_s_are_folded_only_on_demand() -> None:
    assert comparable("Das iſt") == "Das iſt"
    assert comparable("Das iſt", fold_case=True, fold_long_s=True) == "das ist"


def test_errors_are_counted_in_order_and_free_of_it() -> None:
    got = score("alpha beta\ngamma delta", "gamma delta\nalxha beta")
    assert (got.characters, got.words, got.word_edits) == (22, 4, 4)
    assert got.edits == Levenshtein.distance("alpha beta gamma delta", "gamma delta alxha beta")
    assert got.bag_errors == 1
    assert got.order_free_edits == 1


def test_missing_text_counts_in_full() -> None:
    assert score("ab cd", "") == Score(5, 2, edits=5, word_edits=2, bag_errors=2, order_free_edits=5)


def test_invented_text_counts_in_full() -> None:
    assert score("", "ab cd") == Score(0, 0, edits=5, word_edits=2, bag_errors=2, order_free_edits=5)


def test_two_columns_read_across_cost_nothing_free_of_order() -> None:
    truth = ["the first column", "goes on here", "the second one", "ends the page"]
    across = ["the first column the second one", "goes on here ends the page"]
    assert order_free_edits(truth, across) == 0
    assert score("\n".join(truth), "\n".join(across)).edits > 10


@given(LINES)
def test_lines_in_another_order_are_no_error_free_of_order(lines: list[str]) -> None:
    assert score("\n".join(lines), "\n".join(reversed(lines))).order_free_edits == 0


@given(LINES, LINES)
def test_freedom_of_order_never_adds_errors(truth: list[str], text: list[str]) -> None:
    got = score("\n".join(truth), "\n".join(text))
    assert 0 <= got.order_free_edits <= got.edits <= max(got.characters, len(comparable("\n".join(text))))


def test_totals_are_sums_but_for_the_pages_own_rates() -> None:
    pages = [Score(10, 2, 1, 1, 1, 0), Score(30, 6, 9, 2, 2, 3), Score(0, 0, 0, 0, 0, 0)]
    got = total(pages)
    assert (got.pages, got.characters, got.words) == (3, 40, 8)
    assert (got.cer, got.wer, got.bag_of_words_error, got.order_free_cer) == (10 / 40, 3 / 8, 3 / 8, 3 / 40)
    assert got.cer_macro == pytest.approx((0.1 + 0.3 + 0.0) / 3)
    assert got.cer_median == 0.1


def test_totals_of_nothing_are_zero() -> None:
    assert total([]).cer == total([]).cer_median == 0.0

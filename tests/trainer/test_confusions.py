import pytest

from trainer.confusions import confusion_table, confusions


@pytest.mark.parametrize(
    ("truth", "read", "expected"),
    [
        ("abc", "abc", {}),
        ("abc", "axc", {("b", "x"): 1}),
        ("abc", "ac", {("b", ""): 1}),
        ("ac", "abc", {("", "b"): 1}),
        ("", "ab", {("", "a"): 1, ("", "b"): 1}),
    ],
)
def test_each_edit_is_a_confusion(truth: str, read: str, expected: dict[tuple[str, str], int]) -> None:
    assert confusions([(truth, read)]) == expected


def test_the_table_has_the_most_frequent_first_and_the_rest_as_a_sum() -> None:
    table = confusion_table(confusions([("aab", "xxy"), ("a", "x"), ("d", "q")]), rows=1)
    assert table.splitlines()[2:] == ["| a | x | 3 |", "| 2 others | | 2 |"]


def test_without_errors_there_is_no_table() -> None:
    assert confusion_table(confusions([("a", "a")])) == "No errors."

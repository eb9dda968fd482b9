from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.durations import bucket, count, quantile, total

MILLISECONDS = st.floats(1, 1e7)


def counted(values: list[float]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for value in values:
        count(counts, value)
    return counts


@given(st.lists(MILLISECONDS, min_size=1, max_size=30), st.floats(0.01, 1))
def test_quantile_is_that_of_the_list_to_five_percent(values: list[float], share: float) -> None:
    ordered = sorted(values)
    exact = next(v for n, v in enumerate(ordered, 1) if n >= share * len(ordered))
    assert quantile(counted(values), share) == pytest.approx(exact, rel=0.05)


@given(st.lists(st.lists(MILLISECONDS, max_size=5), max_size=4))
def test_distributions_add_up(parts: list[list[float]]) -> None:
    assert total(map(counted, parts)) == counted([value for part in parts for value in part])


@given(MILLISECONDS, MILLISECONDS)
def test_longer_durations_are_in_no_lower_bucket(one: float, other: float) -> None:
    assert (bucket(one) <= bucket(other)) or one > other


@pytest.mark.parametrize("value", [-1.0, 0.0, 0.5, 1.0])
def test_what_is_shorter_than_a_millisecond_is_in_the_first_bucket(value: float) -> None:
    assert bucket(value) == 0


def test_no_durations_have_no_quantile() -> None:
    assert quantile({}, 0.5) == 0.0
    assert quantile({"7": 0}, 0.5) == 0.0

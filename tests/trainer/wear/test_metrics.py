import numpy as np
import pytest

from trainer.wear.metrics import (
    diversity,
    frechet_distance,
    legible_share,
    look_of,
    mean_with_interval,
    told_apart,
)


def test_the_distance_of_two_normal_distributions_has_its_closed_form() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((200_000, 2)) * (1, 2), rng.standard_normal((200_000, 2)) * (3, 2) + (0, 1)
    assert frechet_distance(a, b) == pytest.approx((1 - 3) ** 2 + 1, abs=0.05)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))


def test_styles_that_all_look_alike_have_no_diversity() -> None:
    rng = np.random.default_rng(1)
    real, texts = rng.standard_normal((300, 4)), rng.standard_normal((20, 1, 4))
    assert diversity(np.repeat(texts, 5, axis=1), real) < 1e-12
    assert diversity(texts + rng.standard_normal((20, 200, 4)), real) == pytest.approx(1, abs=0.1)


def test_the_look_tells_tone_grain_and_stains_and_not_the_text() -> None:
    rng = np.random.default_rng(1)
    line = np.full((1, 40, 96), 0.9)
    line[:, 10:30, 10:90:8] = 0.1
    other = np.roll(line, 3, axis=2)
    np.testing.assert_allclose(look_of(line), look_of(other), atol=0.02)
    ink, middle, paper, _, grain, steep, stains = look_of(line)[0]
    assert (ink, middle, paper) == pytest.approx((0.1, 0.9, 0.9))
    assert (grain, steep, stains) == pytest.approx((0, 0.8, 0), abs=1e-6)
    assert look_of(line + rng.normal(0, 0.05, line.shape))[0, 4] > 0.03
    stained = line.copy()
    stained[:, :, 48:] -= 0.1
    assert look_of(stained)[0, 6] > 0.04


def test_a_line_counts_as_legible_below_five_per_cent() -> None:
    truth = "a" * 40
    assert legible_share([truth] * 3, [truth, "a" * 39 + "b", "a" * 38 + "bb"]) == pytest.approx(2 / 3)
    assert legible_share([], []) == 0.0


def documents(count: int, size: int = 5) -> list[str]:
    return [f"d{i // size}" for i in range(count)]


def test_what_is_alike_is_not_told_apart_and_what_differs_is() -> None:
    rng = np.random.default_rng(1)
    made, real = (rng.standard_normal((300, 6)) for _ in range(2))
    assert told_apart(made, real, documents(300)).mean() == pytest.approx(0.5, abs=0.07)
    assert told_apart(made, real + 4, documents(300)).mean() > 0.98
    middling = told_apart(made, real + np.eye(6)[0], documents(300)).mean()
    assert middling == pytest.approx(0.69, abs=0.05)  # of the best rule: the normal distribution at half a deviation


def test_neither_samples_nor_documents_are_learnt_by_heart() -> None:
    rng = np.random.default_rng(1)
    many = rng.standard_normal((60, 200)), rng.standard_normal((60, 200))
    assert told_apart(*many, documents(60)).mean() < 0.65
    # Each document's made lines differ from its real ones in a way of their own.
    ways = np.repeat(rng.standard_normal((40, 30)) * 3, 5, axis=0)
    made, real = (sign * ways + 0.1 * rng.standard_normal((200, 30)) for sign in (1, -1))
    assert told_apart(made, real, documents(200)).mean() < 0.65
    assert told_apart(made, real, [str(i) for i in range(200)]).mean() > 0.8


def test_pairs_and_names_must_fit() -> None:
    with pytest.raises(ValueError, match="3 and 9 samples, 3 names of 1 documents"):
        told_apart(np.zeros((3, 2)), np.zeros((9, 2)), ["a"] * 3)


def test_the_interval_holds_the_mean_and_is_wider_where_lines_of_a_document_are_alike() -> None:
    rng = np.random.default_rng(1)
    holds = 0
    for seed in range(60):
        values = 0.3 + np.repeat(rng.normal(0, 1, 40), 5) + rng.normal(0, 0.1, 200)
        _, low, high = mean_with_interval(values, documents(200), seed, 300)
        holds += low < 0.3 < high
    assert 50 <= holds < 60
    _, low, high = mean_with_interval(values, documents(200))
    _, narrow_low, narrow_high = mean_with_interval(values, [str(i) for i in range(200)])
    assert high - low > 1.5 * (narrow_high - narrow_low)

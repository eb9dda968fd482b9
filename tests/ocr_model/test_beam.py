import itertools
import math

import numpy as np
import pytest

from ocr_model.alphabet import Alphabet
from ocr_model.beam import BeamConfig, aligned, doubtful_steps, labels_of, refined, search, stretches
from ocr_model.language_model import LanguageModel
from trainer.language_model import Config, learnt

AB = Alphabet("abc")
EVERYTHING = BeamConfig(certain=1.1, possible=0.0, negligible=0.0, width=100_000)
TEXTS = ["abab", "abba", "ab", "babc", "cab", "aab"] * 5


def model(weight: float = 0.5, bonus: float = 0.2) -> LanguageModel:
    return learnt(TEXTS, AB, Config(order=3, entries=1000, weight=weight, bonus=bonus))


def drawn(seed: int, steps: int) -> np.ndarray:
    scores = np.random.default_rng(seed).normal(0, 1.5, (steps, AB.classes))
    exps = np.exp(scores)
    return (exps / exps.sum(1, keepdims=True)).astype(np.float32)


def best_of_all_paths(
    probabilities: np.ndarray, before: int, context: tuple[int, ...], following: tuple[int, ...], lm: LanguageModel
) -> tuple[tuple[int, ...], float]:
    """The text that has the best sum over all paths with the language model, and its share."""
    masses: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(AB.classes), repeat=len(probabilities)):
        labels = labels_of(np.array(path, np.int32), before)
        masses[labels] = masses.get(labels, 0.0) + math.prod(
            float(p[c]) for p, c in zip(probabilities, path, strict=True)
        )
    scores = {
        labels: mass
        * math.exp(
            lm.weight * lm.log_probability((*context, *labels, *following), len(context)) + lm.bonus * len(labels)
        )
        for labels, mass in masses.items()
    }
    best = max(scores, key=lambda labels: scores[labels])
    return best, scores[best] / sum(scores.values())


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("before", "following"), [(0, ()), (2, (1,)), (1, (1, 2))])
def test_a_wide_search_finds_the_best_text_over_all_paths(seed: int, before: int, following: tuple[int, ...]) -> None:
    probabilities, context = drawn(seed, 5), (0, *((before,) if before else ()))
    best, share = search(probabilities, before, context, following, model(), EVERYTHING)
    expected, expected_share = best_of_all_paths(probabilities, before, context, following, model())
    assert best == expected
    assert share == pytest.approx(expected_share, rel=1e-3)


@pytest.mark.parametrize("seed", range(8))
def test_the_alignment_is_the_best_path_of_the_text(seed: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities, before = drawn(seed, 5), int(rng.integers(0, 4))
    labels = tuple(rng.integers(1, 4, int(rng.integers(0, 3))).tolist())
    paths = [np.array(p, np.int32) for p in itertools.product(range(AB.classes), repeat=5)]
    of_text = [p for p in paths if labels_of(p, before) == labels]
    expected = max(of_text, key=lambda p: np.log(probabilities[np.arange(5), p]).sum())
    np.testing.assert_array_equal(aligned(probabilities, before, labels), expected)


def test_a_stretch_reaches_over_few_certain_steps_and_takes_in_the_next() -> None:
    assert stretches(np.array([1, 4, 9]), 10, gap=2) == [(1, 6), (9, 10)]
    assert stretches(np.zeros(0, np.int64), 5, gap=2) == []


def line(*steps: dict[int, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Best classes, their probabilities and logits of steps with these probabilities."""
    probabilities = np.full((len(steps), AB.classes), 1e-6, np.float32)
    for row, step in zip(probabilities, steps, strict=True):
        row[list(step)] = list(step.values())
    probabilities /= probabilities.sum(1, keepdims=True)
    return probabilities.argmax(1).astype(np.int32), probabilities.max(1), np.log(probabilities) + 3


def refined_line(
    classes: np.ndarray,
    confidences: np.ndarray,
    scores: np.ndarray,
    lm: LanguageModel,
    config: BeamConfig | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """`refined` for one line."""
    found, sure = refined(classes[None], confidences[None], scores[None], lm, config or BeamConfig())
    return found[0], sure[0]


def test_a_certain_line_is_left_as_it_is() -> None:
    classes, confidences, scores = line({1: 1.0}, {0: 1.0}, {3: 1.0})
    found = refined_line(classes, confidences, scores, model(weight=5.0))
    np.testing.assert_array_equal(found[0], classes)
    np.testing.assert_array_equal(found[1], confidences)


@pytest.mark.parametrize(
    ("before", "between", "after", "doubtful"),
    [
        ({1: 1.0}, {1: 0.5, 2: 0.5}, {2: 1.0}, False),  # a goes over into b, with a blank or without
        ({1: 1.0}, {0: 0.5, 2: 0.5}, {2: 1.0}, False),
        ({0: 1.0}, {0: 0.5, 2: 0.5}, {2: 1.0}, False),
        ({1: 1.0}, {0: 0.5, 1: 0.5}, {1: 1.0}, True),  # one a or two
        ({0: 1.0}, {0: 0.5, 2: 0.5}, {0: 1.0}, True),  # b or nothing
        ({1: 1.0}, {1: 0.5, 3: 0.5}, {2: 1.0}, True),  # a c between or none
    ],
)
def test_a_step_between_two_characters_may_belong_to_either(
    before: dict[int, float], between: dict[int, float], after: dict[int, float], doubtful: bool
) -> None:
    certain = line({1: 1.0}, {0: 1.0}, {1: 1.0})
    lines = [certain, line(before, between, after), certain, certain]
    found = doubtful_steps(*(np.stack(values) for values in zip(*lines, strict=True)), BeamConfig())
    assert [steps.tolist() for steps in found] == [[], [1] if doubtful else [], [], []]


def test_the_model_decides_where_the_network_is_in_doubt() -> None:
    classes, confidences, scores = line({1: 1.0}, {0: 1.0}, {3: 0.55, 2: 0.44}, {0: 1.0}, {1: 1.0}, {0: 1.0}, {2: 1.0})
    found, sure = refined_line(classes, confidences, scores, model(weight=1.0, bonus=0.0))
    assert (labels_of(classes), labels_of(found)) == ((1, 3, 1, 2), (1, 2, 1, 2))
    assert 0.5 < sure[2] < 1.0
    np.testing.assert_array_equal(np.delete(found, 2), np.delete(classes, 2))
    unweighted, _ = refined_line(classes, confidences, scores, model(weight=0.0, bonus=0.0))
    np.testing.assert_array_equal(unweighted, classes)


def test_probabilities_do_not_vanish_in_a_long_doubtful_stretch() -> None:
    steps = [{1: 0.3, 2: 0.3, 3: 0.2, 0: 0.2}] * 600
    classes, confidences, scores = line(*steps)
    unchanged, _ = refined_line(classes, confidences, scores, model())
    np.testing.assert_array_equal(unchanged, classes)  # a line with nothing certain in it is no text
    found, sure = refined_line(classes, confidences, scores, model(), BeamConfig(hopeless=1.1))
    assert found.shape == classes.shape
    assert np.isfinite(sure).all() and (sure > 0).all() and (sure <= 1).all()


def test_a_line_is_refined_among_others_as_alone() -> None:
    rng = np.random.default_rng(5)
    scores = rng.normal(0, 1, (6, 40, AB.classes)).astype(np.float32)
    scores[np.arange(6)[:, None], np.arange(40), rng.integers(0, AB.classes, (6, 40))] += rng.uniform(2, 9, (6, 40))
    exps = np.exp(scores)
    classes, confidences = scores.argmax(2).astype(np.int32), (exps.max(2) / exps.sum(2)).astype(np.float32)
    found, sure = refined(classes, confidences, scores, model(weight=1.0), BeamConfig(hopeless=1.1))
    assert (found != classes).any()
    for row in range(6):
        alone, alone_sure = refined_line(
            classes[row], confidences[row], scores[row], model(weight=1.0), BeamConfig(hopeless=1.1)
        )
        np.testing.assert_array_equal(found[row], alone)
        np.testing.assert_array_equal(sure[row], alone_sure)

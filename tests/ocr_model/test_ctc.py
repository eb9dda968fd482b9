import numpy as np
import pytest

from ocr_model.alphabet import Alphabet
from ocr_model.ctc import greedy, text_of

AB = Alphabet(" ab")  # classes: 1 space, 2 a, 3 b


def read(*classes: int) -> str:
    return text_of(greedy(np.array(classes, np.int32), np.ones(len(classes)), AB))


@pytest.mark.parametrize(
    ("classes", "text"),
    [
        ((), ""),
        ((0, 0), ""),
        ((2, 2, 2), "a"),
        ((2, 0, 2), "aa"),
        ((2, 3), "ab"),
        ((0, 2, 1, 1, 3, 0), "a b"),
        ((1, 2, 1), "a"),
        ((1,), ""),
    ],
)
def test_greedy_text(classes: tuple[int, ...], text: str) -> None:
    assert read(*classes) == text


def test_blank_between_repeats_keeps_both() -> None:
    assert read(2, 0, 2) == "aa"


def test_a_character_spans_its_steps_and_has_the_best_confidence() -> None:
    (character,) = greedy(np.array([0, 2, 2, 0]), np.array([0.9, 0.4, 0.7, 0.9]), AB)
    assert (character.start, character.end, character.confidence) == (1, 3, 0.7)

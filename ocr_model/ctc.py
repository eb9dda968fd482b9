"""Decoding of the recogniser's output: connectionist temporal classification (Graves et al. 2006)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ocr_model.alphabet import Alphabet

BLANK = 0


class DecodedCharacter(NamedTuple):
    """A character with its confidence (0 to 1) and the time steps that it spans, end exclusive."""

    character: str
    confidence: float
    start: int
    end: int


def greedy(
    classes: npt.NDArray[np.integer], confidences: npt.NDArray[np.floating], alphabet: Alphabet
) -> list[DecodedCharacter]:
    """The best path: repeats joined, blanks dropped.

    Args:
        classes: [time] the most probable class of each step, 0 is the blank.
        confidences: [time] its probability.

    >>> steps = np.array([0, 1, 1, 0, 1, 2])
    >>> "".join(c.character for c in greedy(steps, np.ones(6), Alphabet("ab")))
    'aab'
    """
    if classes.size == 0:
        return []
    starts = np.concatenate(([0], np.flatnonzero(np.diff(classes)) + 1))
    ends = np.concatenate((starts[1:], [classes.size]))
    best = np.minimum(np.maximum.reduceat(confidences, starts), 1.0)
    found = np.flatnonzero(classes[starts] != BLANK)
    columns = (values[found].tolist() for values in (classes[starts], best, starts, ends))
    characters = alphabet.characters
    return [
        DecodedCharacter(characters[label - 1], confidence, start, end)
        for label, confidence, start, end in zip(*columns, strict=True)
    ]


def text_of(characters: list[DecodedCharacter]) -> str:
    """The characters as one line: one space between words, none at the ends."""
    return " ".join("".join(c.character for c in characters).split())

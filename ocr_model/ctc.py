"""Decoding of the recogniser's output: connectionist temporal classification (Graves et al. 2006)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ocr_model.alphabet import Alphabet

BLANK = 0


@dataclass(frozen=True, slots=True)
class DecodedCharacter:
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
    bounds = np.concatenate(([0], np.flatnonzero(np.diff(classes)) + 1, [classes.size]))
    found = []
    for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        label = int(classes[start])
        if label != BLANK:
            confidence = float(confidences[start:end].max())
            found.append(DecodedCharacter(alphabet.characters[label - 1], min(1.0, confidence), start, end))
    return found


def text_of(characters: list[DecodedCharacter]) -> str:
    """The characters as one line: one space between words, none at the ends."""
    return " ".join("".join(c.character for c in characters).split())

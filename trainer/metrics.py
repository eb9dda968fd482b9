"""Error rates that add up: over batches, workers and groups."""

from __future__ import annotations

from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein


@dataclass(frozen=True)
class CharacterErrors:
    """Edits and characters of the truth; the rate of a sum is that of all its lines together.

    >>> (CharacterErrors.of("abcd", "abc") + CharacterErrors.of("ab", "ab")).rate
    0.16666666666666666
    """

    edits: int = 0
    length: int = 0

    @classmethod
    def of(cls, truth: str, read: str) -> CharacterErrors:
        return cls(Levenshtein.distance(truth, read), len(truth))

    def __add__(self, other: CharacterErrors) -> CharacterErrors:
        return CharacterErrors(self.edits + other.edits, self.length + other.length)

    @property
    def rate(self) -> float:
        """CER; of no text at all 0, or 1 where something was read."""
        return self.edits / self.length if self.length else float(self.edits > 0)

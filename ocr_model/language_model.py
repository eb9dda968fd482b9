"""A character n-gram language model in a small hashed table: how likely a character is after those before it.

Back-off form (Katz 1987): the probability of the longest n-gram that is kept, times the back-off weights of the longer
contexts that have none. An entry is 32 bits: 16 of the n-gram's hash, 8 of its log probability, 8 of its back-off
weight. Two n-grams with the same slot and hash are taken for one; with 16 bits that is rare, and the same everywhere.
`trainer.language_model` makes it.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ocr_model.alphabet import Alphabet
from ocr_model.errors import BadModel

FILE = "language_model.bin"
FORMAT, VERSION = "pagemill-language-model", 1
START = 0  # the class that stands before the beginning of a line
STEPS_PER_NAT = 16  # log probabilities and weights are kept as multiples of a sixteenth, from 0 down to -15.9
_BITS = 10  # of a class in a key
_UNKNOWN = (1 << _BITS) - 1  # no n-gram has it
_MASK = (1 << 64) - 1
_MULTIPLIER = 0x9E3779B97F4A7C15  # 2^64 / golden ratio (Knuth 1973, 6.4)

Table = npt.NDArray[np.uint32]


def key_of(classes: Sequence[int]) -> int:
    """An n-gram of classes as one number, different for every n-gram of up to six of them.

    >>> key_of([1]), key_of([1, 2]), key_of([0, 2]) == key_of([2])
    (1025, 1049602, False)
    """
    key = 1
    for c in classes:
        key = key << _BITS | c
    return key


def quantised(log: npt.NDArray[np.float64]) -> npt.NDArray[np.uint32]:
    """Logarithms, 0 or less, as 8 bits."""
    return np.clip(np.rint(-log * STEPS_PER_NAT), 0, 255).astype(np.uint32)


def hashed_table(
    keys: npt.NDArray[np.uint64], log_probabilities: npt.NDArray[np.float64], log_weights: npt.NDArray[np.float64]
) -> Table:
    """The table of n-grams: open addressing with linear probing, a power of two of slots, at most 0.9 full.

    Args:
        keys: [n] as `key_of` makes them, all different; log_probabilities, log_weights: [n], 0 or less.
    """
    slots = 1 << max(4, math.ceil(math.log2(len(keys) / 0.9 + 1)))
    hashes = keys * np.uint64(_MULTIPLIER)
    entries = (((hashes >> np.uint64(8)) & np.uint64(0xFFFF)) << np.uint64(16)).astype(np.uint32)
    entries |= quantised(log_probabilities) << np.uint32(8) | quantised(log_weights)
    homes = (hashes >> np.uint64(64 - slots.bit_length() + 1)).astype(np.int64)
    table = [0] * slots
    for home, entry in zip(homes.tolist(), entries.tolist(), strict=True):
        while table[home]:
            home = (home + 1) % slots
        table[home] = entry or 0xFF  # an empty slot is 0
    return np.array(table, np.uint32)


def _costs(table: Table) -> Callable[[int, int], int]:
    """A function from the key of a context and a class to the negative log probability in steps."""
    size, shift = len(table), 64 - len(table).bit_length() + 1
    empty = np.flatnonzero(table == 0)
    round_again = np.concatenate((table, table[: empty[0] + 1]))  # what a run at the table's end goes on with
    # per slot the next empty one, which ends the run; marks and values apart, for `find` to run through the marks
    empty = np.concatenate((empty, empty[:1] + size)).astype(np.int32)
    ends = memoryview(empty[np.searchsorted(empty, np.arange(size))].data)
    marks = (round_again >> 16).astype("<u2").tobytes()
    values = memoryview((round_again & 0xFFFF).astype(np.uint16).data)

    def entry_of(key: int) -> int:
        """The entry's last 16 bits, -1 where there is none."""
        hashed = key * _MULTIPLIER & _MASK
        home, mark = hashed >> shift, (hashed >> 8 & 0xFFFF).to_bytes(2, "little")
        end = 2 * ends[home]
        at = marks.find(mark, 2 * home, end)
        while at > 0 and at & 1:  # half of one mark and half of the next
            at = marks.find(mark, at + 1, end)
        return values[at >> 1] if at >= 0 else -1

    @functools.lru_cache(maxsize=1 << 16)
    def cost(context: int, following: int) -> int:
        entry = entry_of(context << _BITS | following)
        if entry >= 0:
            return entry >> 8
        if context == 1:
            return 0xFF
        weight = entry_of(context)
        top = 1 << context.bit_length() - 1 - _BITS  # the marking bit, one character lower
        return (weight & 0xFF if weight >= 0 else 0) + cost(context & top - 1 | top, following)

    return cost


@dataclass(frozen=True)
class LanguageModel:
    """Log probabilities of classes after classes. Class 0 stands for what is before the beginning of a line.

    Attributes:
        table: as `hashed_table` makes it.
        characters: of the alphabet that it was learnt with.
        order: characters of the longest n-gram.
        weight: that the model has beside the network's scores; tuned on validation lines.
        bonus: added a character, since every character makes a text less likely.
    """

    table: Table
    characters: str
    order: int
    weight: float = 0.0
    bonus: float = 0.0
    _cost: Callable[[int, int], int] = field(init=False, repr=False, compare=False)
    _known: list[int] | None = field(default=None, repr=False, compare=False)  # class → class that it was learnt with

    def __post_init__(self) -> None:
        object.__setattr__(self, "_cost", _costs(np.ascontiguousarray(self.table)))

    def speaking(self, alphabet: Alphabet) -> LanguageModel:
        """The same model for the classes of an alphabet; what it does not know is unlikely to it."""
        if alphabet.characters == self.characters:
            return replace(self, _known=None)
        own = Alphabet(self.characters)
        known = [own.encode(c)[0] if own.covers(c) else _UNKNOWN for c in alphabet.characters]
        return replace(self, _known=[START, *known])

    def log_probability(self, classes: Sequence[int], begin: int = 0) -> float:
        """Natural logarithm of the probability of the classes from `begin` on, after those before it.

        Args:
            classes: what stands before is taken for the beginning of a line only where it begins with a 0.
        """
        context, total = self.context_of(classes[:begin]), 0
        for label in classes[begin:]:
            cost, context = self.after(context, label)
            total += cost
        return -total / STEPS_PER_NAT

    def context_of(self, classes: Sequence[int]) -> int:
        """What `after` takes for the classes before."""
        known = self._known
        return key_of([c if known is None else known[c] for c in classes[max(0, len(classes) - self.order + 1) :]])

    def after(self, context: int, label: int) -> tuple[int, int]:
        """Negative log probability of a class, in `STEPS_PER_NAT`, and the context after it."""
        if self._known is not None:
            label = self._known[label]
        mask = (1 << _BITS * (self.order - 1)) - 1
        longer = context << _BITS | label
        return self._cost(context, label), longer & mask | mask + 1 if longer > mask << 1 else longer

    def save(self, path: Path) -> None:
        """Writes the model; the same model gives the same bytes."""
        about = {"format": FORMAT, "version": VERSION, "order": self.order, "weight": self.weight, "bonus": self.bonus}
        head = json.dumps({**about, "characters": self.characters}, ensure_ascii=False).encode()
        with path.open("wb") as file:
            np.save(file, np.frombuffer(head, np.uint8))
            np.save(file, self.table)

    @classmethod
    def load(cls, path: Path) -> LanguageModel:
        """
        Raises:
            BadModel: the file is missing or something else.
        """
        try:
            with path.open("rb") as file:
                head, table = np.load(file), np.load(file)
            about = json.loads(head.tobytes())
            if about["format"] != FORMAT or about["version"] != VERSION or table.dtype != np.uint32 or table.all():
                raise ValueError(f"format {about['format']!r}, version {about['version']!r}")
            return cls(table, about["characters"], about["order"], about["weight"], about["bonus"])
        except (OSError, ValueError, EOFError, KeyError, TypeError) as error:
            raise BadModel(f"{path} is no language model: {error}", "take a complete bundle") from error

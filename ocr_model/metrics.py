"""How far a text is from the truth: error rates of characters and words, in the order printed and free of it.

All counts are of `comparable` text: what a typesetter or a transcriber chooses freely (kinds of quotes and dashes,
ligatures, spacing, line ends) is made one.
"""

from __future__ import annotations

import heapq
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rapidfuzz import fuzz
from rapidfuzz.distance import Levenshtein


def _variants() -> dict[int, str]:
    groups = {
        "'": "‘’‚‛′ʼ´`",
        '"': "“”„‟″«»",
        "-": "¬⸗⹀‐‑‒–—―−⸺⸻\u00ad",
        "...": "…",
        "ff": "ﬀ",
        "fi": "ﬁ",
        "fl": "ﬂ",
        "ffi": "ﬃ",
        "ffl": "ﬄ",
        "st": "ﬅﬆ",
        " ": "\u3000",
        "": "\u200b\ufeff",
    }
    table = {ord(variant): plain for plain, variants in groups.items() for variant in variants}
    full_width = {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
    return table | full_width


_VARIANTS = _variants()
_DASHES = re.compile("-{2,}")
_SPACE = re.compile(r"\s+")


def comparable(text: str, fold_case: bool = False, fold_long_s: bool = False) -> str:
    """The text with one form for what may be set in several, on one line.

    >>> comparable("“It’s  ﬁne” —\\n he ſaid…", fold_long_s=True)
    '"It\\'s fine" - he said...'
    """
    if fold_case:
        text = text.lower()
    text = unicodedata.normalize("NFC", text).translate(_VARIANTS)
    if fold_long_s:
        text = text.replace("ſ", "s")
    text = _DASHES.sub("-", text.replace("''", '"'))
    return _SPACE.sub(" ", text).strip()


@dataclass(frozen=True)
class Score:
    """Counts of one page, to be summed over pages.

    Attributes:
        characters, words: of the truth.
        edits, word_edits: insertions, deletions and substitutions in the order printed.
        bag_errors: words that one side has more of than the other, however ordered (the larger side counts).
        order_free_edits: as `edits`, but lines may be matched wherever they stand; never more than `edits`.
    """

    characters: int
    words: int
    edits: int
    word_edits: int
    bag_errors: int
    order_free_edits: int

    @property
    def cer(self) -> float:
        return self.edits / max(1, self.characters)


def score(truth: str, text: str, fold_case: bool = False, fold_long_s: bool = False) -> Score:
    """
    >>> score("one two\\nthree", "three\\none tvo")
    Score(characters=13, words=3, edits=11, word_edits=3, bag_errors=1, order_free_edits=1)
    """

    def plain(value: str) -> str:
        return comparable(value, fold_case, fold_long_s)

    wanted, got = plain(truth), plain(text)
    wanted_words, got_words = wanted.split(), got.split()
    shared = (Counter(wanted_words) & Counter(got_words)).total()
    edits = Levenshtein.distance(wanted, got)
    free = order_free_edits([plain(line) for line in truth.splitlines()], [plain(line) for line in text.splitlines()])
    return Score(
        characters=len(wanted),
        words=len(wanted_words),
        edits=edits,
        word_edits=Levenshtein.distance(wanted_words, got_words),
        bag_errors=max(len(wanted_words), len(got_words)) - shared,
        order_free_edits=min(free, edits),
    )


class _Match(NamedTuple):
    """A part of a wanted line found in a line of the text; ends are exclusive."""

    candidate: int
    start: int
    end: int
    text_start: int
    text_end: int
    edits: int


_MIN_SIMILARITY = 40  # of 100
_MAX_ERROR_RATE = 0.5
_PRICE_OF_AN_EDIT = 2.5  # in characters explained


def order_free_edits(wanted: Sequence[str], got: Sequence[str]) -> int:
    """Edits between two sets of lines in whatever order.

    The longest wanted line is matched with the part of any line that explains most of it; what is left over on either
    side of a match goes back to be matched. In the manner of Clausner, Pletschacher, Antonacopoulos: Flexible character
    accuracy measure for reading-order-independent evaluation, 2020.

    >>> order_free_edits(["left column", "right column"], ["right column left column"])
    0
    """
    queue = [(-len(line), number, line) for number, line in enumerate(filter(None, wanted))]
    heapq.heapify(queue)
    pool = [line for line in got if line]
    pushed = len(queue)
    edits = missing = 0
    while queue:
        _, _, line = heapq.heappop(queue)
        match = _best_match(line, pool)
        if match is None:
            missing += len(line)
            continue
        edits += match.edits
        found = pool.pop(match.candidate)
        pool += filter(None, (found[: match.text_start].strip(), found[match.text_end :].strip()))
        for rest in filter(None, (line[: match.start].strip(), line[match.end :].strip())):
            heapq.heappush(queue, (-len(rest), pushed, rest))
            pushed += 1
    surplus = sum(map(len, pool))
    return edits + max(missing, surplus)  # a missing and a surplus character make one substitution


def _best_match(line: str, pool: Sequence[str]) -> _Match | None:
    best, best_value = None, 0.0
    for index, candidate in enumerate(pool):
        found = fuzz.partial_ratio_alignment(line, candidate, score_cutoff=_MIN_SIMILARITY)
        if found is None:
            continue
        part, counterpart = line[found.src_start : found.src_end], candidate[found.dest_start : found.dest_end]
        edits = Levenshtein.distance(part, counterpart)
        value = len(part) - _PRICE_OF_AN_EDIT * edits
        if edits <= _MAX_ERROR_RATE * max(1, len(part)) and value > best_value:
            spans = (found.src_start, found.src_end, found.dest_start, found.dest_end)
            best, best_value = _Match(index, *spans, edits), value
        if best_value == len(line):
            break  # nothing can be better
    return best


@dataclass(frozen=True)
class Totals:
    """Error rates over many pages: sums of errors over sums of lengths, but for `cer_macro` and `cer_median`.

    Attributes:
        cer: character error rate, in the order printed.
        cer_macro, cer_median: of the pages' own rates.
        wer: word error rate, in the order printed.
        bag_of_words_error, order_free_cer: the same without regard to order; these judge columns and tables fairly.
    """

    pages: int
    characters: int
    words: int
    cer: float
    cer_macro: float
    cer_median: float
    wer: float
    bag_of_words_error: float
    order_free_cer: float


def total(scores: Iterable[Score]) -> Totals:
    """Rates over the pages; of no pages, zeros."""
    pages = list(scores)
    characters, words = sum(s.characters for s in pages), sum(s.words for s in pages)
    rates = sorted(s.cer for s in pages)
    per_character, per_word = max(1, characters), max(1, words)
    return Totals(
        pages=len(pages),
        characters=characters,
        words=words,
        cer=sum(s.edits for s in pages) / per_character,
        cer_macro=sum(rates) / max(1, len(rates)),
        cer_median=rates[len(rates) // 2] if rates else 0.0,
        wer=sum(s.word_edits for s in pages) / per_word,
        bag_of_words_error=sum(s.bag_errors for s in pages) / per_word,
        order_free_cer=sum(s.order_free_edits for s in pages) / per_character,
    )

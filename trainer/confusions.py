"""Which characters a recogniser takes for which: counts, and the table of the model card."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable

from rapidfuzz.distance import Levenshtein

Confusions = Counter[tuple[str, str]]  # (in the truth, read); "" where a character is missing on that side


def confusions(pairs: Iterable[tuple[str, str]]) -> Confusions:
    """Counts over pairs of a true text and what was read, along a shortest way from one to the other.

    >>> confusions([("haus", "hans"), ("aus", "as")])
    Counter({('u', 'n'): 1, ('u', ''): 1})
    """
    found: Confusions = Counter()
    for truth, read in pairs:
        for edit in Levenshtein.editops(truth, read):
            wanted = "" if edit.tag == "insert" else truth[edit.src_pos]
            found[(wanted, "" if edit.tag == "delete" else read[edit.dest_pos])] += 1
    return found


KEPT = 200  # different confusions in a file


def confusions_as_json(found: Confusions) -> list[list[str | int]]:
    """The most frequent ones as [in the truth, read, times]."""
    return [[truth, read, count] for (truth, read), count in _ranked(found)[:KEPT]]


def confusions_from_json(rows: Iterable[tuple[str, str, int]]) -> Confusions:
    """
    >>> confusions_from_json(confusions_as_json(confusions([("aus", "as")])))
    Counter({('u', ''): 1})
    """
    return Counter({(truth, read): count for truth, read, count in rows})


def _ranked(found: Confusions) -> list[tuple[tuple[str, str], int]]:
    return sorted(found.items(), key=lambda item: (-item[1], item[0]))


def confusion_table(found: Confusions, rows: int = 20) -> str:
    """The most frequent confusions as a Markdown table, the others as a sum."""
    if not found:
        return "No errors."
    ranked = _ranked(found)
    lines = ["| in the truth | read | times |", "|---|---|---|"]
    lines += [f"| {_shown(truth)} | {_shown(read)} | {count} |" for (truth, read), count in ranked[:rows]]
    rest = ranked[rows:]
    if rest:
        lines.append(f"| {len(rest)} others | | {sum(count for _, count in rest)} |")
    return "\n".join(lines)


def _shown(character: str) -> str:
    """
    >>> _shown(" "), _shown("|"), _shown(""), _shown("\\u0364")
    ('space', '&#124;', 'nothing', '◌ͤ')
    """
    if not character or character == " ":
        return "space" if character else "nothing"
    if unicodedata.combining(character):
        return "◌" + character
    return "&#124;" if character == "|" else character

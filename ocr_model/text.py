"""Text as Pagemill keeps it: NFC, plain spaces, no invisible characters."""

from __future__ import annotations

import re
import unicodedata

_SPACES = re.compile(r"\s+")
_DROPPED = dict.fromkeys([0x00AD, 0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF])  # soft hyphen, zero width, byte order mark


def normalise_line(text: str) -> str:
    """One line in NFC with runs of white space as one space, without invisible and control characters.

    >>> normalise_line(" cafe\\u0301\\u00a0 au\\tlait ")
    'café au lait'
    """
    composed = unicodedata.normalize("NFC", text).translate(_DROPPED)
    kept = (c for c in composed if c.isspace() or unicodedata.category(c) not in ("Cc", "Cs", "Cn"))
    return _SPACES.sub(" ", "".join(kept)).strip()

"""The characters that a recogniser knows, as data: class 0 is the CTC blank, class i is `characters[i - 1]`.

An alphabet is a versioned, append-only file in the bundle: a class never changes its meaning, new characters come at
the end.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ocr_model.errors import BadModel

FORMAT_VERSION = 1

ASCII = " !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~"
LATIN_1 = "¡¢£¥§©«®°±²³·¹º»¼½¾¿ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖ×ØÙÚÛÜÝßàáâãäåæçèéêëìíîïñòóôõö÷øùúûüýÿªµ¶¬"
NEIGHBOURS = "ĀāĂăĄąĆćČčĎďĐđĒēĖėĘęĚěĞğĢģĪīĮįİıĶķĻļĽľŁłŃńŅņŇňŐőŒœŔŕŘřŚśŞşŠšŢţŤťŪūŮůŰűŲųŸŹźŻżŽžȘșȚțẞſ"
TYPOGRAPHIC = "‘’‚“”„‹›–—…†‡•€₤™№⅓⅔⅛⅜⅝⅞⁄′″"

DEFAULT_CHARACTERS = ASCII + LATIN_1 + NEIGHBOURS + TYPOGRAPHIC


@dataclass(frozen=True)
class Alphabet:
    """The characters of a recogniser.

    >>> a = Alphabet(" ab")
    >>> a.encode("ab a"), a.decode([2, 3, 1, 2]), a.classes
    ([2, 3, 1, 2], 'ab a', 4)
    """

    characters: str
    _index: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        repeated = [c for c, n in Counter(self.characters).items() if n > 1]
        if repeated:
            raise ValueError(f"characters twice in the alphabet: {repeated}")
        object.__setattr__(self, "_index", {c: i + 1 for i, c in enumerate(self.characters)})

    @property
    def classes(self) -> int:
        """Number of network outputs: the characters and the blank."""
        return len(self.characters) + 1

    def encode(self, text: str) -> list[int]:
        """Class numbers of the characters.

        Raises:
            KeyError: a character is not in the alphabet; `unknown` lists them beforehand.
        """
        return [self._index[c] for c in text]

    def decode(self, classes: Sequence[int]) -> str:
        return "".join(self.characters[i - 1] for i in classes)

    def covers(self, text: str) -> bool:
        return all(c in self._index for c in text)

    def unknown(self, texts: Iterable[str]) -> Counter[str]:
        """Characters that the alphabet lacks, with their counts."""
        return Counter(c for text in texts for c in text if c not in self._index)

    def save(self, path: Path) -> None:
        value = {"format": "pagemill-alphabet", "version": FORMAT_VERSION, "blank": 0, "characters": self.characters}
        path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Alphabet:
        """
        Raises:
            BadModel: the file is missing, is no alphabet or has a newer version.
        """
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BadModel(f"cannot read the alphabet {path}: {error}", "take a complete bundle") from error
        if not isinstance(value, dict) or value.get("format") != "pagemill-alphabet":
            raise BadModel(f"{path} is not an alphabet file", "take a complete bundle")
        if value.get("version") != FORMAT_VERSION:
            raise BadModel(
                f"{path} has alphabet version {value.get('version')}, this code reads {FORMAT_VERSION}",
                "use a Pagemill version that matches the bundle",
            )
        return cls(value["characters"])


DEFAULT_ALPHABET = Alphabet(DEFAULT_CHARACTERS)

"""What ingest has learnt of the lines and froze: the alphabet, the bounds of the width buckets, the grey of the crops.

`pipelines.features` finds them with tf.Transform and saves its graph beside these files; this is the same without
TensorFlow, for training, export and serving. A test holds that both give the same numbers.
"""

from __future__ import annotations

import bisect
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocr_model.alphabet import Alphabet
from ocr_model.errors import BadModel

ALPHABET, FEATURES = "alphabet.json", "features.json"
FORMAT, VERSION = "pagemill-features", 1
UNKNOWN = -1


@dataclass(frozen=True)
class LineFeatures:
    """Numbers of lines as training and serving see them.

    Attributes:
        bounds: ascending widths in pixels at the height of the recogniser; bucket i ends before `bounds[i]`.
        grey_mean, grey_deviation: of the mean grey of a crop, over the lines of the training split.
    """

    alphabet: Alphabet
    bounds: tuple[float, ...]
    grey_mean: float
    grey_deviation: float

    def ids(self, text: str) -> list[int]:
        """Classes of the characters from 1, `UNKNOWN` for those that the alphabet lacks.

        >>> LineFeatures(Alphabet("ab"), (), 0.0, 1.0).ids("abc")
        [1, 2, -1]
        """
        return [self.alphabet.encode(c)[0] if self.alphabet.covers(c) else UNKNOWN for c in text]

    def bucket(self, width_px: int) -> int:
        """
        >>> [LineFeatures(Alphabet(""), (100.0, 200.0), 0.0, 1.0).bucket(width) for width in (4, 100, 999)]
        [0, 1, 2]
        """
        return bisect.bisect_right(self.bounds, width_px)

    def to_json(self) -> dict[str, Any]:
        """What `features.json` holds."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "alphabet": digest_of(self.alphabet),
            "bounds": list(self.bounds),
            "grey_mean": self.grey_mean,
            "grey_deviation": self.grey_deviation,
        }

    @classmethod
    def load(cls, folder: Path) -> LineFeatures:
        """What a folder of records says.

        Raises:
            BadModel: a file is missing, foreign or of another version, or the alphabet is not the one that was frozen.
        """
        alphabet, path = Alphabet.load(folder / ALPHABET), folder / FEATURES
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            form, version = value.get("format"), value.get("version")
            if form != FORMAT or version != VERSION:
                raise BadModel(
                    f"{path} is {form} of version {version}, this program reads {FORMAT} of version {VERSION}",
                    "ingest again, or use the Pagemill version that wrote it",
                )
            features = cls(alphabet, tuple(value["bounds"]), value["grey_mean"], value["grey_deviation"])
            frozen = value["alphabet"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadModel(f"cannot read {path}: {error}", "run `pagemill ingest` to its end") from error
        if frozen != digest_of(alphabet):
            raise BadModel(f"{folder / ALPHABET} has changed since the records were made", "ingest again")
        return features


def digest_of(alphabet: Alphabet) -> str:
    return hashlib.sha256(alphabet.characters.encode()).hexdigest()


def appended(alphabet: Alphabet, counts: dict[str, int], least: int) -> Alphabet:
    """The alphabet with the characters that it lacks and that come so often at its end, the most frequent first.

    >>> appended(Alphabet("ab"), {"a": 9, "c": 3, "d": 5, "e": 1, "b": 1}, least=2).characters
    'abdc'
    """
    new: Sequence[str] = [c for c in counts if counts[c] >= least and not alphabet.covers(c)]
    return Alphabet(alphabet.characters + "".join(sorted(new, key=lambda c: (-counts[c], c))))

"""Makes the character language model of a bundle: `python -m trainer.language_model --text TEXT --output BUNDLE`.

It learns from the paragraphs of the texts and from the same lines that the renderer draws, because prose alone has no
receipts, amounts and codes. Interpolated after Witten & Bell 1991, then pruned: an n-gram is dropped where the shorter
one says nearly the same (weighted difference, Seymore & Rosenfeld 1996).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ocr_model.alphabet import DEFAULT_ALPHABET, Alphabet
from ocr_model.errors import PagemillError
from ocr_model.language_model import FILE, LanguageModel, hashed_table
from trainer.synthesis.text import TextSource

Keys = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]

_TYPED = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "—": "--", "–": "-", "…": "..."})
_BITS = np.uint64(10)
_CLASS = np.uint64((1 << 10) - 1)


@dataclass(frozen=True)
class Config:
    """
    Attributes:
        order: characters of the longest n-gram, at most 6.
        entries: n-grams that are kept.
        lines: drawn ones beside the paragraphs.
        weight, bonus: of the model beside the network's scores, see `LanguageModel`; tuned on validation lines.
        seed: of what is drawn.
    """

    order: int = 6
    entries: int = 470_000
    lines: int = 100_000
    weight: float = 0.2
    bonus: float = 0.3
    seed: int = 1


def texts(source: TextSource, config: Config) -> Iterator[str]:
    """Lines to learn from: all paragraphs, half of them as a typewriter would have them, and drawn lines."""
    rng = np.random.default_rng(config.seed)
    for paragraph in source.paragraphs:
        yield paragraph.translate(_TYPED) if rng.random() < 0.5 else paragraph
    for _ in range(config.lines):
        yield source.line(rng, int(rng.integers(8, 90))).replace("\t", " ")


def encoded(lines: Iterable[str], alphabet: Alphabet) -> npt.NDArray[np.uint64]:
    """All lines as one row of classes with a 0 before each."""
    index = np.zeros(0x110000, np.uint16)
    index[[ord(c) for c in alphabet.characters]] = np.arange(1, alphabet.classes)
    joined = "\0" + "\0".join(lines)
    return index[np.frombuffer(joined.encode("utf-32-le"), np.uint32)].astype(np.uint64)


@dataclass(frozen=True)
class Grams:
    """N-grams of one length, sorted by key."""

    keys: Keys
    counts: Floats


def counted(classes: npt.NDArray[np.uint64], length: int) -> Grams:
    """N-grams that end in a character and do not reach over the beginning of a line (a 0 may only be their first)."""
    size = len(classes) - length + 1
    keys = np.ones(size, np.uint64)
    for i in range(length):
        keys = keys << _BITS | classes[i : i + size]
    good = np.ones(size, bool)
    for i in range(1, length):
        good &= classes[i : i + size] != 0
    found, counts = np.unique(keys[good], return_counts=True)
    return Grams(found, counts.astype(np.float64))


def _places(keys: Keys, wanted: Keys) -> npt.NDArray[np.int64]:
    """Where the wanted keys stand; -1 for those that are not there."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, at, -1)


def _without_first(keys: Keys, length: int) -> Keys:
    """Keys of the n-grams without their first character."""
    bits = _BITS * np.uint64(length - 1)
    return keys & ((np.uint64(1) << bits) - np.uint64(1)) | (np.uint64(1) << bits)


def probabilities(grams: Sequence[Grams], classes: int) -> list[Floats]:
    """Interpolated probabilities of all n-grams, by length."""
    found: list[Floats] = []
    for length, g in enumerate(grams, 1):
        contexts, groups = np.unique(g.keys >> _BITS, return_inverse=True)
        total, kinds = np.bincount(groups, g.counts), np.bincount(groups).astype(np.float64)
        lower = (
            found[-1][_places(grams[length - 2].keys, _without_first(g.keys, length))] if length > 1 else 1 / classes
        )
        found.append((g.counts + kinds[groups] * lower) / (total + kinds)[groups])
        del contexts
    return found


def kept(grams: Sequence[Grams], logs: Sequence[Floats], entries: int) -> list[npt.NDArray[np.bool_]]:
    """Which n-grams stay: all single characters, those that say most, and the contexts that these need."""
    gains = [np.full(len(grams[0].keys), np.inf)]
    for length in range(2, len(grams) + 1):
        g = grams[length - 1]
        lower = logs[length - 2][_places(grams[length - 2].keys, _without_first(g.keys, length))]
        gains.append(g.counts * np.abs(logs[length - 1] - lower))
    low, high = 0.0, 1e6
    chosen: list[npt.NDArray[np.bool_]] = []
    for _ in range(40):
        limit = (low + high) / 2
        chosen = [gain > limit for gain in gains]
        for length in range(len(grams), 1, -1):
            needed = np.unique(grams[length - 1].keys[chosen[length - 1]] >> _BITS)
            places = _places(grams[length - 2].keys, needed)
            chosen[length - 2][places[places >= 0]] = True
            shorter = np.unique(_without_first(grams[length - 1].keys[chosen[length - 1]], length))
            places = _places(grams[length - 2].keys, shorter)
            chosen[length - 2][places[places >= 0]] = True
        low, high = (limit, high) if sum(c.sum() for c in chosen) > entries else (low, limit)
    return chosen


def learnt(lines: Iterable[str], alphabet: Alphabet, config: Config) -> LanguageModel:
    """The model of some lines."""
    row = encoded(lines, alphabet)
    grams = [counted(row, length) for length in range(1, config.order + 1)]
    all_logs = [np.log(p) for p in probabilities(grams, alphabet.classes)]
    chosen = kept(grams, all_logs, config.entries)
    keys = [g.keys[c] for g, c in zip(grams, chosen, strict=True)]
    logs = [log[c] for log, c in zip(all_logs, chosen, strict=True)]
    weights = [np.zeros(len(k)) for k in keys]
    for length in range(2, config.order + 1):  # what the kept ones leave, shared among the others as the shorter say
        contexts, groups = np.unique(keys[length - 1] >> _BITS, return_inverse=True)
        lower = logs[length - 2][_places(keys[length - 2], _without_first(keys[length - 1], length))]
        left = 1 - np.bincount(groups, np.exp(logs[length - 1]))
        others = 1 - np.bincount(groups, np.exp(lower))
        places = _places(keys[length - 2], contexts)
        weight = np.log(np.clip(left, 1e-6, 1) / np.clip(others, 1e-6, 1))
        there = places >= 0
        weights[length - 2][places[there]] = np.minimum(0, weight[there])
    table = hashed_table(np.concatenate(keys), np.concatenate(logs), np.concatenate(weights))
    return LanguageModel(table, alphabet.characters, config.order, config.weight, config.bonus)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    default = Config()
    parser = argparse.ArgumentParser(
        prog="python -m trainer.language_model", description="Makes the character language model of a bundle."
    )
    parser.add_argument("--text", type=Path, required=True, metavar="DIR", help="UTF-8 text files, a paragraph a line")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help=f"or a folder, for {FILE} in it")
    parser.add_argument("--entries", type=int, default=default.entries, help="n-grams that are kept")
    parser.add_argument("--lines", type=int, default=default.lines, help="drawn lines beside the paragraphs")
    parser.add_argument("--weight", type=float, default=default.weight, help="beside the network's scores")
    parser.add_argument("--bonus", type=float, default=default.bonus, help="added a character")
    parser.add_argument("--seed", type=int, default=default.seed, help="of the drawn lines")
    given = vars(parser.parse_args(argv))
    text, output = given.pop("text"), given.pop("output")
    config = Config(**given)
    try:
        model = learnt(texts(TextSource.load(text), config), DEFAULT_ALPHABET, config)
        model.save(output / FILE if output.is_dir() else output)
    except PagemillError as error:
        print(f"trainer.language_model: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The figures of finding and ordering on pages that are made for it; each is made by a command of its own.

    python -m tests.figures.pages blank --pages 200     characters read on blank leaves, two of three with print behind
    python -m tests.figures.pages orientation           share of pages read upright, at all four quarter turns
    python -m tests.figures.pages columns --pages 40    pairs of lines in the right order on pages of three columns
    python -m tests.figures.pages batches               the same pages alone and among 64: lines that differ

`--model BUNDLE` names another model than the one in the package. `blank` and `orientation` take the sample scans
unless `--scans DIR` names others; `columns` renders pages, with text from `--text DIR` (folder of .txt files).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import fuzz

from ocr_model.document import Page
from ocr_model.reader import Reader
from tests.papers import SAMPLES, blank_page, scans_of
from trainer.synthesis import page_kinds, pages
from trainer.synthesis.fonts import FontFace, find_fonts
from trainer.synthesis.page_plan import PagePlan, Text, is_for_running_text
from trainer.synthesis.page_render import render
from trainer.synthesis.page_sheet import Sheet, Texts
from trainer.synthesis.text import TextSource

Grey = NDArray[np.uint8]


def characters_on_blank(reader: Reader, scans: Sequence[Grey], count: int, seed: int = 1) -> list[str]:
    """The text of each of `count` blank pages; a good reader gives empty ones."""
    return [reader.read([blank_page(np.random.default_rng([seed, n]), scans)])[0].text for n in range(count)]


def turned_right(reader: Reader, scans: Sequence[Grey]) -> list[bool]:
    """Whether each scan was recognised as turned by 0, 1, 2 and 3 quarter turns."""
    return [
        reader.read([np.ascontiguousarray(np.rot90(scan, turns))])[0].quarter_turns == turns
        for scan in scans
        for turns in range(4)
    ]


def pairs_in_order(lines: Sequence[str], text: str) -> tuple[int, int]:
    """Of all pairs of true lines that were read, those in the right order, and how many there are.

    >>> pairs_in_order(["first line", "second line", "third line"], "second line\\nfirst line\\nthird line")
    (2, 3)
    """
    read = [part for line in text.splitlines() for part in line.split("\t") if part]
    places = []
    for line in lines:
        best = max(range(len(read)), key=lambda i: fuzz.ratio(line, read[i]), default=None)
        if best is not None and fuzz.ratio(line, read[best]) > 70:
            places.append(best)
    pairs = list(combinations(places, 2))
    return sum(a < b for a, b in pairs), len(pairs)


def page_of_columns(rng: np.random.Generator, texts: Texts, columns: int = 3) -> tuple[Grey, list[str]]:
    """A newspaper page, rendered and worn, with its lines in the order in which they are read."""
    by_kind: dict[str, list[FontFace]] = {}
    for face in filter(is_for_running_text, find_fonts()):
        by_kind.setdefault(face.kind, []).append(face)
    sheet = Sheet(rng, by_kind, texts, 1200, int(rng.integers(1300, 1900)))
    page_kinds._columns(sheet, "book", columns, rng.uniform(40, 75), rng.random() < 0.5, rng.uniform(0.012, 0.03), 0.3)
    plan = PagePlan("newspaper", sheet.width, sheet.height, tuple(sheet.items), pages._draw_damage(sheet))
    return render(plan)[0], [item.text for item in sheet.items if isinstance(item, Text)]


def order_of_columns(reader: Reader, texts: Texts, count: int, seed: int = 1) -> list[float]:
    """Per page of three columns the share of pairs of lines that stand in the right order.

    Pages that are worn so much that nothing on them is read have no order, and are left out.
    """
    shares = []
    for n in range(count):
        image, lines = page_of_columns(np.random.default_rng([seed, n]), texts)
        right, pairs = pairs_in_order(lines, reader.read([image])[0].text)
        if pairs:
            shares.append(right / pairs)
    return shares


def differing_pages(reader: Reader, scans: Sequence[Grey], among: int = 64) -> int:
    """Pages that are read in another way alone than in a batch of `among`."""
    many = [scans[i % len(scans)] for i in range(among)]
    together: list[Page] = reader.read(many)
    return sum(reader.read([page])[0] != together[i] for i, page in enumerate(scans))


# ---- command line


def _blank(arguments: argparse.Namespace) -> Iterator[str]:
    texts = characters_on_blank(_reader(arguments), scans_of(arguments.scans or SAMPLES), arguments.pages)
    full = [text for text in texts if text]
    yield f"{len(texts)} blank pages: {sum(map(len, full))} characters on {len(full)} of them"
    yield from (f"  {text[:100]!r}" for text in full[:10])


def _orientation(arguments: argparse.Namespace) -> Iterator[str]:
    right = turned_right(_reader(arguments), scans_of(arguments.scans or SAMPLES))
    yield f"{len(right)} turned pages: {100 * np.mean(right):.1f} % upright"


def _columns(arguments: argparse.Namespace) -> Iterator[str]:
    shares = order_of_columns(_reader(arguments), TextSource.load(arguments.text), arguments.pages)
    yield (
        f"{len(shares)} pages of three columns: {np.mean(shares):.4f} of the pairs in order, lowest {min(shares):.3f}, "
        f"{sum(share < 0.95 for share in shares)} pages below 0.95"
    )


def _batches(arguments: argparse.Namespace) -> Iterator[str]:
    scans = scans_of(arguments.scans or SAMPLES)
    for precision in ("bfloat16", "float32"):
        yield f"{precision}: {differing_pages(_reader(arguments, precision), scans)} of {len(scans)} pages differ"


def _reader(arguments: argparse.Namespace, precision: str = "auto") -> Reader:
    return Reader.load(arguments.model, precision=precision)


FIGURES: dict[str, Callable[[argparse.Namespace], Iterator[str]]] = {
    "blank": _blank,
    "orientation": _orientation,
    "columns": _columns,
    "batches": _batches,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", choices=FIGURES)
    parser.add_argument("--pages", type=int, default=40)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--scans", type=Path)
    parser.add_argument("--text", type=Path)
    arguments = parser.parse_args(argv)
    for line in FIGURES[arguments.figure](arguments):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

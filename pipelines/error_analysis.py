"""Where the errors of pages come from: lines not found, cut badly, read wrongly, put in the wrong order.

Two runs with an oracle say what each half costs: the true lines read by the model, and the lines that were found with
the true text in them. The pages need the place and text of every line (`NAME.lines.json` beside the scan, as the
finder learns it), which most truth does not have; `pipelines.bench` needs the text alone.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

from ocr_model.document import Box, Line, Page, Word
from ocr_model.errors import BadInput
from ocr_model.found_lines import FoundLine, FoundPage, FoundRegion, LayoutConfig
from ocr_model.line_maps import with_room
from ocr_model.metrics import Score, comparable, score

Grey = NDArray[np.uint8]

FINDING = ("missed", "refused", "merged", "split", "cut", "invented")
READING = ("letters", "spaces", "form")
CAUSES = (*FINDING, *READING)
LINES_SUFFIX = ".lines.json"
IOU = 0.5


class Reads(Protocol):
    """What is needed of `ocr_model.reader.Reader`."""

    def find(self, image: Grey) -> FoundPage: ...

    def read(self, images: Sequence[Grey]) -> list[Page]: ...

    def read_found(self, images: Sequence[Grey], found: Sequence[FoundPage]) -> list[Page]: ...


@dataclass(frozen=True)
class TrueText:
    """A line as it was written down: its box in pixels of the scan, its text."""

    box: Box
    text: str


@dataclass(frozen=True)
class LineErrors:
    """A line of the truth, or what was read where the truth has none, with its errors.

    Attributes:
        causes: edits by cause, one of `CAUSES`.
    """

    page: str
    box: Box
    truth: str
    text: str
    causes: Mapping[str, int]

    @property
    def edits(self) -> int:
        return sum(self.causes.values())


@dataclass(frozen=True)
class PageErrors:
    """A page's errors.

    Attributes:
        read: score of what the model made of the page.
        true_lines: score of the true lines, read by the model.
        true_text: score of the lines that were found, with the true text in them.
        hits, found, true: boxes that match at an intersection over union of 0.5, and how many there are; see
            `detected`.
    """

    source: str
    name: str
    read: Score
    true_lines: Score
    true_text: Score
    lines: tuple[LineErrors, ...]
    hits: int
    found: int
    true: int

    def causes(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for line in self.lines:
            total.update(line.causes)
        return total


# ---- truth


def true_records(scan: Path) -> list[dict[str, Any]]:
    """The lines beside a scan that somebody is meant to read: not handwriting, not struck out of the truth.

    Raises:
        BadInput: the file is not a list of objects with `bbox` and `text`.
    """
    path = scan.with_suffix(LINES_SUFFIX)
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        kept = [r for r in records if r["text"].strip() and not r.get("skip_text") and not r.get("hand")]
        return [{**r, "bbox": [float(v) for v in r["bbox"]]} for r in kept if len(r["bbox"]) == 4]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadInput(f"cannot use {path}: {error}", 'write [{"bbox": [0, 0, 9, 9], "text": "…"}, …]') from error


def true_text(record: Mapping[str, Any]) -> TrueText:
    left, top, right, bottom = record["bbox"]
    return TrueText(Box.around([(left, top), (right, bottom)]), str(record["text"]))


def page_of_true_lines(image: Grey, records: Sequence[Mapping[str, Any]]) -> FoundPage:
    """The true lines as the finder would have them, for the model to read; a line too small to be one is left out."""
    from trainer.page_truth import placed_lines

    config = LayoutConfig()
    more = 1 + config.margin
    lines = [
        FoundLine(line.baseline, line.ascender * more, line.descender * more)
        for line in placed_lines(image, records)
        if line is not None
    ]
    roomy = with_room(lines, config)
    return FoundPage((FoundRegion(tuple(roomy)),) if roomy else ())


# ---- which word belongs to which line


def home_of(word: Word, truth: Sequence[TrueText]) -> int | None:
    """The true line that most of a word lies in; None where there is none at its middle's height."""
    best, most = None, 0.0
    middle = (word.box.top + word.box.bottom) / 2
    for i, line in enumerate(truth):
        box = line.box
        reach = 0.25 * box.height
        across = min(box.right, word.box.right) - max(box.left, word.box.left)
        if across <= 0 or not box.top - reach <= middle <= box.bottom + reach:
            continue
        down = min(box.bottom, word.box.bottom) - max(box.top, word.box.top)
        if down * across > most:
            best, most = i, float(down * across)
    return best


def sorted_into(page: Page, truth: Sequence[TrueText]) -> tuple[list[str], list[Line]]:
    """What was read in each true line, and the parts of lines that lie in none."""
    inside: list[list[Word]] = [[] for _ in truth]
    outside: list[Line] = []
    for line in page.lines():
        strays = []
        for word in line.words:
            home = home_of(word, truth)
            if home is None:
                strays.append(word)
            else:
                inside[home].append(word)
        if strays:
            outside.append(Line(tuple(strays), line.box, line.baseline, line.polygon, line.confidence))
    texts = [" ".join(w.text for w in sorted(words, key=lambda w: w.box.left)) for words in inside]
    return texts, outside


def covers(found: Box, truth: Box) -> bool:
    """Whether a found line holds half of a true line's height and three tenths of its width.

    >>> covers(Box(0, 0, 100, 20), Box(50, 8, 150, 28)), covers(Box(0, 0, 100, 20), Box(50, 15, 150, 35))
    (True, False)
    """
    down = min(found.bottom, truth.bottom) - max(found.top, truth.top)
    across = min(found.right, truth.right) - max(found.left, truth.left)
    return down >= 0.5 * truth.height and across >= 0.3 * truth.width


def fault_of_finding(index: int, truth: Sequence[TrueText], found: Sequence[Box]) -> str:
    """How the finder got a true line wrong, if it did: `missed`, `merged` with one above or below, `split`, `cut`."""
    box = truth[index].box
    over = [f for f in found if covers(f, box)]
    if not over:
        return "missed"
    for i, other in enumerate(truth):
        apart = abs(other.box.top + other.box.bottom - box.top - box.bottom) / 2
        if i != index and apart > 0.5 * min(other.box.height, box.height) and any(covers(f, other.box) for f in over):
            return "merged"
    return "split" if len(over) > 1 else "cut"


# ---- errors of a line


def folded(text: str) -> str:
    """A text without what is form rather than letter: case, accents, raised figures, kinds of quotes.

    >>> folded("Éclat² — NO. 5") == folded("eclat2 - no. 5")
    True
    """
    plain = unicodedata.normalize("NFKD", comparable(text, fold_case=True))
    return "".join(c for c in plain if not unicodedata.combining(c))


def reading_causes(truth: str, text: str) -> dict[str, int]:
    """The edits from one comparable text to the other as spaces, form and letters.

    >>> reading_causes("a cat", "Acot")
    {'letters': 1, 'spaces': 1, 'form': 1}
    """
    edits = Levenshtein.distance(truth, text)
    without_spaces = Levenshtein.distance(truth.replace(" ", ""), text.replace(" ", ""))
    letters = Levenshtein.distance(folded(truth).replace(" ", ""), folded(text).replace(" ", ""))
    spaces = max(0, edits - without_spaces)
    letters = min(letters, edits - spaces)
    return {"letters": letters, "spaces": spaces, "form": edits - spaces - letters}


def line_causes(truth: str, text: str, oracle: str, fault: str) -> dict[str, int]:
    """The edits of a line by cause: what the true line costs too is reading, what is beyond it is finding.

    Args:
        truth, text, oracle: comparable texts: true, read on the page, read from the true line.
        fault: see `fault_of_finding`; `missed` where the line was found and its reading not believed is `refused`.
    """
    edits, of_oracle = Levenshtein.distance(truth, text), Levenshtein.distance(truth, oracle)
    if not text:
        return {fault if fault == "missed" else "refused": edits}
    causes = reading_causes(truth, text if edits <= of_oracle else oracle)
    if edits > of_oracle:
        causes[fault] = edits - of_oracle
    return {cause: count for cause, count in causes.items() if count}


# ---- errors of a page


def words_in_found_lines(truth: Sequence[TrueText], page: FoundPage) -> str:
    """The true words where the found lines have them: a line of text each, in the order of the page.

    Where a word stands in its line is taken from its share of the line's characters.
    """
    rows = []
    for line in page.lines():
        box, words = line.box, []
        for true in truth:
            middle = (true.box.top + true.box.bottom) / 2
            if not box.top <= middle <= box.bottom:
                continue
            at, each = 0, true.box.width / max(1, len(true.text))
            for word in true.text.split(" "):
                x = true.box.left + (at + len(word) / 2) * each
                if box.left <= x < box.right and word:
                    words.append((x, word))
                at += len(word) + 1
        if words:
            rows.append(" ".join(word for _, word in sorted(words)))
    return "\n".join(rows)


def in_rows(boxes: Sequence[Box], by: Sequence[Box]) -> list[Box]:
    """The boxes, those that lie side by side in one box of `by` put together: cells where the other side has rows.

    >>> in_rows([Box(0, 0, 9, 9), Box(40, 1, 49, 9), Box(0, 30, 9, 39)], [Box(0, 0, 50, 10)])
    [Box(left=0, top=0, right=49, bottom=9), Box(left=0, top=30, right=9, bottom=39)]
    """
    homes: dict[int, Box] = {}
    alone = []
    for box in boxes:
        row = next((i for i, b in enumerate(by) if box.intersection_area(b) > 0.5 * box.area and _level(box, b)), None)
        if row is None:
            alone.append(box)
        else:
            homes[row] = homes[row].union(box) if row in homes else box
    return [*homes.values(), *alone]


def _level(a: Box, b: Box) -> bool:
    """Whether the middle of each is within the height of the other."""
    middles = (a.top + a.bottom) / 2, (b.top + b.bottom) / 2
    return b.top <= middles[0] <= b.bottom and a.top <= middles[1] <= a.bottom


def detected(found: Sequence[Box], truth: Sequence[Box]) -> tuple[int, int, int]:
    """Boxes that match, found and true ones; where one side has a row and the other its cells, the cells are joined."""
    from trainer.finder import matched

    rows, true_rows = in_rows(found, truth), in_rows(truth, found)
    return matched(rows, true_rows, IOU), len(rows), len(true_rows)


def analysed(
    reader: Reads,
    image: Grey,
    records: Sequence[Mapping[str, Any]],
    source: str = "",
    name: str = "",
    fold_case: bool = False,
) -> PageErrors:
    """A page's errors by cause.

    Args:
        image: [height, width] uint8 grey, upright.
        records: of `true_records`.
        fold_case: the truth has no case.
    """
    truth = [true_text(record) for record in records]
    whole = "\n".join(line.text for line in truth)
    found = reader.find(image)
    (page,) = reader.read_found([image], [found])
    (oracle,) = reader.read_found([image], [page_of_true_lines(image, records)])
    texts, strays = sorted_into(page, truth)
    oracle_texts, _ = sorted_into(oracle, truth)
    found_boxes = [line.box for line in found.lines()]

    def plain(text: str) -> str:
        return comparable(text, fold_case)

    lines = []
    for i, line in enumerate(truth):
        wanted, got = plain(line.text), plain(texts[i])
        if wanted != got:
            fault = fault_of_finding(i, truth, found_boxes)
            causes = line_causes(wanted, got, plain(oracle_texts[i]), fault)
            lines.append(LineErrors(name, line.box, line.text, texts[i], causes))
    for stray in strays:
        lines.append(LineErrors(name, stray.box, "", stray.text, {"invented": len(plain(stray.text))}))
    boxes, true_boxes = [line.box for line in page.lines()], [line.box for line in truth]
    return PageErrors(
        source,
        name,
        score(whole, page.text, fold_case),
        score(whole, oracle.text, fold_case),
        score(whole, words_in_found_lines(truth, found), fold_case),
        tuple(lines),
        *detected(boxes, true_boxes),
    )


# ---- the table


@dataclass
class SourceErrors:
    """Sums over the pages of a source."""

    pages: int = 0
    characters: int = 0
    edits: Counter[str] = field(default_factory=Counter)
    causes: Counter[str] = field(default_factory=Counter)
    hits: int = 0
    boxes: int = 0

    def add(self, page: PageErrors) -> None:
        self.pages += 1
        self.characters += page.read.characters
        for name, part in (("read", page.read), ("true_lines", page.true_lines), ("true_text", page.true_text)):
            self.edits[name] += part.order_free_edits
            self.edits[f"{name}_order"] += part.edits - part.order_free_edits
        self.causes.update(page.causes())
        self.hits += page.hits
        self.boxes += page.found + page.true

    @property
    def hmean(self) -> float:
        return 2 * self.hits / max(1, self.boxes)


def by_source(pages: Iterable[PageErrors]) -> dict[str, SourceErrors]:
    """The sums of each source, and over all under `all`, which comes first."""
    sums: dict[str, SourceErrors] = {"all": SourceErrors()}
    for page in pages:
        for name in ("all", page.source):
            sums.setdefault(name, SourceErrors()).add(page)
    return sums


def table(pages: Sequence[PageErrors]) -> str:
    """Markdown: per source the order-free CER, of the oracle runs too, errors by cause per 100 characters, hmean."""
    heads = ("source", "pages", "CER", "order", "true lines", "true text", *CAUSES, "hmean")
    rows = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name, sums in by_source(pages).items():

        def share(count: int, of: int = sums.characters) -> str:
            return f"{100 * count / max(1, of):.2f}"

        cells = [name, str(sums.pages)]
        cells += [share(sums.edits[key]) for key in ("read", "read_order", "true_lines", "true_text")]
        cells += [share(sums.causes[cause]) for cause in CAUSES]
        rows.append("| " + " | ".join([*cells, f"{sums.hmean:.3f}"]) + " |")
    return "\n".join(rows)


# ---- the contact sheet

_ROW_PX, _SHEET_PX, _GAP_PX, _TEXT_PX = 46, 1500, 8, 20
_TRUE, _READ, _NOTE = (0, 110, 40), (190, 30, 30), (90, 90, 90)


def worst(pages: Iterable[PageErrors], count: int, cause: str | None = None) -> list[LineErrors]:
    """The lines with the most edits, of one cause or of all, most first."""

    def edits(line: LineErrors) -> int:
        return line.causes.get(cause, 0) if cause else line.edits

    lines = [line for page in pages for line in page.lines if edits(line)]
    return sorted(lines, key=lambda line: (-edits(line), line.page, line.box.top, line.box.left))[:count]


def contact_sheet(lines: Sequence[LineErrors], image_of: Callable[[str], Grey]) -> NDArray[np.uint8]:
    """The lines as they look, each above its true text (green), what was read (red) and the causes.

    Args:
        image_of: the scan of a page by its name.

    Returns:
        [height, 1500, 3] uint8 RGB.
    """
    rows: list[NDArray[np.uint8]] = [_row(line, image_of(line.page)) for line in lines]
    if not rows:
        return np.full((_ROW_PX, _SHEET_PX, 3), 255, np.uint8)
    return np.concatenate(rows)


def _row(line: LineErrors, image: Grey) -> NDArray[np.uint8]:
    box = line.box
    room = max(4, box.height // 3)
    wide = Box(box.left - 2 * room, max(0, box.top - room), box.right + 2 * room, box.bottom + room)
    wide = Box(max(0, wide.left), wide.top, wide.right, wide.bottom).clipped(image.shape[1], image.shape[0])
    row = np.full((_ROW_PX + 3 * _TEXT_PX + _GAP_PX, _SHEET_PX, 3), 255, np.uint8)
    piece = image[wide.top : wide.bottom, wide.left : wide.right]
    if piece.size:
        scale = min(_ROW_PX / piece.shape[0], _SHEET_PX / piece.shape[1])
        size = (max(1, int(piece.shape[1] * scale)), max(1, int(piece.shape[0] * scale)))
        small = cv2.resize(piece, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        row[: size[1], : size[0]] = small[:, :, None]
    causes = ", ".join(f"{cause} {count}" for cause, count in line.causes.items())
    font = cv2.FontFace("sans")  # ships with OpenCV 5 and has the whole alphabet
    for i, (text, colour) in enumerate(
        ((line.truth, _TRUE), (line.text, _READ), (f"{line.page}: {causes}", _NOTE)), start=1
    ):
        cv2.putText(row, text or "–", (4, _ROW_PX + i * _TEXT_PX - 4), colour, font, _TEXT_PX - 4, 400)
    return row

"""Files of scans and their truth → examples, in order: open, decode, read the truth, align, prepare, cut.

No Beam here, and nothing is written: this is what a worker does with the files of a unit. What fails gives a dead
letter in its place, with the stage and the reason.
"""

from __future__ import annotations

import hashlib
import io
import posixpath
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ocr_model.affine import Affine
from ocr_model.errors import UnreadablePage
from ocr_model.examples import (
    Kind,
    LineExample,
    Origin,
    PageExample,
    RecordImage,
    Split,
    moved,
    split_of,
)
from ocr_model.images import Limits, PageImage, sniff
from ocr_model.preparation import Prepared, prepare
from ocr_model.truth import GroundTruthLine, GroundTruthPage
from ocr_model.truth_on_image import cut_truth_line, is_line_image, placed, whole_image_line
from pipelines.corpus import SourceFile, read_source
from pipelines.decoder import Decoder
from pipelines.ledger import DeadLetter
from pipelines.pairing import NO_IMAGE, NO_TRUTH, TRUTH, name_of, read_truth_bytes
from pipelines.plan import Item
from pipelines.read_pages import DeadPage, Observed, PageOfFile, SkippedPage
from pipelines.truth_files import read_truth

Grey = NDArray[np.uint8]

STAGES = ("decode", "prepare", "cut")
_OWN_COLUMNS = frozenset({TRUTH, NO_TRUTH, NO_IMAGE, "split", "language"})
_QUIET_PROBLEMS = frozenset({"no-text", "skip-text"})  # the truth means to leave these lines out
_PNG_LEVEL = 3


@dataclass(frozen=True)
class IngestSettings:
    """What the records depend on.

    Attributes:
        kinds: of records that are written.
        steps: of `ocr_model.preparation`.
        single_line: every picture is one line of text, whatever its shape.
        without_truth: what becomes of an image without truth: a dead letter, a page record without lines, or skipped.
        validation_share, test_share: of the documents.
        highest_line_px: line crops are kept at most so high, their surroundings not counted.
        limits, timeout_s, memory_bytes: of the decoder.
        known: the characters that are expected; others are counted.
    """

    kinds: tuple[Kind, ...] = ("page", "line")
    steps: tuple[str, ...] = ()
    single_line: bool = False
    without_truth: str = "fail"
    validation_share: float = 0.06
    test_share: float = 0.0
    highest_line_px: int = 64
    limits: Limits = field(default_factory=Limits)
    timeout_s: float = 60.0
    memory_bytes: int = 2 * 2**30
    known: str = ""


@dataclass(frozen=True)
class IngestedPage:
    """A page that became examples.

    Attributes:
        examples: the page's own first, then its lines.
        lines: of the truth, by what became of them: `recorded`, or the reason why not.
        letters: for lines that are lost although the truth has text for them.
        unknown: characters that are not among the known ones, in all lines of the truth.
        notes: what else is counted, by name.
    """

    of: PageOfFile
    examples: tuple[PageExample | LineExample, ...]
    lines: Counter[str]
    letters: tuple[DeadLetter, ...] = ()
    unknown: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class DroppedPage:
    """A page that was made and is not wanted: the reason, and how many lines it has."""

    of: PageOfFile
    reason: str
    lines: int = 1


IngestOutcome = IngestedPage | DeadPage | SkippedPage | DroppedPage


@dataclass(frozen=True)
class _Task:
    """An item that has been opened.

    Attributes:
        source: the one of the item's files whose truth is taken.
        truths: None where there is none and none is wanted.
    """

    item: Item
    source: SourceFile
    digest: str
    count: int
    wanted: tuple[int, ...]
    truths: list[GroundTruthPage] | None
    data: bytes


def ingest_items(
    items: Iterable[Item], decoder: Decoder, settings: IngestSettings, observed: Observed
) -> Iterator[IngestOutcome]:
    """The pages of all files in order, each with what became of it.

    Args:
        observed: is told sizes and durations.
    """
    for stage in STAGES:
        observed.milliseconds.setdefault(stage, Counter())
    for item in items:
        yield from _ingest_item(item, decoder, settings, observed)


def _ingest_item(item: Item, decoder: Decoder, settings: IngestSettings, observed: Observed) -> Iterator[IngestOutcome]:
    source = truth_source(item)
    told = dict(source.metadata)
    whole = PageOfFile(item, 1, 1)
    if told.get(NO_IMAGE):
        error = UnreadablePage("this truth belongs to no image", told[NO_IMAGE])
        yield _dead(whole, "pair", error, whole_file=True)
        return
    if not told.get(TRUTH) and told.get(NO_TRUTH, "no-truth") != "no-truth":
        error = UnreadablePage("the truth of this image cannot be used", told[NO_TRUTH])
        yield _dead(whole, "pair", error, whole_file=True)
        return
    if not told.get(TRUTH) and settings.without_truth == "skip":
        yield SkippedPage(whole)
        return
    if not told.get(TRUTH) and settings.without_truth == "fail":
        remedy = "--without-truth keep records it all the same"
        yield _dead(
            whole, "pair", UnreadablePage("no truth belongs to this image", "no-truth", remedy), whole_file=True
        )
        return
    task = _opened(item, source, decoder, settings, observed)
    if isinstance(task, DeadPage):
        yield task
        return
    for number in range(1, task.count + 1):
        of = PageOfFile(item, number, task.count, f"{task.digest}-{number:04}")
        yield _ingest_page(of, task, decoder, settings, observed) if number in task.wanted else SkippedPage(of)


def truth_source(item: Item) -> SourceFile:
    """The first of the item's equal files that has a truth, or the first one."""
    sources = (item.source, *item.copies)
    return next((source for source in sources if dict(source.metadata).get(TRUTH)), item.source)


def _opened(
    item: Item, source: SourceFile, decoder: Decoder, settings: IngestSettings, observed: Observed
) -> _Task | DeadPage:
    of = PageOfFile(item, 1, 1)
    try:
        data = read_source(item.source, settings.limits.max_bytes)
        observed.bytes_in += len(data)
        count = decoder.open(data)
    except UnreadablePage as error:
        return _dead(of, "open", error, whole_file=True)
    except OSError as error:  # deleted since it was listed, no permission
        return _dead(of, "open", error, "unreadable-file", whole_file=True)
    digest = hashlib.sha256(data).hexdigest()
    last = min(count, item.source.last_page or count)
    wanted = tuple(range(item.source.first_page, last + 1))
    try:
        truths = _truths(source, decoder, wanted)
    except UnreadablePage as error:
        return _dead(PageOfFile(item, 1, 1, f"{digest}-0001"), "truth", error, whole_file=True)
    return _Task(item, source, digest, count, wanted, truths, data)


def _truths(source: SourceFile, decoder: Decoder, wanted: Sequence[int]) -> list[GroundTruthPage] | None:
    """The pages of the truth; the first picture is decoded for its resolution if the truth counts in millimetres.

    Raises:
        UnreadablePage: the truth, or the picture that it needs, cannot be read.
    """
    path = dict(source.metadata).get(TRUTH)
    if not path:
        return None
    try:
        return read_truth(path, read_truth_bytes)
    except UnreadablePage as error:
        if error.reason != "no-resolution" or not wanted:
            raise
        dpi = decoder.decode(wanted[0] - 1).dpi
        if dpi is None:
            raise
        return read_truth(path, read_truth_bytes, dpi)


def truth_of_page(truths: Sequence[GroundTruthPage], number: int, count: int, wanted: Sequence[int]) -> GroundTruthPage:
    """The truth of a page among those of its file.

    Args:
        number: of the page, from 1.
        count: of pages of the file; wanted: numbers of those that are ingested.

    Raises:
        UnreadablePage: `page-count`.
    """
    if len(truths) == count:
        return truths[number - 1]
    if len(truths) == len(wanted):
        return truths[wanted.index(number)]
    raise UnreadablePage(f"the truth has {len(truths)} pages, the file has {count}", "page-count")


def _ingest_page(
    of: PageOfFile, task: _Task, decoder: Decoder, settings: IngestSettings, observed: Observed
) -> IngestOutcome:
    began = time.perf_counter()
    try:
        image = decoder.decode(of.number - 1)
    except UnreadablePage as error:
        return _dead(of, "decode", error)
    except OSError as error:  # the file had to be opened again and is gone
        return _dead(of, "decode", error, "unreadable-file")
    observed.took("decode", time.perf_counter() - began)
    try:
        truth = None
        if task.truths is not None:
            truth = truth_of_page(task.truths, of.number, task.count, task.wanted)
        return _examples(of, task, image, truth, settings, observed)
    except UnreadablePage as error:
        return _dead(of, "align", error)
    except (cv2.error, MemoryError) as error:  # a picture that a step cannot cope with
        return _dead(of, "prepare", error, "preparation-failed")


def _examples(
    of: PageOfFile,
    task: _Task,
    image: PageImage,
    truth: GroundTruthPage | None,
    settings: IngestSettings,
    observed: Observed,
) -> IngestOutcome:
    """
    Raises:
        UnreadablePage: picture and truth do not fit together.
    """
    width, height = original_size(image, truth)
    is_line = truth is not None and (settings.single_line or is_line_image(truth, width, height))
    if is_line and settings.kinds == ("page",):
        return SkippedPage(of)
    if truth is not None and is_line:
        truth = GroundTruthPage(width, height, (whole_image_line(truth, width, height),))
    elif truth is not None:
        truth = placed(truth, width, height)
    began = time.perf_counter()
    prepared = _prepared(image, width, height, settings)
    observed.took("prepare", time.perf_counter() - began)
    origin = _origin(of, task.source, width, height, settings)
    lines = truth.lines if truth else ()
    examples: list[PageExample | LineExample] = []
    letters: list[DeadLetter] = []
    counts = Counter({"recorded": len(lines)})
    if is_line:
        examples.append(LineExample(origin, record_image(prepared, image, task), 1, lines[0]))
    elif "page" in settings.kinds:
        ordered = truth is None or truth.ordered
        examples.append(PageExample(origin, record_image(prepared, image, task), lines, ordered))
    if "line" in settings.kinds and not is_line:
        began = time.perf_counter()
        cut, counts, letters = _cut_lines(of, origin, prepared, lines, settings)
        examples += cut
        observed.took("cut", time.perf_counter() - began)
    return IngestedPage(of, tuple(examples), counts, tuple(letters), unknown_characters(lines, settings.known))


def original_size(image: PageImage, truth: GroundTruthPage | None) -> tuple[int, int]:
    """Width and height of the page in its file; of one that was read at a fraction of its size only the truth tells the
    last few pixels."""
    height, width = image.pixels.shape
    by = image.reduced_by
    told = (truth.width, truth.height) if truth and truth.width and truth.height else None
    if told and by > 1 and abs(told[0] / by - width) < 1 and abs(told[1] / by - height) < 1:
        return told
    return width * by, height * by


def _prepared(image: PageImage, width: int, height: int, settings: IngestSettings) -> Prepared:
    """The page after the steps; `back` leads to the page of that size in the file."""
    prepared = prepare(image.pixels, settings.steps)
    read_height, read_width = image.pixels.shape
    return replace(prepared, back=Affine.scale(width / read_width, height / read_height).after(prepared.back))


def unknown_characters(lines: Iterable[GroundTruthLine], known: str) -> Counter[str]:
    """Characters that are not among the known ones; none where nothing is known.

    >>> unknown_characters([GroundTruthLine("abſ"), GroundTruthLine("ſ")], "ab")
    Counter({'ſ': 2})
    """
    expected = frozenset(known)
    return Counter(c for line in lines for c in line.text if c not in expected) if known else Counter()


def _origin(of: PageOfFile, source: SourceFile, width: int, height: int, settings: IngestSettings) -> Origin:
    told = dict(source.metadata)
    split: Split = told.get("split") or split_of(source.document, settings.validation_share, settings.test_share)  # type: ignore[assignment]
    return Origin(
        name=name_of(source),
        document=source.document,
        page=of.number,
        page_id=of.page_id,
        width=width,
        height=height,
        split=split,
        language=told.get("language", ""),
        truth=posixpath.basename(told.get(TRUTH, "").replace("\\", "/")),
        metadata=tuple((name, value) for name, value in source.metadata if name not in _OWN_COLUMNS),
    )


def _cut_lines(
    of: PageOfFile,
    origin: Origin,
    prepared: Prepared,
    lines: Sequence[GroundTruthLine],
    settings: IngestSettings,
) -> tuple[list[LineExample], Counter[str], list[DeadLetter]]:
    """(examples of the lines that can be cut out, all lines by what became of them, letters for those that are lost)"""
    there = prepared.back.inverse()
    cut: list[LineExample] = []
    counts: Counter[str] = Counter()
    letters = []
    for number, line in enumerate(lines, 1):
        reason = line.problem
        if not reason:
            try:
                cut.append(_cut_line(origin, prepared, number, line, there, settings))
            except UnreadablePage as refusal:
                reason = refusal.reason
        counts[reason or "recorded"] += 1
        if reason == "no-geometry" and counts[reason] > 1:
            continue  # the truth of whole pages is often plain text: one letter a page tells that
        if reason and reason not in _QUIET_PROBLEMS:
            error = UnreadablePage(f"line {number} cannot be cut out: {line.text[:80]}", reason)
            letter = DeadLetter.of(of.item.source.origin, of.number, "align", error)
            letters.append(replace(letter, page_id=of.page_id, line=number))
    return cut, counts, [_with_others(letter, counts["no-geometry"] - 1) for letter in letters]


def _with_others(letter: DeadLetter, others: int) -> DeadLetter:
    if letter.reason != "no-geometry" or not others:
        return letter
    return replace(letter, message=f"{letter.message}, nor can {others} more, whose places the truth does not tell")


def _cut_line(
    origin: Origin,
    prepared: Prepared,
    number: int,
    line: GroundTruthLine,
    there: Affine,
    settings: IngestSettings,
) -> LineExample:
    crop = cut_truth_line(prepared.pixels, moved(line, there), settings.highest_line_px)
    back = prepared.back.after(crop.back)
    height, width = crop.pixels.shape
    picture = RecordImage(png(crop.pixels), "png", width, height, None, back, prepared.steps, *grey_values(crop.pixels))
    return LineExample(origin, picture, number, replace(line, words=()), crop.margins)


def record_image(prepared: Prepared, image: PageImage, task: _Task) -> RecordImage:
    """The picture as the record keeps it: the file's own bytes where they show just that, else a PNG."""
    height, width = prepared.pixels.shape
    mean, deviation = grey_values(prepared.pixels)
    keep = partial(
        RecordImage,
        width=width,
        height=height,
        dpi=round(image.dpi, 2) if image.dpi else None,
        back=prepared.back,
        steps=prepared.steps,
        mean=mean,
        deviation=deviation,
    )
    kind = sniff(task.data)
    if task.count == 1 and not prepared.steps and kind in ("jpeg", "png") and is_plain(task.data, width, height):
        return keep(data=task.data, format=kind)
    return keep(data=png(prepared.pixels), format="png")


def grey_values(pixels: Grey) -> tuple[float, float]:
    """Mean and deviation of the picture's grey values, to a hundredth."""
    mean, deviation = cv2.meanStdDev(pixels)
    return round(float(mean[0, 0]), 2), round(float(deviation[0, 0]), 2)


def is_plain(data: bytes, width: int, height: int) -> bool:
    """Whether every decoder sees the same in a picture: 8 bits of grey or colour, upright, of that size."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as picture:
            upright = picture.getexif().get(0x0112, 1) == 1
            return upright and picture.mode in ("L", "RGB") and picture.size == (width, height)
    except (
        Exception
    ):  # Pillow raises nearly every class on headers that it does not like; the picture itself is decoded
        return False


def png(pixels: Grey) -> bytes:
    """The picture as PNG; the same pixels give the same bytes.

    Raises:
        cv2.error: it cannot be encoded.
    """
    done, data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, _PNG_LEVEL])
    assert done
    return data.tobytes()


def _dead(of: PageOfFile, stage: str, error: Exception, reason: str = "", whole_file: bool = False) -> DeadPage:
    letter = DeadLetter.of(of.item.source.origin, None if whole_file else of.number, stage, error, reason)
    return DeadPage(of, replace(letter, page_id=of.page_id))

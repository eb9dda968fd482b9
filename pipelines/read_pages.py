"""Files of scans -> pages of text, in order: open, decode, gather a few pages, read them together.

No Beam here, and nothing is written: this is what a worker does with the files of a unit, what `estimate` measures and
what a notebook may call. A page that fails gives a dead letter in its place.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ocr_model.document import Page
from ocr_model.errors import BadModel, MissingDependency, PagemillError, UnreadablePage
from ocr_model.images import Limits, PageImage, sniff
from pipelines import durations
from pipelines.corpus import SourceFile, read_source
from pipelines.decoder import Decoder
from pipelines.ledger import DeadLetter
from pipelines.plan import Item

Grey = NDArray[np.uint8]


class PageReader(Protocol):
    """What is needed of `ocr_model.reader.Reader`."""

    def read(self, images: Sequence[Grey]) -> list[Page]: ...

    def read_single_lines(self, images: Sequence[Grey]) -> list[Page]: ...


class PageHung(UnreadablePage):
    """A reader was stopped because a page was not read in time.

    Attributes:
        image: the one of that page, as it was handed to the reader; None where it may be any of them.
    """

    def __init__(self, message: str, image: Grey | None) -> None:
        super().__init__(message, "timeout")
        self.image = image


@dataclass(frozen=True)
class ReadOptions:
    """What the text of a page depends on, beside the model, and how pages are gathered, on which it does not depend.

    Attributes:
        single_line: every page is one line of text.
        limits: of files and pages.
        timeout_s: for one call to decode a page, and for each page of a batch to be read.
        memory_bytes: that the decoder may take.
        first_page, last_page: of each file; the others are skipped. None: to the end.
        pages_at_once, pixels_at_once: what is handed to the reader in one call, so that lines of several pages share
            its batches; a bigger page goes alone. By default nine A4 pages at 300 dpi: each takes 9 MB.
        keep_jpeg: whether the bytes of JPEG files are handed on.
    """

    single_line: bool = False
    limits: Limits = field(default_factory=Limits)
    timeout_s: float = 60.0
    memory_bytes: int = 2 * 2**30
    first_page: int = 1
    last_page: int | None = None
    pages_at_once: int = 16
    pixels_at_once: int = 80_000_000
    keep_jpeg: bool = False


@dataclass(frozen=True)
class PageOfFile:
    """Which page something is about.

    Attributes:
        number: from 1.
        pages: that the file has; 1 where it cannot be opened.
        page_id: see `pipelines.formats.record.PageRecord`; empty where the file cannot be read.
    """

    item: Item
    number: int
    pages: int
    page_id: str = ""


@dataclass(frozen=True)
class ReadPage:
    """A page that became text; `page` has the coordinates of the picture in the file."""

    of: PageOfFile
    page: Page
    image: PageImage
    jpeg: bytes | None = None


@dataclass(frozen=True)
class DeadPage:
    """A page that did not; where a whole file cannot be opened, it stands for all of it."""

    of: PageOfFile
    letter: DeadLetter


@dataclass(frozen=True)
class SkippedPage:
    """A page that was not asked for."""

    of: PageOfFile


Outcome = ReadPage | DeadPage | SkippedPage


@dataclass
class Observed:
    """What was seen while pages were read; grows as they are."""

    bytes_in: int = 0
    milliseconds: dict[str, Counter[str]] = field(
        default_factory=lambda: {stage: Counter() for stage in ("decode", "find", "read")}
    )
    readers: Counter[str] = field(default_factory=Counter)  # pages by digest of the bundle

    def took(self, stage: str, seconds: float, pages: int = 1) -> None:
        for _ in range(pages):
            durations.count(self.milliseconds[stage], 1000 * seconds / max(pages, 1))


@dataclass(frozen=True)
class _Decoded:
    """A page on its way to the reader."""

    of: PageOfFile
    image: PageImage
    jpeg: bytes | None


def read_items(
    items: Iterable[Item],
    reader_of: Callable[[SourceFile], PageReader],
    decoder: Decoder,
    options: ReadOptions,
    observed: Observed | None = None,
) -> Iterator[Outcome]:
    """The pages of all files in order, each with what became of it.

    Args:
        reader_of: the reader of a file's pages.
        observed: is told sizes and durations.

    Raises:
        BadModel, MissingDependency: there is no reader.
    """
    observed = observed or Observed()
    for batch in _batches(_decoded(items, decoder, options, observed), options):
        outcomes = deque(_outcomes_of(batch, reader_of, options, observed))
        batch.clear()  # nothing holds a page once it was handed on: they are most of what a worker's memory grows by
        while outcomes:
            yield outcomes.popleft()


def _outcomes_of(
    batch: Sequence[_Decoded | DeadPage | SkippedPage],
    reader_of: Callable[[SourceFile], PageReader],
    options: ReadOptions,
    observed: Observed,
) -> Iterator[Outcome]:
    """What became of the parts of a batch, in their order."""
    read = iter(_read_batch([part for part in batch if isinstance(part, _Decoded)], reader_of, options, observed))
    for part in batch:
        yield next(read) if isinstance(part, _Decoded) else part


def _decoded(
    items: Iterable[Item], decoder: Decoder, options: ReadOptions, observed: Observed
) -> Iterator[_Decoded | DeadPage | SkippedPage]:
    """The pages of all files in order, decoded one by one."""
    for item in items:
        try:
            data = read_source(item.source, options.limits.max_bytes)
            observed.bytes_in += len(data)
            count = decoder.open(data)
        except UnreadablePage as error:
            yield _dead(PageOfFile(item, 1, 1), "open", error, whole_file=True)
            continue
        except OSError as error:  # deleted since it was listed, no permission
            yield _dead(PageOfFile(item, 1, 1), "open", error, "unreadable-file", whole_file=True)
            continue
        digest = hashlib.sha256(data).hexdigest()
        jpeg = data if options.keep_jpeg and sniff(data) == "jpeg" else None
        del data
        for number in range(1, count + 1):
            of = PageOfFile(item, number, count, f"{digest}-{number:04}")
            if _is_wanted(number, item.source, options):
                yield _decode(of, decoder, jpeg, observed)
            else:
                yield SkippedPage(of)
        missing = _missing_page(count, item.source, options)
        if missing:
            none = UnreadablePage(f"the file has {count} pages, and page {missing} was asked for", "no-such-page")
            yield _dead(PageOfFile(item, missing, count), "open", none)


def _missing_page(count: int, source: SourceFile, options: ReadOptions) -> int | None:
    """The first page that the manifest names and the file does not have."""
    first, last = max(source.first_page, count + 1), source.last_page or source.first_page
    return first if first <= min(last, options.last_page or last) else None


def _is_wanted(number: int, source: SourceFile, options: ReadOptions) -> bool:
    first = max(options.first_page, source.first_page)
    return number >= first and all(last is None or number <= last for last in (options.last_page, source.last_page))


def _decode(of: PageOfFile, decoder: Decoder, jpeg: bytes | None, observed: Observed) -> _Decoded | DeadPage:
    began = time.perf_counter()
    try:
        image = decoder.decode(of.number - 1)
    except UnreadablePage as error:
        return _dead(of, "decode", error)
    except OSError as error:  # the file had to be opened again and is gone
        return _dead(of, "decode", error, "unreadable-file")
    observed.took("decode", time.perf_counter() - began)
    return _Decoded(of, image, jpeg)


def _dead(of: PageOfFile, stage: str, error: Exception, reason: str = "", whole_file: bool = False) -> DeadPage:
    letter = DeadLetter.of(of.item.source.origin, None if whole_file else of.number, stage, error, reason)
    return DeadPage(of, replace(letter, page_id=of.page_id))


def _batches(
    parts: Iterable[_Decoded | DeadPage | SkippedPage], options: ReadOptions
) -> Iterator[list[_Decoded | DeadPage | SkippedPage]]:
    """Parts in order, in lists that keep to `pages_at_once` and `pixels_at_once`."""
    batch: list[_Decoded | DeadPage | SkippedPage] = []
    pixels = 0
    for part in parts:
        size = part.image.pixels.size if isinstance(part, _Decoded) else 0
        if batch and (len(batch) >= options.pages_at_once or pixels + size > options.pixels_at_once):
            yield batch
            batch, pixels = [], 0
        batch.append(part)
        pixels += size
    if batch:
        yield batch


def _read_batch(
    batch: Sequence[_Decoded],
    reader_of: Callable[[SourceFile], PageReader],
    options: ReadOptions,
    observed: Observed,
) -> list[ReadPage | DeadPage]:
    """What became of each page; the pages of one reader are read together."""
    by_reader: dict[int, tuple[PageReader, list[int]]] = {}
    for i, part in enumerate(batch):
        reader = reader_of(part.of.item.source)
        by_reader.setdefault(id(reader), (reader, []))[1].append(i)
    results: list[ReadPage | DeadPage | None] = [None] * len(batch)
    for reader, members in by_reader.values():
        outcomes = _read_bisecting([batch[i] for i in members], reader, options, observed)
        for i, outcome in zip(members, outcomes, strict=True):
            results[i] = outcome
    return [result for result in results if result is not None]


def _read_bisecting(
    batch: Sequence[_Decoded], reader: PageReader, options: ReadOptions, observed: Observed
) -> list[ReadPage | DeadPage]:
    """Reads pages together; where that fails, each half by itself, until the page is found that it fails for.

    Raises:
        BadModel, MissingDependency: there is no reader, which is no page's fault.
    """
    try:
        pages = _timed_read([part.image.pixels for part in batch], reader, options, observed)
    except (BadModel, MissingDependency):
        raise
    except Exception as error:  # one page must not take the others along, whatever it did to the reader
        if len(batch) == 1:
            return [_dead(batch[0].of, "read", error, "reader-failed")]
        if isinstance(error, PageHung):
            return _read_without_hung(error, batch, reader, options, observed)
        middle = len(batch) // 2
        halves = (batch[:middle], batch[middle:])
        return [outcome for half in halves for outcome in _read_bisecting(half, reader, options, observed)]
    both = zip(batch, pages, strict=True)
    return [ReadPage(part.of, _unreduced(page, part.image), part.image, part.jpeg) for part, page in both]


def _read_without_hung(
    error: PageHung, batch: Sequence[_Decoded], reader: PageReader, options: ReadOptions, observed: Observed
) -> list[ReadPage | DeadPage]:
    """Reads the others after a page has hung; where it is not known which, each page by itself.

    Halving would cost the page's limit again and again.
    """
    if error.image is None:
        return [outcome for part in batch for outcome in _read_bisecting([part], reader, options, observed)]
    hung = next(i for i, part in enumerate(batch) if part.image.pixels is error.image)
    others = _read_bisecting([*batch[:hung], *batch[hung + 1 :]], reader, options, observed)
    return [*others[:hung], _dead(batch[hung].of, "read", error), *others[hung:]]


def _unreduced(page: Page, image: PageImage) -> Page:
    return page.resized(page.width * image.reduced_by, page.height * image.reduced_by)


def _timed_read(images: Sequence[Grey], reader: PageReader, options: ReadOptions, observed: Observed) -> Sequence[Page]:
    read = reader.read_single_lines if options.single_line else reader.read
    before = dict(seconds_of(reader))
    began = time.perf_counter()
    pages = read(images)
    seconds = time.perf_counter() - began
    if [(page.height, page.width) for page in pages] != [image.shape for image in images]:
        raise PagemillError(f"the reader gave {len(pages)} pages of other sizes for {len(images)} images")
    finding = seconds_of(reader).get("find", 0.0) - before.get("find", 0.0)
    observed.took("find", finding, len(images))
    observed.took("read", seconds - finding, len(images))
    for page in pages:
        observed.readers[str(page.provenance.get("model", ""))] += 1
    return pages


def seconds_of(reader: PageReader) -> Mapping[str, float]:
    """Seconds that the reader has spent by stage since it was loaded, where it keeps count."""
    seconds: Mapping[str, float] = getattr(reader, "seconds", {})
    return seconds

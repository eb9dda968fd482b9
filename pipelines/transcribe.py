"""The main job: files of scans in, text out.

    list the scans -> spread their paths over the workers -> read, decode, transcribe and write a few files at a time

Only paths and dead letters travel between workers, never a pixel. What one worker does with its files is
`transcribe_files`, a generator without Beam; the rest of this module is the graph around it and its books.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import apache_beam as beam
import numpy as np
from apache_beam.metrics import Metrics
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
from apache_beam.utils.shared import Shared
from numpy.typing import NDArray

from ocr_model.document import Page
from ocr_model.errors import BadArgument, BadInput, PagemillError, UnreadablePage
from ocr_model.images import Document, Limits, PageImage, open_document
from pipelines.corpus import SourceFile, find_sources, is_remote, read_bytes
from pipelines.formats import (
    FORMATS,
    OVERLAY,
    TEXT_FORMATS,
    PageRecord,
    overlay_name,
    page_as_picture,
)
from pipelines.outputs import (
    PARTIAL,
    AtomicFile,
    is_name_error,
    prepare_output,
    remove_partial,
    write_atomically,
)
from pipelines.progress import Progress, Summary, Tally, cpu_seconds

DEAD_LETTERS = "dead_letters.jsonl"
RUN_RECORD = "run.json"
_NAMESPACE = "pagemill"
_FAILED = "failed:"


class PageReader(Protocol):
    """What a worker needs of `ocr_model.reader.Reader`."""

    def read(self, images: Sequence[NDArray[np.uint8]]) -> list[Page]: ...

    def read_single_lines(self, images: Sequence[NDArray[np.uint8]]) -> list[Page]: ...


def load_reader(bundle: str | None) -> PageReader:
    """The `Reader` of a bundle, of the one in the package if None. Imports TensorFlow.

    Raises:
        BadModel: it is no bundle.
    """
    with _native_chatter_muted():
        from ocr_model.reader import Reader

        return Reader.load(bundle)


@contextmanager
def _native_chatter_muted() -> Iterator[None]:
    """Keeps stderr shut while TensorFlow starts, whose first lines heed no setting. Exceptions are not affected."""
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") != "3":  # somebody wants to see them
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@dataclass(frozen=True)
class TranscribeOptions:
    """Everything that a run depends on.

    Attributes:
        inputs: files, folders and globs.
        output: folder; results go to `output/FORMAT/…`.
        bundle: the model, None for the one in the package.
        single_line: every page is one line of text.
        files_at_once: files that a worker takes together.
        pages_at_once, pixels_at_once: what is handed to the reader in one call, so that lines of several pages share
            its batches; a bigger page goes alone.
        reader: makes the reader from `bundle`, once per process.
    """

    inputs: tuple[str, ...]
    output: str
    formats: tuple[str, ...] = ("txt",)
    bundle: str | None = None
    single_line: bool = False
    limits: Limits = field(default_factory=Limits)
    files_at_once: int = 16
    pages_at_once: int = 16
    pixels_at_once: int = 160_000_000
    reader: Callable[[str | None], PageReader] = load_reader

    def __post_init__(self) -> None:
        unknown = sorted(set(self.formats) - set(FORMATS))
        if unknown or not self.formats:
            raise BadArgument(f"unknown format: {', '.join(unknown) or 'none'}", f"known are {', '.join(FORMATS)}")


@dataclass(frozen=True)
class DeadLetter:
    """A page, or with `page` None a whole file, that gave no text.

    Attributes:
        page: from 1.
        stage: `open`, `decode`, `read` or `write`.
        error: class of the error.
        reason: short and stable, for counting.
    """

    path: str
    page: int | None
    stage: str
    error: str
    reason: str
    message: str

    @classmethod
    def of(cls, path: str, page: int | None, stage: str, error: Exception, reason: str = "") -> DeadLetter:
        reason = error.reason if isinstance(error, UnreadablePage) else reason
        return cls(path, page, stage, type(error).__name__, reason, str(error)[:1000])


@dataclass(frozen=True)
class FileDone:
    """A file is finished: of its `pages`, `read` are written; the others were reported as dead letters."""

    path: str
    pages: int
    read: int
    lines: int


@dataclass
class _OpenFile:
    """A file whose pages are on their way, and the outputs that it has so far."""

    source: SourceFile
    options: TranscribeOptions
    page_count: int
    texts: dict[str, AtomicFile] = field(default_factory=dict)
    skipped: list[int] = field(default_factory=list)  # pages whose place is still to be kept in the outputs
    failed: set[int] = field(default_factory=set)
    written: int = 0
    lines: int = 0
    broken: OSError | None = None

    def add(self, number: int, image: PageImage, page: Page) -> None:
        """Writes a page that was read to all formats."""
        if self.broken is not None:
            return
        try:
            self._open_texts()
            record = PageRecord(self.source.path, number, page, image.dpi, image.reduced_by)
            for name, file in self.texts.items():
                file.write("".join(map(TEXT_FORMATS[name].missing, self.skipped)) + TEXT_FORMATS[name].page(record))
            if OVERLAY in self.options.formats:
                relative = f"{OVERLAY}/{overlay_name(self.source.stem, number, self.page_count)}"
                write_atomically(self.options.output, relative, page_as_picture(image.pixels, page))
        except OSError as error:
            self._blame_name(error)
            return
        self.skipped.clear()
        self.written += 1
        self.lines += sum(1 for _ in page.lines())

    def skip(self, number: int) -> None:
        """Keeps the place of a page that could not be read."""
        self.skipped.append(number)
        self.failed.add(number)

    def close(self) -> None:
        """Gives the files their names. A file of which no page could be read leaves none."""
        while self.texts and self.broken is None:
            name, file = self.texts.popitem()
            try:
                file.write("".join(map(TEXT_FORMATS[name].missing, self.skipped)) + TEXT_FORMATS[name].foot)
                file.commit()
            except OSError as error:
                self._blame_name(error)

    def discard(self) -> None:
        while self.texts:
            self.texts.popitem()[1].discard()

    def _open_texts(self) -> None:
        for name in self.options.formats:
            if name in TEXT_FORMATS and name not in self.texts:
                kind = TEXT_FORMATS[name]
                file = AtomicFile(self.options.output, f"{name}/{self.source.stem}{kind.extension}")
                self.texts[name] = file
                file.write(kind.head(self.source.path))

    def _blame_name(self, error: OSError) -> None:
        """Takes note of an output that this file's name makes impossible; a full disk is not this file's fault."""
        if not is_name_error(error):
            raise BadInput(f"cannot write to {self.options.output}: {error.strerror or error}") from error
        self.broken = error
        self.discard()


@dataclass(frozen=True)
class _Item:
    """A page on its way to the reader, or what is known of one that will not get there."""

    file: _OpenFile
    number: int
    image: PageImage | None
    failure: DeadLetter | None = None


Event = DeadLetter | FileDone


def transcribe_files(
    sources: Iterable[SourceFile],
    reader: PageReader,
    options: TranscribeOptions,
    on_page: Callable[[], None] = lambda: None,
) -> Iterator[Event]:
    """Reads the files and writes their outputs; tells what could not be read, and of each file when it is done.

    Pages of several files are read together, few enough at a time that memory stays bounded; the outputs of a file
    appear when its last page is done. `on_page` is called for every page that was dealt with.

    Raises:
        BadInput: the output folder cannot be written any more.
    """
    read = reader.read_single_lines if options.single_line else reader.read
    open_files: list[_OpenFile] = []
    try:
        for batch in _batches(_items(sources, options), options):
            for item, outcome in zip(batch, _read_batch(batch, read), strict=True):
                if item.file not in open_files:
                    open_files.append(item.file)
                if isinstance(outcome, DeadLetter):
                    item.file.skip(item.number)
                    yield outcome
                elif item.image is not None:
                    item.file.add(item.number, item.image, outcome)
                on_page()
                if item.number == item.file.page_count:
                    open_files.remove(item.file)
                    yield from _finish(item.file)
    finally:
        for file in open_files:
            file.discard()


def _finish(file: _OpenFile) -> Iterator[Event]:
    file.close()
    path, count = file.source.path, file.page_count
    if file.broken is None:
        yield FileDone(path, count, file.written, file.lines)
        return
    for page in sorted(set(range(1, count + 1)) - file.failed):
        yield DeadLetter.of(path, page, "write", file.broken, "bad-name")
    yield FileDone(path, count, read=0, lines=0)


def _items(sources: Iterable[SourceFile], options: TranscribeOptions) -> Iterator[_Item]:
    """The pages of all files in order, decoded one by one."""
    for source in sources:
        document, failure = _open(source, options.limits)
        file = _OpenFile(source, options, document.page_count if document else 1)
        if document is None:
            yield _Item(file, 1, None, failure)
            continue
        for number in range(1, document.page_count + 1):
            try:
                yield _Item(file, number, document.decode(number - 1))
            except UnreadablePage as error:
                yield _Item(file, number, None, DeadLetter.of(source.path, number, "decode", error))


def _open(source: SourceFile, limits: Limits) -> tuple[Document | None, DeadLetter | None]:
    try:
        return open_document(read_bytes(source.path, limits.max_bytes), limits), None
    except UnreadablePage as error:
        return None, DeadLetter.of(source.path, None, "open", error)
    except OSError as error:  # deleted since it was listed, no permission
        return None, DeadLetter.of(source.path, None, "open", error, "unreadable-file")


def _batches(items: Iterable[_Item], options: TranscribeOptions) -> Iterator[list[_Item]]:
    """Items in order, in lists that keep to `pages_at_once` and `pixels_at_once`."""
    batch: list[_Item] = []
    pixels = 0
    for item in items:
        size = item.image.pixels.size if item.image else 0
        if batch and (len(batch) >= options.pages_at_once or pixels + size > options.pixels_at_once):
            yield batch
            batch, pixels = [], 0
        batch.append(item)
        pixels += size
    if batch:
        yield batch


def _read_batch(
    batch: Sequence[_Item], read: Callable[[Sequence[NDArray[np.uint8]]], list[Page]]
) -> Iterator[Page | DeadLetter]:
    """A page or a dead letter for each item. If reading all at once fails, each page is read alone."""
    images = [item.image.pixels for item in batch if item.image]
    try:
        pages: list[Page | DeadLetter] = list(_checked(read, images)) if images else []
    except Exception:  # one page must not take the others along, whatever it did to the reader
        pages = [_read_alone(item, read) for item in batch if item.image]
    rest = iter(pages)
    for item in batch:
        yield item.failure or next(rest)


def _read_alone(item: _Item, read: Callable[[Sequence[NDArray[np.uint8]]], list[Page]]) -> Page | DeadLetter:
    assert item.image is not None
    try:
        return _checked(read, [item.image.pixels])[0]
    except Exception as error:  # becomes a dead letter with its class and message
        return DeadLetter.of(item.file.source.path, item.number, "read", error, "reader-failed")


def _checked(
    read: Callable[[Sequence[NDArray[np.uint8]]], list[Page]], images: Sequence[NDArray[np.uint8]]
) -> list[Page]:
    pages = read(images)
    if [(page.height, page.width) for page in pages] != [image.shape for image in images]:
        raise ValueError(f"the reader gave {len(pages)} pages of other sizes for {len(images)} images")
    return pages


class _TranscribeFiles(beam.DoFn):
    """`transcribe_files` on a worker: one reader per process, counters. Yields the dead letters as dictionaries."""

    def __init__(self, options: TranscribeOptions, readers: Shared, tally_folder: str | None) -> None:
        self._options = options
        self._readers = readers
        self._tally_folder = tally_folder

    def setup(self) -> None:
        self._reader = shared_reader(self._readers, self._options)
        self._tally = Tally(self._tally_folder) if self._tally_folder else None

    def process(self, sources: list[SourceFile]) -> Iterator[dict[str, Any]]:
        for event in transcribe_files(sources, self._reader, self._options, self._count_page):
            if isinstance(event, DeadLetter):
                _count(_FAILED + event.reason)
                yield asdict(event)
            else:
                _count("files")
                _count("pages", event.pages)
                _count("read", event.read)
                _count("lines", event.lines)
                if self._tally:
                    self._tally.add("files")

    def _count_page(self) -> None:
        if self._tally:
            self._tally.add("pages")


def shared_reader(readers: Shared, options: TranscribeOptions) -> PageReader:
    """The reader of this process, loaded at the first call."""
    reader: PageReader = readers.acquire(lambda: options.reader(options.bundle))
    return reader


def _count(name: str, n: int = 1) -> None:
    Metrics.counter(_NAMESPACE, name).inc(n)


def build(
    pipeline: beam.Pipeline,
    sources: Sequence[SourceFile],
    options: TranscribeOptions,
    readers: Shared | None = None,
    tally_folder: str | None = None,
) -> None:
    """The graph: transcribes the sources and writes their dead letters.

    Args:
        readers: where the reader may be loaded already.
        tally_folder: where the workers count what `Progress` tells; they must be on this machine.
    """
    size = options.files_at_once
    dead_letters = (
        pipeline
        | "List the scans" >> beam.Create(sources, reshuffle=False)
        | "Spread over workers" >> beam.Reshuffle()
        | "Take a few files" >> beam.BatchElements(min_batch_size=size, max_batch_size=size)
        | "Transcribe" >> beam.ParDo(_TranscribeFiles(options, readers or Shared(), tally_folder))
    )
    (
        dead_letters
        | "Gather dead letters" >> beam.CombineGlobally(beam.combiners.ToListCombineFn())
        | "Write dead letters" >> beam.Map(write_dead_letters, options.output)
    )


def write_dead_letters(letters: Sequence[dict[str, Any]], output: str) -> None:
    """One line of JSON each, sorted, in place of an earlier run's; an empty file says that there are none."""
    ordered = sorted(letters, key=lambda letter: (letter["path"], letter["page"] or 0))
    lines = (json.dumps(letter, ensure_ascii=False) + "\n" for letter in ordered)
    write_atomically(output, DEAD_LETTERS, "".join(lines))


def run(options: TranscribeOptions, beam_flags: Sequence[str] = (), started_s: float | None = None) -> Summary:
    """Transcribes all inputs.

    Args:
        beam_flags: for Beam's `PipelineOptions`; the runner is the local one unless they name another.
        started_s: `time.monotonic()` when the command began.

    Raises:
        BadInput, NothingToDo, BadModel: nothing was done.
        PagemillError: pages are missing in the books.
    """
    started_s = time.monotonic() if started_s is None else started_s
    prepare_output(options.output)
    sources = find_sources(options.inputs, options.output)
    pipeline_options = _with_local_runner(PipelineOptions(list(beam_flags)))
    runs_here = pipeline_options.view_as(StandardOptions).runner == _LOCAL_RUNNER
    if not runs_here:
        logging.getLogger("apache_beam").setLevel(logging.INFO)  # the job's name and state are all there is to see
    readers = Shared()
    # Held until the run is over: a bad model shows before the graph is made, and workers in this process share it.
    reader = shared_reader(readers, options) if runs_here and _is_one_process(pipeline_options) else None
    tally_folder = _tally_folder(options.output) if runs_here else None
    ready_s, ready_cpu_s = time.monotonic(), cpu_seconds()
    try:
        with Progress(tally_folder, len(sources), sys.stderr) if tally_folder else nullcontext():
            pipeline = beam.Pipeline(options=pipeline_options)
            build(pipeline, sources, options, readers, tally_folder)
            result = pipeline.run()
            result.wait_until_finish()
    finally:
        if tally_folder:
            _remove_tally(tally_folder)
            remove_partial(options.output)
    del reader
    counts = {
        counter.key.metric.name: int(counter.committed or 0)
        for counter in result.metrics().query()["counters"]
        if counter.key.metric.namespace == _NAMESPACE
    }
    summary = Summary(
        output=options.output,
        formats=options.formats,
        files=len(sources),
        pages=counts.get("pages", 0),
        read=counts.get("read", 0),
        lines=counts.get("lines", 0),
        failures={name[len(_FAILED) :]: n for name, n in counts.items() if name.startswith(_FAILED)},
        start_s=ready_s - started_s,
        wall_s=time.monotonic() - ready_s,
        cpu_s=cpu_seconds() - ready_cpu_s,
    )
    check_books(summary, counts.get("files", 0))
    write_atomically(options.output, RUN_RECORD, run_record(options, summary))
    remove_partial(options.output)
    return summary


def run_record(options: TranscribeOptions, summary: Summary) -> str:
    """What produced the outputs beside it, as JSON."""
    settings = {name: value for name, value in asdict(options).items() if name != "reader"}
    return json.dumps({"options": settings, "summary": asdict(summary)}, ensure_ascii=False, indent=1) + "\n"


def check_books(summary: Summary, files_done: int) -> None:
    """
    Raises:
        PagemillError: a file was not finished, or a page is neither read nor a dead letter.
    """
    if files_done != summary.files or summary.pages != summary.read + summary.failed:
        raise PagemillError(
            f"the books do not balance: {files_done} of {summary.files} files, {summary.pages} pages, "
            f"{summary.read} read, {summary.failed} dead letters",
            "this is a bug, please report it",
        )


_LOCAL_RUNNER = "FnApiRunner"


def _with_local_runner(options: PipelineOptions) -> PipelineOptions:
    """Beam's DirectRunner picks its engine by what it can download; ours is always the one that comes with Beam."""
    standard = options.view_as(StandardOptions)
    if standard.runner in (None, "DirectRunner"):
        standard.runner = _LOCAL_RUNNER
    return options


def _is_one_process(options: PipelineOptions) -> bool:
    return options.view_as(DirectOptions).direct_running_mode in (None, "in_memory", "multi_threading")


def _tally_folder(output: str) -> str | None:
    return None if is_remote(output) else os.path.join(output, PARTIAL, f"tally-{os.getpid()}")


def _remove_tally(folder: str) -> None:
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        os.remove(os.path.join(folder, name))
    if os.path.isdir(folder):
        os.rmdir(folder)

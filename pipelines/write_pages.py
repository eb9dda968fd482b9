"""What became of the pages of a unit -> its output files, its dead letters and its counts.

files    OUTPUT/FORMAT/a/b/scan.EXTENSION, a file a document (or a page)
shards   OUTPUT/FORMAT/UNIT.tar with the same files in it, OUTPUT/jsonl/UNIT.jsonl: few big files
"""

from __future__ import annotations

import errno
import io
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, BinaryIO, Literal, cast

from pipelines.corpus import SourceFile
from pipelines.formats import FORMATS
from pipelines.formats.record import DocumentWriter, Format, PageRecord, PageScan
from pipelines.ledger import Counts, DeadLetter, DoubtfulPage, FileCounts
from pipelines.outputs import OutputFile, StagedFile, Staging, is_name_error
from pipelines.read_pages import DeadPage, Outcome, PageOfFile, ReadPage, SkippedPage

Layout = Literal["files", "shards"]
DeadPages = frozenset[tuple[str, int | None]]  # file and page; no page: the whole file
LAYOUTS: tuple[Layout, ...] = ("files", "shards")
_SPOOL_BYTES = 8 * 2**20  # of a shard's member, above which it waits on disk


@dataclass(frozen=True)
class WriteOptions:
    """How the outputs look.

    Attributes:
        formats: names of `pipelines.formats.FORMATS`.
        per_page: a file a page instead of one a document.
        layout: a file a document, or packed by unit.
        run: what every record tells of the run, see `PageRecord.run`.
        doubtful_below: mean confidence under which a page is listed as doubtful.
    """

    formats: tuple[str, ...] = ("txt",)
    per_page: bool = False
    layout: Layout = "files"
    run: Mapping[str, Any] = field(default_factory=dict)
    doubtful_below: float = 0.85

    @property
    def shows_scan(self) -> bool:
        return any(FORMATS[name].shows_scan for name in self.formats)


@dataclass(frozen=True)
class Written:
    """What was written; the files are staged, not yet published."""

    outputs: list[OutputFile]
    letters: list[DeadLetter]
    doubtful: list[DoubtfulPage]
    files: list[FileCounts]

    @property
    def counts(self) -> Counts:
        total = sum((file.as_counts() for file in self.files), Counts())
        return replace(total, bytes_out=sum(output.size for output in self.outputs))


class Files:
    """Output files of their own."""

    def __init__(self, staging: Staging) -> None:
        self._staging = staging
        self.written: list[OutputFile] = []

    def open(self, relative: str) -> StagedFile:
        return self._staging.open(relative)

    def keep(self, file: StagedFile) -> None:
        self.written.append(file.close())

    def drop(self, file: StagedFile) -> None:
        self._staging.drop(file)

    def take_back(self, relative: str) -> None:
        """Removes what was kept."""
        self.written = [file for file in self.written if file.path != relative]
        self._staging.remove(relative)

    def close(self) -> None:
        pass


class _Member:
    """A file on its way into a tar."""

    def __init__(self, relative: str) -> None:
        self.relative = relative
        self.stream = cast(BinaryIO, tempfile.SpooledTemporaryFile(_SPOOL_BYTES))  # noqa: SIM115 - closed by Shards


class Shards:
    """Output files packed into `FORMAT/UNIT.tar`. The same files give the same bytes."""

    def __init__(self, staging: Staging, unit: str) -> None:
        self._staging, self._unit = staging, unit
        self._tars: dict[str, tuple[StagedFile, tarfile.TarFile]] = {}
        self._opened: set[str] = set()
        self.written: list[OutputFile] = []

    def open(self, relative: str) -> _Member:
        """
        Raises:
            FileExistsError: another page or document has this name.
        """
        if relative in self._opened:
            raise FileExistsError(errno.EEXIST, "another page or document has this name", relative)
        self._opened.add(relative)
        return _Member(relative)

    def keep(self, member: _Member) -> None:
        folder, _, name = member.relative.partition("/")
        header = tarfile.TarInfo(name)
        header.size = member.stream.seek(0, io.SEEK_END)
        member.stream.seek(0)
        self._tar(folder).addfile(header, member.stream)
        member.stream.close()

    def drop(self, member: _Member) -> None:
        member.stream.close()
        self._opened.discard(member.relative)

    def take_back(self, relative: str) -> None:
        """Does nothing: what is in a tar stays in it."""

    def close(self) -> None:
        for file, tar in self._tars.values():
            tar.close()
            self.written.append(file.close())

    def _tar(self, folder: str) -> tarfile.TarFile:
        if folder not in self._tars:
            file = self._staging.open(f"{folder}/{self._unit}.tar")
            tar = tarfile.open(fileobj=file.stream, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - see close
            self._tars[folder] = (file, tar)
        return self._tars[folder][1]


@dataclass
class _OpenFile:
    """An output file that is being written."""

    file: Any  # StagedFile or _Member
    writer: DocumentWriter
    target: Files | Shards
    skipped: list[int] = field(default_factory=list)  # pages whose place is still to be kept
    pages: int = 0

    def add(self, record: PageRecord, scan: PageScan) -> None:
        while self.skipped:
            self.writer.skip(self.skipped.pop(0))
        self.writer.add(record, scan)
        self.pages += 1

    def finish(self) -> None:
        while self.skipped and self.pages:
            self.writer.skip(self.skipped.pop(0))
        if self.pages:
            self.writer.finish()

    def close(self) -> None:
        """Keeps the file; one of which no page could be read is dropped."""
        if self.pages:
            self.target.keep(self.file)
        else:
            self.target.drop(self.file)


class _DocumentFiles:
    """The output files of one document, or of one of its copies."""

    def __init__(self, source: SourceFile, options: WriteOptions, target: Files | Shards) -> None:
        self._options, self._target = options, target
        self._open: dict[str, _OpenFile] = {}  # by format
        self._pages: list[str] = []  # files of single pages
        self._name = source.document

    def add(self, source: SourceFile, of: PageOfFile, record: PageRecord, scan: PageScan) -> None:
        for format in self._formats():
            if self._is_per_page(format):
                single = self._file(format, page_stem(source.stem, of))
                single.add(record, scan)
                single.finish()
                self._open.pop(format.name).close()
                self._pages.append(single.file.relative)
            else:
                self._file(format, self._name).add(record, scan)

    def skip(self, of: PageOfFile) -> None:
        for format in self._formats():
            if not self._is_per_page(format):
                self._file(format, self._name).skipped.append(of.number)

    def finish(self) -> None:
        for file in self._open.values():
            file.finish()

    def close(self) -> None:
        """Keeps the files; for when all of them could be finished."""
        while self._open:
            self._open.popitem()[1].close()

    def drop(self) -> None:
        while self._open:
            file = self._open.popitem()[1]
            file.target.drop(file.file)
        for relative in self._pages:
            self._target.take_back(relative)

    def _formats(self) -> Iterator[Format]:
        for name in self._options.formats:
            if not is_per_unit(FORMATS[name], self._options):
                yield FORMATS[name]

    def _is_per_page(self, format: Format) -> bool:
        return format.per == "page" or self._options.per_page

    def _file(self, format: Format, stem: str) -> _OpenFile:
        if format.name not in self._open:
            file = self._target.open(f"{format.name}/{stem}{format.extension}")
            self._open[format.name] = _OpenFile(file, format.open(file.stream, stem), self._target)
        return self._open[format.name]


def is_per_unit(format: Format, options: WriteOptions) -> bool:
    """Whether a unit's pages go to one file: JSON lines can be packed without a tar."""
    return format.per == "unit" or (options.layout == "shards" and format.name == "jsonl")


def page_stem(stem: str, of: PageOfFile) -> str:
    """Where a page's own file goes, without extension: `a/scan`, or `a/book.page-0007` if its file has more pages."""
    named = f".page-{of.number:04}"
    return stem if of.pages == 1 or stem.endswith(named) else stem + named


@dataclass
class _Document:
    """A document that is being written, with its copies."""

    files: list[_DocumentFiles]
    read: list[tuple[PageOfFile, SourceFile, Counts]] = field(default_factory=list)
    doubtful: list[DoubtfulPage] = field(default_factory=list)
    broken: Exception | None = None


class _UnitWriter:
    """Takes the outcomes of a unit in order."""

    def __init__(
        self, staging: Staging, unit: str, options: WriteOptions, dead_before: DeadPages | None = None
    ) -> None:
        self._options, self._dead_before = options, dead_before
        self._packed = Shards(staging, unit)
        self._files = Files(staging)
        self._target: Files | Shards = self._packed if options.layout == "shards" else self._files
        self._unit = unit
        self._unit_files: dict[str, _OpenFile] = {}
        self._document: _Document | None = None
        self._name = ""
        self.letters: list[DeadLetter] = []
        self.doubtful: list[DoubtfulPage] = []
        self.counts: dict[str, Counts] = {}  # by file

    def add(self, outcome: Outcome) -> None:
        of = outcome.of
        sources = (of.item.source, *of.item.copies)
        if self._document is None or self._name != of.item.source.document:
            self._close_document()
            files = [_DocumentFiles(source, self._options, self._target) for source in sources]
            self._document, self._name = _Document(files), of.item.source.document
        for source in sources:
            self._tally(source, Counts(files=int(of.number == 1), pages=1))
        if isinstance(outcome, SkippedPage):
            for source in sources:
                self._tally(source, Counts(skipped=1))
        elif isinstance(outcome, DeadPage):
            self._die(outcome, sources)
        else:
            self._write(outcome, sources)

    def _tally(self, source: SourceFile, counts: Counts) -> None:
        self.counts[source.origin] = self.counts.get(source.origin, Counts()) + counts

    def _die(self, outcome: DeadPage, sources: Sequence[SourceFile]) -> None:
        for source in sources:
            self._tally(source, Counts(dead=1))
        self.letters += [replace(outcome.letter, path=source.origin) for source in sources]
        assert self._document is not None
        for files in self._document.files:
            self._guarded(partial(files.skip, outcome.of))

    def _write(self, outcome: ReadPage, sources: Sequence[SourceFile]) -> None:
        document, of = self._document, outcome.of
        assert document is not None
        scan = PageScan(outcome.image.pixels, outcome.jpeg)
        confidence = outcome.page.confidence
        if confidence < self._options.doubtful_below:
            doubtful = [DoubtfulPage(s.origin, of.number, of.page_id, round(confidence, 3)) for s in sources]
            document.doubtful += doubtful
        lines = list(outcome.page.lines())
        text = Counts(lines=len(lines), characters=sum(len(line.text) for line in lines))
        records = [self._record(outcome, source) for source in sources]
        for n, (source, files) in enumerate(zip(sources, document.files, strict=True)):
            document.read.append((of, source, text + (Counts(duplicates=1) if n else Counts(read=1))))
            self._guarded(partial(files.add, source, of, records[n], scan))
        for source, record in zip(sources, records, strict=True):
            if self._is_new(source, of):
                self._guarded(partial(self._add_to_unit, record, scan))

    def _is_new(self, source: SourceFile, of: PageOfFile) -> bool:
        """Whether the unit's own files lack the page: a retry adds to them what was dead."""
        dead = self._dead_before
        return dead is None or (source.origin, None) in dead or (source.origin, of.number) in dead

    def _record(self, outcome: ReadPage, source: SourceFile) -> PageRecord:
        return PageRecord(
            path=source.origin,
            number=outcome.of.number,
            page=outcome.page,
            dpi=outcome.image.dpi * outcome.image.reduced_by if outcome.image.dpi else None,
            reduced_by=outcome.image.reduced_by,
            page_id=outcome.of.page_id,
            document=source.document,
            metadata=dict(source.metadata),
            run=self._options.run,
        )

    def _add_to_unit(self, record: PageRecord, scan: PageScan) -> None:
        for name in self._options.formats:
            format = FORMATS[name]
            if not is_per_unit(format, self._options):
                continue
            if name not in self._unit_files:
                file = self._files.open(f"{name}/{self._unit}{format.extension}")
                self._unit_files[name] = _OpenFile(file, format.open(file.stream, self._unit), self._files)
            self._unit_files[name].add(record, scan)

    def _guarded(self, write: Any) -> None:
        """Writes, unless the document is broken already; a name that cannot be written breaks it.

        Raises:
            OSError: the output folder cannot be written any more, which is not this document's fault.
        """
        document = self._document
        assert document is not None
        if document.broken is not None:
            return
        try:
            write()
        except OSError as error:
            if not is_name_error(error):
                raise
            document.broken = error
        except (ValueError, ArithmeticError, LookupError, TypeError) as error:  # a page that a format cannot hold
            document.broken = error

    def _close_document(self) -> None:
        document = self._document
        if document is None:
            return
        if document.broken is None:
            for files in document.files:
                self._guarded(files.finish)
        if document.broken is None:
            for files in document.files:
                files.close()
            for _, source, counts in document.read:
                self._tally(source, counts)
            self.doubtful += document.doubtful
        else:
            for files in document.files:
                files.drop()
            self._bury(document, document.broken)
        self._document = None

    def _bury(self, document: _Document, error: Exception) -> None:
        """Every page of a document that could not be written becomes a dead letter."""
        reason = "bad-name" if isinstance(error, OSError) else "write-failed"
        for of, source, _ in document.read:
            self._tally(source, Counts(dead=1))
            letter = DeadLetter.of(source.origin, of.number, "write", error, reason)
            self.letters.append(replace(letter, page_id=of.page_id))

    def finish(self) -> Written:
        self._close_document()
        for file in self._unit_files.values():
            file.finish()
            file.close()
        self._packed.close()
        outputs = sorted(self._files.written + self._packed.written)
        letters = [replace(letter, unit=self._unit) for letter in self.letters]
        files = [FileCounts(path, **_text_counts(counts)) for path, counts in self.counts.items()]
        return Written(outputs, letters, self.doubtful, files)


def _text_counts(counts: Counts) -> dict[str, int]:
    return {name: value for name, value in asdict(counts).items() if not name.startswith("bytes")}


def write_outcomes(
    outcomes: Iterable[Outcome],
    staging: Staging,
    unit: str,
    options: WriteOptions,
    dead_before: DeadPages | None = None,
) -> Written:
    """Writes the outputs of a unit to its staging.

    Args:
        outcomes: in the order of the unit's items.
        dead_before: what a retry takes up; the files of whole units get these pages only, as they hold the others.

    Raises:
        OSError: the output folder cannot be written any more.
    """
    writer = _UnitWriter(staging, unit, options, dead_before)
    for outcome in outcomes:
        writer.add(outcome)
    return writer.finish()

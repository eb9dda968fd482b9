"""What a worker does with a unit: read its pages, stage their outputs, publish them, write the ledger entry.

No Beam here. `stage_unit` may be broken off at any moment and begun again anywhere; `commit_unit` makes it count.
"""

from __future__ import annotations

import os
import re
import resource
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocr_model.bundle import DEFAULT_BUNDLE, bundle_digest
from ocr_model.document import Page
from ocr_model.errors import BadModel, TooManyFailures, UnreadablePage
from pipelines import durations, ledger
from pipelines.corpus import SourceFile, is_remote
from pipelines.decoder import Decoder
from pipelines.formats import FORMATS
from pipelines.isolation import IsolatedReader, WatchedReader
from pipelines.ledger import Counts, DeadLetter, Entry
from pipelines.outputs import OutputFile, Staging, cannot_write, join, remove, remove_folder
from pipelines.plan import Item, Unit, read_references, read_unit
from pipelines.read_pages import (
    DeadPage,
    Observed,
    Outcome,
    PageOfFile,
    PageReader,
    ReadOptions,
    read_items,
    seconds_of,
)
from pipelines.write_pages import WriteOptions, Written, write_outcomes

ReaderFactory = Callable[[str | None], PageReader]
Grey = NDArray[np.uint8]


@dataclass(frozen=True)
class Routing:
    """Which bundle reads which file. None stands for the bundle in the package.

    Attributes:
        bundle: of everything else.
        rules: (column of the manifest, value, bundle); the first that fits is taken. A column `bundle` goes first.
        second: reads again what the first read with less confidence than `second_below`; the better reading stays.
    """

    bundle: str | None = None
    rules: tuple[tuple[str, str, str], ...] = ()
    second: str | None = None
    second_below: float = 0.85

    def bundle_of(self, source: SourceFile) -> str | None:
        columns = dict(source.metadata)
        if columns.get("bundle"):
            return columns["bundle"]
        for column, value, bundle in self.rules:
            if columns.get(column) == value:
                return bundle
        return self.bundle

    def bundles(self, sources: Iterable[SourceFile] = ()) -> list[str | None]:
        """All bundles that a corpus needs, each once."""
        named = {self.bundle, *(rule[2] for rule in self.rules), *({self.second} if self.second else ())}
        named |= {self.bundle_of(source) for source in sources}
        return sorted(named, key=str)


def bundle_path(bundle: str | None) -> Path:
    return DEFAULT_BUNDLE if bundle is None else Path(bundle)


class Readers:
    """The readers of a process, each loaded at its first use.

    Args:
        digests: what each bundle was when the run was planned.

    Raises:
        BadModel: a bundle has changed since.
    """

    def __init__(self, load: ReaderFactory, digests: Mapping[str | None, str]) -> None:
        self._load, self._digests = load, digests
        self._loaded: dict[str | None, PageReader] = {}

    def get(self, bundle: str | None) -> PageReader:
        if bundle not in self._loaded:
            self._loaded[bundle] = load_unchanged(self._load, bundle, self._digests.get(bundle, ""))
        return self._loaded[bundle]

    # The same through a proxy, for readers that several processes of a worker share: plain values in and out.

    def read(self, bundle: str | None, images: Sequence[Grey]) -> list[Page]:
        return self.get(bundle).read(images)

    def read_single_lines(self, bundle: str | None, images: Sequence[Grey]) -> list[Page]:
        return self.get(bundle).read_single_lines(images)

    def seconds(self, bundle: str | None) -> Mapping[str, float]:
        return dict(seconds_of(self.get(bundle)))


def load_unchanged(load: ReaderFactory, bundle: str | None, digest: str) -> PageReader:
    """A reader, if its bundle still is what it was when the run was planned.

    Raises:
        BadModel: it is not.
    """
    reader = load(bundle)
    if digest and bundle_digest(bundle_path(bundle)) != digest:
        raise BadModel(f"{bundle_path(bundle)} has changed since the run began", "run again")
    return reader


class ReaderOfBundle:
    """One reader of a `Readers`, which may be a proxy."""

    def __init__(self, readers: Readers, bundle: str | None) -> None:
        self._readers, self._bundle = readers, bundle

    def read(self, images: Sequence[Grey]) -> list[Page]:
        return self._readers.read(self._bundle, images)

    def read_single_lines(self, images: Sequence[Grey]) -> list[Page]:
        return self._readers.read_single_lines(self._bundle, images)

    @property
    def seconds(self) -> Mapping[str, float]:
        return self._readers.seconds(self._bundle)


class SecondOpinion:
    """Pages that the first reader doubts are read by a second one as well; the more confident reading stays."""

    def __init__(self, first: PageReader, second: PageReader, below: float) -> None:
        self._first, self._second, self._below = first, second, below

    def read(self, images: Sequence[Grey]) -> list[Page]:
        return self._better(images, self._first.read(images), self._second.read)

    def read_single_lines(self, images: Sequence[Grey]) -> list[Page]:
        return self._better(images, self._first.read_single_lines(images), self._second.read_single_lines)

    @property
    def seconds(self) -> Mapping[str, float]:
        return seconds_of(self._first)

    def _better(
        self, images: Sequence[Grey], pages: list[Page], again: Callable[[Sequence[Grey]], list[Page]]
    ) -> list[Page]:
        doubtful = [i for i, page in enumerate(pages) if page.confidence < self._below]
        if doubtful:
            for i, page in zip(doubtful, again([images[i] for i in doubtful]), strict=True):
                if page.confidence > pages[i].confidence:
                    pages[i] = page
        return pages


@dataclass(frozen=True)
class RunOptions:
    """What the workers of a run are told.

    Attributes:
        run: name of the run; it stays the same when a worker dies and the work goes on.
        digests: of the bundles.
        model, configuration: digests of all that the outputs depend on, for the ledger.
        max_attempts: at a unit in one run; after so many its pages become dead letters.
        max_dead: dead letters of one worker that end the run; None: any number.
        watch: whether a reader that hangs kills its worker.
        retry: the run takes up dead letters of units that are done.
    """

    output: str
    run: str
    read: ReadOptions
    write: WriteOptions
    routing: Routing
    load: ReaderFactory
    digests: Mapping[str | None, str]
    model: str = ""
    configuration: str = ""
    code_version: str = ""
    max_attempts: int = 3
    max_dead: float | None = None
    watch: bool = False
    retry: Retry | None = None


@dataclass(frozen=True)
class Retry:
    """Which dead letters are taken up again; no reason: all."""

    reasons: tuple[str, ...] = ()

    def takes(self, letter: DeadLetter) -> bool:
        return not self.reasons or letter.reason in self.reasons


@dataclass(frozen=True)
class StagedUnit:
    """A unit whose outputs are complete, and not yet published."""

    unit: str
    attempt: int
    below: str
    written: Written
    milliseconds: Mapping[str, Mapping[str, int]]
    models: Mapping[str, int]
    started: str
    wall_s: float
    cpu_s: float
    bytes_in: int = 0
    redone: frozenset[str] = frozenset()  # files that a retry has done again


@dataclass
class Worker:
    """What a process keeps between units."""

    options: RunOptions
    readers: Readers
    decoder: Decoder
    on_outcome: Callable[[Outcome], None] = lambda outcome: None
    dead: int = 0  # dead letters so far
    _readers_in_use: dict[str | None, PageReader] = field(default_factory=dict)

    def reader_of(self, source: SourceFile) -> PageReader:
        """The reader of a file, in this process."""
        options = self.options
        bundle = options.routing.bundle_of(source)
        if bundle not in self._readers_in_use:
            reader: PageReader = self._with_second(ReaderOfBundle(self.readers, bundle))
            watched = WatchedReader(reader, options.read.timeout_s) if options.watch else reader
            self._readers_in_use[bundle] = watched
        return self._readers_in_use[bundle]

    def _with_second(self, reader: PageReader) -> PageReader:
        routing = self.options.routing
        if routing.second is None:
            return reader
        return SecondOpinion(reader, ReaderOfBundle(self.readers, routing.second), routing.second_below)


def load_isolated(options: RunOptions, bundle: str | None) -> PageReader:
    """The reader of a child process: what `Worker.reader_of` makes in the worker itself."""
    load = partial(load_unchanged, options.load)
    first = load(bundle, options.digests.get(bundle, ""))
    second = options.routing.second
    if second is None:
        return first
    return SecondOpinion(first, load(second, options.digests.get(second, "")), options.routing.second_below)


def now() -> str:
    """The time in UTC, to the millisecond."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def cpu_seconds() -> float:
    """CPU time of this process and its children, the living ones and those that have ended."""
    own, ended = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    living = sum(_cpu_seconds_of(pid) for pid in _children())
    return own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime + living


def _children() -> set[str]:
    """Process numbers of the living children, where the system tells."""
    files = Path("/proc/self/task").glob("*/children")
    return {pid for file in files for pid in _text_of(file).split()}


def _cpu_seconds_of(pid: str) -> float:
    fields = _text_of(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def _text_of(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:  # the process or thread is gone, or this is no Linux
        return ""


def stage_unit(unit: Unit, worker: Worker) -> StagedUnit:
    """Reads the pages of a unit and writes their outputs under the names of a new attempt.

    Raises:
        BadInput: the output folder cannot be written any more, or its ledger is damaged.
        BadModel: a bundle is missing or has changed.
        TooManyFailures: this worker has seen more dead letters than the run may have.
    """
    options = worker.options
    letters = _letters_before(unit, options)
    if options.retry is not None:
        unit = narrowed(unit, filter(options.retry.takes, letters))
    started, began, cpu_began = now(), time.perf_counter(), cpu_seconds()
    try:
        attempt = ledger.begin_attempt(options.output, unit.name, options.run)
    except OSError as error:
        raise cannot_write(options.output, error) from error
    below = f"{ledger.STAGING}/{unit.name}.{uuid.uuid4().hex[:12]}"
    staging = Staging(options.output, below)
    observed = Observed()
    try:
        outcomes = _noted(_outcomes(unit, attempt, worker, observed), worker)
        dead_before = frozenset((letter.path, letter.page) for letter in letters) if options.retry else None
        written = write_outcomes(outcomes, staging, _name_of_shards(unit, options), options.write, dead_before)
    except BaseException as error:
        # This process lives, so the attempt is not one that killed its worker.
        staging.discard()
        ledger.withdraw_attempt(options.output, unit.name, options.run, attempt)
        if isinstance(error, OSError):
            raise cannot_write(options.output, error) from error
        raise
    return StagedUnit(
        unit=unit.name,
        attempt=attempt,
        below=below,
        written=_with_origin(written, unit.name, attempt, letters, options),
        milliseconds={stage: dict(counts) for stage, counts in observed.milliseconds.items()},
        models=dict(observed.readers),
        started=started,
        wall_s=time.perf_counter() - began,
        cpu_s=cpu_seconds() - cpu_began,
        bytes_in=observed.bytes_in,
        redone=frozenset(source.origin for item in unit.items for source in (item.source, *item.copies))
        if options.retry
        else frozenset(),
    )


def _letters_before(unit: Unit, options: RunOptions) -> list[DeadLetter]:
    """The dead letters of a unit that a retry begins with."""
    if options.retry is None:
        return []
    with ledger.damage_told(options.output):
        return ledger.dead_letters(options.output, ledger.read_entry(options.output, unit.name))


def narrowed(unit: Unit, letters: Iterable[DeadLetter]) -> Unit:
    """The unit with no other documents than those of the dead letters, and with all pages of each file of these."""
    files, documents = {letter.path for letter in letters}, set[str]()
    taken: tuple[Item, ...] = ()
    while True:
        more = tuple(i for i in unit.items if any(s.origin in files or s.document in documents for s in _sources_of(i)))
        if len(more) == len(taken):
            return replace(unit, items=more)
        taken = more
        files |= {source.origin for item in taken for source in _sources_of(item)}
        documents |= {source.document for item in taken for source in _sources_of(item)}


def _sources_of(item: Item) -> tuple[SourceFile, ...]:
    return (item.source, *item.copies)


def _name_of_shards(unit: Unit, options: RunOptions) -> str:
    """What files that hold many documents are named after; a retry must not overwrite the first ones."""
    if options.retry is None:
        return unit.name
    return f"{unit.name}.retry-{ledger.read_entry(options.output, unit.name).retries + 1}"


def _with_origin(
    written: Written, unit: str, attempt: int, before: Iterable[DeadLetter], options: RunOptions
) -> Written:
    """The dead letters tell their unit, the model, and how often they were tried."""
    tried = {(letter.path, letter.page): letter.attempts for letter in before}

    def told(letter: DeadLetter) -> DeadLetter:
        earlier = tried.get((letter.path, letter.page), 0)
        return replace(letter, unit=unit, model=options.model, attempts=earlier + attempt)

    return replace(written, letters=[told(letter) for letter in written.letters])


def _outcomes(unit: Unit, attempt: int, worker: Worker, observed: Observed) -> Iterator[Outcome]:
    """The pages of a unit: read here at the first attempt, in isolation at the next ones, given up after the last."""
    options = worker.options
    if attempt > options.max_attempts:
        yield from _quarantined(unit, options.max_attempts)
    elif attempt == 1:
        yield from read_items(unit.items, worker.reader_of, worker.decoder, options.read, observed)
    else:
        yield from _read_isolated(unit.items, worker, observed)


def _read_isolated(items: Sequence[Item], worker: Worker, observed: Observed) -> Iterator[Outcome]:
    options = worker.options
    isolated: dict[str | None, IsolatedReader] = {}

    def reader_of(source: SourceFile) -> IsolatedReader:
        bundle = options.routing.bundle_of(source)
        if bundle not in isolated:
            isolated[bundle] = IsolatedReader(partial(load_isolated, options, bundle), options.read.timeout_s)
        return isolated[bundle]

    try:
        one_by_one = replace(options.read, pages_at_once=1)
        yield from read_items(items, reader_of, worker.decoder, one_by_one, observed)
    finally:
        for reader in isolated.values():
            reader.close()


def _quarantined(unit: Unit, attempts: int) -> Iterator[Outcome]:
    error = UnreadablePage(f"its unit has killed {attempts} workers", "quarantined")
    for item in unit.items:
        yield DeadPage(PageOfFile(item, 1, 1), DeadLetter.of(item.source.origin, None, "read", error))


def _noted(outcomes: Iterable[Outcome], worker: Worker) -> Iterator[Outcome]:
    """The outcomes, while the worker keeps an eye on the limit of failures and on the sign to stop."""
    options = worker.options
    for outcome in outcomes:
        if isinstance(outcome, DeadPage):
            worker.dead += 1 + len(outcome.of.item.copies)
            if options.max_dead is not None and worker.dead > options.max_dead:
                raise TooManyFailures(f"over {options.max_dead:g} pages could not be read", _AFTER_THE_LIMIT)
        worker.on_outcome(outcome)
        yield outcome


_AFTER_THE_LIMIT = "see the dead letters; run again with a higher --max-failures to go on"


def check_stop(output: str) -> None:
    """
    Raises:
        TooManyFailures: the run was told to stop, because the workers together have seen too many dead letters.
    """
    if not is_remote(output) and os.path.exists(join(output, ledger.STOP)):
        raise TooManyFailures("too many pages could not be read", _AFTER_THE_LIMIT)


def commit_unit(staged: StagedUnit, options: RunOptions) -> Entry:
    """Publishes the outputs and writes the ledger entry.

    Raises:
        BadInput: the output folder cannot be written any more, or its ledger is damaged.
    """
    try:
        earlier = _earlier_entry(staged, options)
        lists = _lists(staged.written)
        if earlier is not None:
            lists, outdated = _merged(options, earlier, staged)
        entry = _entry(staged, options, earlier if options.retry else None, lists)
        if earlier is not None and not options.retry:
            ledger.reopen(options.output, staged.unit)  # from here on its old outputs are being replaced
        Staging(options.output, staged.below).publish(staged.written.outputs)
        if earlier is not None:
            for path in outdated:
                remove(options.output, path)
        entry = ledger.commit(options.output, entry, lists)
        ledger.end_attempts(options.output, staged.unit)
        Staging(options.output, staged.below).discard()  # no other's: a second worker may be at the unit, too
    except OSError as error:
        raise cannot_write(options.output, error) from error
    return entry


Lists = dict[str, Sequence[Any]]


def _lists(written: Written) -> Lists:
    return {
        "files": written.files,
        "outputs": written.outputs,
        "dead_letters": written.letters,
        "doubtful": written.doubtful,
    }


def _earlier_entry(staged: StagedUnit, options: RunOptions) -> Entry | None:
    """The entry that this one takes the place of: of another model or configuration, or before a retry."""
    try:
        return ledger.read_entry(options.output, staged.unit)
    except (FileNotFoundError, ledger.DamagedEntry):
        return None


def _merged(options: RunOptions, earlier: Entry, staged: StagedUnit) -> tuple[Lists, set[str]]:
    """The lists of the new entry, and the outputs of the earlier one that are not to stay."""
    output, written, redone = options.output, staged.written, staged.redone
    new = {file.path for file in written.outputs}
    if options.retry is None:
        try:
            return _lists(written), {file.path for file in ledger.output_files(output, earlier)} - new
        except ledger.DamagedEntry:  # what it wrote is not known any more
            return _lists(written), set()
    with ledger.damage_told(output):
        old = ledger.output_files(output, earlier)
        files = [f for f in ledger.file_counts(output, earlier) if f.path not in redone]
        letters = [d for d in ledger.dead_letters(output, earlier) if d.path not in redone]
        doubtful = [d for d in ledger.doubtful_pages(output, earlier) if d.path not in redone]
    outdated = _outputs_of_redone(output, staged, old) - new
    lists: Lists = {
        "files": files + written.files,
        "outputs": sorted([file for file in old if file.path not in outdated | new] + written.outputs),
        "dead_letters": letters + written.letters,
        "doubtful": doubtful + written.doubtful,
    }
    return lists, outdated


def _outputs_of_redone(output: str, staged: StagedUnit, files: Iterable[OutputFile]) -> set[str]:
    """Those of the outputs that hold documents or pages of files that a retry has done again."""
    reference = next(r for r in read_references(output) if r.name == staged.unit)
    redone, others = set[str](), set[str]()
    for item in read_unit(output, reference).items:
        for source in _sources_of(item):
            (redone if source.origin in staged.redone else others).update((source.stem, source.document))
    names = {file.path: _name_of(file.path) for file in files}
    return {path for path, name in names.items() if name not in others and {name, _without_page(name)} & redone}


def _name_of(path: str) -> str:
    """The name of the document or page that an output file holds.

    >>> _name_of("txt/a/book.page-0007.txt"), _name_of("alto/a/b.c.xml")
    ('a/book.page-0007', 'a/b.c')
    """
    folder, _, relative = path.partition("/")
    return relative.removesuffix(FORMATS[folder].extension) if folder in FORMATS else relative


def _without_page(name: str) -> str:
    """
    >>> _without_page("a/book.page-0007")
    'a/book'
    """
    return re.sub(r"\.page-\d{4,}$", "", name)


def _entry(staged: StagedUnit, options: RunOptions, retried: Entry | None, lists: Lists) -> Entry:
    counts = sum((file.as_counts() for file in lists["files"]), Counts())
    counts = replace(
        counts,
        bytes_in=staged.bytes_in + (retried.counts.bytes_in if retried else 0),
        bytes_out=sum(file.size for file in lists["outputs"]),
    )
    entry = Entry(
        unit=staged.unit,
        run=options.run,
        attempt=staged.attempt,
        counts=counts,
        failures=dict(Counter(letter.reason for letter in lists["dead_letters"])),
        milliseconds=staged.milliseconds,
        model=options.model,
        configuration=options.configuration,
        code_version=options.code_version,
        started=staged.started,
        ended=now(),
        wall_s=round(staged.wall_s, 3),
        cpu_s=round(staged.cpu_s, 3),
        worker=ledger.worker_name(),
        models=staged.models,
    )
    if retried is None:
        return entry
    # The unit stays one of the model and configuration that most of it was read with.
    return replace(
        entry,
        model=retried.model,
        configuration=retried.configuration,
        wall_s=round(retried.wall_s + entry.wall_s, 3),
        cpu_s=round(retried.cpu_s + entry.cpu_s, 3),
        models=dict(durations.total([retried.models, entry.models])),
        milliseconds={
            stage: dict(durations.total([retried.milliseconds.get(stage, {}), counts]))
            for stage, counts in entry.milliseconds.items()
        },
        retries=retried.retries + 1,
    )


def remove_staging(output: str, unit: str) -> None:
    """Removes what this and broken attempts at the unit have left."""
    if is_remote(output):
        return
    folder = join(output, ledger.STAGING)
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        if name.startswith(f"{unit}."):
            remove_folder(output, f"{ledger.STAGING}/{name}")


def forget_run(output: str) -> None:
    """Removes the temporary files of runs that were killed. Only for who holds the lock of the folder."""
    for below in (ledger.STAGING, "ledger/partial"):
        remove_folder(output, below)
    remove(output, ledger.STOP)

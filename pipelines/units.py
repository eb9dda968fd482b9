"""What a worker does with a unit: read its pages, stage their outputs, publish them, write the ledger entry.

No Beam here. `stage_unit` may be broken off at any moment and begun again anywhere; `commit_unit` makes it count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from ocr_model.errors import UnreadablePage
from pipelines import ledger
from pipelines.clock import cpu_seconds, now
from pipelines.corpus import SourceFile
from pipelines.decoder import Decoder
from pipelines.isolation import IsolatedReader
from pipelines.ledger import DeadLetter
from pipelines.plan import Item, Unit
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
from pipelines.routing import ReaderFactory, ReaderOfBundle, Readers, Routing, SecondOpinion, load_unchanged
from pipelines.unit_runs import UnitRun, attempted, within_limit
from pipelines.watched_reader import WatchedReader
from pipelines.write_pages import WriteOptions, Written, write_outcomes


@dataclass(frozen=True, kw_only=True)
class RunOptions(UnitRun):
    """What the workers of a run are told.

    Attributes:
        digests: of the bundles.
        model: digest of all of them, for the ledger.
        code: digest of the program that reads and writes.
        watch: whether a reader that hangs is stopped, and kills its worker where that fails.
        retry: the run takes up dead letters of units that are done.
    """

    read: ReadOptions
    write: WriteOptions
    routing: Routing
    load: ReaderFactory
    digests: Mapping[str | None, str]
    model: str = ""
    code: str = ""
    watch: bool = False
    retry: Retry | None = None

    @property
    def identity(self) -> dict[str, str]:
        return {"model": self.model, **super().identity, "code": self.code}


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
        bundle = self.options.routing.bundle_of(source)
        if bundle not in self._readers_in_use:
            self._readers_in_use[bundle] = self._with_second(self._watched(bundle))
        return self._readers_in_use[bundle]

    def _watched(self, bundle: str | None) -> PageReader:
        reader = ReaderOfBundle(self.readers, bundle)
        if not self.options.watch:
            return reader
        seconds_of(reader)  # has it loaded, now and not under the clock of its first page
        return WatchedReader(reader, self.options.read.timeout_s)

    def _with_second(self, reader: PageReader) -> PageReader:
        routing = self.options.routing
        if routing.second is None:
            return reader
        return SecondOpinion(reader, self._watched(routing.second), routing.second_below)


def load_isolated(options: RunOptions, bundle: str | None) -> PageReader:
    """The reader of a child process: what `Worker.reader_of` makes in the worker itself."""
    load = partial(load_unchanged, options.load)
    first = load(bundle, options.digests.get(bundle, ""))
    second = options.routing.second
    if second is None:
        return first
    return SecondOpinion(first, load(second, options.digests.get(second, "")), options.routing.second_below)


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
    observed = Observed()
    with attempted(unit.name, options) as attempt:
        outcomes = within_limit(_outcomes(unit, attempt.number, worker, observed), worker)
        dead_before = frozenset((letter.path, letter.page) for letter in letters) if options.retry else None
        written = write_outcomes(outcomes, attempt.staging, _name_of_shards(unit, options), options.write, dead_before)
    return StagedUnit(
        unit=unit.name,
        attempt=attempt.number,
        below=attempt.staging.below,
        written=_with_origin(written, unit.name, attempt.number, letters, options),
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
        more = tuple(i for i in unit.items if any(s.origin in files or s.document in documents for s in sources_of(i)))
        if len(more) == len(taken):
            return replace(unit, items=more)
        taken = more
        files |= {source.origin for item in taken for source in sources_of(item)}
        documents |= {source.document for item in taken for source in sources_of(item)}


def sources_of(item: Item) -> tuple[SourceFile, ...]:
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

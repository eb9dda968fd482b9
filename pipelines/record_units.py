"""What a worker does with a unit of records: make them, stage them, publish them, write the ledger entry.

No Beam here. `stage_records` may be broken off at any moment and begun again anywhere; `commit_records` makes it count.
What the records are made of is the affair of the `RecordsWorker`: scans with their truth, or text and fonts.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ocr_model.errors import UnreadablePage
from pipelines import ledger
from pipelines.clock import cpu_seconds, now
from pipelines.ingest_pages import IngestOutcome
from pipelines.ledger import Counts, DeadLetter, Entry
from pipelines.outputs import Staging, cannot_write, is_there, read_text, remove, write_atomically
from pipelines.plan import Item, Unit
from pipelines.read_pages import DeadPage, Observed, PageOfFile
from pipelines.unit_runs import UnitRun, attempted, within_limit
from pipelines.write_records import WrittenRecords, write_ingested


class RecordsWorker(ABC):
    """What a process keeps between units.

    Args:
        on_outcome: is told what became of each page.
    """

    def __init__(self, options: UnitRun, on_outcome: Callable[[IngestOutcome], None]) -> None:
        self.options, self.on_outcome = options, on_outcome
        self.dead = 0

    @abstractmethod
    def outcomes(self, items: Sequence[Item], observed: Observed) -> Iterator[IngestOutcome]:
        """The pages of the items in order, each with what became of it.

        Args:
            observed: is told sizes and durations.
        """

    def close(self) -> None:  # noqa: B027 - not all workers hold something
        """Ends what the worker holds."""


@dataclass(frozen=True)
class StagedRecords:
    """A unit whose files are written and not yet published."""

    unit: str
    attempt: int
    below: str
    written: WrittenRecords
    milliseconds: Mapping[str, Mapping[str, int]]
    started: str
    wall_s: float
    cpu_s: float
    bytes_in: int


def stage_records(unit: Unit, worker: RecordsWorker) -> StagedRecords:
    """Makes the records of a unit and writes them under the names of a new attempt.

    Raises:
        BadInput: the output folder cannot be written any more.
        TooManyFailures: this worker has seen more dead letters than the run may have.
    """
    options = worker.options
    started, began, cpu_began = now(), time.perf_counter(), cpu_seconds()
    observed = Observed(milliseconds={})
    with attempted(unit.name, options) as attempt:
        outcomes = within_limit(_outcomes(unit, attempt.number, worker, observed), worker)
        written = write_ingested(outcomes, attempt.staging, unit.name)
    letters = [replace(letter, attempts=attempt.number) for letter in written.letters]
    return StagedRecords(
        unit=unit.name,
        attempt=attempt.number,
        below=attempt.staging.below,
        written=replace(written, letters=letters),
        milliseconds={stage: dict(counts) for stage, counts in observed.milliseconds.items()},
        started=started,
        wall_s=time.perf_counter() - began,
        cpu_s=cpu_seconds() - cpu_began,
        bytes_in=observed.bytes_in,
    )


def _outcomes(unit: Unit, attempt: int, worker: RecordsWorker, observed: Observed) -> Iterator[IngestOutcome]:
    """The pages of a unit. Where an attempt has died, the next ones note each file before they touch it, and leave out
    those that killed an attempt; after the last attempt the unit is given up."""
    options = worker.options
    if attempt == 1:
        yield from worker.outcomes(unit.items, observed)
        return
    killers = _files_in_hand(options, unit.name)
    for number, item in enumerate(unit.items):
        if attempt > options.max_attempts or number in killers:
            yield _quarantined(item)
            continue
        _take_in_hand(options, unit.name, attempt, number)
        yield from worker.outcomes([item], observed)


def _files_in_hand(options: UnitRun, unit: str) -> set[int]:
    """The items that earlier attempts at the unit had in hand when they died."""
    found = set()
    for name in ledger.attempts(options.output, unit, options.run):
        note = json.loads(read_text(options.output, name))
        if "item" in note:
            found.add(int(note["item"]))
    return found


def _take_in_hand(options: UnitRun, unit: str, attempt: int, item: int) -> None:
    note = json.dumps({"worker": ledger.worker_name(), "item": item}) + "\n"
    write_atomically(options.output, f"{ledger.ATTEMPTS}/{unit}.{options.run}.{attempt}", note)


def _quarantined(item: Item) -> DeadPage:
    error = UnreadablePage("the file has killed its worker", "quarantined")
    return DeadPage(PageOfFile(item, 1, 1), DeadLetter.of(item.source.origin, None, "open", error))


def commit_records(staged: StagedRecords, options: UnitRun) -> Entry:
    """Publishes the files and writes the ledger entry; files of an earlier entry that are not made any more go.

    Raises:
        BadInput: the output folder cannot be written any more.
    """
    output = options.output
    lists: dict[str, Sequence[ledger.Listed]] = {
        "files": staged.written.files,
        "outputs": staged.written.outputs,
        "dead_letters": staged.written.letters,
        "doubtful": [],
    }
    try:
        outdated = _earlier_outputs(output, staged.unit) - {file.path for file in staged.written.outputs}
        ledger.reopen(output, staged.unit)  # from here on its old files are being replaced
        Staging(output, staged.below).publish(staged.written.outputs)
        for path in outdated:
            remove(output, path)
        entry = ledger.commit(output, _entry(staged, options), lists)
        ledger.end_attempts(output, staged.unit)
        Staging(output, staged.below).discard()  # no other's: a second worker may be at the unit, too
    except OSError as error:
        raise cannot_write(output, error) from error
    return entry


def _earlier_outputs(output: str, unit: str) -> set[str]:
    if not is_there(output, f"{ledger.UNITS}/{unit}.json"):
        return set()
    try:
        return {file.path for file in ledger.output_files(output, ledger.read_entry(output, unit))}
    except ledger.DamagedEntry:  # what it wrote is not known any more
        return set()


def _entry(staged: StagedRecords, options: UnitRun) -> Entry:
    written = staged.written
    counts = sum((file.as_counts() for file in written.files), Counts())
    return Entry(
        unit=staged.unit,
        run=options.run,
        attempt=staged.attempt,
        counts=replace(counts, bytes_in=staged.bytes_in, bytes_out=sum(file.size for file in written.outputs)),
        failures=dict(Counter(letter.reason for letter in written.letters if letter.line is None)),
        milliseconds=staged.milliseconds,
        model="",
        configuration=options.configuration,
        code_version=options.code_version,
        started=staged.started,
        ended=now(),
        wall_s=round(staged.wall_s, 3),
        cpu_s=round(staged.cpu_s, 3),
        worker=ledger.worker_name(),
        tallies=written.tallies,
    )

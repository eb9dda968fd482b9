"""The ledger: which units are done, with what result, and which attempts at them were made.

    OUTPUT/ledger/units/NAME.json           the commit: counts, model, configuration, times, digests of what follows
    OUTPUT/ledger/units/NAME.LIST.jsonl     files: what became of each; outputs: their sizes and SHA-256;
                                            dead_letters; doubtful: pages read with little confidence
    OUTPUT/ledger/attempts/NAME.RUN.N       an attempt that was begun in a run; the worker may be dead
    OUTPUT/ledger/stop                      the failure limit was passed: workers begin no further unit

A unit is done when its entry is there and sound. The entry is written last, in one piece; what an attempt without an
entry left behind is overwritten by the next one.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import Any

from ocr_model.errors import BadInput, PagemillError, TooManyFailures, UnreadablePage
from pipelines.outputs import (
    PARTIAL,
    OutputFile,
    join,
    list_files,
    read_text,
    remove,
    remove_folder,
    write_atomically,
)
from pipelines.streams import is_remote

ENTRY_VERSION = 1
UNITS, ATTEMPTS, STAGING = "ledger/units", "ledger/attempts", "ledger/staging"
STOP = "ledger/stop"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A page, or with `page` None a whole file, that gave no text.

    Attributes:
        path: the file, `archive.zip!member` in an archive.
        page: from 1.
        stage: `open`, `decode`, `read` or `write`; of ingest also `pair`, `truth`, `align` and `prepare`.
        error: class of the error.
        reason: short and stable, for counting.
        unit: that it belongs to, where `pagemill retry` finds it.
        page_id: as in the records, where the file could be read.
        model: digest of the bundle that was to read it.
        attempts: how often it was tried.
        line: of the page, from 1, where only this line of its truth is lost.
    """

    path: str
    page: int | None
    stage: str
    error: str
    reason: str
    message: str
    unit: str = ""
    page_id: str = ""
    model: str = ""
    attempts: int = 1
    line: int | None = None

    @classmethod
    def of(cls, path: str, page: int | None, stage: str, error: Exception, reason: str = "") -> DeadLetter:
        reason = error.reason if isinstance(error, UnreadablePage) else reason
        message = error.message if isinstance(error, PagemillError) else str(error)
        return cls(path, page, stage, type(error).__name__, reason, message[:1000])


@dataclass(frozen=True, slots=True)
class DoubtfulPage:
    """A page that was read with little confidence: a person, or another model, may look at it again."""

    path: str
    page: int
    page_id: str
    confidence: float


@dataclass(frozen=True)
class Counts:
    """What became of the pages of some files.

    Attributes:
        files: that were given, copies included.
        pages: read + dead + skipped + duplicates; a file that cannot be opened counts as one page.
        read: pages that became text.
        dead: pages with a dead letter.
        skipped: pages outside the range that was asked for.
        duplicates: pages of files that are copies of another one and got its result.
        lines, characters: of the pages read.
        bytes_in, bytes_out: of the files read and the outputs written.
    """

    files: int = 0
    pages: int = 0
    read: int = 0
    dead: int = 0
    skipped: int = 0
    duplicates: int = 0
    lines: int = 0
    characters: int = 0
    bytes_in: int = 0
    bytes_out: int = 0

    def __add__(self, other: Counts) -> Counts:
        theirs = asdict(other)
        return Counts(**{name: value + theirs[name] for name, value in asdict(self).items()})

    @property
    def balanced(self) -> bool:
        return self.pages == self.read + self.dead + self.skipped + self.duplicates


@dataclass(frozen=True, slots=True)
class FileCounts:
    """What became of the pages of one file; the fields mean what they mean in `Counts`."""

    path: str
    files: int = 0
    pages: int = 0
    read: int = 0
    dead: int = 0
    skipped: int = 0
    duplicates: int = 0
    lines: int = 0
    characters: int = 0

    def as_counts(self) -> Counts:
        return Counts(**{name: value for name, value in asdict(self).items() if name != "path"})


@dataclass(frozen=True)
class Entry:
    """A unit that is done.

    Attributes:
        attempt: which of its run, from 1.
        failures: dead letters by reason.
        milliseconds: by stage, `pipelines.durations` of a page.
        model, configuration, code: digests; see `pipelines.units.RunOptions`.
        models: pages by the digest of the bundle that read them, where there were several.
        cpu_s: of the worker and its decoder.
        files, outputs, dead_letters, doubtful: digests of the lists beside the entry, "" for an empty one.
        retries: how often `pagemill retry` took the unit up again.
        tallies: further counts of a job, by group and name.
    """

    unit: str
    run: str
    attempt: int
    counts: Counts
    failures: Mapping[str, int]
    milliseconds: Mapping[str, Mapping[str, int]]
    model: str
    configuration: str
    code_version: str
    started: str
    ended: str
    wall_s: float
    cpu_s: float
    worker: str
    files: str = ""
    outputs: str = ""
    dead_letters: str = ""
    doubtful: str = ""
    models: Mapping[str, int] = field(default_factory=dict)
    retries: int = 0
    tallies: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    code: str = ""


class DamagedEntry(ValueError):
    """A ledger entry that is cut short, changed or of another version."""


@contextmanager
def damage_told(output: str) -> Iterator[None]:
    """Makes a `DamagedEntry` of the block an error with a remedy.

    Raises:
        BadInput: the ledger is damaged.
    """
    try:
        yield
    except DamagedEntry as error:
        remedy = f"`pagemill verify {output} --reopen`, then run again"
        raise BadInput(f"the ledger of {output} is damaged: {error}", remedy) from error


def entry_to_text(entry: Entry) -> str:
    """JSON with a digest over the rest as its last member."""
    body = {"version": ENTRY_VERSION, **asdict(entry)}
    return json.dumps({**body, "check": _check(body)}, indent=1, ensure_ascii=False) + "\n"


def entry_from_text(text: str) -> Entry:
    """The entry that `entry_to_text` wrote.

    Raises:
        DamagedEntry: it is not that.
    """
    try:
        body = json.loads(text)
        check = body.pop("check")
        if check != _check(body) or body.pop("version") != ENTRY_VERSION:
            raise DamagedEntry("digest or version differ")
        return Entry(**{**body, "counts": Counts(**body["counts"])})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DamagedEntry(str(error)) from error


def _check(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


_LISTS = {"files": FileCounts, "outputs": OutputFile, "dead_letters": DeadLetter, "doubtful": DoubtfulPage}
Listed = FileCounts | OutputFile | DeadLetter | DoubtfulPage


def commit(output: str, entry: Entry, lists: Mapping[str, Sequence[Listed]]) -> Entry:
    """Writes the lists, then the entry: from here on the unit is done.

    Args:
        lists: `files`, `outputs`, `dead_letters` and `doubtful`.

    Returns:
        The entry with the digests of the lists.
    """
    digests: dict[str, Any] = {}
    for name, values in lists.items():
        text = "".join(json.dumps(_without_defaults(value)) + "\n" for value in values)
        digests[name] = _sha256(text) if text else ""
        if text:
            write_atomically(output, _list_file(entry.unit, name), text)
        else:
            remove(output, _list_file(entry.unit, name))
    entry = replace(entry, **digests)
    write_atomically(output, f"{UNITS}/{entry.unit}.json", entry_to_text(entry))
    return entry


def _without_defaults(value: Listed) -> dict[str, Any]:
    """What the value cannot be made again without: counts are mostly 0."""
    parts = ((part.name, part.default, getattr(value, part.name)) for part in fields(value))
    return {name: own for name, default, own in parts if default is MISSING or own != default}


def _list_file(unit: str, name: str) -> str:
    return f"{UNITS}/{unit}.{name}.jsonl"


def read_entry(output: str, unit: str) -> Entry:
    """
    Raises:
        DamagedEntry: it cannot be trusted.
        OSError: there is none.
    """
    try:
        entry = entry_from_text(read_text(output, f"{UNITS}/{unit}.json"))
    except UnicodeDecodeError as error:
        raise DamagedEntry(str(error)) from error
    if entry.unit != unit:
        raise DamagedEntry(f"the entry of {unit} speaks of {entry.unit}")
    return entry


def entry_names(output: str) -> set[str]:
    """The units that have an entry, sound or not."""
    names = (os.path.basename(name) for name in list_files(output, UNITS))
    return {name[: -len(".json")] for name in names if name.endswith(".json")}


def read_entries(output: str) -> tuple[dict[str, Entry], list[str]]:
    """All sound entries by unit, and the names of the damaged ones."""
    entries, damaged = {}, []
    for name in sorted(entry_names(output)):
        try:
            entries[name] = read_entry(output, name)
        except DamagedEntry:
            damaged.append(name)
    return entries, damaged


def file_counts(output: str, entry: Entry) -> list[FileCounts]:
    """What became of each file of a unit. Raises as `_read_list`."""
    return _read_list(output, entry, "files")


def output_files(output: str, entry: Entry) -> list[OutputFile]:
    """The files of a unit. Raises as `_read_list`."""
    return _read_list(output, entry, "outputs")


def dead_letters(output: str, entry: Entry) -> list[DeadLetter]:
    """The dead letters of a unit. Raises as `_read_list`."""
    return _read_list(output, entry, "dead_letters")


def doubtful_pages(output: str, entry: Entry) -> list[DoubtfulPage]:
    """The pages of a unit that were read with little confidence. Raises as `_read_list`."""
    return _read_list(output, entry, "doubtful")


def _read_list(output: str, entry: Entry, name: str) -> list[Any]:
    """
    Raises:
        DamagedEntry: the list is gone, or not the one that the entry knows.
        OSError: it cannot be read.
    """
    digest, file = getattr(entry, name), _list_file(entry.unit, name)
    if not digest:
        return []
    try:
        text = read_text(output, file)
    except (FileNotFoundError, UnicodeDecodeError) as error:
        raise DamagedEntry(f"the list {file} is gone or has changed") from error
    if _sha256(text) != digest:
        raise DamagedEntry(f"the list {file} has changed")
    return [_LISTS[name](**json.loads(line)) for line in text.splitlines()]


def reopen(output: str, unit: str) -> None:
    """Takes a unit's entry away: the next run does it again."""
    remove(output, f"{UNITS}/{unit}.json")


# ---- attempts


def begin_attempt(output: str, unit: str, run: str) -> int:
    """Notes that a worker begins with the unit; returns which attempt of this run it is, from 1.

    Two workers may begin with one unit at a time, where a runner takes one for dead that is not: both write the same
    outputs, and it does not matter whose entry is the last.
    """
    number = len(attempts(output, unit, run)) + 1
    write_atomically(output, f"{ATTEMPTS}/{unit}.{run}.{number}", json.dumps({"worker": worker_name()}) + "\n")
    return number


def withdraw_attempt(output: str, unit: str, run: str, number: int) -> None:
    """Forgets an attempt that was broken off in good order."""
    remove(output, f"{ATTEMPTS}/{unit}.{run}.{number}")


def attempts(output: str, unit: str, run: str) -> set[str]:
    """The attempts at a unit that a run has begun and not ended."""
    prefix = f"{ATTEMPTS}/{unit}.{run}."
    return {name for name in list_files(output, ATTEMPTS) if name.startswith(prefix)}


def end_attempts(output: str, unit: str) -> None:
    """Forgets all attempts at a unit: it is done."""
    for name in list_files(output, ATTEMPTS):
        if os.path.basename(name).startswith(f"{unit}."):
            remove(output, name)


def forget_other_runs(output: str, run: str) -> None:
    """Forgets the attempts of runs that are over: that they were stopped says nothing about their units."""
    for name in list_files(output, ATTEMPTS):
        if name.split(".")[1:2] != [run]:
            remove(output, name)


def units_in_hand(output: str) -> set[str]:
    """Units that some worker has begun with and not ended."""
    return {os.path.basename(name).partition(".")[0] for name in list_files(output, ATTEMPTS)}


def worker_name() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


# ---- the end of a run


AFTER_THE_LIMIT = "see the dead letters; run again with a higher --max-failures to go on"


def check_stop(output: str) -> None:
    """
    Raises:
        TooManyFailures: the run was told to stop, because the workers together have seen too many dead letters.
    """
    if not is_remote(output) and os.path.exists(join(output, STOP)):
        raise TooManyFailures("too many pages could not be read", AFTER_THE_LIMIT)


def remove_staging(output: str, unit: str) -> None:
    """Removes what this and broken attempts at the unit have left."""
    if is_remote(output):
        return
    folder = join(output, STAGING)
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        if name.startswith(f"{unit}."):
            remove_folder(output, f"{STAGING}/{name}")


def forget_run(output: str) -> None:
    """Removes the temporary files of runs that were killed. Only for who holds the lock of the folder."""
    for below in (STAGING, PARTIAL):
        remove_folder(output, below)
    remove(output, STOP)

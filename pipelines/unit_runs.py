"""What the workers of a run are told and keep to, whatever they make of a unit. No Beam here.

A unit is done in attempts: `attempted` notes one in the ledger before a page is touched, and its `Staging` holds the
files until they are published. What an attempt leaves behind tells the next one whether it has killed its worker.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from ocr_model.errors import BadArgument, BadInput, TooManyFailures
from pipelines import ledger
from pipelines.ledger import Entry
from pipelines.outputs import Staging, cannot_write
from pipelines.read_pages import DeadPage

OnChange = Literal["fail", "resume", "restart"]
ON_CHANGE: tuple[OnChange, ...] = ("fail", "resume", "restart")


@dataclass(frozen=True, kw_only=True)
class UnitRun:
    """What the workers of a run need to know; each job adds its settings.

    Attributes:
        run: its name; it stays the same when a worker dies and the work goes on.
        configuration: digest of all that the outputs depend on.
        max_attempts: at a unit that kills its worker, in one run.
        max_dead: dead letters that end the run, as far as one worker sees them; None: any number.
        dead_before: dead letters of the units that were done before this run.
    """

    output: str
    run: str
    configuration: str = ""
    code_version: str = ""
    max_attempts: int = 3
    max_dead: float | None = None
    dead_before: int = 0

    @property
    def identity(self) -> dict[str, str]:
        """The fields of a ledger entry that tell whether the unit was done as it would be today."""
        return {"configuration": self.configuration}


Run = TypeVar("Run", bound=UnitRun)


def digest_of(value: Any) -> str:
    """Short digest of plain JSON values."""
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def code_version() -> str:
    try:
        return metadata.version("pagemill")
    except metadata.PackageNotFoundError:  # run from a source tree that is not installed
        return "unknown"


# What the outputs of `transcribe` are made by. The rest of the program finds work, shares it out and keeps the books.
_MAKES_OUTPUTS = (
    "ocr_model",
    "pipelines/formats",
    "pipelines/decoder.py",
    "pipelines/decoder_process.py",
    "pipelines/read_pages.py",
    "pipelines/routing.py",
    "pipelines/stems.py",
    "pipelines/write_pages.py",
)


def reading_code() -> str:
    """Short digest of our source text that reads pages and writes them. Libraries are not in it."""
    root = Path(__file__).parents[1]
    named = (root / name for name in _MAKES_OUTPUTS)
    files = [file for path in named for file in (sorted(path.rglob("*.py")) if path.is_dir() else [path])]
    return digest_of([[file.relative_to(root).as_posix(), sha256(file.read_bytes()).hexdigest()] for file in files])


# ---- runs that were begun otherwise


def is_done(entry: Entry | None, on_change: OnChange, run: UnitRun) -> bool:
    """Whether a unit need not be done again."""
    return entry is not None and (on_change == "resume" or not _changed(entry, run))


def _changed(entry: Entry, run: UnitRun) -> list[str]:
    """What of the run's identity is not as it was; what an older version of this program did not note is not known."""
    return [what for what, today in run.identity.items() if getattr(entry, what) not in ("", today)]


def check_change(on_change: OnChange, run: UnitRun, entries: Iterable[Entry]) -> None:
    """
    Raises:
        BadInput: units were done otherwise than they would be today, and the user has not said what to do then.
    """
    for entry in entries if on_change == "fail" else ():
        for what in _changed(entry, run):
            raise BadInput(
                f"{run.output} was begun with {what} {getattr(entry, what)}, this run has {run.identity[what]}",
                "--on-change resume keeps what is done, --on-change restart does it again",
            )


# ---- failures


@dataclass(frozen=True)
class FailureLimit:
    """How many pages may fail: a share of the corpus, or a number.

    >>> FailureLimit.parse("1%").of(5000), FailureLimit.parse("20").of(5000)
    (50.0, 20.0)
    """

    value: float
    is_share: bool

    @classmethod
    def parse(cls, text: str) -> FailureLimit:
        """
        Raises:
            BadArgument: neither `N` nor `X%`.
        """
        try:
            value = float(text.removesuffix("%"))
        except ValueError:
            value = -1.0
        if not 0 <= value < float("inf") or (text.endswith("%") and value > 100):
            raise BadArgument(f"--max-failures {text} is no limit", "write a number of pages, or a share such as 1%")
        return cls(value, text.endswith("%"))

    def of(self, files: int) -> float:
        return self.value / 100 * files if self.is_share else self.value


def limited(run: Run, limit: FailureLimit | None, files: int, done: Mapping[str, Entry]) -> Run:
    """The run, told how many dead letters end it.

    Args:
        files: of the whole plan.
        done: the units that are not done again.
    """
    if limit is None:
        return run
    return replace(run, max_dead=limit.of(files), dead_before=sum(entry.counts.dead for entry in done.values()))


class CountsFailures(Protocol):
    """What a process keeps between units, as far as all jobs share it.

    Attributes:
        dead: dead letters so far.
    """

    dead: int

    @property
    def options(self) -> UnitRun: ...

    @property
    def on_outcome(self) -> Callable[[Any], None]: ...


Outcome = TypeVar("Outcome")


def within_limit(outcomes: Iterable[Outcome], worker: CountsFailures) -> Iterator[Outcome]:
    """The outcomes, while the worker counts the dead and tells whoever wants to know.

    Raises:
        TooManyFailures: it has seen more of them than the run may have.
    """
    run = worker.options
    for outcome in outcomes:
        if isinstance(outcome, DeadPage):
            worker.dead += 1 + len(outcome.of.item.copies)
            if run.max_dead is not None and run.dead_before + worker.dead > run.max_dead:
                raise TooManyFailures(f"over {run.max_dead:g} pages failed", ledger.AFTER_THE_LIMIT)
        worker.on_outcome(outcome)
        yield outcome


# ---- attempts


@dataclass(frozen=True)
class Attempt:
    """An attempt at a unit that is under way: which of its run, from 1, and where its files are written."""

    number: int
    staging: Staging


@contextmanager
def attempted(unit: str, run: UnitRun) -> Iterator[Attempt]:
    """An attempt at a unit. If the block raises, nothing of it is left: this process lives, so it is none that has
    killed its worker.

    Raises:
        BadInput: the output folder cannot be written any more.
    """
    try:
        number = ledger.begin_attempt(run.output, unit, run.run)
    except OSError as error:
        raise cannot_write(run.output, error) from error
    staging = Staging(run.output, f"{ledger.STAGING}/{unit}.{uuid.uuid4().hex[:12]}")
    try:
        yield Attempt(number, staging)
    except BaseException as error:
        staging.discard()
        ledger.withdraw_attempt(run.output, unit, run.run, number)
        if isinstance(error, OSError):
            raise cannot_write(run.output, error) from error
        raise

"""Scans and their truth in, records for training and evaluation out.

    pair images with truth and plan units → spread the units over the workers → make and publish their records
    → freeze the alphabet, measure, compare with an earlier ingest (`pipelines.features`) → write the manifest

Graph, run and manifest are those of `pipelines.records_job`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any

import apache_beam as beam

from ocr_model.alphabet import DEFAULT_ALPHABET
from ocr_model.errors import BadArgument, BadInput
from ocr_model.examples import KINDS, SPLITS, VERSION
from ocr_model.preparation import STEPS
from pipelines.corpus import SourceFile
from pipelines.decoder import Decoder
from pipelines.ingest_pages import IngestOutcome, IngestSettings, ingest_items
from pipelines.ledger import Entry
from pipelines.open_units import LocalWorkers
from pipelines.pairing import NO_IMAGE, find_pairs
from pipelines.plan import Item, Unit, documents, plan_units, with_copies
from pipelines.read_pages import Observed
from pipelines.record_units import RecordsWorker
from pipelines.records_job import build_job, plan_job, run_job, run_values, tallies_of
from pipelines.report import Report
from pipelines.unit_jobs import Planned
from pipelines.unit_runs import ON_CHANGE, FailureLimit, OnChange, UnitRun

MADE_BY = f"pagemill ingest, records of version {VERSION}"
WITHOUT_TRUTH = ("fail", "keep", "skip")
_ALL_COPIES = sys.maxsize


@dataclass(frozen=True)
class IngestOptions:
    """Everything that an ingest depends on.

    Attributes:
        inputs: files, folders, globs, archives and manifests.
        output: folder for records and books.
        settings: what the records depend on.
        whole_folders: the files of a folder are one document.
        document_pattern: a regular expression; where it is found in a file's name below its input, without extension,
            its first group (or all that it found) names the document.
        limit: so many images are taken, the first ones of the listing.
        max_failures: pages that may fail before the run is stopped.
        max_attempts: at a unit that kills its worker.
        run: name of the run, given by what starts it again when a worker dies.
    """

    inputs: tuple[str, ...]
    output: str
    settings: IngestSettings = field(default_factory=lambda: IngestSettings(known=DEFAULT_ALPHABET.characters))
    whole_folders: bool = False
    document_pattern: str = ""
    limit: int | None = None
    on_change: OnChange = "fail"
    max_failures: FailureLimit | None = None
    max_attempts: int = 3
    run: str = ""

    def __post_init__(self) -> None:
        settings = self.settings
        if not settings.kinds or set(settings.kinds) - set(KINDS):
            raise BadArgument(f"kinds of records {settings.kinds} are unknown", f"known are {', '.join(KINDS)}")
        if set(settings.steps) - set(STEPS):
            raise BadArgument(f"steps of preparation {settings.steps} are unknown", f"known are {', '.join(STEPS)}")
        if settings.without_truth not in WITHOUT_TRUTH or self.on_change not in ON_CHANGE:
            raise BadArgument(f"without_truth {settings.without_truth} or on_change {self.on_change} is unknown")
        shares = settings.validation_share, settings.test_share
        if min(shares) < 0 or sum(shares) > 1:
            raise BadArgument(
                f"shares for validation and test of {shares[0]:g} and {shares[1]:g} are not within 0 and 1"
            )
        if settings.timeout_s <= 0 or self.max_attempts < 1 or (self.limit is not None and self.limit < 1):
            raise BadArgument("time limit, attempts and number of files must be positive")
        try:
            re.compile(self.document_pattern)
        except re.error as error:
            raise BadArgument(f"the pattern {self.document_pattern!r} is no regular expression: {error}") from error

    def configuration(self) -> dict[str, Any]:
        """All that the records depend on beside the inputs, plain JSON values."""
        settings = {**asdict(self.settings), "kinds": list(self.settings.kinds), "steps": list(self.settings.steps)}
        for name in ("timeout_s", "memory_bytes"):  # what fails because of them is a dead letter, no other record
            del settings[name]
        return {
            "examples_version": VERSION,
            "settings": settings,
            "whole_folders": self.whole_folders,
            "document_pattern": self.document_pattern,
        }


# ---- planning


def take_sources(options: IngestOptions) -> list[SourceFile]:
    """The images with truth, and the truths without image, as documents.

    Raises:
        BadInput, NothingToDo: see `find_pairs` and `with_splits`.
    """
    pairs = _drained(find_pairs(options.inputs, options.output))
    named = (_with_document(source, options.document_pattern) for source in pairs)
    return with_splits(documents(named, options.whole_folders))[: options.limit]


def _drained(sources: list[SourceFile]) -> Iterator[SourceFile]:
    """The sources, which are forgotten as they are given out: there may be millions, and others take their place."""
    sources.reverse()
    while sources:
        yield sources.pop()


def _with_document(source: SourceFile, pattern: str) -> SourceFile:
    """
    >>> _with_document(SourceFile("/x/letter_7_p2.jpg", "letter_7_p2"), r"(.+)_p\\d+").document
    'letter_7'
    """
    found = re.search(pattern, source.stem) if pattern and not source.document else None
    if found is None:
        return source
    return replace(source, document=found[1] if found.re.groups and found[1] else found[0])


def with_splits(sources: Sequence[SourceFile]) -> list[SourceFile]:
    """The sources, where a manifest's `split` of one file holds for all of its document.

    Raises:
        BadInput: it is none of our splits, or a document has two.
    """
    given: dict[str, str] = {}
    for source in sources:
        split = dict(source.metadata).get("split")
        if split is None:
            continue
        if split not in SPLITS:
            raise BadInput(f"{source.origin} has the split {split!r}", f"choose from {', '.join(SPLITS)}")
        if given.setdefault(source.document, split) != split:
            raise BadInput(
                f"the document {source.document} has the splits {given[source.document]} and {split}",
                "give all pages of a document the same split",
            )
    return [_with_split(source, given.get(source.document)) for source in sources] if given else list(sources)


def _with_split(source: SourceFile, split: str | None) -> SourceFile:
    if split is None:
        return source
    return replace(source, metadata=tuple(sorted({**dict(source.metadata), "split": split}.items())))


def items_of(sources: Sequence[SourceFile], read_limit: int) -> list[Item]:
    """Items of the sources in their order; an image with the bytes of an earlier one is that one's copy, whatever
    documents the two belong to: a picture must not be in two splits."""
    images = [source for source in sources if not dict(source.metadata).get(NO_IMAGE)]
    shared = {a.document for a, b in pairwise(sources) if a.document == b.document}
    by_stem = {source.stem: source for source in images if source.document in shared}
    alone = [replace(s, document=s.stem) if s.document in shared else s for s in images]
    items = [Item(source) for source in sources if dict(source.metadata).get(NO_IMAGE)]
    for item in with_copies(alone, read_limit, most_copies=_ALL_COPIES):
        copies = tuple(by_stem.get(copy.stem, copy) for copy in item.copies)
        items.append(Item(by_stem.get(item.source.stem, item.source), copies))
    return sorted(items, key=lambda item: (item.source.document, item.source.stem, item.source.first_page))


def prepare(options: IngestOptions) -> Planned[UnitRun]:
    """Lists the corpus, plans what is new in it, and checks that the folder and the past fit together.

    Raises:
        BadInput: an input or the output folder cannot be used, or it was written by another job, version, corpus or
            configuration.
        NothingToDo: there is neither image nor truth.
    """
    run = IngestRun(settings=options.settings, **run_values(options))
    max_bytes = options.settings.limits.max_bytes

    def units_of(new: list[SourceFile], first: int) -> Iterable[Unit]:
        return plan_units(items_of(new, max_bytes), first=first)

    return plan_job(options, run, MADE_BY, take_sources(options), units_of)


# ---- the work


@dataclass(frozen=True, kw_only=True)
class IngestRun(UnitRun):
    """What the workers of an ingest need to know."""

    settings: IngestSettings


class IngestWorker(RecordsWorker):
    """Makes records of scans and their truth; a process keeps its decoder from unit to unit."""

    options: IngestRun

    def __init__(self, options: IngestRun, on_outcome: Callable[[IngestOutcome], None]) -> None:
        super().__init__(options, on_outcome)
        settings = options.settings
        self.decoder = Decoder(settings.limits, settings.timeout_s, settings.memory_bytes)

    def outcomes(self, items: Sequence[Item], observed: Observed) -> Iterator[IngestOutcome]:
        return ingest_items(items, self.decoder, self.options.settings, observed)

    def close(self) -> None:
        self.decoder.close()


def build(
    pipeline: beam.Pipeline, options: UnitRun, on_change: OnChange = "fail", here: LocalWorkers | None = None
) -> beam.PCollection[Entry]:
    """The graph; see `build_job`."""
    return build_job(pipeline, options, IngestWorker, on_change, here)


def run(options: IngestOptions, beam_flags: Sequence[str] = (), started_s: float | None = None) -> Report:
    """Makes the records of what is open of the inputs; see `run_job`."""
    return run_job(options, MADE_BY, partial(prepare, options), IngestWorker, beam_flags, started_s)


def ingest_text(report: Report) -> str:
    """A few lines for a person."""
    counts, tallies = report.counts, tallies_of(report)
    said = [f"{counts.read} of {counts.pages} pages of {counts.files} files became records"]
    said.append("records: " + (", ".join(f"{n} {name}" for name, n in sorted(tallies["records"].items())) or "none"))
    dropped = {reason: n for reason, n in tallies["lines"].items() if reason != "recorded"}
    if dropped:
        reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(dropped.items()))
        said.append(f"{sum(dropped.values())} lines of the truth were left out: {reasons}")
    if counts.duplicates:
        said.append(f"{counts.duplicates} pages are copies of others")
    if counts.skipped:
        said.append(f"{counts.skipped} pages were skipped")
    if counts.dead:
        reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(report.failures.items()))
        letters = f"{report.output.rstrip('/')}/dead_letters.jsonl"
        said.append(
            f"{counts.dead} pages failed: {reasons} (see {letters}; take up what is mended with a new --output)"
        )
    unknown = tallies["unknown_characters"]
    if unknown:
        shown = " ".join(f"{c!r}×{n}" for c, n in unknown.most_common(20))
        said.append(f"{len(unknown)} characters are not in the alphabet: {shown}")
    return "\n".join(said)

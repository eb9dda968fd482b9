"""Scans and their truth in, records for training and evaluation out.

    pair images with truth and plan units → spread the units over the workers → make and publish their records
    → freeze the alphabet, measure, compare with an earlier ingest (`pipelines.features`) → write the manifest

As in `pipelines.transcribe`, descriptions of units are all that travels between workers, and the list of files is no
part of the graph. What a worker does with a unit is `pipelines.ingest_units`.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from ocr_model.alphabet import DEFAULT_ALPHABET
from ocr_model.errors import BadArgument, BadInput, NothingToDo
from ocr_model.examples import KINDS, SPLITS, VERSION
from ocr_model.preparation import STEPS
from ocr_model.record_files import MANIFEST, RecordFile, RecordsManifest, manifest_from_text
from pipelines import durations, ledger
from pipelines.clock import cpu_seconds, now
from pipelines.corpus import SourceFile
from pipelines.decoder import Decoder
from pipelines.ingest_pages import IngestOutcome, IngestSettings
from pipelines.ingest_units import IngestRun, IngestWorker, StagedIngest, commit_ingest, stage_ingest
from pipelines.ledger import Entry
from pipelines.outputs import cannot_write, is_there, locked, prepare_output, read_text, remove, write_atomically
from pipelines.pairing import NO_IMAGE, find_pairs
from pipelines.plan import (
    Item,
    UnitReference,
    claim_output,
    documents,
    plan_units,
    read_references,
    read_unit,
    unplanned,
    with_copies,
    write_plan,
)
from pipelines.progress import Progress, Tally
from pipelines.read_pages import DeadPage
from pipelines.report import RUNS, Report, reconcile, write_dead_letters
from pipelines.streams import is_remote
from pipelines.transcribe import (
    LOCAL_RUNNER,
    ON_CHANGE,
    FailureLimit,
    OnChange,
    code_version,
    digest_of,
    with_local_runner,
)
from pipelines.write_records import kind_and_split

MADE_BY = f"pagemill ingest, records of version {VERSION}"
WITHOUT_TRUTH = ("fail", "keep", "skip")
_NAMESPACE = "pagemill"
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


@dataclass(frozen=True)
class PlannedIngest:
    """A run that is ready to begin; the fields mean what they mean in `pipelines.transcribe.Planned`."""

    options: IngestRun
    files: int
    units: int
    open_files: int
    open_units: int
    vanished: tuple[str, ...]


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


def prepare(options: IngestOptions) -> PlannedIngest:
    """Lists the corpus, plans what is new in it, and checks that the folder and the past fit together.

    Raises:
        BadInput: an input or the output folder cannot be used, or it was written by another job, version, corpus or
            configuration.
        NothingToDo: there is neither image nor truth.
    """
    sources = take_sources(options)
    run = IngestRun(
        output=options.output,
        run=options.run or uuid.uuid4().hex[:12],
        settings=options.settings,
        configuration=digest_of(options.configuration()),
        code_version=code_version(),
        max_attempts=options.max_attempts,
    )
    check_manifest_version(options.output)
    claim_output(options.output, options.inputs, MADE_BY)
    new, vanished = unplanned(options.output, sources)
    del sources
    references = list(read_references(options.output))
    if new:
        items = items_of(new, options.settings.limits.max_bytes)
        write_plan(options.output, plan_units(items, first=len(references) + 1))
        references = list(read_references(options.output))
    entries, _ = ledger.read_entries(options.output)
    _check_change(options, run, entries.values())
    files = sum(reference.files for reference in references)
    left = [r for r in references if r.name not in entries or not _is_done(entries[r.name], options.on_change, run)]
    run = replace(run, max_dead=options.max_failures.of(files) if options.max_failures else None)
    return PlannedIngest(run, files, len(references), sum(r.files for r in left), len(left), tuple(vanished))


def check_manifest_version(output: str) -> None:
    """
    Raises:
        BadInput: the folder has records of another version; both are named.
    """
    if is_there(output, MANIFEST):
        manifest_from_text(read_text(output, MANIFEST), f"{output}/{MANIFEST}")


def _is_done(entry: Entry, on_change: OnChange, run: IngestRun) -> bool:
    return on_change == "resume" or entry.configuration == run.configuration


def _check_change(options: IngestOptions, run: IngestRun, entries: Iterable[Entry]) -> None:
    for entry in entries if options.on_change == "fail" else ():
        if entry.configuration != run.configuration:
            raise BadInput(
                f"{options.output} was begun with configuration {entry.configuration}, this run has"
                f" {run.configuration}",
                "--on-change resume keeps what is done, --on-change restart does it again",
            )


# ---- the graph


class ListOpenUnits(beam.DoFn):
    """The units of the plan that have no valid entry yet."""

    def __init__(self, options: IngestRun, on_change: OnChange) -> None:
        self._options, self._on_change = options, on_change

    def process(self, output: str) -> Iterator[UnitReference]:
        entries, _ = ledger.read_entries(output)
        for reference in read_references(output):
            entry = entries.get(reference.name)
            if entry is None or not _is_done(entry, self._on_change, self._options):
                yield reference


class IngestUnits(beam.DoFn):
    """Makes the records of a unit and publishes them. Yields its ledger entry."""

    def __init__(self, options: IngestRun, tally_folder: str | None) -> None:
        self._options, self._tally_folder = options, tally_folder

    def setup(self) -> None:
        settings = self._options.settings
        self._decoder = Decoder(settings.limits, settings.timeout_s, settings.memory_bytes)
        tally = Tally(self._tally_folder) if self._tally_folder else None
        self._worker = IngestWorker(self._options, self._decoder, lambda outcome: _count_outcome(outcome, tally))

    def process(self, reference: UnitReference) -> Iterator[Entry]:
        ledger.check_stop(self._options.output)
        staged = stage_ingest(read_unit(self._options.output, reference), self._worker)
        _count_unit(staged)
        yield commit_ingest(staged, self._options)

    def teardown(self) -> None:
        self._decoder.close()


def _count_outcome(outcome: IngestOutcome, tally: Tally | None) -> None:
    if isinstance(outcome, DeadPage):
        Metrics.counter(_NAMESPACE, f"failed:{outcome.letter.reason}").inc()
    if tally:
        tally.add("pages")
        if isinstance(outcome, DeadPage):
            tally.add("dead")
        if outcome.of.number == outcome.of.pages:
            tally.add("files")


def _count_unit(staged: StagedIngest) -> None:
    for group in ("records", "lines"):
        for name, value in staged.written.tallies[group].items():
            Metrics.counter(_NAMESPACE, f"{group}:{name}").inc(value)


def build(
    pipeline: beam.Pipeline, options: IngestRun, on_change: OnChange = "fail", tally_folder: str | None = None
) -> beam.PCollection[Entry]:
    """The graph: does the open units of a plan. Its size does not depend on the corpus.

    Args:
        tally_folder: where the workers count what `Progress` tells; they must be on this machine.
    """
    return (
        pipeline
        | "Name the output folder" >> beam.Create([options.output], reshuffle=False)
        | "List open units" >> beam.ParDo(ListOpenUnits(options, on_change))
        | "Spread over workers" >> beam.Reshuffle()
        | "Make records" >> beam.ParDo(IngestUnits(options, tally_folder))
    )


# ---- the run


def run(options: IngestOptions, beam_flags: Sequence[str] = (), started_s: float | None = None) -> Report:
    """Makes the records of what is open of the inputs; the manifest is not written yet, see `write_manifest`.

    Args:
        beam_flags: for Beam's `PipelineOptions`; the runner is the local one unless they name another.
        started_s: `time.monotonic()` when the command began.

    Raises:
        BadInput, NothingToDo: nothing was done.
        TooManyFailures: stopped; what is done stays done.
        PagemillError: pages are missing in the books.
    """
    started_s = time.monotonic() if started_s is None else started_s
    prepare_output(options.output)
    with locked(options.output):
        ledger.forget_run(options.output)
        planned = prepare(options)
        ledger.forget_other_runs(options.output, planned.options.run)
        record: dict[str, Any] = {"run": planned.options.run, "started": now(), "made_by": MADE_BY}
        record |= {"inputs": list(options.inputs), "configuration": options.configuration()}
        record |= {"code_version": planned.options.code_version}
        _write_record(options.output, record)
        ready_s, ready_cpu_s = time.monotonic(), cpu_seconds()
        if planned.open_units:
            remove(options.output, MANIFEST)  # what it says is no longer all
            _run_pipeline(options, planned, PipelineOptions(list(beam_flags)))
        report = reconcile(options.output)
        write_dead_letters(options.output, report)
        record |= {
            "ended": now(),
            "vanished": list(planned.vanished),
            "start_s": round(ready_s - started_s, 3),
            "wall_s": round(time.monotonic() - ready_s, 3),
            "cpu_s": round(cpu_seconds() - ready_cpu_s, 3),
            "counts": asdict(report.counts),
        }
        _write_record(options.output, record)
    report.check()
    return replace(report, run=record)


def _write_record(output: str, record: Mapping[str, Any]) -> None:
    try:
        write_atomically(output, f"{RUNS}/{record['run']}.json", json.dumps(record, indent=1) + "\n")
    except OSError as error:
        raise cannot_write(output, error) from error


def _run_pipeline(options: IngestOptions, planned: PlannedIngest, pipeline_options: PipelineOptions) -> None:
    pipeline_options = with_local_runner(pipeline_options)
    runs_here = pipeline_options.view_as(StandardOptions).runner == LOCAL_RUNNER
    if not runs_here:
        logging.getLogger("apache_beam").setLevel(logging.INFO)  # the job's name and state are all there is to see
    tally_folder = Tally.make_folder() if runs_here and not is_remote(options.output) else None
    try:
        with _progress(tally_folder, planned) if tally_folder else nullcontext():
            pipeline = beam.Pipeline(options=pipeline_options)
            build(pipeline, planned.options, options.on_change, tally_folder)
            pipeline.run().wait_until_finish()
    finally:
        if tally_folder:
            Tally.remove_folder(tally_folder)


def _progress(tally_folder: str, planned: PlannedIngest) -> Progress:
    run = planned.options
    stop = partial(write_atomically, run.output, ledger.STOP, f"too many dead letters: {ledger.AFTER_THE_LIMIT}\n")
    return Progress(tally_folder, planned.open_files, sys.stderr, run.max_dead, stop)


# ---- what was made


def tallies_of(report: Report) -> dict[str, Counter[str]]:
    """`records`, `lines` and `unknown_characters` over all units; see `WrittenRecords`."""
    groups = ("records", "lines", "unknown_characters")
    return {group: durations.total(e.tallies.get(group, {}) for e in report.entries.values()) for group in groups}


def record_files(report: Report) -> list[RecordFile]:
    """The files of records of all units, sorted by path."""
    found = []
    for entry in report.entries.values():
        for file in ledger.output_files(report.output, entry):
            what = kind_and_split(file.path)
            if what is not None:
                kind, split = what
                records = entry.tallies["records"][f"{kind}/{split}"]
                found.append(RecordFile(file.path, kind, split, records, file.size, file.sha256))
    return sorted(found)


def manifest_of(
    report: Report, configuration: Mapping[str, Any], documents: Mapping[str, str] | None = None
) -> RecordsManifest:
    """What the folder holds, the same for every way that led there: no times, no names of runs.

    Args:
        documents: path → SHA-256 of what lies beside the records.
    """
    counts = {name: n for name, n in asdict(report.counts).items() if not name.startswith("bytes")}
    tallies = {group: dict(sorted(tally.items())) for group, tally in tallies_of(report).items()}
    return RecordsManifest(
        code_version=code_version(),
        configuration=dict(configuration),
        counts={"pages": counts, "failures": dict(sorted(report.failures.items())), **tallies},
        files=tuple(record_files(report)),
        documents=dict(documents or {}),
    )


def write_manifest(output: str, manifest: RecordsManifest) -> None:
    """From here on readers take the files.

    Raises:
        BadInput: it cannot be written.
        NothingToDo: there is no record.
    """
    if not manifest.files:
        raise NothingToDo("no record was made", f"see {output}/dead_letters.jsonl")
    try:
        write_atomically(output, MANIFEST, manifest.to_text())
    except OSError as error:
        raise cannot_write(output, error) from error


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
        said.append(f"{counts.dead} pages failed: {reasons} (see {report.output.rstrip('/')}/dead_letters.jsonl)")
    unknown = tallies["unknown_characters"]
    if unknown:
        shown = " ".join(f"{c!r}×{n}" for c, n in unknown.most_common(20))
        said.append(f"{len(unknown)} characters are not in the alphabet: {shown}")
    return "\n".join(said)

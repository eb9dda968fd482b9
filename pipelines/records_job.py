"""A job that makes records in work units: the plan, the graph, the run around the graph, the manifest.

    plan units → spread them over the workers → make and publish their records → write the manifest

`pipelines.ingest` and `pipelines.synthesize` are such jobs. As in `pipelines.transcribe`, descriptions of units are all
that travels between workers, and the list of files is no part of the graph. What a worker does with a unit is
`pipelines.record_units`.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Protocol

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from ocr_model.errors import BadInput, NothingToDo
from ocr_model.record_files import MANIFEST, RecordFile, RecordsManifest, manifest_from_text
from pipelines import durations, ledger
from pipelines.clock import cpu_seconds, now
from pipelines.corpus import SourceFile
from pipelines.ingest_pages import IngestOutcome
from pipelines.ledger import Entry
from pipelines.outputs import (
    is_there,
    locked,
    prepare_output,
    read_text,
    remove,
    told_if_it_cannot_be_written,
    write_atomically,
)
from pipelines.plan import Unit, UnitReference, claim_output, read_references, read_unit, unplanned, write_plan
from pipelines.progress import Progress, Tally
from pipelines.read_pages import DeadPage
from pipelines.record_units import RecordsRun, RecordsWorker, StagedRecords, commit_records, stage_records
from pipelines.report import RUNS, Report, reconcile, write_dead_letters
from pipelines.streams import is_remote
from pipelines.transcribe import LOCAL_RUNNER, FailureLimit, OnChange, code_version, digest_of, with_local_runner
from pipelines.write_records import kind_and_split

_NAMESPACE = "pagemill"
WorkerMaker = Callable[[Any, Callable[[IngestOutcome], None]], RecordsWorker]


class RecordsOptions(Protocol):
    """What a job is told, as far as all of them share it; see `pipelines.ingest.IngestOptions`."""

    @property
    def inputs(self) -> tuple[str, ...]: ...

    @property
    def output(self) -> str: ...

    @property
    def on_change(self) -> OnChange: ...

    @property
    def max_failures(self) -> FailureLimit | None: ...

    @property
    def max_attempts(self) -> int: ...

    @property
    def run(self) -> str: ...

    def configuration(self) -> dict[str, Any]: ...


# ---- planning


@dataclass(frozen=True)
class PlannedRecords:
    """A run that is ready to begin; the fields mean what they mean in `pipelines.transcribe.Planned`."""

    options: RecordsRun
    files: int
    units: int
    open_files: int
    open_units: int
    vanished: tuple[str, ...]


def run_values(options: RecordsOptions) -> dict[str, Any]:
    """The fields of a `RecordsRun` that options tell."""
    return {
        "output": options.output,
        "run": options.run or uuid.uuid4().hex[:12],
        "configuration": digest_of(options.configuration()),
        "code_version": code_version(),
        "max_attempts": options.max_attempts,
    }


def plan_job(
    options: RecordsOptions,
    run: RecordsRun,
    made_by: str,
    sources: list[SourceFile],
    units_of: Callable[[list[SourceFile], int], Iterable[Unit]],
    may_vanish: bool = True,
) -> PlannedRecords:
    """Plans what is new in the sources, and checks that the folder and the past fit together.

    Args:
        made_by: the job, and the version of what it writes.
        sources: all of them; the list is emptied, there may be millions.
        units_of: makes units of new sources; is told the number of the first.
        may_vanish: whether sources that were planned earlier may be missing now.

    Raises:
        BadInput: the output folder was written by another job, version, corpus or configuration, or with sources that
            are missing now. Then nothing new is planned.
    """
    check_manifest_version(options.output)
    with told_if_it_cannot_be_written(options.output):
        claim_output(options.output, options.inputs, made_by)
    entries, _ = ledger.read_entries(options.output)
    _check_change(options, run, entries.values())
    new, vanished = unplanned(options.output, sources)
    if vanished and not may_vanish:
        raise BadInput(
            f"{options.output} was planned with what is not asked for any more, such as {vanished[0]}",
            "ask for all of it and more, or choose another --output",
        )
    sources.clear()
    references = list(read_references(options.output))
    if new:
        with told_if_it_cannot_be_written(options.output):
            write_plan(options.output, units_of(new, len(references) + 1))
        references = list(read_references(options.output))
    files = sum(reference.files for reference in references)
    left = [r for r in references if r.name not in entries or not _is_done(entries[r.name], options.on_change, run)]
    run = replace(run, max_dead=options.max_failures.of(files) if options.max_failures else None)
    return PlannedRecords(run, files, len(references), sum(r.files for r in left), len(left), tuple(vanished))


def check_manifest_version(output: str) -> None:
    """
    Raises:
        BadInput: the folder has records of another version; both are named.
    """
    if is_there(output, MANIFEST):
        manifest_from_text(read_text(output, MANIFEST), f"{output}/{MANIFEST}")


def _is_done(entry: Entry, on_change: OnChange, run: RecordsRun) -> bool:
    return on_change == "resume" or entry.configuration == run.configuration


def _check_change(options: RecordsOptions, run: RecordsRun, entries: Iterable[Entry]) -> None:
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

    def __init__(self, options: RecordsRun, on_change: OnChange) -> None:
        self._options, self._on_change = options, on_change

    def process(self, output: str) -> Iterator[UnitReference]:
        entries, _ = ledger.read_entries(output)
        for reference in read_references(output):
            entry = entries.get(reference.name)
            if entry is None or not _is_done(entry, self._on_change, self._options):
                yield reference


class MakeRecords(beam.DoFn):
    """Makes the records of a unit and publishes them. Yields its ledger entry."""

    def __init__(self, options: RecordsRun, make_worker: WorkerMaker, tally_folder: str | None) -> None:
        self._options, self._make_worker, self._tally_folder = options, make_worker, tally_folder

    def setup(self) -> None:
        tally = Tally(self._tally_folder) if self._tally_folder else None
        self._worker = self._make_worker(self._options, lambda outcome: _count_outcome(outcome, tally))

    def process(self, reference: UnitReference) -> Iterator[Entry]:
        ledger.check_stop(self._options.output)
        staged = stage_records(read_unit(self._options.output, reference), self._worker)
        _count_unit(staged)
        yield commit_records(staged, self._options)

    def teardown(self) -> None:
        self._worker.close()


def _count_outcome(outcome: IngestOutcome, tally: Tally | None) -> None:
    if isinstance(outcome, DeadPage):
        Metrics.counter(_NAMESPACE, f"failed:{outcome.letter.reason}").inc()
    if tally:
        tally.add("pages")
        if isinstance(outcome, DeadPage):
            tally.add("dead")
        if outcome.of.number == outcome.of.pages:
            tally.add("files")


def _count_unit(staged: StagedRecords) -> None:
    for group in ("records", "lines"):
        for name, value in staged.written.tallies[group].items():
            Metrics.counter(_NAMESPACE, f"{group}:{name}").inc(value)


def build_job(
    pipeline: beam.Pipeline,
    options: RecordsRun,
    make_worker: WorkerMaker,
    on_change: OnChange = "fail",
    tally_folder: str | None = None,
) -> beam.PCollection[Entry]:
    """The graph: does the open units of a plan. Its size does not depend on the corpus.

    Args:
        make_worker: a class or function of a module, called once in each process.
        tally_folder: where the workers count what `Progress` tells; they must be on this machine.
    """
    return (
        pipeline
        | "Name the output folder" >> beam.Create([options.output], reshuffle=False)
        | "List open units" >> beam.ParDo(ListOpenUnits(options, on_change))
        | "Spread over workers" >> beam.Reshuffle()
        | "Make records" >> beam.ParDo(MakeRecords(options, make_worker, tally_folder))
    )


# ---- the run


def run_job(
    options: RecordsOptions,
    made_by: str,
    prepare: Callable[[], PlannedRecords],
    make_worker: WorkerMaker,
    beam_flags: Sequence[str] = (),
    started_s: float | None = None,
) -> Report:
    """Makes the records that are still open; the manifest is not written yet, see `write_manifest`.

    Args:
        prepare: plans, see `plan_job`; called when the folder is locked.
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
        planned = prepare()
        ledger.forget_other_runs(options.output, planned.options.run)
        record: dict[str, Any] = {"run": planned.options.run, "started": now(), "made_by": made_by}
        record |= {"inputs": list(options.inputs), "configuration": options.configuration()}
        record |= {"code_version": planned.options.code_version}
        _write_record(options.output, record)
        ready_s, ready_cpu_s = time.monotonic(), cpu_seconds()
        if planned.open_units:
            remove(options.output, MANIFEST)  # what it says is no longer all
            _run_pipeline(options, planned, make_worker, PipelineOptions(list(beam_flags)))
        report = reconcile(options.output)
        with told_if_it_cannot_be_written(options.output):
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
    with told_if_it_cannot_be_written(output):
        write_atomically(output, f"{RUNS}/{record['run']}.json", json.dumps(record, indent=1) + "\n")


def _run_pipeline(
    options: RecordsOptions, planned: PlannedRecords, make_worker: WorkerMaker, pipeline_options: PipelineOptions
) -> None:
    pipeline_options = with_local_runner(pipeline_options)
    runs_here = pipeline_options.view_as(StandardOptions).runner == LOCAL_RUNNER
    if not runs_here:
        logging.getLogger("apache_beam").setLevel(logging.INFO)  # the job's name and state are all there is to see
    tally_folder = Tally.make_folder() if runs_here and not is_remote(options.output) else None
    try:
        with _progress(tally_folder, planned) if tally_folder else nullcontext():
            pipeline = beam.Pipeline(options=pipeline_options)
            build_job(pipeline, planned.options, make_worker, options.on_change, tally_folder)
            pipeline.run().wait_until_finish()
    finally:
        if tally_folder:
            Tally.remove_folder(tally_folder)


def _progress(tally_folder: str, planned: PlannedRecords) -> Progress:
    run = planned.options
    stop = partial(write_atomically, run.output, ledger.STOP, f"too many dead letters: {ledger.AFTER_THE_LIMIT}\n")
    return Progress(tally_folder, planned.open_files, sys.stderr, run.max_dead, stop)


# ---- what was made


def tallies_of(report: Report) -> dict[str, Counter[str]]:
    """`records`, `lines`, `unknown_characters`, and `notes` if there are any, over all units; see `WrittenRecords`."""
    groups = ("records", "lines", "unknown_characters", "notes")
    found = {group: durations.total(e.tallies.get(group, {}) for e in report.entries.values()) for group in groups}
    return {group: tally for group, tally in found.items() if tally or group != "notes"}


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
    with told_if_it_cannot_be_written(output):
        write_atomically(output, MANIFEST, manifest.to_text())

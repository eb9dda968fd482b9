"""A job that makes records in work units: the plan, the graph, the run around the graph, the manifest.

    plan units → spread them over the workers → make and publish their records → write the manifest

`pipelines.ingest` and `pipelines.synthesize` are such jobs. As in `pipelines.transcribe`, descriptions of units are all
that travels between workers, and the list of files is no part of the graph. What a worker does with a unit is
`pipelines.record_units`.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, Protocol

import apache_beam as beam
from apache_beam.metrics import Metrics

from ocr_model.errors import BadInput, NothingToDo
from ocr_model.record_files import MANIFEST, RecordFile, RecordsManifest, manifest_from_text
from pipelines import durations, ledger
from pipelines.corpus import SourceFile
from pipelines.ingest_pages import IngestOutcome
from pipelines.ledger import Entry
from pipelines.open_units import LocalWorkers, OpenUnits
from pipelines.outputs import is_there, read_text, remove, told_if_it_cannot_be_written, write_atomically
from pipelines.plan import Unit, UnitReference, claim_output, read_references, read_unit, unplanned, write_plan
from pipelines.record_units import RecordsWorker, StagedRecords, commit_records, stage_records
from pipelines.report import Report, write_dead_letters
from pipelines.unit_jobs import NAMESPACE, Planned, count_outcome, do_run, planned_run, tally_of
from pipelines.unit_runs import FailureLimit, OnChange, UnitRun, check_change, code_version, digest_of, is_done
from pipelines.write_records import kind_and_split

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


def run_values(options: RecordsOptions) -> dict[str, Any]:
    """The fields of a `UnitRun` that options tell."""
    return {
        "output": options.output,
        "run": options.run or uuid.uuid4().hex[:12],
        "configuration": digest_of(options.configuration()),
        "code_version": code_version(),
        "max_attempts": options.max_attempts,
    }


def plan_job(
    options: RecordsOptions,
    run: UnitRun,
    made_by: str,
    sources: list[SourceFile],
    units_of: Callable[[list[SourceFile], int], Iterable[Unit]],
    may_vanish: bool = True,
) -> Planned[UnitRun]:
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
    check_change(options.on_change, run, entries.values())
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
    return planned_run(run, references, entries, options.on_change, options.max_failures, vanished)


def check_manifest_version(output: str) -> None:
    """
    Raises:
        BadInput: the folder has records of another version; both are named.
    """
    if is_there(output, MANIFEST):
        manifest_from_text(read_text(output, MANIFEST), f"{output}/{MANIFEST}")


# ---- the graph


def is_open(entry: Entry | None, run: UnitRun, on_change: OnChange) -> bool:
    """Whether a unit has no valid entry yet."""
    return not is_done(entry, on_change, run)


class MakeRecords(beam.DoFn):
    """Makes the records of a unit and publishes them. Yields its ledger entry."""

    def __init__(self, options: UnitRun, make_worker: WorkerMaker, here: LocalWorkers | None) -> None:
        self._options, self._make_worker, self._here = options, make_worker, here

    def setup(self) -> None:
        tally = tally_of(self._here)
        self._worker = self._make_worker(self._options, lambda outcome: count_outcome(outcome, tally))

    def process(self, reference: UnitReference) -> Iterator[Entry]:
        ledger.check_stop(self._options.output)
        staged = stage_records(read_unit(self._options.output, reference), self._worker)
        _count_unit(staged)
        yield commit_records(staged, self._options)

    def teardown(self) -> None:
        self._worker.close()


def _count_unit(staged: StagedRecords) -> None:
    for group in ("records", "lines"):
        for name, value in staged.written.tallies[group].items():
            Metrics.counter(NAMESPACE, f"{group}:{name}").inc(value)


def build_job(
    pipeline: beam.Pipeline,
    options: UnitRun,
    make_worker: WorkerMaker,
    on_change: OnChange = "fail",
    here: LocalWorkers | None = None,
) -> beam.PCollection[Entry]:
    """The graph: does the open units of a plan. Its size does not depend on the corpus.

    Args:
        make_worker: a class or function of a module, called once in each process.
        here: the workers, where all of them are on this machine.
    """
    return (
        pipeline
        | "Open units" >> OpenUnits(options.output, partial(is_open, run=options, on_change=on_change), here)
        | "Make records" >> beam.ParDo(MakeRecords(options, make_worker, here))
    )


# ---- the run


def run_job(
    options: RecordsOptions,
    made_by: str,
    prepare: Callable[[], Planned[UnitRun]],
    make_worker: WorkerMaker,
    beam_flags: Sequence[str] = (),
    started_s: float | None = None,
) -> Report:
    """Makes the records that are still open; the manifest is not written yet, see `write_manifest`.

    Args:
        prepare: plans, see `plan_job`; called when the folder is locked.
        beam_flags, started_s: see `do_run`.

    Raises:
        BadInput, NothingToDo: nothing was done.
        TooManyFailures: stopped; what is done stays done.
        PagemillError: pages are missing in the books.
    """

    def told(run: UnitRun) -> dict[str, Any]:
        return {"made_by": made_by, "inputs": list(options.inputs), "configuration": options.configuration()}

    def build(pipeline: beam.Pipeline, run: UnitRun, here: LocalWorkers | None) -> None:
        remove(options.output, MANIFEST)  # what it says is no longer all
        build_job(pipeline, run, make_worker, options.on_change, here)

    return do_run(options.output, prepare, told, build, write_dead_letters, beam_flags, started_s)


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

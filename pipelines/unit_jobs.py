"""The run around a job that does work units: the lock, the plan, Beam, the record of the run, the books.

`pipelines.transcribe` and `pipelines.records_job` are such jobs; what is special to them comes in as functions.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Generic

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions

from pipelines import ledger
from pipelines.clock import cpu_seconds, now
from pipelines.ingest_pages import IngestOutcome
from pipelines.ledger import Entry
from pipelines.open_units import LocalWorkers
from pipelines.outputs import locked, prepare_output, told_if_it_cannot_be_written, write_atomically
from pipelines.plan import UnitReference
from pipelines.progress import Progress, Tally
from pipelines.read_pages import DeadPage, Outcome
from pipelines.report import RUNS, Report, reconcile
from pipelines.supervise import make_run_folder
from pipelines.unit_runs import FailureLimit, OnChange, Run, is_done, limited

NAMESPACE = "pagemill"  # of metrics
LOCAL_RUNNER = "FnApiRunner"

Build = Callable[[beam.Pipeline, LocalWorkers | None], Any]


@dataclass(frozen=True)
class Planned(Generic[Run]):
    """A run that is ready to begin.

    Attributes:
        files, units: of the whole plan.
        open_files, open_units: that have no valid entry yet.
        vanished: files of the plan that the inputs no longer hold.
    """

    options: Run
    files: int
    units: int
    open_files: int
    open_units: int
    vanished: tuple[str, ...] = ()


def planned_run(
    run: Run,
    references: Sequence[UnitReference],
    entries: Mapping[str, Entry],
    on_change: OnChange,
    limit: FailureLimit | None,
    vanished: Sequence[str],
) -> Planned[Run]:
    """What is open of a plan, for a run that is told how many pages may fail."""
    done = {name: entry for name, entry in entries.items() if is_done(entry, on_change, run)}
    files = sum(reference.files for reference in references)
    left = [reference for reference in references if reference.name not in done]
    run = limited(run, limit, files, done)
    return Planned(run, files, len(references), sum(r.files for r in left), len(left), tuple(vanished))


def do_run(
    output: str,
    prepare: Callable[[], Planned[Run]],
    told: Callable[[Run], dict[str, Any]],
    build: Callable[[beam.Pipeline, Run, LocalWorkers | None], Any],
    write_lists: Callable[[str, Report], None],
    beam_flags: Sequence[str] = (),
    started_s: float | None = None,
) -> Report:
    """Does the open units of an output folder.

    Args:
        prepare: plans; called when the folder is locked.
        told: what the record of the run says beside times and counts.
        build: makes the graph; called if there is something to do.
        write_lists: gathers what the units have listed.
        beam_flags: for Beam's `PipelineOptions`; the runner is the local one unless they name another.
        started_s: `time.monotonic()` when the command began.

    Raises:
        BadInput, NothingToDo, BadModel: nothing was done.
        TooManyFailures: stopped; what is done stays done.
        PagemillError: pages are missing in the books.
    """
    started_s = time.monotonic() if started_s is None else started_s
    prepare_output(output)
    with locked(output):
        ledger.forget_run(output)
        planned = prepare()
        run = planned.options
        ledger.forget_other_runs(output, run.run)
        record = {"run": run.run, "started": now(), **told(run), "code_version": run.code_version}
        _write_record(output, record)
        ready_s, ready_cpu_s = time.monotonic(), cpu_seconds()
        if planned.open_units:
            run_pipeline(planned, lambda pipeline, here: build(pipeline, run, here), beam_flags)
        report = reconcile(output)
        with told_if_it_cannot_be_written(output):
            write_lists(output, report)
        record |= {
            "ended": now(),
            "vanished": list(planned.vanished),
            "start_s": round(ready_s - started_s, 3),
            "wall_s": round(time.monotonic() - ready_s, 3),
            "cpu_s": round(cpu_seconds() - ready_cpu_s, 3),
            "counts": asdict(report.counts),
        }
        _write_record(output, record)
    report.check()
    return replace(report, run=record)


def _write_record(output: str, record: Mapping[str, Any]) -> None:
    with told_if_it_cannot_be_written(output):
        write_atomically(output, f"{RUNS}/{record['run']}.json", json.dumps(record, indent=1) + "\n")


def run_pipeline(planned: Planned[Run], build: Build, beam_flags: Sequence[str] = ()) -> None:
    """Runs a graph to its end, on this machine or elsewhere; here, progress is told meanwhile."""
    options = with_local_runner(PipelineOptions(list(beam_flags)))
    here = None
    if options.view_as(StandardOptions).runner == LOCAL_RUNNER:
        count = options.view_as(DirectOptions).direct_num_workers or os.cpu_count() or 1
        here = LocalWorkers(count, make_run_folder(planned.options.run))
    else:
        logging.getLogger("apache_beam").setLevel(logging.INFO)  # the job's name and state are all there is to see
    try:
        with _progress(here.folder, planned) if here else nullcontext():
            pipeline = beam.Pipeline(options=options)
            build(pipeline, here)
            pipeline.run().wait_until_finish()
    finally:
        if here:
            shutil.rmtree(here.folder, ignore_errors=True)


def _progress(folder: str, planned: Planned[Run]) -> Progress:
    run = planned.options
    stop = partial(write_atomically, run.output, ledger.STOP, f"too many dead letters: {ledger.AFTER_THE_LIMIT}\n")
    max_dead = None if run.max_dead is None else run.max_dead - run.dead_before
    return Progress(folder, planned.open_files, sys.stderr, max_dead, stop)


def with_local_runner(options: PipelineOptions) -> PipelineOptions:
    """Beam's DirectRunner picks its engine by what it can download; ours is always the one that comes with Beam."""
    standard = options.view_as(StandardOptions)
    if standard.runner in (None, "DirectRunner"):
        standard.runner = LOCAL_RUNNER
    return options


def count_outcome(outcome: Outcome | IngestOutcome, tally: Tally | None) -> None:
    """Counts what became of a page, for Beam's metrics and for whoever watches the run."""
    if isinstance(outcome, DeadPage):
        Metrics.counter(NAMESPACE, f"failed:{outcome.letter.reason}").inc()
    if tally:
        tally.add("pages")
        if isinstance(outcome, DeadPage):
            tally.add("dead")
        if outcome.of.number == outcome.of.pages:
            tally.add("files")


def tally_of(here: LocalWorkers | None) -> Tally | None:
    """Where a worker of this machine counts."""
    return Tally(here.folder) if here else None

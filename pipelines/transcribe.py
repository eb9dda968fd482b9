"""The main job: scans in, text out, none lost, at any size.

    list and plan the corpus -> spread the units over the workers -> read a unit -> publish it

Only descriptions of units travel between workers, never a pixel, and the list of files is no part of the graph: that
has the same size for ten files and for ten million. What a worker does with a unit is `pipelines.units`, without Beam;
this module is the graph around it, and the run around the graph.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import json
import logging
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib import metadata
from typing import Any, Literal, cast

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import ModelHandler, PredictionResult, RunInference
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from ocr_model.bundle import bundle_digest, read_config
from ocr_model.errors import BadArgument, BadInput, NothingToDo
from ocr_model.images import Limits
from pipelines import ledger
from pipelines.clock import cpu_seconds, now
from pipelines.commits import commit_unit
from pipelines.corpus import SourceFile, find_sources, is_remote
from pipelines.decoder import Decoder
from pipelines.formats import FORMATS
from pipelines.ledger import Entry
from pipelines.outputs import cannot_write, locked, prepare_output, write_atomically
from pipelines.plan import (
    TRANSCRIBED,
    Item,
    UnitReference,
    claim_output,
    documents,
    plan_units,
    read_corpus,
    read_references,
    read_unit,
    unplanned,
    with_copies,
    write_plan,
)
from pipelines.progress import Progress, Tally
from pipelines.read_pages import DeadPage, Outcome, PageReader, ReadOptions
from pipelines.report import RUNS, Report, last_run, reconcile, write_lists
from pipelines.routing import Readers, Routing, bundle_path
from pipelines.units import Retry, RunOptions, StagedUnit, Worker, stage_unit
from pipelines.write_pages import LAYOUTS, Layout, WriteOptions

OnChange = Literal["fail", "resume", "restart"]
ON_CHANGE: tuple[OnChange, ...] = ("fail", "resume", "restart")
_NAMESPACE = "pagemill"


def load_reader(bundle: str | None) -> PageReader:
    """The `Reader` of a bundle, of the one in the package if None. Imports TensorFlow.

    Raises:
        BadModel: it is no bundle.
    """
    with native_chatter_muted():
        from ocr_model.reader import Reader

        reader = Reader.load(bundle)
    _give_back_memory()
    return reader


def _give_back_memory() -> None:
    """Gives the system what importing TensorFlow and loading a model have used and freed: some 75 MB."""
    gc.collect()
    with suppress(AttributeError, OSError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def native_chatter_muted() -> Iterator[None]:
    """Keeps stderr shut while TensorFlow starts, whose first lines heed no setting. Exceptions are not affected."""
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") != "3":  # somebody wants to see them
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


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


@dataclass(frozen=True)
class TranscribeOptions:
    """Everything that a run depends on.

    Attributes:
        inputs: files, folders, globs, archives and manifests.
        output: folder; results go to `output/FORMAT/…`.
        whole_folders: the files of a folder are one document.
        per_page: a file a page in every format.
        first_page, last_page: of each file that are read.
        limit: so many files are taken, the first ones of the listing.
        copies: files with the same bytes are read once.
        on_change: what to do where units were done with another model or configuration.
        max_failures: pages that may fail before the run is stopped.
        max_attempts: at a unit that kills its worker.
        share_model: one copy of the model for all processes of a worker machine, for GPUs.
        run: name of the run, given by what starts it again when a worker dies.
        watch: whether a page that hangs in the reader may kill its process.
        load: makes the reader of a bundle, once per process.
    """

    inputs: tuple[str, ...]
    output: str
    formats: tuple[str, ...] = ("txt",)
    whole_folders: bool = False
    per_page: bool = False
    layout: Layout = "files"
    routing: Routing = field(default_factory=Routing)
    single_line: bool = False
    limits: Limits = field(default_factory=Limits)
    timeout_s: float = 60.0
    memory_bytes: int = 2 * 2**30
    first_page: int = 1
    last_page: int | None = None
    limit: int | None = None
    copies: bool = True
    doubtful_below: float = 0.85
    on_change: OnChange = "fail"
    max_failures: FailureLimit | None = None
    max_attempts: int = 3
    share_model: bool = False
    run: str = ""
    watch: bool = False
    load: Callable[[str | None], PageReader] = load_reader

    def __post_init__(self) -> None:
        unknown = sorted(set(self.formats) - set(FORMATS))
        if unknown or not self.formats:
            raise BadArgument(f"unknown format: {', '.join(unknown) or 'none'}", f"known are {', '.join(FORMATS)}")
        if self.layout not in LAYOUTS or self.on_change not in ON_CHANGE:
            raise BadArgument(f"layout {self.layout} or on_change {self.on_change} is unknown")
        if self.first_page < 1 or (self.last_page is not None and self.last_page < self.first_page):
            raise BadArgument(f"no pages from {self.first_page} to {self.last_page}", "write --page-range 1-10")
        if self.timeout_s <= 0 or self.max_attempts < 1 or (self.limit is not None and self.limit < 1):
            raise BadArgument("time limit, attempts and number of files must be positive")

    def configuration(self) -> dict[str, Any]:
        """All that the outputs depend on beside the model, plain JSON values."""
        return {
            "formats": sorted(self.formats),
            "whole_folders": self.whole_folders,
            "per_page": self.per_page,
            "layout": self.layout,
            "single_line": self.single_line,
            "limits": asdict(self.limits),
            "pages": [self.first_page, self.last_page],
            "routes": [list(rule[:2]) for rule in self.routing.rules],
            "second_below": self.routing.second_below if self.routing.second else None,
        }


def digest_of(value: Any) -> str:
    """Short digest of plain JSON values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def code_version() -> str:
    try:
        return metadata.version("pagemill")
    except metadata.PackageNotFoundError:  # run from a source tree that is not installed
        return "unknown"


# ---- planning


@dataclass(frozen=True)
class Planned:
    """A run that is ready to begin.

    Attributes:
        files, units: of the whole plan.
        open_files, open_units: that have no valid entry yet.
        vanished: files of the plan that the inputs no longer hold.
    """

    options: RunOptions
    files: int
    units: int
    open_files: int
    open_units: int
    vanished: tuple[str, ...]


def take_sources(options: TranscribeOptions) -> list[SourceFile]:
    """The files to read, as documents.

    Raises:
        BadInput, NothingToDo: see `find_sources`.
    """
    sources = documents(find_sources(options.inputs, options.output), options.whole_folders)
    return sources[: options.limit]


def prepare(options: TranscribeOptions) -> Planned:
    """Lists the corpus, plans what is new in it, and checks that the folder, the model and the past fit together.

    Raises:
        BadInput: an input or the output folder cannot be used, or it was written by another corpus, model or
            configuration.
        BadModel: a bundle is missing.
        NothingToDo: there is no image.
    """
    sources = take_sources(options)
    digests = bundle_digests(options.routing.bundles(sources))
    run = run_options(options, digests)
    claim_output(options.output, options.inputs)
    new, vanished = unplanned(options.output, sources)
    references = list(read_references(options.output))
    if new:
        write_plan(options.output, plan_units(items_of(options, new), first=len(references) + 1))
        references = list(read_references(options.output))
    entries, _ = ledger.read_entries(options.output)
    check_change(options, run, entries.values())
    done = {name for name, entry in entries.items() if is_done(entry, options.on_change, run)}
    files = sum(reference.files for reference in references)
    left = [reference for reference in references if reference.name not in done]
    if options.max_failures:
        dead = sum(entry.counts.dead for name, entry in entries.items() if name in done)
        run = replace(run, max_dead=options.max_failures.of(files), dead_before=dead)
    return Planned(run, files, len(references), sum(r.files for r in left), len(left), tuple(vanished))


def items_of(options: TranscribeOptions, sources: Sequence[SourceFile]) -> list[Item]:
    """Items of the sources; copies are looked for if the options say so."""
    return with_copies(sources, options.limits.max_bytes) if options.copies else [Item(source) for source in sources]


def bundle_digests(bundles: Iterable[str | None]) -> dict[str | None, str]:
    """Digest of each bundle.

    Raises:
        BadModel: one is missing, or no bundle.
    """
    digests = {}
    for bundle in bundles:
        read_config(bundle_path(bundle))
        digests[bundle] = bundle_digest(bundle_path(bundle))
    return digests


def run_options(options: TranscribeOptions, digests: Mapping[str | None, str]) -> RunOptions:
    """What the workers need to know."""
    routing = options.routing
    model = digests[None] if set(digests) == {None} else ""
    if not model:
        roles = [(rule[0], rule[1], digests[rule[2]]) for rule in routing.rules]
        roles += [("", "first", digests[routing.bundle]), ("", "second", digests.get(routing.second, ""))]
        model = digests[routing.bundle] if len(digests) == 1 else digest_of([sorted(digests.values()), roles])
    configuration = digest_of(options.configuration())
    return RunOptions(
        output=options.output,
        run=options.run or uuid.uuid4().hex[:12],
        read=ReadOptions(
            single_line=options.single_line,
            limits=options.limits,
            timeout_s=options.timeout_s,
            memory_bytes=options.memory_bytes,
            first_page=options.first_page,
            last_page=options.last_page,
            keep_jpeg=any(FORMATS[name].shows_scan for name in options.formats),
        ),
        write=WriteOptions(
            formats=options.formats,
            per_page=options.per_page,
            layout=options.layout,
            run={"configuration": configuration},
            doubtful_below=options.doubtful_below,
        ),
        routing=routing,
        load=options.load,
        digests=digests,
        model=model[:16],
        configuration=configuration,
        code_version=code_version(),
        max_attempts=options.max_attempts,
        watch=options.watch,
    )


def is_done(entry: Entry, on_change: OnChange, run: RunOptions) -> bool:
    """Whether a unit need not be done again."""
    return on_change == "resume" or (entry.model, entry.configuration) == (run.model, run.configuration)


def has_letters(entry: Entry, retry: Retry) -> bool:
    """Whether a unit has dead letters that a retry takes up."""
    return any(not retry.reasons or reason in retry.reasons for reason in entry.failures)


def check_change(options: TranscribeOptions, run: RunOptions, entries: Iterable[Entry]) -> None:
    """
    Raises:
        BadInput: units were done with another model or configuration, and the user has not said what to do then.
    """
    if options.on_change != "fail":
        return
    for entry in entries:
        for what in ("model", "configuration"):
            before, today = getattr(entry, what), getattr(run, what)
            if before != today:
                raise BadInput(
                    f"{options.output} was begun with {what} {before}, this run has {today}",
                    "--on-change resume keeps what is done, --on-change restart does it again",
                )


# ---- the graph


class UnitHandler(ModelHandler[UnitReference, PredictionResult, Readers]):
    """Reads units for Beam's `RunInference`; the model is the process's `Readers`.

    Batches are not Beam's: the lines of a unit are gathered by width in the reader, with a fixed size for each width,
    so that a line's result does not depend on what stands beside it.
    """

    def __init__(self, options: RunOptions, share_model: bool, tally_folder: str | None) -> None:
        super().__init__()
        self._options, self._share_model, self._tally_folder = options, share_model, tally_folder

    def load_model(self) -> Readers:
        readers = Readers(self._options.load, self._options.digests)
        readers.get(self._options.routing.bundle)
        if self._options.routing.second is not None:
            readers.get(self._options.routing.second)  # here, and not under the clock of the first doubtful page
        return readers

    def run_inference(
        self, batch: Sequence[UnitReference], model: Readers, inference_args: dict[str, Any] | None = None
    ) -> Iterator[PredictionResult]:
        for reference in batch:
            ledger.check_stop(self._options.output)
            with borrowed_worker(self._options, model, self._tally_folder) as worker:
                staged = stage_unit(read_unit(self._options.output, reference), worker)
            _count_unit(staged)
            yield PredictionResult(reference, staged, self._options.model)

    def should_skip_batching(self) -> bool:
        return True  # a unit is a batch

    def get_num_bytes(self, batch: Sequence[UnitReference]) -> int:
        return sum(reference.bytes for reference in batch)

    def get_metrics_namespace(self) -> str:
        return _NAMESPACE

    def share_model_across_processes(self) -> bool:
        return self._share_model


_idle: list[Worker] = []  # a process keeps its decoder, one for each thread that is at work, from unit to unit
_idle_lock = threading.Lock()


@contextmanager
def borrowed_worker(options: RunOptions, readers: Readers, tally_folder: str | None) -> Iterator[Worker]:
    """A worker of this run that no other thread uses meanwhile."""
    with _idle_lock:
        fitting = [worker for worker in _idle if worker.options.run == options.run and worker.readers is readers]
        for worker in _idle if not fitting else ():
            worker.decoder.close()  # of a run that is over
        _idle[:] = fitting[1:]
    if fitting:
        worker = fitting[0]
    else:
        tally = Tally(tally_folder) if tally_folder else None
        decoder = Decoder(options.read.limits, options.read.timeout_s, options.read.memory_bytes)
        worker = Worker(options, readers, decoder, lambda outcome: _count_outcome(outcome, tally))
    try:
        yield worker
    finally:
        with _idle_lock:
            _idle.append(worker)


def close_idle_workers() -> None:
    """Ends the decoders of this process: nothing is read any more."""
    with _idle_lock:
        for worker in _idle:
            worker.decoder.close()
        _idle.clear()


def _count_outcome(outcome: Outcome, tally: Tally | None) -> None:
    if isinstance(outcome, DeadPage):
        Metrics.counter(_NAMESPACE, f"failed:{outcome.letter.reason}").inc()
    if tally:
        tally.add("pages")
        if isinstance(outcome, DeadPage):
            tally.add("dead")
        if outcome.of.number == outcome.of.pages:
            tally.add("files")


def _count_unit(staged: StagedUnit) -> None:
    for name, value in asdict(staged.written.counts).items():
        Metrics.counter(_NAMESPACE, name).inc(value)
    for stage, counts in staged.milliseconds.items():
        distribution = Metrics.distribution(_NAMESPACE, f"{stage}_ms")
        for bucket, n in counts.items():
            for _ in range(n):
                distribution.update(round(1.1 ** (int(bucket) + 0.5)))


class ListOpenUnits(beam.DoFn):
    """The units of the plan that have no valid entry yet."""

    def __init__(self, options: RunOptions, on_change: OnChange) -> None:
        self._options, self._on_change = options, on_change

    def process(self, output: str) -> Iterator[UnitReference]:
        entries, _ = ledger.read_entries(output)
        for reference in read_references(output):
            if self._is_open(entries.get(reference.name)):
                yield reference

    def _is_open(self, entry: Entry | None) -> bool:
        retry = self._options.retry
        if retry is not None:
            return entry is not None and entry.run != self._options.run and has_letters(entry, retry)
        return entry is None or not is_done(entry, self._on_change, self._options)


class PublishUnits(beam.DoFn):
    """Gives the outputs of a unit their names and writes its ledger entry. Yields the entry."""

    def __init__(self, options: RunOptions) -> None:
        self._options = options

    def process(self, result: PredictionResult) -> Iterator[Entry]:
        yield commit_unit(cast(StagedUnit, result.inference), self._options)


def build(
    pipeline: beam.Pipeline,
    options: RunOptions,
    on_change: OnChange = "fail",
    share_model: bool = False,
    tally_folder: str | None = None,
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
        | "Take one by one" >> beam.Map(lambda reference: [reference])
        | "Read units" >> RunInference(UnitHandler(options, share_model, tally_folder))
        | "Publish units" >> beam.ParDo(PublishUnits(options))
    )


# ---- the run


def run(options: TranscribeOptions, beam_flags: Sequence[str] = (), started_s: float | None = None) -> Report:
    """Transcribes what is open of the inputs.

    Args:
        beam_flags: for Beam's `PipelineOptions`; the runner is the local one unless they name another.
        started_s: `time.monotonic()` when the command began.

    Raises:
        BadInput, NothingToDo, BadModel: nothing was done.
        TooManyFailures: stopped; what is done stays done.
        PagemillError: pages are missing in the books.
    """
    started_s = time.monotonic() if started_s is None else started_s
    prepare_output(options.output)
    with locked(options.output):
        ledger.forget_run(options.output)
        planned = prepare(options)
        ledger.forget_other_runs(options.output, planned.options.run)
        record: dict[str, Any] = {"run": planned.options.run, "started": now(), "options": _plain(options)}
        record |= {"model": planned.options.model, "configuration": planned.options.configuration}
        record |= {"code_version": planned.options.code_version}
        _write_record(options.output, record)
        ready_s, ready_cpu_s = time.monotonic(), cpu_seconds()
        if planned.open_units:
            _run_pipeline(options, planned, PipelineOptions(list(beam_flags)))
        report = reconcile(options.output)
        write_lists(options.output, report)
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


def _plain(options: TranscribeOptions) -> dict[str, Any]:
    return {name: value for name, value in asdict(replace(options, load=load_reader)).items() if name != "load"}


def _write_record(output: str, record: Mapping[str, Any]) -> None:
    try:
        write_atomically(output, f"{RUNS}/{record['run']}.json", json.dumps(record, indent=1) + "\n")
    except OSError as error:
        raise cannot_write(output, error) from error


def _run_pipeline(options: TranscribeOptions, planned: Planned, pipeline_options: PipelineOptions) -> None:
    pipeline_options = with_local_runner(pipeline_options)
    runs_here = pipeline_options.view_as(StandardOptions).runner == LOCAL_RUNNER
    if not runs_here:
        logging.getLogger("apache_beam").setLevel(logging.INFO)  # the job's name and state are all there is to see
    tally_folder = Tally.make_folder() if runs_here and not is_remote(options.output) else None
    try:
        with _progress(tally_folder, planned) if tally_folder else nullcontext():
            pipeline = beam.Pipeline(options=pipeline_options)
            build(pipeline, planned.options, options.on_change, options.share_model, tally_folder)
            pipeline.run().wait_until_finish()
    finally:
        close_idle_workers()
        if tally_folder:
            Tally.remove_folder(tally_folder)


def _progress(tally_folder: str, planned: Planned) -> Progress:
    run = planned.options
    stop = partial(write_atomically, run.output, ledger.STOP, "too many dead letters\n")
    max_dead = None if run.max_dead is None else run.max_dead - run.dead_before
    return Progress(tally_folder, planned.open_files, sys.stderr, max_dead, stop)


LOCAL_RUNNER = "FnApiRunner"


def with_local_runner(options: PipelineOptions) -> PipelineOptions:
    """Beam's DirectRunner picks its engine by what it can download; ours is always the one that comes with Beam."""
    standard = options.view_as(StandardOptions)
    if standard.runner in (None, "DirectRunner"):
        standard.runner = LOCAL_RUNNER
    return options


def retry(options: TranscribeOptions, reasons: Sequence[str] = (), beam_flags: Sequence[str] = ()) -> Report:
    """Takes up the dead letters of an output folder, in its own formats, and completes the outputs.

    Args:
        options: as `as_begun` gives them, with what is to be otherwise now.

    Raises:
        NothingToDo: there is no such dead letter.
    """
    with locked(options.output):
        ledger.forget_run(options.output)
        run = replace(run_options(options, bundle_digests(options.routing.bundles())), retry=Retry(tuple(reasons)))
        before = reconcile(options.output)
        units = [r for r in before.references if r.name in before.entries]
        units = [r for r in units if has_letters(before.entries[r.name], cast(Retry, run.retry))]
        if not units:
            raise NothingToDo(f"{options.output} has no such dead letter", "see `pagemill status`")
        files = sum(reference.files for reference in units)
        _run_pipeline(
            options,
            Planned(run, before.files, len(before.references), files, len(units), ()),
            PipelineOptions(list(beam_flags)),
        )
        report = reconcile(options.output)
        write_lists(options.output, report)
    return report


def as_begun(output: str) -> TranscribeOptions:
    """The options of the last run of an output folder.

    Raises:
        BadInput: there was none, or another job made the folder.
    """
    made_by = read_corpus(output).get("made_by", TRANSCRIBED)
    if made_by != TRANSCRIBED:
        raise BadInput(f"{output} was made by {made_by}", "mend what failed, and give that command a new --output")
    begun = last_run(output).get("options")
    if begun is None:
        raise BadInput(f"{output} has no record of a run", "run `pagemill transcribe` first")
    try:
        routing, failures = begun["routing"], begun["max_failures"]
        made = {
            "output": output,
            "inputs": tuple(begun["inputs"]),
            "formats": tuple(begun["formats"]),
            "routing": Routing(**{**routing, "rules": tuple(tuple(rule) for rule in routing["rules"])}),
            "limits": Limits(**begun["limits"]),
            "max_failures": None if failures is None else FailureLimit(**failures),
            "run": "",
            "watch": False,
        }
        return TranscribeOptions(**{**begun, **made})
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(
            f"the record of the last run of {output} is damaged: {error}", "run `pagemill transcribe`"
        ) from error


def dry_run(options: TranscribeOptions) -> str:
    """What a run would do, in a few lines; nothing is written.

    Raises:
        BadInput, BadModel, NothingToDo: as `prepare`.
    """
    sources = take_sources(options)
    run = run_options(options, bundle_digests(options.routing.bundles(sources)))
    try:
        report: Report | None = reconcile(options.output)
    except BadInput:  # nothing was done there yet
        report = None
    new = sources
    if report is not None:
        claim_output(options.output, options.inputs)
        check_change(options, run, report.entries.values())
        new = unplanned(options.output, sources)[0]
    items = items_of(options, new)
    units = list(plan_units(items))
    sizes = [source.size for source in new if source.size is not None]
    lines = [
        f"{len(sources)} files, {len(new)} of them new ({sum(sizes) / 1e9:.3f} GB where sizes are known)",
        f"{len(new) - len(items)} new files are copies of others",
        f"{len(units)} new units of up to {max((unit.files for unit in units), default=0)} files",
    ]
    if report is not None:
        lines.append(f"{len(report.entries)} units are done, {report.open_units} planned ones are open")
    lines.append(f"model {run.model}, configuration {run.configuration}, formats {', '.join(options.formats)}")
    return "\n".join(lines)

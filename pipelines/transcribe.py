"""The main job: scans in, text out, none lost, at any size.

    list and plan the corpus -> spread the units over the workers -> read a unit -> publish it

Only descriptions of units travel between workers, never a pixel, and the list of files is no part of the graph: that
has the same size for ten files and for ten million. What a worker does with a unit is `pipelines.units`, without Beam,
and `pipelines.read_units` with it; this module plans, draws the graph, and says what a run is.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, cast

import apache_beam as beam
from apache_beam.ml.inference.base import RunInference

from ocr_model.bundle import bundle_digest, read_config
from ocr_model.errors import BadArgument, BadInput, NothingToDo
from ocr_model.images import Limits
from pipelines import ledger
from pipelines.corpus import SourceFile, find_sources
from pipelines.formats import FORMATS
from pipelines.ledger import Entry
from pipelines.load_reader import load_reader
from pipelines.open_units import LocalWorkers, OpenUnits
from pipelines.outputs import locked, told_if_it_cannot_be_written
from pipelines.plan import (
    TRANSCRIBED,
    Item,
    claim_output,
    documents,
    plan_units,
    read_corpus,
    read_references,
    unplanned,
    with_copies,
    write_plan,
)
from pipelines.read_pages import PageReader, ReadOptions
from pipelines.read_units import PublishUnits, UnitHandler, close_idle_workers
from pipelines.report import Report, last_run, reconcile, write_lists
from pipelines.routing import Routing, bundle_path
from pipelines.unit_jobs import Planned, do_run, planned_run, run_pipeline
from pipelines.unit_runs import (
    ON_CHANGE,
    FailureLimit,
    OnChange,
    check_change,
    code_version,
    digest_of,
    is_done,
    reading_code,
)
from pipelines.units import Retry, RunOptions
from pipelines.write_pages import LAYOUTS, Layout, WriteOptions


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


# ---- planning


def take_sources(options: TranscribeOptions) -> list[SourceFile]:
    """The files to read, as documents.

    Raises:
        BadInput, NothingToDo: see `find_sources`.
    """
    sources = documents(find_sources(options.inputs, options.output), options.whole_folders)
    return sources[: options.limit]


def prepare(options: TranscribeOptions) -> Planned[RunOptions]:
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
    with told_if_it_cannot_be_written(options.output):
        claim_output(options.output, options.inputs)
    new, vanished = unplanned(options.output, sources)
    references = list(read_references(options.output))
    if new:
        items = items_of(options, new)
        with told_if_it_cannot_be_written(options.output):
            write_plan(options.output, plan_units(items, first=len(references) + 1))
        references = list(read_references(options.output))
    entries, _ = ledger.read_entries(options.output)
    check_change(options.on_change, run, entries.values())
    return planned_run(run, references, entries, options.on_change, options.max_failures, vanished)


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
        code=reading_code(),
        max_attempts=options.max_attempts,
        watch=options.watch,
    )


def has_letters(entry: Entry, retry: Retry) -> bool:
    """Whether a unit has dead letters that a retry takes up."""
    return any(not retry.reasons or reason in retry.reasons for reason in entry.failures)


def is_open(entry: Entry | None, run: RunOptions, on_change: OnChange) -> bool:
    """Whether a unit is to be done: it has no valid entry yet, or dead letters that a retry takes up."""
    if run.retry is not None:
        return entry is not None and entry.run != run.run and has_letters(entry, run.retry)
    return not is_done(entry, on_change, run)


# ---- the graph


def build(
    pipeline: beam.Pipeline,
    options: RunOptions,
    on_change: OnChange = "fail",
    share_model: bool = False,
    here: LocalWorkers | None = None,
) -> beam.PCollection[Entry]:
    """The graph: does the open units of a plan. Its size does not depend on the corpus.

    Args:
        here: the workers, where all of them are on this machine.
    """
    return (
        pipeline
        | "Open units" >> OpenUnits(options.output, partial(is_open, run=options, on_change=on_change), here)
        | "Take one by one" >> beam.Map(lambda reference: [reference])
        | "Read units" >> RunInference(UnitHandler(options, share_model, here))
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
    try:
        return do_run(
            options.output,
            partial(prepare, options),
            partial(_told, options),
            lambda pipeline, run, here: build(pipeline, run, options.on_change, options.share_model, here),
            write_lists,
            beam_flags,
            started_s,
        )
    finally:
        close_idle_workers()


def _told(options: TranscribeOptions, run: RunOptions) -> dict[str, Any]:
    """What the record of a run says of it."""
    return {"options": _plain(options), **run.identity}


def _plain(options: TranscribeOptions) -> dict[str, Any]:
    return {name: value for name, value in asdict(replace(options, load=load_reader)).items() if name != "load"}


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
        planned = Planned(run, before.files, len(before.references), files, len(units))
        try:
            run_pipeline(planned, lambda pipeline, here: build(pipeline, run, here=here), beam_flags)
        finally:
            close_idle_workers()
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
        check_change(options.on_change, run, report.entries.values())
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

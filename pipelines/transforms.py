"""The steps of `transcribe` as transforms, for those who have a Beam pipeline of their own.

    with beam.Pipeline() as pipeline:
        read = (
            pipeline
            | ListPages(["gs://archive/1901/"])
            | TranscribePages(bundle="models/french")
        )
        read.pages | WriteOutputs("gs://archive-text/1901", formats=["txt", "alto"])
        read.dead_letters | beam.Map(asdict) | beam.io.WriteToText(...)

Each file is a work item of its own here, and there is no ledger: what happens after a failure is up to the pipeline
around. `pagemill transcribe` itself works in units, see `pipelines.transcribe`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.ml.inference.base import ModelHandler, PredictionResult, RunInference

from ocr_model.errors import BadArgument
from pipelines.corpus import SourceFile, find_sources
from pipelines.decoder import Decoder
from pipelines.formats import FORMATS
from pipelines.formats.record import PageRecord, PageScan
from pipelines.ledger import DeadLetter
from pipelines.load_reader import load_reader
from pipelines.outputs import write_atomically
from pipelines.plan import Item, documents
from pipelines.read_pages import DeadPage, PageReader, ReadOptions, ReadPage, read_items
from pipelines.write_pages import page_stem


class ListPages(beam.PTransform):
    """The files of the inputs (files, folders, globs, archives, manifests), spread over the workers.

    Only the inputs' names are part of the graph. The listing happens on one worker.
    """

    def __init__(self, inputs: Sequence[str], output: str = "") -> None:
        super().__init__()
        self._inputs, self._output = tuple(inputs), output

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[SourceFile]:
        return (
            pipeline
            | "Name the inputs" >> beam.Create([self._inputs], reshuffle=False)
            | "List" >> beam.FlatMap(list_files, self._output)
            | "Spread over workers" >> beam.Reshuffle()
        )


def list_files(inputs: Sequence[str], output: str) -> Iterable[SourceFile]:
    """See `find_sources`; without an output folder none is passed over."""
    return documents(find_sources(inputs, output or "/dev/null"), whole_folders=False)


@dataclass(frozen=True)
class TranscribedPage:
    """A page that was read, where it comes from, and where the formats are to put it below their folders."""

    record: PageRecord
    scan: PageScan
    stem: str


class Transcribed(NamedTuple):
    """What `TranscribePages` gives."""

    pages: beam.PCollection[TranscribedPage]
    dead_letters: beam.PCollection[DeadLetter]


class TranscribePages(beam.PTransform):
    """Reads the pages of files. Decoding happens in a process that can be killed; a bad page is a dead letter.

    Args:
        bundle: the model; None is the one in the package.
        options: limits and how pages are gathered.
        load: makes the reader of a bundle, once per process.
    """

    def __init__(
        self,
        bundle: str | None = None,
        options: ReadOptions = ReadOptions(keep_jpeg=True),
        load: Callable[[str | None], PageReader] = load_reader,
    ) -> None:
        super().__init__()
        self._handler = _FileHandler(bundle, options, load)

    def expand(self, files: beam.PCollection[SourceFile]) -> Transcribed:
        outcomes = (
            files
            | "Take a few files" >> beam.BatchElements(min_batch_size=16, max_batch_size=16)
            | "Read" >> RunInference(self._handler)
            | "Part" >> beam.FlatMap(_parted).with_outputs("dead", main="pages")
        )
        return Transcribed(outcomes["pages"], outcomes["dead"])


class _FileHandler(ModelHandler[SourceFile, PredictionResult, PageReader]):
    """Reads files for Beam's `RunInference`."""

    def __init__(self, bundle: str | None, options: ReadOptions, load: Callable[[str | None], PageReader]) -> None:
        super().__init__()
        self._bundle, self._options, self._load = bundle, options, load

    def load_model(self) -> PageReader:
        return self._load(self._bundle)

    def run_inference(
        self, batch: Sequence[SourceFile], model: PageReader, inference_args: dict[str, Any] | None = None
    ) -> Iterator[PredictionResult]:
        options = self._options
        with Decoder(options.limits, options.timeout_s, options.memory_bytes) as decoder:
            for outcome in read_items([Item(file) for file in batch], lambda file: model, decoder, options):
                yield PredictionResult(outcome.of.item.source, outcome)

    def should_skip_batching(self) -> bool:
        return True  # "Take a few files" has done it

    def get_num_bytes(self, batch: Sequence[SourceFile]) -> int:
        return sum(file.size or 0 for file in batch)

    def get_metrics_namespace(self) -> str:
        return "pagemill"


def _parted(result: PredictionResult) -> Iterator[Any]:
    outcome = result.inference
    if isinstance(outcome, DeadPage):
        yield beam.pvalue.TaggedOutput("dead", outcome.letter)
    elif isinstance(outcome, ReadPage):
        source, image = outcome.of.item.source, outcome.image
        record = PageRecord(
            path=source.origin,
            number=outcome.of.number,
            page=outcome.page,
            dpi=image.dpi * image.reduced_by if image.dpi else None,
            reduced_by=image.reduced_by,
            page_id=outcome.of.page_id,
            document=source.document,
            metadata=dict(source.metadata),
        )
        yield TranscribedPage(record, PageScan(image.pixels, outcome.jpeg), page_stem(source.stem, outcome.of))


class WriteOutputs(beam.PTransform):
    """Writes a file a page to `output/FORMAT/…`; gives the paths, relative to `output`.

    Raises:
        BadArgument: an unknown format, or one that wants the pages of a whole unit in one file.
    """

    def __init__(self, output: str, formats: Sequence[str] = ("txt",)) -> None:
        super().__init__()
        fitting = [name for name, format in FORMATS.items() if format.per != "unit"]
        for name in formats:
            if name not in fitting:
                raise BadArgument(f"{name} is no format of single pages", f"choose from {', '.join(fitting)}")
        self._output, self._formats = output, tuple(formats)

    def expand(self, pages: beam.PCollection[TranscribedPage]) -> beam.PCollection[str]:
        return pages | "Write" >> beam.FlatMap(write_page, self._output, self._formats)


def write_page(page: TranscribedPage, output: str, formats: Sequence[str]) -> Iterator[str]:
    """Writes one page in each format, each file in one piece; yields their paths."""
    for name in formats:
        format = FORMATS[name]
        stream = io.BytesIO()
        writer = format.open(stream, page.stem)
        writer.add(replace(page.record, document=page.stem), page.scan)
        writer.finish()
        relative = f"{name}/{page.stem}{format.extension}"
        write_atomically(output, relative, stream.getvalue())
        yield relative

"""Units within Beam: read by `RunInference`, counted, and published.

A process keeps its readers, and a decoder for each of its threads, from unit to unit.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, cast

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import ModelHandler, PredictionResult

from pipelines import ledger
from pipelines.commits import commit_unit
from pipelines.decoder import Decoder
from pipelines.ledger import Entry
from pipelines.open_units import LocalWorkers
from pipelines.plan import UnitReference, read_unit
from pipelines.routing import Readers
from pipelines.unit_jobs import NAMESPACE, count_outcome, tally_of
from pipelines.units import RunOptions, StagedUnit, Worker, stage_unit


class UnitHandler(ModelHandler[UnitReference, PredictionResult, Readers]):
    """Reads units for Beam's `RunInference`; the model is the process's `Readers`.

    Batches are not Beam's: the lines of a unit are gathered by width in the reader, with a fixed size for each width,
    so that a line's result does not depend on what stands beside it.
    """

    def __init__(self, options: RunOptions, share_model: bool, here: LocalWorkers | None) -> None:
        super().__init__()
        self._options, self._share_model, self._here = options, share_model, here

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
            with borrowed_worker(self._options, model, self._here) as worker:
                staged = stage_unit(read_unit(self._options.output, reference), worker)
            _count_unit(staged)
            yield PredictionResult(reference, staged, self._options.model)

    def should_skip_batching(self) -> bool:
        return True  # a unit is a batch

    def get_num_bytes(self, batch: Sequence[UnitReference]) -> int:
        return sum(reference.bytes for reference in batch)

    def get_metrics_namespace(self) -> str:
        return NAMESPACE

    def share_model_across_processes(self) -> bool:
        return self._share_model


_idle: list[Worker] = []  # a process keeps its decoder, one for each thread that is at work, from unit to unit
_idle_lock = threading.Lock()


@contextmanager
def borrowed_worker(options: RunOptions, readers: Readers, here: LocalWorkers | None) -> Iterator[Worker]:
    """A worker of this run that no other thread uses meanwhile."""
    with _idle_lock:
        fitting = [worker for worker in _idle if worker.options.run == options.run and worker.readers is readers]
        for worker in _idle if not fitting else ():
            worker.decoder.close()  # of a run that is over
        _idle[:] = fitting[1:]
    if fitting:
        worker = fitting[0]
    else:
        tally = tally_of(here)
        decoder = Decoder(options.read.limits, options.read.timeout_s, options.read.memory_bytes)
        worker = Worker(options, readers, decoder, lambda outcome: count_outcome(outcome, tally))
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


def _count_unit(staged: StagedUnit) -> None:
    for name, value in asdict(staged.written.counts).items():
        Metrics.counter(NAMESPACE, name).inc(value)
    for stage, counts in staged.milliseconds.items():
        distribution = Metrics.distribution(NAMESPACE, f"{stage}_ms")
        for bucket, n in counts.items():
            for _ in range(n):
                distribution.update(round(1.1 ** (int(bucket) + 0.5)))


class PublishUnits(beam.DoFn):
    """Gives the outputs of a unit their names and writes its ledger entry. Yields the entry."""

    def __init__(self, options: RunOptions) -> None:
        self._options = options

    def process(self, result: PredictionResult) -> Iterator[Entry]:
        yield commit_unit(cast(StagedUnit, result.inference), self._options)

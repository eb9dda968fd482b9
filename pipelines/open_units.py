"""The open units of a plan, each at the worker that is to do it.

On a cluster the runner spreads the descriptions of units over its workers, and moves them when one is idle. The local
runner deals them out before the first is begun, so that one worker may have the longer half. There each worker takes
the next unit when it is through with one: who creates a unit's file in a folder of this machine does the unit.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import apache_beam as beam

from pipelines import ledger
from pipelines.ledger import Entry
from pipelines.plan import UnitReference, read_references
from pipelines.supervise import end_with

IsOpen = Callable[[Entry | None], bool]


@dataclass(frozen=True)
class LocalWorkers:
    """The workers of a run on this machine.

    Attributes:
        count: how many there are.
        folder: of this run and machine, where they tell each other and the launcher what they do.
        job: number of the process that Beam runs in; they end with it.
    """

    count: int
    folder: str
    job: int = field(default_factory=os.getpid)

    def take(self, unit: str) -> bool:
        """Whether the unit is the caller's; it is nobody else's then."""
        claims = os.path.join(self.folder, "claims")
        os.makedirs(claims, exist_ok=True)
        try:
            os.close(os.open(os.path.join(claims, unit), os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True


class OpenUnits(beam.PTransform):
    """The units of a plan that are to be done, spread over the workers. The graph's size does not depend on the corpus.

    Args:
        is_open: of a unit's ledger entry, if it has one; a function that workers can import.
        here: the workers, where all of them are on this machine.
    """

    def __init__(self, output: str, is_open: IsOpen, here: LocalWorkers | None = None) -> None:
        super().__init__()
        self._output, self._is_open, self._here = output, is_open, here

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[UnitReference]:
        if self._here is None:
            return (
                pipeline
                | "Name the output folder" >> beam.Create([self._output], reshuffle=False)
                | "List open units" >> beam.FlatMap(open_units, self._is_open)
                | "Spread over workers" >> beam.Reshuffle()
            )
        return (
            pipeline
            | "Call each worker" >> beam.Create([self._output] * self._here.count, reshuffle=False)
            | "Spread over workers" >> beam.Reshuffle()
            | "Take open units" >> beam.FlatMap(take_units, self._is_open, self._here)
        )


def open_units(output: str, is_open: IsOpen) -> Iterator[UnitReference]:
    """The units that are open now, in the order of the plan."""
    entries, _ = ledger.read_entries(output)
    for reference in read_references(output):
        if is_open(entries.get(reference.name)):
            yield reference


def take_units(output: str, is_open: IsOpen, here: LocalWorkers) -> Iterator[UnitReference]:
    """The open units that no other worker of this machine has taken, one whenever the caller is ready for it."""
    end_with(here.job)
    noted = ledger.entry_names(output)  # what is entered later was taken by someone
    for reference in longest_first(list(read_references(output))):
        # Taken first, so that each entry is read by one worker only: in a bucket that takes its time.
        if here.take(reference.name) and is_open(_entry(output, reference.name) if reference.name in noted else None):
            yield reference


def _entry(output: str, unit: str) -> Entry | None:
    """The entry of a unit, if it is sound."""
    try:
        return ledger.read_entry(output, unit)
    except ledger.DamagedEntry:
        return None


def longest_first(references: Sequence[UnitReference]) -> list[UnitReference]:
    """The units by the work that they promise, of which files and bytes tell a half each; equal ones in their order.

    Taken in this order, the last units are small, and the workers end nearly together (longest processing time first,
    Graham 1969).
    """
    mean_bytes = sum(r.bytes for r in references) / max(1, sum(r.files for r in references))
    return sorted(references, key=lambda r: r.bytes + mean_bytes * r.files if mean_bytes else r.files, reverse=True)

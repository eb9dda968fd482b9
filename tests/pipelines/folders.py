"""Output folders of runs without Beam: planned, staged and committed in this process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines import ledger
from pipelines.commits import commit_unit
from pipelines.corpus import SourceFile
from pipelines.decoder import Decoder
from pipelines.ledger import Entry
from pipelines.plan import Item, claim_output, documents, plan_units, read_references, read_unit, write_plan
from pipelines.read_pages import ReadOptions
from pipelines.routing import Readers, Routing
from pipelines.units import RunOptions, Worker, stage_unit
from pipelines.write_pages import WriteOptions
from tests import scans
from tests.pipelines.readers import SizeReader


def png(width: int, height: int, ink: int = 0) -> bytes:
    return scans.encoded(scans.picture(width, height, ink), "PNG")


def put(root: Path, files: dict[str, bytes]) -> list[SourceFile]:
    """The files below `root/in`, as a listing has them."""
    for name, data in files.items():
        (root / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "in" / name).write_bytes(data)
    return [SourceFile(str(root / "in" / n), n.rpartition(".")[0], len(data)) for n, data in files.items()]


def plan(output: str, sources: Sequence[SourceFile], items: Sequence[Item] = ()) -> None:
    """Makes the folder one of these sources, or of the items."""
    claim_output(output, ["in"])
    first = sum(1 for _ in read_references(output)) + 1
    write_plan(output, plan_units(items or [Item(source) for source in documents(sources, False)], first=first))


def run_options(output: str, *formats: str, **changes: Any) -> RunOptions:
    options = RunOptions(
        output=output,
        run="run1",
        read=ReadOptions(timeout_s=20.0),
        write=WriteOptions(formats=formats or ("txt",)),
        routing=Routing(),
        load=SizeReader,
        digests={},
        model="model",
        configuration="configuration",
    )
    return replace(options, **changes)


def worker_of(options: RunOptions, decoder: Decoder) -> Worker:
    return Worker(options, Readers(options.load, options.digests), decoder)


def do_units(options: RunOptions, decoder: Decoder) -> list[Entry]:
    """Does the open units, or with `options.retry` all that have dead letters."""
    worker, done = worker_of(options, decoder), []
    entries, _ = ledger.read_entries(options.output)
    for reference in read_references(options.output):
        entry = entries.get(reference.name)
        if entry is None or (options.retry is not None and entry.failures):
            staged = stage_unit(read_unit(options.output, reference), worker)
            done.append(commit_unit(staged, options))
    return done


def files_in(root: Path) -> list[str]:
    """The outputs, without the ledger."""
    found = (str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
    return sorted(name for name in found if not name.startswith("ledger/"))

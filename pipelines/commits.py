"""Makes a staged unit count: its outputs get their names, then the ledger gets its entry.

Where the unit was done before, under another model or configuration or with dead letters that a retry has taken up, the
new entry takes the place of the old one, and outputs that it does not have are removed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from pipelines import durations, ledger
from pipelines.clock import now
from pipelines.formats import FORMATS
from pipelines.ledger import Counts, Entry
from pipelines.outputs import OutputFile, Staging, cannot_write, remove
from pipelines.plan import read_references, read_unit
from pipelines.units import RunOptions, StagedUnit, sources_of
from pipelines.write_pages import Written


def commit_unit(staged: StagedUnit, options: RunOptions) -> Entry:
    """Publishes the outputs and writes the ledger entry.

    Raises:
        BadInput: the output folder cannot be written any more, or its ledger is damaged.
    """
    try:
        earlier = _earlier_entry(staged, options)
        lists = _lists(staged.written)
        if earlier is not None:
            lists, outdated = _merged(options, earlier, staged)
        entry = _entry(staged, options, earlier if options.retry else None, lists)
        Staging(options.output, staged.below).publish(staged.written.outputs)
        if earlier is not None:
            for path in outdated:
                remove(options.output, path)
        entry = ledger.commit(options.output, entry, lists)
        ledger.end_attempts(options.output, staged.unit)
        Staging(options.output, staged.below).discard()  # no other's: a second worker may be at the unit, too
    except OSError as error:
        raise cannot_write(options.output, error) from error
    return entry


Lists = dict[str, Sequence[Any]]


def _lists(written: Written) -> Lists:
    return {
        "files": written.files,
        "outputs": written.outputs,
        "dead_letters": written.letters,
        "doubtful": written.doubtful,
    }


def _earlier_entry(staged: StagedUnit, options: RunOptions) -> Entry | None:
    """The entry that this one takes the place of: of another model or configuration, or before a retry."""
    try:
        return ledger.read_entry(options.output, staged.unit)
    except (FileNotFoundError, ledger.DamagedEntry):
        return None


def _merged(options: RunOptions, earlier: Entry, staged: StagedUnit) -> tuple[Lists, set[str]]:
    """The lists of the new entry, and the outputs of the earlier one that are not to stay."""
    output, written, redone = options.output, staged.written, staged.redone
    new = {file.path for file in written.outputs}
    if options.retry is None:
        try:
            return _lists(written), {file.path for file in ledger.output_files(output, earlier)} - new
        except ledger.DamagedEntry:  # what it wrote is not known any more
            return _lists(written), set()
    with ledger.damage_told(output):
        old = ledger.output_files(output, earlier)
        files = [f for f in ledger.file_counts(output, earlier) if f.path not in redone]
        letters = [d for d in ledger.dead_letters(output, earlier) if d.path not in redone]
        doubtful = [d for d in ledger.doubtful_pages(output, earlier) if d.path not in redone]
    outdated = _outputs_of_redone(output, staged, old) - new
    lists: Lists = {
        "files": files + written.files,
        "outputs": sorted([file for file in old if file.path not in outdated | new] + written.outputs),
        "dead_letters": letters + written.letters,
        "doubtful": doubtful + written.doubtful,
    }
    return lists, outdated


def _outputs_of_redone(output: str, staged: StagedUnit, files: Iterable[OutputFile]) -> set[str]:
    """Those of the outputs that hold documents or pages of files that a retry has done again."""
    reference = next(r for r in read_references(output) if r.name == staged.unit)
    redone, others = set[str](), set[str]()
    for item in read_unit(output, reference).items:
        for source in sources_of(item):
            (redone if source.origin in staged.redone else others).update((source.stem, source.document))
    names = {file.path: _name_of(file.path) for file in files}
    return {path for path, name in names.items() if name not in others and {name, _without_page(name)} & redone}


def _name_of(path: str) -> str:
    """The name of the document or page that an output file holds.

    >>> _name_of("txt/a/book.page-0007.txt"), _name_of("alto/a/b.c.xml")
    ('a/book.page-0007', 'a/b.c')
    """
    folder, _, relative = path.partition("/")
    return relative.removesuffix(FORMATS[folder].extension) if folder in FORMATS else relative


def _without_page(name: str) -> str:
    """
    >>> _without_page("a/book.page-0007")
    'a/book'
    """
    return re.sub(r"\.page-\d{4,}$", "", name)


def _entry(staged: StagedUnit, options: RunOptions, retried: Entry | None, lists: Lists) -> Entry:
    counts = sum((file.as_counts() for file in lists["files"]), Counts())
    counts = replace(
        counts,
        bytes_in=staged.bytes_in + (retried.counts.bytes_in if retried else 0),
        bytes_out=sum(file.size for file in lists["outputs"]),
    )
    entry = Entry(
        unit=staged.unit,
        run=options.run,
        attempt=staged.attempt,
        counts=counts,
        failures=dict(Counter(letter.reason for letter in lists["dead_letters"])),
        milliseconds=staged.milliseconds,
        model=options.model,
        configuration=options.configuration,
        code_version=options.code_version,
        started=staged.started,
        ended=now(),
        wall_s=round(staged.wall_s, 3),
        cpu_s=round(staged.cpu_s, 3),
        worker=ledger.worker_name(),
        models=staged.models,
        code=options.code,
    )
    if retried is None:
        return entry
    # The unit stays one of the model, configuration and code that most of it was read with.
    return replace(
        entry,
        model=retried.model,
        configuration=retried.configuration,
        code=retried.code,
        wall_s=round(retried.wall_s + entry.wall_s, 3),
        cpu_s=round(retried.cpu_s + entry.cpu_s, 3),
        models=dict(durations.total([retried.models, entry.models])),
        milliseconds={
            stage: dict(durations.total([retried.milliseconds.get(stage, {}), counts]))
            for stage, counts in entry.milliseconds.items()
        },
        retries=retried.retries + 1,
    )

"""The books of an output folder: what is done, dead, skipped, duplicate and open, per unit and over all.

Read from the plan and the ledger alone, so it may be asked for at any time and from anywhere, also while a job runs.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from ocr_model.errors import PagemillError
from pipelines import durations, ledger
from pipelines.ledger import Counts, Entry
from pipelines.outputs import AtomicFile, list_files, read_text
from pipelines.plan import UnitReference, read_corpus, read_references

RUNS = "ledger/runs"
DEAD_LETTERS = "dead_letters.jsonl"
DOUBTFUL = "doubtful.jsonl"


@dataclass(frozen=True)
class Report:
    """What is known of an output folder.

    Attributes:
        references: the units of the plan.
        entries: of the units that are done.
        damaged: units whose entries cannot be trusted; they count as open.
        in_hand: open units that some worker has begun with.
        run: the record of the last run.
    """

    output: str
    references: tuple[UnitReference, ...]
    entries: Mapping[str, Entry]
    damaged: tuple[str, ...] = ()
    in_hand: tuple[str, ...] = ()
    run: Mapping[str, Any] = field(default_factory=dict)

    @property
    def counts(self) -> Counts:
        return sum((entry.counts for entry in self.entries.values()), Counts())

    @property
    def failures(self) -> Counter[str]:
        return durations.total(entry.failures for entry in self.entries.values())

    @property
    def milliseconds(self) -> dict[str, Counter[str]]:
        stages = sorted({stage for entry in self.entries.values() for stage in entry.milliseconds})
        return {s: durations.total(e.milliseconds.get(s, {}) for e in self.entries.values()) for s in stages}

    @property
    def files(self) -> int:
        return sum(reference.files for reference in self.references)

    @property
    def open_files(self) -> int:
        return sum(reference.files for reference in self.references if reference.name not in self.entries)

    @property
    def open_units(self) -> int:
        return sum(reference.name not in self.entries for reference in self.references)

    @property
    def cpu_s(self) -> float:
        """CPU seconds of all units; what starting workers and planning took is not in it."""
        return sum(entry.cpu_s for entry in self.entries.values())

    @property
    def unbalanced(self) -> list[str]:
        """Units in which the pages do not add up, or files are missing."""
        planned = {reference.name: reference.files for reference in self.references}
        return [
            name
            for name, entry in self.entries.items()
            if not entry.counts.balanced or entry.counts.files != planned.get(name)
        ]

    def check(self) -> None:
        """
        Raises:
            PagemillError: a unit is open, or its pages do not add up.
        """
        wrong = self.unbalanced
        if wrong or self.open_units:
            raise PagemillError(
                f"the books of {self.output} do not balance: {self.open_units} units open, wrong counts in"
                f" {', '.join(wrong) or 'none'}",
                "run again to do the open units; wrong counts are a bug, please report it",
            )

    @property
    def pages_per_s(self) -> float:
        """Of the last run, from the first start of a unit to the last end: several workers count together."""
        done = [entry for entry in self.entries.values() if entry.run == self.run.get("run")]
        if not done:
            return 0.0
        span_s = max(_seconds(e.ended) for e in done) - min(_seconds(e.started) for e in done)
        return sum(e.counts.pages for e in done) / max(span_s, 1.0)

    @property
    def seconds_left(self) -> float | None:
        """At the pace so far, if there is one; open files are taken to have as many pages as the others."""
        counts = self.counts
        if not self.pages_per_s or not counts.files:
            return None
        return self.open_files * counts.pages / counts.files / self.pages_per_s

    def to_json(self) -> dict[str, Any]:
        """Plain values for `status --json`."""
        return {
            "output": self.output,
            "files": self.files,
            "open_files": self.open_files,
            "units": len(self.references),
            "open_units": self.open_units,
            "in_hand": list(self.in_hand),
            "damaged_entries": list(self.damaged),
            "balanced": not self.unbalanced,
            "counts": asdict(self.counts),
            "failures": dict(sorted(self.failures.items())),
            "pages_per_s": round(self.pages_per_s, 3),
            "seconds_left": None if self.seconds_left is None else round(self.seconds_left),
            "cpu_s": round(self.cpu_s, 1),
            "milliseconds": {
                stage: {"p50": round(durations.quantile(c, 0.5), 1), "p95": round(durations.quantile(c, 0.95), 1)}
                for stage, c in self.milliseconds.items()
            },
            "models": dict(durations.total(entry.models for entry in self.entries.values())),
            "run": dict(self.run),
        }


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


def reconcile(output: str) -> Report:
    """The books as they are now.

    Raises:
        BadInput: this is no output folder of `pagemill transcribe`.
    """
    read_corpus(output)
    references = tuple(read_references(output))
    entries, damaged = ledger.read_entries(output)
    in_hand = sorted(ledger.units_in_hand(output) - set(entries))
    return Report(output, references, entries, tuple(damaged), tuple(in_hand), last_run(output))


def last_run(output: str) -> dict[str, Any]:
    """The record of the run that began last; empty if there is none."""
    records = []
    for name in list_files(output, RUNS):
        try:
            record = json.loads(read_text(output, name))
        except (OSError, ValueError):  # being written this very moment, or cut short: an older one is told
            continue
        if isinstance(record, dict):
            records.append(record)
    return max(records, key=lambda record: str(record.get("started")), default={})


def write_lists(output: str, report: Report) -> None:
    """Gathers the dead letters and the doubtful pages of all units in two files, empty where there are none.

    Raises:
        BadInput: a list of the ledger is damaged.
    """
    _write_lines(output, DEAD_LETTERS, _lines(report, ledger.dead_letters))
    _write_lines(output, DOUBTFUL, _lines(report, ledger.doubtful_pages))


def write_dead_letters(output: str, report: Report) -> None:
    """Gathers the dead letters of all units in one file, empty where there are none."""
    _write_lines(output, DEAD_LETTERS, _lines(report, ledger.dead_letters))


def _lines(report: Report, read: Any) -> Iterator[str]:
    for name in sorted(report.entries):
        with ledger.damage_told(report.output):
            values = read(report.output, report.entries[name])
        for value in values:
            yield json.dumps(asdict(value), ensure_ascii=False) + "\n"


def _write_lines(output: str, relative: str, lines: Iterator[str]) -> None:
    file = AtomicFile(output, relative)
    try:
        for line in lines:
            file.write(line)
    except BaseException:
        file.discard()
        raise
    file.commit()


def unit_lines(report: Report) -> Iterator[str]:
    """A line for every unit of the plan."""
    for reference in report.references:
        entry = report.entries.get(reference.name)
        if entry is None:
            state = "in hand" if reference.name in report.in_hand else "open"
            yield f"{reference.name}  {state}, {reference.files} files"
        else:
            c = entry.counts
            yield (
                f"{reference.name}  done, {c.files} files, {c.pages} pages = {c.read} read + {c.dead} dead"
                f" + {c.skipped} skipped + {c.duplicates} duplicates, {entry.cpu_s:.1f} CPU s, {entry.worker}"
            )


def report_text(report: Report, formats: tuple[str, ...] = (), details: bool = False) -> str:
    """A few lines for a person.

    Args:
        formats: named with the folders that they lie in.
        details: the sum, and how long the stages take.
    """
    counts = report.counts
    said = [f"{counts.read} of {counts.pages} pages read ({counts.lines} lines) from {counts.files} files"]
    if counts.duplicates:
        said.append(f"{counts.duplicates} pages are copies of others and got their text")
    if counts.skipped:
        said.append(f"{counts.skipped} pages were skipped")
    if counts.dead:
        reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(report.failures.items()))
        said.append(f"{counts.dead} could not be read: {reasons} (see {os.path.join(report.output, DEAD_LETTERS)})")
    if report.open_files:
        said.append(f"{report.open_files} of {report.files} files are open, {len(report.in_hand)} units in hand")
    if report.damaged:
        said.append(f"{len(report.damaged)} ledger entries are damaged and will be done again")
    said.append(_pace(report))
    if details:
        said.append(
            f"{report.files} files = {counts.files} done + {report.open_files} open; {counts.pages} pages of the done"
            f" ones = {counts.read} read + {counts.dead} dead + {counts.skipped} skipped + {counts.duplicates}"
            " duplicates"
        )
        said += [
            f"{stage}: {durations.quantile(c, 0.5):.0f} ms a page, 95 % under {durations.quantile(c, 0.95):.0f} ms"
            for stage, c in report.milliseconds.items()
        ]
    if formats and counts.read:
        said.append("results in " + ", ".join(os.path.join(report.output, name) for name in formats))
    return "\n".join(line for line in said if line)


def _pace(report: Report) -> str:
    if not report.counts.pages or not report.cpu_s:
        return ""
    text = f"{report.cpu_s / report.counts.pages:.2f} CPU seconds a page"
    if report.pages_per_s:  # the last run may have had nothing to do
        text = f"{report.pages_per_s:.2f} pages/s, {text}"
    if report.open_files and report.seconds_left is not None:
        text += f", {clock(report.seconds_left)} left"
    return text


def clock(seconds: float) -> str:
    """
    >>> clock(75), clock(3700)
    ('1:15', '1:01:40')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

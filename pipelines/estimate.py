"""What a run will cost, from a sample of the corpus that is really read, and of which nothing is kept.

The sample is systematic over the files in order of their size, so that small and large ones are in it as in the
corpus; of a long document some pages in a row are read. The pages are read together as in a run, since a page alone
costs more than one among others; what a page took of that is shared out by its pixels (finding) and its characters
(reading). The interval is a bootstrap over the sampled files (Efron 1979).
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocr_model.errors import UnreadablePage
from pipelines.clock import cpu_seconds
from pipelines.corpus import SourceFile, read_source
from pipelines.cost import Cost, Machine, duration
from pipelines.decoder import Decoder
from pipelines.outputs import Staging
from pipelines.plan import Item, unit_count
from pipelines.read_pages import DeadPage, Observed, Outcome, ReadPage, read_items
from pipelines.routing import Readers
from pipelines.transcribe import TranscribeOptions, bundle_digests, run_options, take_sources
from pipelines.units import Worker
from pipelines.write_pages import Written, write_outcomes

PAGES_OF_A_FILE = 5  # that are read of a long document
_RESAMPLES = 2000
_WARM_UP_PAGES = 2  # read before the clock runs: the first pages of a process pay for what comes only once


@dataclass(frozen=True)
class Range:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float

    def times(self, factor: float) -> Range:
        return Range(self.mean * factor, self.low * factor, self.high * factor)

    def to_json(self) -> dict[str, float]:
        return {"mean": round(self.mean, 4), "low": round(self.low, 4), "high": round(self.high, 4)}


@dataclass(frozen=True)
class Estimate:
    """What a run over a corpus will take.

    Attributes:
        files: of the corpus.
        sampled_files, sampled_pages: that were read.
        pages: of the corpus.
        cpu_s_per_page, cpu_s: of the machine that this was measured on.
        output_bytes: by format, of all outputs.
        dead: pages of the sample that could not be read.
    """

    files: int
    sampled_files: int
    sampled_pages: int
    pages: Range
    cpu_s_per_page: Range
    cpu_s: Range
    output_bytes: dict[str, float]
    dead: int
    machine: Machine

    def cost(self, cpu_s: float) -> Cost:
        size = sum(self.output_bytes.values())
        return Cost(self.machine, round(self.pages.mean), cpu_s, size, unit_count(self.files))

    def to_json(self) -> dict[str, Any]:
        return {
            "files": self.files,
            "sampled_files": self.sampled_files,
            "sampled_pages": self.sampled_pages,
            "sampled_dead": self.dead,
            "pages": self.pages.to_json(),
            "cpu_s_per_page": self.cpu_s_per_page.to_json(),
            "cpu_s": self.cpu_s.to_json(),
            "output_bytes": {name: round(size) for name, size in self.output_bytes.items()},
            "cost": {name: self.cost(getattr(self.cpu_s, name)).to_json() for name in ("mean", "low", "high")},
        }

    def text(self, workers: int) -> str:
        """A few lines for a person; `workers` are vCPUs at work at a time."""
        mean, low, high = (self.cost(value) for value in (self.cpu_s.mean, self.cpu_s.low, self.cpu_s.high))
        page, currency = self.cpu_s_per_page, self.machine.currency
        sizes = ", ".join(f"{name} {size / 1e9:.3f} GB" for name, size in self.output_bytes.items())
        lines = [
            f"{self.files} files, some {self.pages.mean:.0f} pages; {self.sampled_pages} pages of"
            f" {self.sampled_files} files were read ({self.dead} could not be)",
            f"{page.mean:.3f} CPU seconds a page (95 %: {page.low:.3f} to {page.high:.3f})",
            f"{self.machine.name}: {mean.vcpu_hours:.2f} vCPU hours ({low.vcpu_hours:.2f} to {high.vcpu_hours:.2f}),"
            f" {duration(mean.wall_s(workers))} with {workers} vCPUs",
            f"{mean.price:.2f} {currency} ({low.price:.2f} to {high.price:.2f}), {mean.price_per_million:.2f} per"
            f" million pages; prices of {self.machine.dated}",
            f"outputs: {sizes}",
        ]
        return "\n".join(lines)


def systematic(sources: Sequence[SourceFile], wanted: int, rng: random.Random) -> list[SourceFile]:
    """So many sources at equal steps through all of them in order of size, from a random start, back in their order."""
    count = min(wanted, len(sources))
    order = sorted(range(len(sources)), key=lambda i: (sources[i].size or 0, i))
    step = len(order) / count
    start = rng.random() * step
    return [sources[i] for i in sorted(order[min(int(start + step * n), len(order) - 1)] for n in range(count))]


def estimate(options: TranscribeOptions, sample: int, seed: int, machine: Machine) -> Estimate:
    """Reads a sample and scales it up.

    Args:
        sample: files.

    Raises:
        BadInput, NothingToDo: see `find_sources`.
        BadModel: a bundle cannot be loaded.
    """
    sources = take_sources(options)
    digests = bundle_digests(options.routing.bundles(sources))
    rng = random.Random(seed)
    chosen = systematic(sources, sample, rng)
    with tempfile.TemporaryDirectory(prefix="pagemill-estimate-") as folder:
        run = run_options(replace(options, output=folder), digests)
        with closing(Decoder(run.read.limits, run.read.timeout_s, run.read.memory_bytes)) as decoder:
            worker = Worker(run, Readers(options.load, digests), decoder)
            windows = [_window(source, decoder, worker, rng) for source in chosen]
            _warm_up([Item(source) for source, _ in windows], worker)
            measured = _measure([Item(source) for source, _ in windows], worker, Staging(folder, "staging"))
    pages = np.array([pages for _, pages in windows], float)
    return _scaled(len(sources), pages, measured, machine)


def _window(source: SourceFile, decoder: Decoder, worker: Worker, rng: random.Random) -> tuple[SourceFile, int]:
    """A source of a few pages in a row of this one, and how many pages the whole has that a run would read."""
    read = worker.options.read
    try:
        count = decoder.open(read_source(source, read.limits.max_bytes))
    except (UnreadablePage, OSError):
        return source, 1
    first = max(source.first_page, read.first_page)
    last = min(count, source.last_page or count, read.last_page or count)
    pages = max(last - first + 1, 0)
    if pages <= PAGES_OF_A_FILE:
        return source, pages
    start = rng.randint(first, last - PAGES_OF_A_FILE + 1)
    return replace(source, first_page=start, last_page=start + PAGES_OF_A_FILE - 1), pages


@dataclass(frozen=True)
class _Measured:
    """A sample that was read: by file, pages, CPU seconds."""

    pages: NDArray[np.float64]
    cpu_s: NDArray[np.float64]
    bytes_by_format: dict[str, float]
    dead: int


def _warm_up(items: Sequence[Item], worker: Worker) -> None:
    for _ in read_items(items[:_WARM_UP_PAGES], worker.reader_of, worker.decoder, worker.options.read):
        pass


def _measure(items: Sequence[Item], worker: Worker, staging: Staging) -> _Measured:
    shares: dict[SourceFile, list[float]] = {item.source: [0.0, 0.0, 0.0] for item in items}  # pages, pixels, letters
    dead = 0

    def noted(outcomes: Iterator[Outcome]) -> Iterator[Outcome]:
        nonlocal dead
        for outcome in outcomes:
            share = shares[outcome.of.item.source]
            if isinstance(outcome, ReadPage):
                share[0] += 1
                share[1] += outcome.image.pixels.size
                share[2] += sum(len(line.text) for line in outcome.page.lines())
            elif isinstance(outcome, DeadPage):
                share[0] += 1
                dead += 1
            yield outcome

    observed = Observed()
    began = cpu_seconds()
    outcomes = read_items(items, worker.reader_of, worker.decoder, worker.options.read, observed)
    written = write_outcomes(noted(outcomes), staging, "sample", worker.options.write)
    total_s = cpu_seconds() - began
    table = np.array(list(shares.values()), float)
    return _Measured(table[:, 0], _shared_out(total_s, table, observed), _bytes_by_format(written), dead)


def _shared_out(total_s: float, table: NDArray[np.float64], observed: Observed) -> NDArray[np.float64]:
    """CPU seconds of each file: finding by pixels, reading by letters, the rest by pages.

    Args:
        table: [files, 3]: pages, pixels, letters.
    """
    spent = {name: sum(n * 1.1 ** int(b) for b, n in counts.items()) for name, counts in observed.milliseconds.items()}
    whole = sum(spent.values()) or 1.0
    parts = np.array([spent["decode"], spent["find"], spent["read"]]) / whole
    sums = table.sum(axis=0)
    shares = np.divide(table, sums, out=np.zeros_like(table), where=sums > 0)
    used = np.where(sums > 0, parts, 0.0)
    return total_s * (shares @ (used / used.sum() if used.sum() else used))


def _bytes_by_format(written: Written) -> dict[str, float]:
    sizes: dict[str, float] = {}
    for file in written.outputs:
        name = file.path.partition("/")[0]
        sizes[name] = sizes.get(name, 0.0) + file.size
    return sizes


def _scaled(files: int, pages_of_file: NDArray[np.float64], measured: _Measured, machine: Machine) -> Estimate:
    """Args: pages_of_file: [sampled] pages of each sampled file, of which `measured.pages` were read."""
    read = np.maximum(measured.pages, 1.0)
    per_file_s = measured.cpu_s / read * pages_of_file
    rng = np.random.default_rng(0)
    picks = rng.integers(0, len(pages_of_file), (_RESAMPLES, len(pages_of_file)))
    pages = _range(files * pages_of_file.mean(), files * pages_of_file[picks].mean(axis=1))
    cpu_s = _range(files * per_file_s.mean(), files * per_file_s[picks].mean(axis=1))
    ratios = per_file_s[picks].sum(axis=1) / np.maximum(pages_of_file[picks].sum(axis=1), 1e-9)
    per_page = _range(per_file_s.sum() / max(pages_of_file.sum(), 1e-9), ratios)
    scale = pages.mean / max(measured.pages.sum(), 1.0)
    return Estimate(
        files=files,
        sampled_files=len(pages_of_file),
        sampled_pages=int(measured.pages.sum()),
        pages=pages,
        cpu_s_per_page=per_page,
        cpu_s=cpu_s,
        output_bytes={name: size * scale for name, size in measured.bytes_by_format.items()},
        dead=measured.dead,
        machine=machine,
    )


def _range(mean: float, resampled: NDArray[np.float64]) -> Range:
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Range(float(mean), float(low), float(high))

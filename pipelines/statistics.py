"""What a set of records looks like in numbers, and how far it is from an earlier one.

Made from the tables that ingest writes beside the records; no picture is opened.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ocr_model.errors import BadArgument, BadInput

STATISTICS, DRIFT = "statistics.json", "drift.json"
FORMAT, VERSION = "pagemill-statistics", 1
# Widths of lines are counted in steps of a tenth: enough for a distance of distributions.
_GROWTH = math.log(1.1)
_TOLD = 20


@dataclass
class Statistics:
    """Counts over all records.

    Attributes:
        records: by kind and split, `line/train`.
        empty: of these, records without text.
        languages: lines by language.
        characters: by character, in the lines; in the pages where there are no lines.
        held_out_only: characters that the training split lacks, with their counts in the others.
        widths: lines by `width_bin` of their width at the recogniser's height.
        grey_sum, grey_count: mean grey of the crops.
        copies: pages that are copies of others, and pages in all.
    """

    records: Counter[str] = field(default_factory=Counter)
    empty: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    characters: Counter[str] = field(default_factory=Counter)
    held_out_only: Counter[str] = field(default_factory=Counter)
    widths: Counter[int] = field(default_factory=Counter)
    grey_sum: float = 0.0
    grey_count: int = 0
    copies: tuple[int, int] = (0, 0)

    @property
    def grey(self) -> float:
        return self.grey_sum / self.grey_count if self.grey_count else 0.0

    @property
    def empty_share(self) -> float:
        return sum(self.empty.values()) / max(1, sum(self.records.values()))

    @property
    def copied_share(self) -> float:
        return self.copies[0] / max(1, self.copies[1])

    def to_text(self) -> str:
        value: dict[str, Any] = {"format": FORMAT, "version": VERSION, **vars(self)}  # `asdict` breaks counters
        value["widths"] = {str(n): count for n, count in sorted(self.widths.items())}
        value["grey_sum"] = round(self.grey_sum, 2)
        for name in ("records", "empty", "languages", "characters", "held_out_only"):
            value[name] = dict(sorted(value[name].items()))
        return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def statistics_from_text(text: str, name: str) -> Statistics:
    """What `Statistics.to_text` gave.

    Raises:
        BadInput: it is something else or of another version.
    """
    try:
        value = json.loads(text)
        form, version = value.pop("format"), value.pop("version")
        if (form, version) != (FORMAT, VERSION):
            raise BadInput(f"{name} is {form} of version {version}, this program reads {FORMAT} of version {VERSION}")
        value["widths"] = {int(n): count for n, count in value["widths"].items()}
        counters = {n: Counter(part) for n, part in value.items() if isinstance(part, dict)}
        return Statistics(**{**value, **counters, "copies": tuple(value["copies"])})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{name} is damaged: {error}", "ingest again") from error


def width_bin(width_px: float) -> int:
    """
    >>> width_bin(4), width_bin(400), width_bin(440)
    (14, 62, 63)
    """
    return int(math.log(max(1.0, width_px)) / _GROWTH)


def statistics_of(batches: Iterable[pa.RecordBatch], copies: tuple[int, int] = (0, 0)) -> Statistics:
    """Statistics of the rows of `pipelines.write_records.SCHEMA`; a batch is in memory at a time."""
    found = Statistics(copies=copies)
    by_kind: dict[tuple[str, bool], Counter[str]] = {}
    for batch in batches:
        columns = {name: batch.column(name).to_pylist() for name in ("kind", "split", "text", "language")}
        names = [f"{kind}/{split}" for kind, split in zip(columns["kind"], columns["split"], strict=True)]
        found.records.update(names)
        found.empty.update(name for name, text in zip(names, columns["text"], strict=True) if not text)
        for kind, split, text in zip(columns["kind"], columns["split"], columns["text"], strict=True):
            by_kind.setdefault((kind, split == "train"), Counter()).update(text.replace("\n", ""))
        is_line = np.array([kind == "line" for kind in columns["kind"]], bool)
        found.languages.update(np.array(columns["language"], object)[is_line].tolist())
        widths = batch.column("line_width").to_numpy(zero_copy_only=False)[is_line]
        found.widths.update(width_bin(width) for width in widths.tolist())
        greys = batch.column("mean").to_numpy(zero_copy_only=False)[is_line]
        found.grey_sum += float(greys.sum(dtype=np.float64))
        found.grey_count += len(greys)
    kind = "line" if any(k == "line" for k, _ in by_kind) else "page"
    train, held_out = by_kind.get((kind, True), Counter()), by_kind.get((kind, False), Counter())
    found.characters = train + held_out
    found.held_out_only = Counter({c: n for c, n in held_out.items() if c not in train})
    return found


def page_splits(batches: Iterable[pa.RecordBatch]) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    """Every page once: 64 bits of its id, ascending, and whether it is for training. Nine bytes a page."""
    ids, trains = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint8)]
    for batch in batches:
        # The digest's first 15 digits tell the file, the number behind the dash the page.
        pages = [
            int(name[:15] or "0", 16) ^ (int(name.rpartition("-")[2] or 0) << 44)
            for name in batch.column("page_id").to_pylist()
        ]
        ids.append(np.array(pages, np.uint64))
        trains.append(np.array([split == "train" for split in batch.column("split").to_pylist()], np.uint8))
    unique, first = np.unique(np.concatenate(ids), return_index=True)
    return unique, np.concatenate(trains)[first]


# ---- drift


@dataclass(frozen=True)
class DriftLimits:
    """How far a set of records may be from an earlier one, and what it may be by itself; shares of 1.

    Attributes:
        new_characters: of the characters that the earlier alphabet lacks, among all.
        width_shift: largest distance of the cumulated widths of lines.
        grey_shift: distance of the mean grey, of 255.
        empty_truth: records without text.
        copies: pages that are copies of others.
        known_pages: pages that the earlier set has, too.
        crossed_pages: of these, pages that were for training and are not, or the reverse.
    """

    new_characters: float = 0.001
    width_shift: float = 0.2
    grey_shift: float = 0.15
    empty_truth: float = 0.05
    copies: float = 0.5
    known_pages: float = 1.0
    crossed_pages: float = 0.0

    @classmethod
    def parse(cls, words: Sequence[str]) -> DriftLimits:
        """
        >>> DriftLimits.parse(["copies=0.1"]).copies
        0.1

        Raises:
            BadArgument: no limit of ours, or no share.
        """
        limits: dict[str, float] = {}
        for word in words:
            name, _, text = word.partition("=")
            try:
                limits[name] = float(text)
            except ValueError:
                limits[name] = -1.0
            if name not in cls.__dataclass_fields__ or not 0 <= limits[name] <= 1:
                raise BadArgument(
                    f"--drift-limit {word} is no limit",
                    f"write NAME=SHARE; names are {', '.join(cls.__dataclass_fields__)}",
                )
        return cls(**limits)


@dataclass(frozen=True)
class Finding:
    """A measure of drift; `crossed` where it is over its limit."""

    name: str
    value: float
    limit: float
    told: str

    @property
    def crossed(self) -> bool:
        return self.value > self.limit


def findings_of(statistics: Statistics, limits: DriftLimits) -> list[Finding]:
    """What can be said of a set of records by itself."""
    empty, copied = statistics.empty_share, statistics.copied_share
    return [
        Finding("empty_truth", empty, limits.empty_truth, f"{sum(statistics.empty.values())} records have no text"),
        Finding("copies", copied, limits.copies, f"{statistics.copies[0]} pages are copies of others"),
    ]


def drift_of(previous: Statistics, current: Statistics, alphabet: str, limits: DriftLimits) -> list[Finding]:
    """How the records differ from earlier ones.

    Args:
        alphabet: characters of the earlier alphabet.
    """
    new = Counter({c: n for c, n in current.characters.items() if c not in alphabet})
    share = sum(new.values()) / max(1, sum(current.characters.values()))
    shown = " ".join(f"{c!r}×{n}" for c, n in new.most_common(_TOLD))
    shift = distance(previous.widths, current.widths)
    grey = abs(previous.grey - current.grey) / 255 if previous.grey_count and current.grey_count else 0.0
    return [
        Finding("new_characters", share, limits.new_characters, f"{len(new)} characters are new: {shown or 'none'}"),
        Finding("width_shift", shift, limits.width_shift, "distance of the cumulated widths of lines"),
        Finding("grey_shift", grey, limits.grey_shift, f"mean grey was {previous.grey:.0f} and is {current.grey:.0f}"),
    ]


def distance(one: Mapping[int, int], other: Mapping[int, int]) -> float:
    """Kolmogorov and Smirnov's distance of two histograms, 0 to 1; 0 where one is empty.

    >>> distance({1: 1}, {2: 5}), distance({1: 1, 2: 1}, {1: 2, 2: 2}), distance({1: 3, 2: 1}, {1: 1, 2: 3})
    (1.0, 0.0, 0.5)
    """
    totals = sum(one.values()), sum(other.values())
    if not all(totals):
        return 0.0
    largest = seen_one = seen_other = 0.0
    for n in sorted({*one, *other}):
        seen_one += one.get(n, 0) / totals[0]
        seen_other += other.get(n, 0) / totals[1]
        largest = max(largest, abs(seen_one - seen_other))
    return largest


def page_findings(
    previous: tuple[NDArray[np.uint64], NDArray[np.uint8]],
    current: tuple[NDArray[np.uint64], NDArray[np.uint8]],
    limits: DriftLimits,
) -> list[Finding]:
    """Pages that both sets have, and those of them that have changed sides; see `page_splits`."""
    _, before, today = np.intersect1d(previous[0], current[0], assume_unique=True, return_indices=True)
    known = len(before)
    crossed = int(np.count_nonzero(previous[1][before] != current[1][today]))
    return [
        Finding("known_pages", known / max(1, len(current[0])), limits.known_pages, f"{known} pages were there before"),
        Finding("crossed_pages", crossed / max(1, known), limits.crossed_pages, f"{crossed} pages have changed sides"),
    ]


def drift_text(findings: Iterable[Finding]) -> str:
    """A line for each finding that is over its limit."""
    return "\n".join(
        f"{f.name} {f.value:.4g} is over its limit of {f.limit:g}: {f.told}" for f in findings if f.crossed
    )


def drift_to_text(findings: Sequence[Finding], previous: str) -> str:
    """What `drift.json` holds."""
    listed: list[dict[str, Any]] = [{**asdict(f), "value": round(f.value, 6), "crossed": f.crossed} for f in findings]
    return json.dumps({"previous": previous, "findings": listed}, indent=1, ensure_ascii=False) + "\n"

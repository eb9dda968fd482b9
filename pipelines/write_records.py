"""What became of the pages of a unit → its files of records, a table about them, its dead letters and its counts.

OUTPUT/records/KIND/SPLIT/UNIT.tfrecord.gz    the examples
OUTPUT/metadata/UNIT.parquet                  a row an example, without its picture: what statistics are made of
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ocr_model.examples import KINDS, SPLITS, Kind, LineExample, PageExample, Split, write_line, write_page
from ocr_model.line_images import normalised_width
from ocr_model.record_files import RecordWriter
from pipelines.corpus import SourceFile
from pipelines.ingest_pages import DroppedPage, IngestedPage, IngestOutcome
from pipelines.ledger import Counts, DeadLetter, FileCounts
from pipelines.outputs import OutputFile, StagedFile, Staging
from pipelines.read_pages import DeadPage, SkippedPage

RECORDS, METADATA = "records", "metadata"
_ROWS_AT_ONCE = 5000

SCHEMA = pa.schema(
    [
        ("kind", pa.string()),
        ("split", pa.string()),
        ("name", pa.string()),
        ("document", pa.string()),
        ("page", pa.int64()),
        ("line", pa.int64()),  # 0 of a page
        ("page_id", pa.string()),
        ("language", pa.string()),
        ("text", pa.string()),
        ("lines", pa.int64()),
        ("width", pa.int64()),  # of the picture in the record
        ("height", pa.int64()),
        ("line_width", pa.int64()),  # of a line at the height that the recogniser takes, without its surroundings
        ("mean", pa.float32()),
        ("deviation", pa.float32()),
    ]
)


@dataclass(frozen=True)
class WrittenRecords:
    """What was written; the files are staged, not yet published.

    Attributes:
        tallies: `records` by kind and split, `lines` of the truth by what became of them, `unknown_characters`, and
            `notes` where there are any.
    """

    outputs: list[OutputFile]
    letters: list[DeadLetter]
    files: list[FileCounts]
    tallies: Mapping[str, Mapping[str, int]]


def record_path(kind: Kind, split: Split, unit: str) -> str:
    """
    >>> record_path("line", "train", "000001-abcdef01")
    'records/line/train/000001-abcdef01.tfrecord.gz'
    """
    return f"{RECORDS}/{kind}/{split}/{unit}.tfrecord.gz"


def kind_and_split(path: str) -> tuple[Kind, Split] | None:
    """What a file of the output holds, None if no records.

    >>> kind_and_split("records/page/test/1.tfrecord.gz"), kind_and_split("metadata/1.parquet")
    (('page', 'test'), None)
    """
    parts = path.split("/")
    if len(parts) != 4 or parts[0] != RECORDS:
        return None
    found = [(kind, split) for kind in KINDS for split in SPLITS if [kind, split] == parts[1:3]]
    return found[0] if found else None


def write_ingested(outcomes: Iterable[IngestOutcome], staging: Staging, unit: str) -> WrittenRecords:
    """Writes the outputs of a unit to its staging.

    Args:
        outcomes: in the order of the unit's items.

    Raises:
        OSError: the output folder cannot be written any more.
    """
    writer = _UnitWriter(staging, unit)
    for outcome in outcomes:
        writer.add(outcome)
    return writer.finish()


@dataclass
class _Shard:
    file: StagedFile
    writer: RecordWriter


@dataclass
class _UnitWriter:
    staging: Staging
    unit: str
    shards: dict[tuple[Kind, Split], _Shard] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    batches: list[pa.RecordBatch] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    counts: dict[str, Counts] = field(default_factory=dict)  # by file
    lines: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: IngestOutcome) -> None:
        of = outcome.of
        sources = (of.item.source, *of.item.copies)
        for number, source in enumerate(sources):
            fate = Counts(duplicates=1) if number else Counts(read=1)
            if isinstance(outcome, SkippedPage | DroppedPage):
                fate = Counts(skipped=1)
            elif isinstance(outcome, DeadPage):
                fate = Counts(dead=1)
                self.letters.append(replace(outcome.letter, path=source.origin, unit=self.unit))
            self._tally(source, Counts(files=int(of.number == 1), pages=1) + fate)
        if isinstance(outcome, IngestedPage):
            self._record(outcome, sources[0])
        elif isinstance(outcome, DroppedPage):
            self.lines[outcome.reason] += outcome.lines

    def _tally(self, source: SourceFile, counts: Counts) -> None:
        self.counts[source.origin] = self.counts.get(source.origin, Counts()) + counts

    def _record(self, page: IngestedPage, source: SourceFile) -> None:
        for example in page.examples:
            kind: Kind = "page" if isinstance(example, PageExample) else "line"
            data = write_page(example) if isinstance(example, PageExample) else write_line(example)
            self._shard(kind, example.origin.split).write(data)
            self.rows.append(row_of(example))
        if len(self.rows) >= _ROWS_AT_ONCE:
            self._flush()
        self.letters += [replace(letter, unit=self.unit) for letter in page.letters]
        self.lines.update(page.lines)
        self.unknown.update(page.unknown)
        self.notes.update(page.notes)
        self._tally(source, Counts(lines=page.lines["recorded"], characters=_characters(page.examples)))

    def _shard(self, kind: Kind, split: Split) -> RecordWriter:
        if (kind, split) not in self.shards:
            file = self.staging.open(record_path(kind, split, self.unit))
            self.shards[kind, split] = _Shard(file, RecordWriter(file.stream))
        return self.shards[kind, split].writer

    def _flush(self) -> None:
        if self.rows:
            self.batches.append(pa.RecordBatch.from_pylist(self.rows, SCHEMA))
            self.rows = []

    def finish(self) -> WrittenRecords:
        outputs = []
        records: Counter[str] = Counter()
        for (kind, split), shard in sorted(self.shards.items()):
            shard.writer.close()
            outputs.append(shard.file.close())
            records[f"{kind}/{split}"] = shard.writer.records
        self._flush()
        if self.batches:
            outputs.append(self._write_table())
        files = [FileCounts(path, **_without_bytes(counts)) for path, counts in self.counts.items()]
        tallies = {
            "records": dict(records),
            "lines": dict(sorted(self.lines.items())),
            "unknown_characters": dict(sorted(self.unknown.items())),
            **({"notes": dict(sorted(self.notes.items()))} if self.notes else {}),
        }
        return WrittenRecords(sorted(outputs), self.letters, files, tallies)

    def _write_table(self) -> OutputFile:
        table = io.BytesIO()
        pq.write_table(pa.Table.from_batches(self.batches, SCHEMA), table, compression="zstd")
        file = self.staging.open(f"{METADATA}/{self.unit}.parquet")
        file.stream.write(table.getvalue())
        return file.close()


def _characters(examples: Sequence[PageExample | LineExample]) -> int:
    """Of the page where there is one: its lines say the same again."""
    pages = [example for example in examples if isinstance(example, PageExample)]
    return sum(len(example.text) for example in pages or examples)


def _without_bytes(counts: Counts) -> dict[str, int]:
    return {name: value for name, value in asdict(counts).items() if not name.startswith("bytes")}


def row_of(example: PageExample | LineExample) -> dict[str, Any]:
    """What the table tells of an example; the columns of `SCHEMA`."""
    origin, image = example.origin, example.image
    row = {
        "split": origin.split,
        "name": origin.name,
        "document": origin.document,
        "page": origin.page,
        "page_id": origin.page_id,
        "language": origin.language,
        "text": example.text,
        "width": image.width,
        "height": image.height,
        "mean": image.mean,
        "deviation": image.deviation,
    }
    if isinstance(example, PageExample):
        return {**row, "kind": "page", "line": 0, "lines": len(example.lines), "line_width": 0}
    left, top, right, bottom = example.margins
    own = max(1, image.width - left - right), max(1, image.height - top - bottom)
    return {**row, "kind": "line", "line": example.number, "lines": 1, "line_width": normalised_width(*own)}

"""Records of small drawn lines, as ingest writes them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from ocr_model.document import Box
from ocr_model.examples import Kind, LineExample, Origin, PageExample, RecordImage, Split, write_line, write_page
from ocr_model.record_files import MANIFEST, RecordFile, RecordsManifest, RecordWriter
from ocr_model.truth import GroundTruthLine
from tests.tiny_bundle import drawn


def example(number: int, split: Split, document: str = "d", problem: str = "", text: str = "ab") -> LineExample:
    picture = np.pad(drawn(text), 8, constant_values=255)
    image = RecordImage(cv2.imencode(".png", picture)[1].tobytes(), "png", picture.shape[1], picture.shape[0])
    line = GroundTruthLine(text=text, box=Box(0, 0, 56, 40), problem=problem)
    origin = Origin(f"{document}.png", document, 1, "0-1", 72, 56, split, "de")
    return LineExample(origin, image, number, line, (8, 8, 8, 8))


def write_records(folder: Path, examples: Sequence[LineExample | PageExample], files_a_split: int = 1) -> Path:
    """A folder of records; each kind and split has so many files, which take the examples in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for kind, split in sorted({(_kind(e), e.origin.split) for e in examples}):
        chosen = [e for e in examples if (_kind(e), e.origin.split) == (kind, split)]
        for number in range(files_a_split):
            path = folder / f"{kind}-{split}-{number}.tfrecord.gz"
            with path.open("wb") as stream:
                writer = RecordWriter(stream)
                for e in chosen[number::files_a_split]:
                    writer.write(write_line(e) if isinstance(e, LineExample) else write_page(e))
                writer.close()
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            files.append(RecordFile(path.name, kind, split, writer.records, len(content), digest))
    (folder / MANIFEST).write_text(RecordsManifest("0", {}, {}, tuple(files)).to_text())
    return folder


def _kind(example: LineExample | PageExample) -> Kind:
    return "line" if isinstance(example, LineExample) else "page"

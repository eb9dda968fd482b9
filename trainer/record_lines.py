"""Line records of `pagemill ingest` as an endless stream for training: shuffled by file, then within a buffer.

Each data process has its own part of the records. Line n of the stream depends on the records, the seed, the process
and n alone, so a run that was stopped draws the same lines again; what is kept in memory is a buffer or two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, islice
from pathlib import Path

import numpy as np

from ocr_model.errors import BadInput
from ocr_model.examples import LineExample, is_validation
from ocr_model.record_files import RecordFile, load_manifest, read_file
from trainer.collection import RealLine, line_of, unfit

BUFFER_LINES = 2000


@dataclass(frozen=True)
class Part:
    """The records `first`, `first + every`, … of a file."""

    file: RecordFile
    first: int = 0
    every: int = 1

    def __len__(self) -> int:
        return len(range(self.first, self.file.records, self.every))


def parts_of(files: Sequence[RecordFile], process: int, processes: int) -> list[Part]:
    """What a process reads: its own files, or its own records of every file where the files are fewer than processes.

    >>> files = [RecordFile(name, "line", "train", 5, 0, "") for name in "abc"]
    >>> [(part.file.path, len(part)) for part in parts_of(files, 1, 2)]
    [('b', 5)]
    >>> [(part.file.path, part.first) for part in parts_of(files, 0, 4)]
    [('a', 0), ('b', 3), ('c', 2)]
    """
    if len(files) >= processes:
        return [Part(file) for file in files[process::processes]]
    before = accumulate((file.records for file in files), initial=0)
    parts = [Part(file, (process - count) % processes, processes) for file, count in zip(files, before, strict=False)]
    return [part for part in parts if len(part)]


class RecordLines:
    """The lines of a process by their number in its stream.

    Args:
        validation_share: of the documents, where no record is for validation.

    Raises:
        BadInput: the records cannot be used, or hold no line for training.
    """

    def __init__(
        self, folder: Path, process: int, processes: int, seed: int, validation_share: float, buffer: int = BUFFER_LINES
    ) -> None:
        manifest = load_manifest(folder)
        self.parts = parts_of(manifest.select("line", "train"), process, processes)
        if not self.parts:
            raise BadInput(
                f"no line for training in {folder} for process {process + 1} of {processes}",
                "ingest lines with truth, with --kind line or both, or take fewer --processes",
            )
        self.folder, self.buffer = folder, buffer
        self.seed = [seed, process]
        self.share = 0.0 if manifest.select("line", "validation") else validation_share
        self.total = sum(len(part) for part in self.parts)
        self._window = lru_cache(maxsize=2)(self._read)
        self._epoch = lru_cache(maxsize=2)(self._plan)

    def line(self, number: int) -> RealLine | None:
        """Line `number` of the stream; None where it is not to be trained on."""
        epoch, place = divmod(number, self.total)
        for window, parts in enumerate(self._epoch(epoch)):
            size = sum(map(len, parts))
            if place < size:
                example = self._window(epoch, window)[place]
                return None if self._left_out(example) else line_of(example)
            place -= size
        raise AssertionError("an epoch has all lines")

    def _plan(self, epoch: int) -> list[list[Part]]:
        """The order of the files, in groups of at least `buffer` lines."""
        rng = np.random.default_rng([*self.seed, epoch])
        windows: list[list[Part]] = [[]]
        for i in rng.permutation(len(self.parts)):
            if sum(map(len, windows[-1])) >= self.buffer:
                windows.append([])
            windows[-1].append(self.parts[i])
        return windows

    def _read(self, epoch: int, window: int) -> list[LineExample]:
        """The examples of a group, in the order in which they are given out."""
        found: list[LineExample] = []
        for part in self._epoch(epoch)[window]:
            records = read_file(self.folder, part.file)
            found += (e for e in islice(records, part.first, None, part.every) if isinstance(e, LineExample))
        order = np.random.default_rng([*self.seed, epoch, window]).permutation(len(found))
        return [found[i] for i in order]

    def _left_out(self, example: LineExample) -> bool:
        return bool(unfit(example)) or is_validation(example.origin.document, self.share)


def validation_records(folder: Path, validation_share: float, at_most: int) -> Iterator[RealLine]:
    """Lines of the records to validate on, evenly taken if they are many.

    Raises:
        BadInput: the records cannot be used, or none of their lines is for validation.
    """
    manifest = load_manifest(folder)
    files = manifest.select("line", "validation")
    share = 1.0 if files else validation_share
    files = files or manifest.select("line", "train")
    examples = (e for file in files for e in read_file(folder, file) if isinstance(e, LineExample))
    fit = [e for e in examples if not unfit(e) and is_validation(e.origin.document, share)]
    if not fit:
        raise BadInput(
            f"no line of {folder} is for validation", "ingest more documents, or give a larger --validation-share"
        )
    return (line_of(fit[i * len(fit) // at_most]) for i in range(at_most)) if len(fit) > at_most else map(line_of, fit)

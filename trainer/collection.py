"""The lines of somebody's collection with their truth: from a folder of line images, or from records of ingest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ocr_model.errors import BadInput, UnreadablePage
from ocr_model.examples import LineExample, is_validation
from ocr_model.images import open_document
from ocr_model.record_files import read_records
from ocr_model.text import normalise_line

Grey = npt.NDArray[np.uint8]

KEPT_HEIGHT_PX = 52  # real lines are kept at most this high
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")


@dataclass(frozen=True)
class RealLine:
    """A line of a real scan with its truth.

    Attributes:
        image: [height, width] uint8, the line's box with some context.
        margins: left, top, right, bottom of the line's box from the edges of the image, in pixels.
        text: NFC, within the alphabet.
        source: folder it comes from; document: what must not be split between training and validation.
    """

    image: Grey
    margins: tuple[int, int, int, int]
    text: str
    source: str
    document: str


@dataclass(frozen=True)
class Collection:
    """Lines with truth, divided by document.

    Attributes:
        training, validation: no document is in both, unless `by_line`.
        skipped: lines that were left out, by reason.
        by_line: the documents are too few to be divided, so the lines were.
    """

    training: tuple[RealLine, ...]
    validation: tuple[RealLine, ...]
    skipped: Counter[str] = field(default_factory=Counter)
    by_line: bool = False

    def texts(self) -> Iterator[str]:
        return (line.text for line in (*self.training, *self.validation))


@dataclass(frozen=True)
class _Found:
    """A line before the division: `name` is its own, `split` what a record says (empty: not yet decided)."""

    line: RealLine
    name: str
    split: str = ""


def load_folder(folder: Path, validation_share: float) -> Collection:
    """Lines of `SOURCE/lines`, `lines` or the folder itself: `NAME.png` (.jpg, .tif) with `NAME.gt.txt`.

    The document of a line is its name up to the last underscore.

    Raises:
        BadInput: there is no line that can be used.
    """
    skipped: Counter[str] = Counter()
    found = list(_in_folder(folder, skipped)) if folder.is_dir() else []
    return _divided(found, skipped, validation_share, folder, "NAME.png with NAME.gt.txt in SOURCE/lines is expected")


def _in_folder(folder: Path, skipped: Counter[str]) -> Iterator[_Found]:
    for lines in (folder, folder / "lines", *sorted(folder.glob("*/lines"))):
        source = lines.parent.name if lines.name == "lines" else lines.name
        for truth in sorted(lines.glob("*.gt.txt")):
            name = truth.name.removesuffix(".gt.txt")
            image, text = _image(truth.parent, name, skipped), _text(truth, skipped)
            if image is not None and text:
                line = RealLine(image, (0, 0, 0, 0), text, source, name.rsplit("_", 1)[0])
                yield _Found(line, f"{source}/{name}")


def _text(truth: Path, skipped: Counter[str]) -> str:
    try:
        text = normalise_line(truth.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        skipped["truth that is not UTF-8"] += 1
        return ""
    skipped["no text"] += not text
    return text


def _image(folder: Path, name: str, skipped: Counter[str]) -> Grey | None:
    path = next((folder / (name + suffix) for suffix in SUFFIXES if (folder / (name + suffix)).exists()), None)
    if path is None:
        skipped["no image"] += 1
        return None
    try:
        return open_document(path.read_bytes()).decode(0).pixels
    except (OSError, UnreadablePage):
        skipped["unreadable image"] += 1
        return None


def load_records(folder: Path, validation_share: float) -> Collection:
    """Line records that `pagemill ingest` wrote, with their own split; where none is for validation, by document.

    Lines whose truth has a problem, and lines of the split `test`, are left out.

    Raises:
        BadInput: the records cannot be used, or hold no line.
    """
    skipped: Counter[str] = Counter()
    found = list(_in_records(folder, skipped))
    if not any(f.split == "validation" for f in found):
        found = [replace(f, split="") for f in found]
    return _divided(found, skipped, validation_share, folder, "ingest pages or lines with truth")


def _in_records(folder: Path, skipped: Counter[str]) -> Iterator[_Found]:
    for example in read_records(folder, "line"):
        assert isinstance(example, LineExample)
        reason = unfit(example)
        if reason:
            skipped[reason] += 1
            continue
        origin = example.origin
        yield _Found(line_of(example), f"{origin.name}#{origin.page}#{example.number}", origin.split)


def line_of(example: LineExample) -> RealLine:
    """The line of a record as training keeps it; its source is the language, else the first folder of its name."""
    origin, text = example.origin, normalise_line(example.text)
    folder, below, _ = origin.name.partition("/")
    source = origin.language or (folder if below else "records")
    return shrunk(RealLine(example.image.decoded(), example.margins, text, source, origin.document))


def unfit(example: LineExample) -> str:
    """Why a record is neither for training nor for validation; empty where it is."""
    if example.origin.split == "test":
        return "kept for the test"
    if example.line.problem:
        return example.line.problem
    return "" if normalise_line(example.text) else "no text"


def _divided(found: list[_Found], skipped: Counter[str], share: float, folder: Path, expected: str) -> Collection:
    skipped = +skipped
    if not found:
        reasons = "".join(f"; {n} left out: {reason}" for reason, n in skipped.items())
        raise BadInput(f"no line with truth in {folder}{reasons}", expected)
    held = [f.split == "validation" if f.split else is_validation(f.line.document, share) for f in found]
    by_line = all(held) or not any(held)
    if by_line:
        held = [is_validation(f.name, share) for f in found]
    if all(held) or not any(held):  # very few lines
        held = [i == 0 for i in range(len(found))]
    if all(held):
        raise BadInput(f"one line with truth in {folder} is too few to learn from and to check on", expected)
    training = tuple(shrunk(f.line) for f, h in zip(found, held, strict=True) if not h)
    return Collection(training, tuple(f.line for f, h in zip(found, held, strict=True) if h), skipped, by_line)


def shrunk(line: RealLine) -> RealLine:
    """The line at the height at which real lines are kept: training draws it anew at 40 px each time."""
    height = line.image.shape[0]
    scale = KEPT_HEIGHT_PX / max(1, height - line.margins[1] - line.margins[3])
    if scale >= 1:
        return line
    small = cv2.resize(line.image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    left, top, right, bottom = (round(m * scale) for m in line.margins)
    return replace(line, image=np.asarray(small, np.uint8), margins=(left, top, right, bottom))


def as_cut(line: RealLine) -> Grey:
    """The strip of a line as a reader would get it: three quarters of the way from its context to its own box."""
    left, top, right, bottom = (max(0, margin - margin // 4) for margin in line.margins)
    height, width = line.image.shape
    return line.image[top : height - bottom, left : width - right]

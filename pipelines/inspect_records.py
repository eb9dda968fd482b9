"""Records for the eye: what an example says, and a sheet of pictures with the lines drawn in."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr_model.errors import BadInput
from ocr_model.examples import Kind, LineExample, PageExample, Split
from ocr_model.record_files import MANIFEST, manifest_from_text, read_examples
from ocr_model.truth import GroundTruthLine
from pipelines.outputs import is_there, open_to_read, read_text

Example = PageExample | LineExample
Colour = NDArray[np.uint8]

_PAGE_PX, _LINE_PX = (360, 480), (720, 64)  # width, height of a picture on the sheet
_GAP_PX, _CAPTION_PX = 10, 22
_OUTLINE, _BASELINE, _LOST = (200, 120, 0), (0, 130, 0), (0, 0, 220)  # BGR


def read_path(path: str, kind: Kind | None = None, split: Split | None = None) -> Iterator[Example]:
    """The examples of a file of records, or of a folder with a manifest.

    Args:
        kind, split: of a folder, only these.

    Raises:
        BadInput: it cannot be read, is foreign or of another version.
    """
    folder = path.rstrip("/")
    if is_there(folder, MANIFEST):
        manifest = manifest_from_text(read_text(folder, MANIFEST), f"{folder}/{MANIFEST}")
        files = [f for f in manifest.files if kind in (None, f.kind) and split in (None, f.split)]
        for file in files:
            yield from _read_file(folder, file.path)
        return
    below, _, name = folder.rpartition("/")
    for example in _read_file(below or ("/" if path.startswith("/") else "."), name):
        if kind in (None, kind_of(example)) and split in (None, example.origin.split):
            yield example


def _read_file(folder: str, name: str) -> Iterator[Example]:
    try:
        with open_to_read(folder, name) as stream:
            data = stream.read()
    except OSError as error:
        raise BadInput(f"cannot read {folder}/{name}: {error.strerror or error}", "check the path") from error
    yield from read_examples(io.BytesIO(data), f"{folder}/{name}")


def kind_of(example: Example) -> Kind:
    return "page" if isinstance(example, PageExample) else "line"


# ---- text


def example_text(example: Example) -> str:
    """What a person wants to know of an example, a few lines."""
    origin, image = example.origin, example.image
    place = f"{origin.name} page {origin.page}"
    if isinstance(example, LineExample):
        place += f" line {example.number}"
    size = f"{image.width} x {image.height}" + (f" at {image.dpi:g} dpi" if image.dpi else "")
    steps = ", ".join(_step_text(step) for step in image.steps)
    said = [
        f"{kind_of(example)} {place}",
        f"  document {origin.document}, {origin.split}"
        + (f", language {origin.language}" if origin.language else "")
        + (f", truth {origin.truth}" if origin.truth else ", no truth"),
        f"  id {origin.page_id}",
        f"  {image.format} {size}, of {origin.width} x {origin.height}" + (f"; {steps}" if steps else ""),
    ]
    said += [f"  {name}: {value}" for name, value in origin.metadata]
    if isinstance(example, LineExample):
        return "\n".join([*said, f"  {_line_text(example.line)}"])
    return "\n".join([*said, *(f"  {n:3} {_line_text(line)}" for n, line in enumerate(example.lines, 1))])


def _step_text(step: object) -> str:
    """
    >>> _step_text({"step": "deskew", "skew_deg": 1.5})
    'deskew (skew_deg 1.5)'
    """
    found = dict(step)  # type: ignore[call-overload]
    name = found.pop("step")
    told = ", ".join(f"{key} {value}" for key, value in sorted(found.items()))
    return f"{name} ({told})" if told else str(name)


def _line_text(line: GroundTruthLine) -> str:
    box = ",".join(map(str, line.box.as_list())) if line.box else "no box"
    marks = [mark for mark in (line.problem, "clipped" if line.clipped else "", line.kind) if mark]
    return f"[{box}] {line.text}" + (f"  ({', '.join(marks)})" if marks else "")


# ---- pictures


def contact_sheet(examples: Sequence[Example], columns: int = 4) -> bytes:
    """A PNG with the pictures of the examples: pages side by side with their lines, then lines with their text.

    Raises:
        UnreadablePage, BadInput: a record is damaged.
    """
    pages = [_page_tile(example) for example in examples if isinstance(example, PageExample)]
    lines = [_line_tile(example) for example in examples if isinstance(example, LineExample)]
    across = max(1, min(columns, len(pages)))
    rows = [np.hstack(_padded(pages[i : i + across], across)) for i in range(0, len(pages), across)]
    across = max(1, columns // 2 if pages else min(2, len(lines)))
    rows += [np.hstack(_padded(lines[i : i + across], across)) for i in range(0, len(lines), across)]
    width = max((row.shape[1] for row in rows), default=1)
    sheet = np.vstack([_widened(row, width) for row in rows]) if rows else _blank(1, 1)
    return cv2.imencode(".png", sheet)[1].tobytes()


def _padded(tiles: Sequence[Colour], count: int) -> list[Colour]:
    return [*tiles, *[_blank(tiles[0].shape[1], tiles[0].shape[0])] * (count - len(tiles))]


def _widened(row: Colour, width: int) -> Colour:
    return np.asarray(np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255), np.uint8)


def _blank(width: int, height: int) -> Colour:
    return np.full((height, width, 3), 255, np.uint8)


def _page_tile(example: PageExample) -> Colour:
    """The page with its lines drawn in, and its name below."""
    small, scale = _fitted(example.image.decoded(), _PAGE_PX)
    for line in example.lines_in_image():
        colour = _LOST if line.problem else _OUTLINE
        outline = line.polygon or (_corners(line) if line.box else ())
        if outline:
            cv2.polylines(small, [_whole(outline, scale)], True, colour, 1, cv2.LINE_AA)
        if line.baseline:
            cv2.polylines(small, [_whole(line.baseline, scale)], False, _BASELINE, 1, cv2.LINE_AA)
    caption = f"{example.origin.name} {example.origin.page} ({example.origin.split})"
    return _tile(small, _PAGE_PX, caption)


def _line_tile(example: LineExample) -> Colour:
    """The line with a frame around what is its own, its text below."""
    pixels = example.image.decoded()
    small, scale = _fitted(pixels, _LINE_PX)
    left, top, right, bottom = example.margins
    if any(example.margins):
        corners = [(left, top), (pixels.shape[1] - right, top), (pixels.shape[1] - right, pixels.shape[0] - bottom)]
        frame = _whole([*corners, (left, pixels.shape[0] - bottom)], scale)
        cv2.polylines(small, [frame], True, _OUTLINE, 1, cv2.LINE_AA)
    return _tile(small, _LINE_PX, example.text)


def _corners(line: GroundTruthLine) -> list[tuple[float, float]]:
    assert line.box is not None
    left, top, right, bottom = line.box.as_list()
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _fitted(pixels: NDArray[np.uint8], size: tuple[int, int]) -> tuple[Colour, float]:
    """(the picture in colour, no larger than the size; the scale)"""
    height, width = pixels.shape
    scale = min(1.0, size[0] / width, size[1] / height)
    shape = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(pixels, shape, interpolation=cv2.INTER_AREA) if scale < 1 else pixels
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_GRAY2BGR), np.uint8), scale


def _whole(points: Iterable[tuple[float, float]], scale: float) -> NDArray[np.int32]:
    return np.array([(round(x * scale), round(y * scale)) for x, y in points], np.int32).reshape(-1, 1, 2)


def _tile(picture: Colour, size: tuple[int, int], caption: str) -> Colour:
    width, height = size
    tile = _blank(width + _GAP_PX, height + _CAPTION_PX + _GAP_PX)
    tile[: picture.shape[0], : picture.shape[1]] = picture
    below = _blank(width, _CAPTION_PX)
    font = cv2.FontFace("sans")  # ships with OpenCV 5 and has the whole alphabet
    cv2.putText(below, caption, (2, _CAPTION_PX - 7), (0, 0, 0), font, 14, 400)
    tile[height : height + _CAPTION_PX, :width] = below
    return tile

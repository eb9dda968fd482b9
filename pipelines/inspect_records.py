"""Records for the eye: what an example says, and a sheet of pictures with the lines drawn in."""

from __future__ import annotations

import colorsys
import io
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

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

_PAGE_PX, _LINE_PX = (520, 700), (760, 64)  # width, height of a picture on the sheet
_GAP_PX, _CAPTION_PX, _MARGIN_PX = 24, 20, 12
_FRAME, _BASELINE, _LOST, _WAY = (200, 120, 0), (0, 110, 0), (0, 0, 220), (170, 0, 170)  # BGR
_BLACK, _GREY, _PAPER = (0, 0, 0), (120, 120, 120), (255, 255, 255)
_TINT, _FADED = 0.35, 0.8
_FONT, _FONT_PX, _FONT_WEIGHT = "sans", 14, 400  # ships with OpenCV 5


def read_path(path: str, kind: Kind | None = None, split: Split | None = None) -> Iterator[Example]:
    """The examples of a file of records, or of a folder with a manifest, which may be named itself.

    Args:
        kind, split: of a folder, only these.

    Raises:
        BadInput: it cannot be read, is foreign or of another version.
    """
    folder = path.rstrip("/")
    if os.path.basename(folder) == MANIFEST:
        folder = os.path.dirname(folder) or "."
    if is_there(folder, MANIFEST):
        manifest = manifest_from_text(read_text(folder, MANIFEST), f"{folder}/{MANIFEST}")
        files = [f for f in manifest.files if kind in (None, f.kind) and split in (None, f.split)]
        for file in files:
            yield from _read_file(folder, file.path)
        return
    for example in _read_file(*os.path.split(folder)):
        if kind in (None, kind_of(example)) and split in (None, example.origin.split):
            yield example


def _read_file(folder: str, name: str) -> Iterator[Example]:
    path = f"{folder}/{name}" if folder else name
    try:
        with open_to_read(folder or ".", name) as stream:
            data = stream.read()
    except IsADirectoryError as error:
        raise BadInput(f"{path} holds no {MANIFEST}", "name the --output of a finished `pagemill ingest`") from error
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror or error}", "check the path") from error
    yield from read_examples(io.BytesIO(data), path)


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
    """A PNG with the pictures of the examples: pages side by side, then lines with their text.

    The lines of a page are tinted from yellow to blue in the order of the records, with their baselines in green and a
    purple way from one to the next; lines with a problem are red. A line's own part of its picture has a frame.

    Raises:
        UnreadablePage, BadInput: a record is damaged.
    """
    pages = [_page_tile(example) for example in examples if isinstance(example, PageExample)]
    lines = [_line_tile(example) for example in examples if isinstance(example, LineExample)]
    rows = [*_rows(pages, columns), *_rows(lines, max(2, columns // 2))]
    width = max((row.shape[1] for row in rows), default=1)
    sheet = np.vstack([_grown(row, width, row.shape[0]) for row in rows]) if rows else _blank(1, 1)
    return cv2.imencode(".png", np.pad(sheet, ((_MARGIN_PX, 0), (_MARGIN_PX, 0), (0, 0)), constant_values=255))[
        1
    ].tobytes()


def _rows(tiles: Sequence[Colour], across: int) -> list[Colour]:
    """Rows of tiles; a row is as high as its highest tile."""
    rows = []
    for i in range(0, len(tiles), across):
        of_row = tiles[i : i + across]
        height = max(tile.shape[0] for tile in of_row)
        rows.append(np.asarray(np.hstack([_grown(tile, tile.shape[1], height) for tile in of_row]), np.uint8))
    return rows


def _grown(picture: Colour, width: int, height: int) -> Colour:
    """With paper to the right and below."""
    more = ((0, height - picture.shape[0]), (0, width - picture.shape[1]), (0, 0))
    return np.asarray(np.pad(picture, more, constant_values=255), np.uint8)


def _blank(width: int, height: int) -> Colour:
    return np.full((height, width, 3), _PAPER, np.uint8)


def _page_tile(example: PageExample) -> Colour:
    """The page with its lines, their order drawn in, its name and what its lines are like below."""
    small, scale = _fitted(example.image.decoded(), _PAGE_PX)
    lines = example.lines_in_image()
    small = _tinted(small, lines, scale)
    places = []
    for line in lines:
        if line.baseline:
            cv2.polylines(small, [_whole(line.baseline, scale)], False, _BASELINE, 1, cv2.LINE_AA)
        if line.problem and line.box:
            cv2.polylines(small, [_whole(_outline(line), scale)], True, _LOST, 2, cv2.LINE_AA)
        if line.box:
            places.append((line.box.left, 0.5 * (line.box.top + line.box.bottom)))
    if example.ordered and places:
        cv2.polylines(small, [_whole(places, scale)], False, _WAY, 1, cv2.LINE_AA)
    cv2.rectangle(small, (0, 0), (small.shape[1] - 1, small.shape[0] - 1), _GREY, 1)
    origin = example.origin
    page = f" page {origin.page}" if origin.page > 1 else ""
    return _tile(small, _PAGE_PX[0], _name_at_end(f"{origin.name}{page}"), f"{origin.split}, {_lines_text(lines)}")


def _lines_text(lines: Sequence[GroundTruthLine]) -> str:
    """
    >>> _lines_text([GroundTruthLine("a"), GroundTruthLine("b", problem="outside-page")]), _lines_text([])
    ('2 lines, 1 outside-page, 2 without a box', 'no lines')
    """
    problems = Counter(line.problem for line in lines if line.problem)
    said = [f"{len(lines)} lines" if lines else "no lines"]
    said += [f"{count} {problem}" for problem, count in sorted(problems.items())]
    boxless = sum(line.box is None for line in lines)
    return ", ".join([*said, *([f"{boxless} without a box"] if boxless else [])])


def _tinted(small: Colour, lines: Sequence[GroundTruthLine], scale: float) -> Colour:
    """The page, faded, with the outline of every line filled in the colour of its place in the order."""
    faded = (255 - (255 - small.astype(np.float32)) * _FADED).astype(np.uint8)
    filled = faded.copy()
    for number, line in enumerate(lines):
        if line.box:
            cv2.fillPoly(filled, [_whole(_outline(line), scale)], _order_colour(number / max(1, len(lines) - 1)))
    mixed = cv2.addWeighted(faded, 1 - _TINT, filled, _TINT, 0)
    return np.asarray(np.minimum(mixed, faded), np.uint8)  # the print stays as dark as it was


def _order_colour(share: float) -> tuple[float, float, float]:
    """Yellow at the beginning, blue at the end, BGR."""
    red, green, blue = colorsys.hsv_to_rgb(0.15 + 0.47 * share, 1.0, 1.0)
    return 255 * blue, 255 * green, 255 * red


def _outline(line: GroundTruthLine) -> Sequence[tuple[float, float]]:
    if line.polygon or line.box is None:
        return line.polygon or ()
    left, top, right, bottom = line.box.as_list()
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _line_tile(example: LineExample) -> Colour:
    """The line with a frame around what is its own, its text and where it comes from below."""
    pixels = example.image.decoded()
    small, scale = _fitted(pixels, _LINE_PX)
    left, top, right, bottom = example.margins
    if any(example.margins):
        corners = [(left, top), (pixels.shape[1] - right, top), (pixels.shape[1] - right, pixels.shape[0] - bottom)]
        frame = _whole([*corners, (left, pixels.shape[0] - bottom)], scale)
        cv2.polylines(small, [frame], True, _FRAME, 1, cv2.LINE_AA)
    origin = example.origin
    place = f"{origin.name} page {origin.page} line {example.number}, {origin.split}"
    return _tile(small, _LINE_PX[0], example.text, _name_at_end(place, 90))


def _fitted(pixels: NDArray[np.uint8], size: tuple[int, int]) -> tuple[Colour, float]:
    """(the picture in colour, no larger than the size; the scale)"""
    height, width = pixels.shape
    scale = min(1.0, size[0] / width, size[1] / height)
    shape = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(pixels, shape, interpolation=cv2.INTER_AREA) if scale < 1 else pixels
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_GRAY2BGR), np.uint8), scale


def _whole(points: Iterable[tuple[float, float]], scale: float) -> NDArray[np.int32]:
    return np.array([(round(x * scale), round(y * scale)) for x, y in points], np.int32).reshape(-1, 1, 2)


def _tile(picture: Colour, width: int, caption: str, remark: str) -> Colour:
    """The picture, a black caption and a grey remark below, and a gap."""
    height = picture.shape[0]
    tile = _blank(width + _GAP_PX, height + 2 * _CAPTION_PX + _GAP_PX)
    tile[:height, : picture.shape[1]] = picture
    for number, (text, colour) in enumerate(((caption, _BLACK), (remark, _GREY)), 1):
        below = _blank(width, _CAPTION_PX)
        place = (0, _CAPTION_PX - 4)
        cv2.putText(below, _shown(text), place, colour, cv2.FontFace(_FONT), _FONT_PX, _FONT_WEIGHT)
        start = height + (number - 1) * _CAPTION_PX
        tile[start : start + _CAPTION_PX, :width] = below
    return tile


def _name_at_end(text: str, longest: int = 62) -> str:
    """
    >>> _name_at_end("a long folder/scan.png", 12)
    '…er/scan.png'
    """
    return text if len(text) <= longest else "…" + text[1 - longest :]


def _shown(text: str) -> str:
    """The text with the numbers of the characters that the font cannot draw.

    >>> _shown("Zei⸗ \ue42c")
    'Zei<2E17> <E42C>'
    """
    return "".join(c if _has_glyph(c) else f"<{ord(c):04X}>" for c in text)


@cache
def _has_glyph(character: str) -> bool:
    return character == " " or not np.array_equal(_drawn(character), _drawn("\U0010fffd"))


def _drawn(character: str) -> Colour:
    picture = _blank(2 * _FONT_PX, 2 * _FONT_PX)
    place = (_FONT_PX // 2, _FONT_PX * 3 // 2)
    cv2.putText(picture, character, place, _BLACK, cv2.FontFace(_FONT), _FONT_PX, _FONT_WEIGHT)
    return picture

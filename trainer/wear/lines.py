"""What the wear GAN learns from: real lines without their texts, and clean rendered lines with them.

A step takes a `WearBatch`: windows of one width out of both. All of it follows from the seed and the step's number.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ocr_model.alphabet import Alphabet
from ocr_model.bundle import load_bundle
from ocr_model.errors import BadInput, UnreadablePage
from ocr_model.images import open_document
from ocr_model.layout import LineFinder
from ocr_model.line_images import LINE_HEIGHT_PX, STRIDE_PX, cut_line, normalise_line_image
from trainer.collection import SUFFIXES
from trainer.line_data import RealLine, load_real_lines, steps_needed
from trainer.synthesis.damage import spread, warp
from trainer.synthesis.fonts import FontCase
from trainer.synthesis.lines import cut, draw_line
from trainer.synthesis.text import TextSource
from trainer.wear.networks import NOISE_MAPS, WIDTH_MULTIPLE_PX

Rng = np.random.Generator
Grey = npt.NDArray[np.uint8]
Array = npt.NDArray[np.float32]

MIN_REAL_LINES = 200
_LARGEST_LINE_IMAGE_PX = 300  # high; what is higher, and not twice as wide, is a page
_MIN_STROKE_PX = 6  # smaller components of a real line are dirt, not print


# ---- real lines


@dataclass(frozen=True)
class RealStrip:
    """A line of a real scan. `pixels` [40, width] uint8, 0 black; `collection` is the name of the folder it is from."""

    pixels: Grey
    collection: str
    document: str


def load_strips(
    folder: Path, exclude: Sequence[str] = (), at_most: int = 4000, seed: int = 1, left_out: Counter[str] | None = None
) -> list[RealStrip]:
    """Real lines below a folder; their texts, if there are any, are not looked at.

    A sub-folder is a collection. What is taken: `SOURCE/pages/NAME.lines.json` and `SOURCE/lines/NAME.gt.txt` as
    `trainer.line_data.load_real_lines` reads them, and otherwise every image in the folder, in `SOURCE`, `SOURCE/lines`
    or `SOURCE/pages`: a line as it is, a page cut into lines by the finder of the default bundle.

    Args:
        at_most: lines kept, so many of each collection as its square root's share.
        left_out: is added to: images that gave no line, by reason.

    Raises:
        BadInput: there is no such folder, or no line in it; it says what was left out.
    """
    if not folder.is_dir():
        raise BadInput(f"no folder {folder}", "name a folder of line images or of page scans")
    rng = np.random.default_rng([seed, 17])
    skipped: Counter[str] = Counter() if left_out is None else left_out
    found = [_strip(rng, line) for line in _with_truth(folder, exclude)]
    known = {strip.collection for strip in found}
    found += list(_without_truth(folder, {*exclude, *known}, skipped))
    if not found:
        raise BadInput(
            f"no line in {folder}{reasons_of(skipped)}", "put .png, .jpg or .tif files of lines or pages there"
        )
    return thinned(rng, found, at_most)


def reasons_of(left_out: Mapping[str, int]) -> str:
    """What was left out, to be put after a sentence.

    >>> reasons_of({"unreadable image": 2, "page without a line": 1}), reasons_of({})
    ('; left out: 2 × unreadable image, 1 × page without a line', '')
    """
    told = ", ".join(f"{count} × {reason}" for reason, count in left_out.items())
    return f"; left out: {told}" if told else ""


def _with_truth(folder: Path, exclude: Sequence[str]) -> list[RealLine]:
    truths = itertools.chain(folder.glob("*/pages/*.lines.json"), folder.glob("*/lines/*.gt.txt"))
    if any(truth.parents[1].name not in exclude for truth in truths):
        return load_real_lines(folder, tuple(exclude))
    return []


def _strip(rng: Rng, line: RealLine) -> RealStrip:
    """The line cut as a finder might have cut it."""
    left, top, right, bottom = line.margins
    height, width = line.image.shape
    if any(line.margins):
        loose = rng.uniform(-0.04, 0.25, 2) * (height - top - bottom)
        top, bottom = max(0, round(top - loose[0])), max(0, round(bottom - loose[1]))
    return RealStrip(
        at_line_height(line.image[top : height - bottom, left : width - right]), line.source, line.document
    )


def _without_truth(folder: Path, known: set[str], skipped: Counter[str]) -> Iterator[RealStrip]:
    finder: LineFinder | None = None
    sources = [(folder, folder.name), *((p, p.name) for p in sorted(folder.iterdir()) if p.is_dir())]
    for source, name in sources:
        if name in known and source != folder:
            continue
        for place in (source, source / "lines", source / "pages"):
            for path in sorted(p for p in place.glob("*") if p.suffix.lower() in SUFFIXES):
                try:
                    image = open_document(path.read_bytes()).decode(0).pixels
                except (OSError, UnreadablePage):
                    skipped["unreadable image"] += 1
                    continue
                if image.shape[0] <= _LARGEST_LINE_IMAGE_PX or image.shape[1] >= 2 * image.shape[0]:
                    yield RealStrip(at_line_height(image), name, path.stem.rsplit("_", 1)[0])
                    continue
                finder = finder or LineFinder(load_bundle(None).find_lines)
                lines = list(_lines_of(finder, image))
                if not lines:
                    skipped["page without a line"] += 1
                yield from (RealStrip(at_line_height(strip), name, path.stem) for strip in lines)


def _lines_of(finder: LineFinder, page: Grey) -> Iterator[Grey]:
    found = finder.find(page)
    upright = np.ascontiguousarray(np.rot90(page, -found.quarter_turns))
    for region in found.regions:
        for line in region.lines:
            yield cut_line(upright, line.baseline, line.ascender_px, line.descender_px)[0]


def at_line_height(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """An image [height, width] at 40 px, its proportions kept."""
    scale = LINE_HEIGHT_PX / image.shape[0]
    size = (max(1, round(image.shape[1] * scale)), LINE_HEIGHT_PX)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR))


def thinned(rng: Rng, strips: list[RealStrip], at_most: int) -> list[RealStrip]:
    """At most so many, collections by the square root of their size, in the order that they had."""
    if len(strips) <= at_most:
        return strips
    sizes = Counter(strip.collection for strip in strips)
    weights = np.array([sizes[strip.collection] ** -0.5 for strip in strips])
    chosen = rng.choice(len(strips), at_most, replace=False, p=weights / weights.sum())
    return [strips[i] for i in sorted(chosen)]


def long_enough(
    strips: Sequence[RealStrip],
    width_px: int,
    at_least: int = MIN_REAL_LINES,
    left_out: Mapping[str, int] = MappingProxyType({}),
) -> list[RealStrip]:
    """The strips that a window can be cut from.

    Args:
        left_out: what `load_strips` left out, for the message.

    Raises:
        BadInput: they are too few to learn a look from.
    """
    fit = [strip for strip in strips if strip.pixels.shape[1] >= width_px]
    if len(fit) < at_least:
        raise BadInput(
            f"{len(fit)} of {len(strips)} real lines are at least {width_px} px wide at {LINE_HEIGHT_PX} px height"
            + reasons_of(left_out),
            f"wear is learnt from {at_least} such lines or more: give more scans, or a smaller --crop-width",
        )
    return fit


def real_window(rng: Rng, strip: RealStrip, width_px: int) -> Grey:
    """[40, width] uint8 somewhere in the strip."""
    start = int(rng.integers(strip.pixels.shape[1] - width_px + 1))
    return strip.pixels[:, start : start + width_px]


def guessed_ink(grey: Grey, spread_px: float = 0.0) -> Array:
    """The print of a real line without its paper: [40, W] float32, 0 to 1; the generator is to put the paper back.

    Args:
        grey: [40, W] uint8, W a multiple of 4.
        spread_px: dilation (erosion where negative) of the strokes, so that their width must come from the style.
    """
    strong = cv2.GaussianBlur(normalise_line_image(grey), (0, 0), 0.6) > 115
    _count, labels, measures, _ = cv2.connectedComponentsWithStats(strong.astype(np.uint8), connectivity=8)
    kept = measures[:, cv2.CC_STAT_AREA] >= _MIN_STROKE_PX
    kept[0] = False
    ink = cv2.GaussianBlur(kept[labels].astype(np.float32), (0, 0), 0.5)
    return spread(ink, spread_px) if abs(spread_px) > 0.05 else np.asarray(ink, np.float32)


# ---- clean lines


@dataclass(frozen=True)
class CleanLine:
    """A rendered line before any damage.

    Attributes:
        ink: [40, W] float32, 0 paper to 1 ink.
        text: without tabs.
        boxes: [characters, 4] left, top, right, bottom in pixels of the ink.
        scale: size of the print for `draw_damage`.
    """

    ink: Array
    text: str
    boxes: npt.NDArray[np.float64]
    scale: float = 1.0


def clean_line(rng: Rng, texts: TextSource, fonts: FontCase) -> CleanLine:
    """A line as the renderer draws it, cut as a finder would, sometimes a little askew, at 40 px."""
    parameters = draw_line(rng, texts, fonts)
    line = cut(parameters)
    slope = float(rng.normal(0, 0.006)) if rng.random() < 0.4 else 0.0
    wave = float(rng.uniform(0, 2.0)) if rng.random() < 0.1 else 0.0
    ink = warp(line.ink, slope, wave, float(rng.random())) if slope or wave else line.ink
    small = at_line_height(ink)
    factor = np.array([small.shape[1] / ink.shape[1], small.shape[0] / ink.shape[0]])
    boxes = line.boxes * np.tile(factor, 2)
    clipped = np.asarray(np.clip(small, 0, 1), np.float32)
    return CleanLine(clipped, line.characters, boxes, parameters.size_px * float(factor[1]) / 40)


@dataclass(frozen=True)
class CleanWindow:
    """Part of a clean line, with the text of the words that lie in it whole.

    Attributes:
        ink: [40, width] float32.
        text: may be empty.
        first, last: time steps of the recogniser (of 4 px) that these words take, `last` exclusive.
    """

    ink: Array
    text: str
    first: int
    last: int


def clean_window(line: CleanLine, start: int, width_px: int) -> CleanWindow:
    """The window from a column on; a line that ends in it is followed by bare paper."""
    ink = np.zeros((LINE_HEIGHT_PX, width_px), np.float32)
    part = line.ink[:, start : start + width_px]
    ink[:, : part.shape[1]] = part
    words = [w for w in _words(line) if w[1] >= start and w[2] <= start + width_px]
    if not words:
        return CleanWindow(ink, "", 0, 0)
    begin = max(0.0, words[0][3] - start)
    end = min(float(width_px), words[-1][4] - start)
    first, last = int(np.ceil(begin / STRIDE_PX)), int(end // STRIDE_PX)
    return CleanWindow(ink, " ".join(word[0] for word in words), first, last)


def _words(line: CleanLine) -> list[tuple[str, float, float, float, float]]:
    """Text, left and right of the ink, and left and right of the room that each word has: halves of the spaces."""
    width = float(line.ink.shape[1])
    found: list[tuple[str, float, float]] = []
    for part in _runs(line.text):
        boxes = line.boxes[part.start : part.stop]
        boxes = boxes[boxes[:, 2] > boxes[:, 0]]
        if len(boxes):
            found.append((line.text[part.start : part.stop], float(boxes[:, 0].min()), float(boxes[:, 2].max())))
    spaced = []
    for i, (text, left, right) in enumerate(found):
        before = (found[i - 1][2] + left) / 2 if i else 0.0
        after = (right + found[i + 1][1]) / 2 if i + 1 < len(found) else width
        spaced.append((text, left, right, before, after))
    return spaced


def _runs(text: str) -> Iterator[slice]:
    start = None
    for i, character in enumerate(text + " "):
        if character != " " and start is None:
            start = i
        elif character == " " and start is not None:
            yield slice(start, i)
            start = None


def drawn_windows(rng: Rng, texts: TextSource, fonts: FontCase, width_px: int, count: int) -> list[CleanWindow]:
    """Windows full of rendered lines, at most two of a line."""
    found: list[CleanWindow] = []
    while len(found) < count:
        line = clean_line(rng, texts, fonts)
        room = line.ink.shape[1] - width_px
        if room >= 0:
            found.append(clean_window(line, int(rng.integers(room + 1)), width_px))
        if room >= 2 * width_px and len(found) < count:
            found.append(clean_window(line, int(rng.integers(room + 1)), width_px))
    return found


# ---- batches


@dataclass(frozen=True)
class WearData:
    """What wear is learnt from.

    Attributes:
        real: folder of real lines, see `load_strips`; exclude: collections that are left out.
        text: folder of texts for rendered lines; None takes the built-in word list.
        batch: rendered lines in a step, and as many real ones.
        crop_width_px: width of the windows, a multiple of 8.
        at_most: real lines that are kept in memory.
        validation_share: share of the documents whose lines are only compared with.
        seed: of everything drawn.
    """

    real: Path
    text: Path | None = None
    exclude: tuple[str, ...] = ("archiscribe_fraktur_de",)
    batch: int = 12
    crop_width_px: int = 192
    at_most: int = 4000
    validation_share: float = 0.1
    seed: int = 1


def labels_of(windows: Sequence[CleanWindow], alphabet: Alphabet) -> dict[str, np.ndarray]:
    """What the loss of reading needs: `labels` [B, T] int32, `lengths` [B] int32 and `seen` [B, T] float32.

    `seen` is 1 in the time steps of whole words; a window without any, or whose words need more steps than they have,
    has no label there and is not seen at all.
    """
    steps = windows[0].ink.shape[1] // STRIDE_PX
    labels, seen = np.zeros((len(windows), steps), np.int32), np.zeros((len(windows), steps), np.float32)
    lengths = np.zeros(len(windows), np.int32)
    for i, window in enumerate(windows):
        classes = alphabet.encode(window.text) if alphabet.covers(window.text) else []
        if classes and steps_needed(classes) <= window.last - window.first:
            labels[i, : len(classes)], lengths[i] = classes, len(classes)
            seen[i, window.first : window.last] = 1.0
    return {"labels": labels, "lengths": lengths, "seen": seen}


def noise_for(rng: Rng, count: int, width_px: int) -> Array:
    """[count, 40, width, 2] float32, standard normal: what the generator makes its grain of."""
    return rng.standard_normal((count, LINE_HEIGHT_PX, width_px, NOISE_MAPS), dtype=np.float32)


def make_batch(
    rng: Rng, windows: Sequence[CleanWindow], real: Sequence[Grey], alphabet: Alphabet, style: int
) -> dict[str, np.ndarray]:
    """All that a step draws and reads.

    Args:
        windows, real: as many of the one as of the other, of one width.
        style: dimensions of z.

    Returns:
        `ink` [B, 40, W, 1] and `real` [B, 40, W, 1] float32 of 0 to 1, `guessed` the real lines' ink likewise; `style`
        [B, Z] and `sampling` [B, Z] standard normal; `noise` and `guessed_noise` [B, 40, W, 2]; and `labels_of`.
    """
    count, width = len(windows), windows[0].ink.shape[1]
    guessed = [guessed_ink(np.ascontiguousarray(g), float(rng.uniform(-0.8, 0.8))) for g in real]
    return {
        "ink": np.stack([window.ink for window in windows])[..., None],
        "real": (np.stack(real).astype(np.float32) / 255)[..., None],
        "guessed": np.stack(guessed)[..., None],
        "style": rng.standard_normal((count, style), dtype=np.float32),
        "sampling": rng.standard_normal((count, style), dtype=np.float32),
        "noise": noise_for(rng, count, width),
        "guessed_noise": noise_for(rng, count, width),
        **labels_of(windows, alphabet),
    }


def batches(
    data: WearData,
    strips: Sequence[RealStrip],
    texts: TextSource,
    fonts: FontCase,
    alphabet: Alphabet,
    style: int,
    place: Mapping[str, int] | None = None,
) -> Generator[tuple[dict[str, np.ndarray], dict[str, int]], None, None]:
    """Endless batches with the place to go on after each; the same seed and place give the same.

    Args:
        strips: real lines, each at least as wide as a window.
    """
    sizes = Counter(strip.collection for strip in strips)
    weights = np.cumsum([sizes[strip.collection] ** -0.5 for strip in strips])
    number = place["number"] if place else 0
    while True:
        rng = np.random.default_rng([data.seed, 5, number])
        windows = drawn_windows(rng, texts, fonts, data.crop_width_px, data.batch)
        chosen = np.searchsorted(weights, rng.random(data.batch) * weights[-1])
        real = [real_window(rng, strips[min(int(i), len(strips) - 1)], data.crop_width_px) for i in chosen]
        number += 1
        yield make_batch(rng, windows, real, alphabet, style), {"number": number}


def padded_width(width_px: int) -> int:
    """The least width that the generator takes for a line.

    >>> padded_width(1), padded_width(64), padded_width(65)
    (8, 64, 72)
    """
    return -(-width_px // WIDTH_MULTIPLE_PX) * WIDTH_MULTIPLE_PX
